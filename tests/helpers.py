"""What several tests need."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from batchkit import AllOf, TokenBucket
from batchkit.testing import ManualClock

DEADLINE = 20.0  # seconds after which a test that waits for something real gives up


def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as another thread has made the condition true."""
    pause = threading.Event()
    for _ in range(int(DEADLINE / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not come true in time")


@contextmanager
def threads(*works: Callable[[], object]) -> Iterator[None]:
    """Run each work in a thread; on leaving, wait for all of them, and raise the first error."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in running:
        thread.start()
    yield
    for thread in running:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


class Guarded:
    """A process that ends before the tests do, even if they are killed; then its folder goes, too.

    Attributes:
        process: the process.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        clear_up = 'read -r _; kill -KILL "$1"; rm -rf "$2"'
        # The pipe to it closes when the tests are killed.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", clear_up, "guard", str(process.pid), str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def end(self, how: signal.Signals) -> None:
        """Send it a signal, and wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it did not, and was killed.
        """
        self._guard.kill()  # first: it must not strike whoever has the number next
        self._guard.communicate()
        self.process.send_signal(how)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)
            raise


def in_child(check: Callable[[], bool] = lambda: True) -> None:
    """Assert that `check` holds in a child of a fork; one that hangs is killed after 10 s."""
    child = os.fork()
    if child == 0:
        fine = False
        try:
            signal.alarm(10)
            fine = check()
        finally:
            os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0


class History:
    """What limiters let go, and when: no window of it may see more than `rate * T + burst` permits."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._gone: dict[TokenBucket, list[float]] = {}
        self._sizes: dict[TokenBucket, tuple[float, int]] = {}

    def note(self, limiter: TokenBucket | AllOf, cost: int | Mapping[str, int] = 1) -> None:
        """A call of that cost goes now."""
        members = limiter.limiters if isinstance(limiter, AllOf) else {"": limiter}
        for name, member in members.items():
            if isinstance(member, TokenBucket):
                permits = cost.get(name, 1) if isinstance(cost, Mapping) else cost
                self._gone.setdefault(member, []).extend([self._clock.now()] * permits)
                self._sizes.setdefault(member, (member.rate, member.burst))

    def check(self) -> None:
        """Look at every window of every bucket whose rate was not changed."""
        for bucket, moments in self._gone.items():
            if (bucket.rate, bucket.burst) == self._sizes[bucket]:
                assert worst_excess(moments, bucket.rate, bucket.burst) <= 0, f"{bucket} let too much go"


def worst_excess(times: Sequence[float], rate: float, burst: int) -> Fraction:
    """The permits by which the worst window exceeds `rate * T + burst`; at most 0 if the bound was kept."""
    # the window from i to j holds j - i + 1: the worst one is found from the smallest start seen so far
    worst = Fraction(-burst)
    least: Fraction | None = None
    for index, moment in enumerate(sorted(times)):
        start = index - Fraction(moment) * Fraction(rate)
        least = start if least is None else min(least, start)
        worst = max(worst, start - least + 1 - burst)
    return worst

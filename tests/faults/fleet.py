"""What tests of faults need: callers that go on whatever happens, and what Redis itself counted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import anyio
import pytest

from batchkit import (
    AcquireTimeout,
    LimiterUnavailable,
    Reconnected,
    RedisDistributedLimiter,
    Unavailable,
    _parking,
)
from batchkit._local import LocalLimiter
from batchkit._parking import Parker, SyncParker, ThreadParker
from batchkit._redis.names import name
from batchkit._redis.scripts import BUCKET
from batchkit._redis.wire import Answer, Ask, Orders, read
from batchkit.abc import Event
from batchkit.testing import RecordingHook
from tests.helpers import DEADLINE, eventually, threads, worst_excess
from tests.servers import Server

KEY: Final = "quota"
COURIER: Final = "batchkit-courier"
RECOVERY: Final = 1.0  # seconds within which a limiter has to notice that Redis is back
EXPECTED: Final = (AcquireTimeout, LimiterUnavailable)  # how a call may end while something is wrong
ROOT: Final = Path(__file__).parents[2]

Limiter: TypeAlias = RedisDistributedLimiter

_serials = count(1)


def slack(rate: float) -> float:
    """Permits by which callers' stamps may exceed the bound: one is used up to its own time late, and a
    caller takes some milliseconds to look at its clock.
    """
    return 1 + rate * 0.004


def excess(stamps: Sequence[float], rate: float, burst: int) -> float:
    """The permits by which the worst window exceeds `rate * T + burst`."""
    return float(worst_excess(stamps, rate, burst))


def figures(server: Server, key: str = KEY, tag: str | None = None) -> Answer:
    """What Redis itself knows of a limiter, asked for by somebody who wants nothing."""
    ask = Ask("observer", next(_serials), 0.0, 0, 1.0, 1, False, 0.0, Orders(), 0, False, [])
    answer = read(server.do("EVAL", BUCKET.text, 1, name("batchkit", key, tag), *ask.words()))
    assert isinstance(answer, Answer)
    return answer


def courier_threads() -> int:
    """How many couriers' threads this process has."""
    return sum(thread.name == COURIER for thread in threading.enumerate())


async def eventually_async(condition: Callable[[], bool]) -> None:
    """Return as soon as it is true, and leave the event loop to others until then."""
    await anyio.to_thread.run_sync(eventually, condition)


class ShiftedClock:
    """A clock that shows another time than those of others.

    Attributes:
        seconds: by which it is ahead; a test may set it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return time.monotonic() + self.seconds

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def sleep_sync(self, seconds: float) -> None:
        time.sleep(seconds)

    def parker(self) -> Parker:
        return _parking.parker(self.now)

    def parker_sync(self) -> SyncParker:
        return ThreadParker(self.now)


class StampedHook(RecordingHook):
    """Keeps every event, and when it came."""

    def __init__(self) -> None:
        super().__init__()
        self.stamps: list[float] = []

    def __call__(self, event: Event) -> None:
        self.stamps.append(time.monotonic())
        super().__call__(event)

    def switches(self) -> list[Event]:
        """The events that say that Redis is away, or there again."""
        return [event for event in self.events if isinstance(event, Unavailable | Reconnected)]

    def moment(self, kind: type[Event]) -> float:
        """When the only event of a kind came."""
        moments = [
            moment for moment, event in zip(self.stamps, self.events, strict=False) if type(event) is kind
        ]
        assert len(moments) == 1, f"{kind.__name__} came {len(moments)} times"
        return moments[0]


def check_policy(limiter: LocalLimiter[Any], policy: str) -> None:
    """Callers get what the policy says, soon."""
    begin = time.monotonic()
    if policy == "raise":
        with pytest.raises(LimiterUnavailable):
            limiter.acquire_sync()
        with pytest.raises(LimiterUnavailable):
            limiter.try_acquire()
    elif policy == "deny":
        assert not limiter.try_acquire()
        with pytest.raises(AcquireTimeout):
            limiter.acquire_sync(timeout=0.05)
        with pytest.raises(AcquireTimeout):
            limiter.acquire_sync(timeout=0)
    else:
        limiter.acquire_sync()
        limiter.acquire_sync()
    assert time.monotonic() - begin < 2


def check_recovery(hook: StampedHook, back_at: float) -> None:
    """It was lost once and found once, soon after Redis was there."""
    eventually(lambda: bool(hook.of(Reconnected)))
    lost, found = hook.moment(Unavailable), hook.moment(Reconnected)
    assert lost < found < back_at + RECOVERY
    assert hook.of(Reconnected)[0].seconds == pytest.approx(found - lost, abs=0.1)


class Callers:
    """Callers that acquire again and again until the block ends: in threads, or in tasks of asyncio or trio.

    Args:
        *limiters: each has so many callers.
        count: callers of each limiter.
        colour: "threads", "asyncio" or "trio".
        timeout: of each call.

    Attributes:
        gone: when calls went.
        errors: how others ended.
        longest: seconds that the longest call took.
    """

    def __init__(
        self, *limiters: Limiter, count: int = 8, colour: str = "threads", timeout: float | None = None
    ) -> None:
        self.gone: list[float] = []
        self.errors: list[Exception] = []
        self.longest = 0.0
        self._timeout = timeout
        self._limiters = [limiter for limiter in limiters for _ in range(count)]
        self._stopped = threading.Event()
        self._running = ExitStack()
        works = [lambda limiter=limiter: self._call_sync(limiter) for limiter in self._limiters]
        self._works = works if colour == "threads" else [lambda: anyio.run(self._call_all, backend=colour)]

    def __enter__(self) -> Self:
        self._running.enter_context(threads(*self._works))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._running.__exit__(None, None, None)

    def go_on(self, calls: int = 20) -> None:
        """Return when so many more calls have gone."""
        before = len(self.gone)
        eventually(lambda: len(self.gone) >= before + calls)

    def _call_sync(self, limiter: Limiter) -> None:
        while not self._stopped.is_set():
            begin = time.monotonic()
            try:
                limiter.acquire_sync(timeout=self._timeout)
            except EXPECTED as error:
                self._note(begin, error)
                self._stopped.wait(0.01)
            else:
                self._note(begin)
                self._stopped.wait(0.001)  # where all may go, a loop without a pause would leave nobody time

    async def _call(self, limiter: Limiter) -> None:
        while not self._stopped.is_set():
            begin = time.monotonic()
            try:
                await limiter.acquire(timeout=self._timeout)
            except EXPECTED as error:
                self._note(begin, error)
                await anyio.sleep(0.01)
            else:
                self._note(begin)
                await anyio.sleep(0.001)

    async def _call_all(self) -> None:
        async with anyio.create_task_group() as group:
            for limiter in self._limiters:
                group.start_soon(self._call, limiter)

    def _note(self, begin: float, error: Exception | None = None) -> None:
        end = time.monotonic()
        self.longest = max(self.longest, end - begin)
        if error is None:
            self.gone.append(end)
        else:
            self.errors.append(error)


class Worker:
    """A process whose threads acquire again and again, and tell when they went.

    Args:
        url: of Redis.
        waiters: threads.
        rate, burst: of the limiter.

    Attributes:
        gone: when its calls went.
    """

    def __init__(self, url: str, *, waiters: int, rate: float, burst: int) -> None:
        self.gone: list[float] = []
        self._command = [
            sys.executable,
            "-m",
            "tests.faults.worker",
            url,
            KEY,
            str(waiters),
            str(rate),
            str(burst),
        ]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        eventually(lambda: bool(self.gone))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            self.gone += map(float, iter(lambda: self._line(lines), ""))

    @staticmethod
    def _line(lines: Any) -> str:
        line: str = lines.readline()
        return line.strip()

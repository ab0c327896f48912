"""Calls at once in a fleet: whose process dies, stands still or is slow, and what they keep while Redis is
away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final, Protocol, Self

import pytest

from batchkit import AcquireTimeout, Reconnected, RedisConcurrencyLimiter, Unavailable
from tests.faults.fleet import KEY, RECOVERY, ROOT, StampedHook, check_policy
from tests.helpers import DEADLINE, eventually
from tests.proxies import FaultProxy
from tests.servers import BINARIES, HOST, Server

pytestmark = pytest.mark.skipif(not BINARIES or os.name == "nt", reason="no server found")

LEASE: Final = 1.0  # seconds
TIMEOUT: Final = 0.5

HOLDER = """
import sys, time
from batchkit import RedisConcurrencyLimiter

url, key, limit, cost, lease = sys.argv[1:6]
limiter = RedisConcurrencyLimiter(url, key, int(limit), lease=float(lease), timeout=0.5)
if sys.argv[6] == "threads":
    limiter.acquire_sync(int(cost))
    print("holds", flush=True)
    sys.stdin.readline()
else:  # the event loop stands still while the call is under way
    import anyio

    async def call():
        await limiter.acquire(int(cost))
        print("holds", flush=True)
        sys.stdin.readline()

    anyio.run(call, backend=sys.argv[6])
limiter.release(int(cost))
print("ended", flush=True)
sys.stdin.readline()
"""


class Make(Protocol):
    def __call__(self, target: object, limit: int = 2, **more: Any) -> RedisConcurrencyLimiter: ...


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes limiters of two slots; each has a thread and a connection of its own."""
    with ExitStack() as stack:
        made: list[RedisConcurrencyLimiter] = []

        def make(target: object, limit: int = 2, **more: Any) -> RedisConcurrencyLimiter:
            own: dict[str, Any] = {"lease": LEASE, "timeout": TIMEOUT + len(made) / 1000}
            limiter = RedisConcurrencyLimiter(target, KEY, limit, **(own | more))
            made.append(limiter)
            stack.callback(_end, limiter)
            return limiter

        yield make


def _end(limiter: RedisConcurrencyLimiter) -> None:
    """Have its calls end: or their slots would be theirs in the next test, too."""
    limiter.end_call(limiter.gate.store.taken)
    limiter.close()


class Holder:
    """A process that holds slots until it is told to end its call."""

    def __init__(self, server: Server, *, cost: int = 1, limit: int = 2, colour: str = "threads") -> None:
        arguments = [server.url(), KEY, str(limit), str(cost), str(LEASE), colour]
        self._command = [sys.executable, "-c", HOLDER, *arguments]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "holds"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()

    def end(self) -> None:
        """Have its call end."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self._line() == "ended"

    def _line(self) -> str:
        assert self.process.stdout
        line: str = self.process.stdout.readline()
        return line.strip()


# processes


def test_the_slot_of_a_killed_process_is_free_after_the_lease(redis_server: Server, make: Make) -> None:
    limiter = make(redis_server.url())
    with Holder(redis_server) as holder:
        limiter.acquire_sync()
        holder.process.kill()
        killed = time.monotonic()
        with pytest.raises(AcquireTimeout):
            limiter.acquire_sync(timeout=LEASE / 2)
        limiter.acquire_sync(timeout=LEASE * 2)
        assert LEASE * 0.6 < time.monotonic() - killed < LEASE + 1


@pytest.mark.parametrize("colour", ["threads", "asyncio", "trio"])
def test_a_slow_process_keeps_its_slot_however_long_its_call_takes(
    colour: str, redis_server: Server, make: Make
) -> None:
    limiter = make(redis_server.url())
    with Holder(redis_server, cost=2, colour=colour) as holder:
        with pytest.raises(AcquireTimeout):
            limiter.acquire_sync(timeout=3 * LEASE)
        assert limiter.statistics().available == 0
        holder.end()
        limiter.acquire_sync(2, timeout=LEASE / 2)


def test_a_process_that_stood_still_goes_on_with_the_calls_that_it_had(
    redis_server: Server, make: Make
) -> None:
    limiter = make(redis_server.url())
    with Holder(redis_server, cost=2) as holder:
        holder.process.send_signal(signal.SIGSTOP)
        limiter.acquire_sync(timeout=LEASE * 2)
        holder.process.send_signal(signal.SIGCONT)
        eventually(lambda: limiter.statistics().available == -1)  # it says what it has
        assert not limiter.try_acquire()
        holder.end()
        limiter.acquire_sync(timeout=LEASE / 2)


def test_a_process_that_waits_and_dies_is_passed_over(redis_server: Server, make: Make) -> None:
    limiter, other = make(redis_server.url(), 1), make(redis_server.url(), 1)
    limiter.acquire_sync()
    code = HOLDER.replace('print("holds", flush=True)', "")
    command = [sys.executable, "-c", code, redis_server.url(), KEY, "1", "1", str(LEASE), "threads"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiting:
        eventually(lambda: limiter.statistics().processes == 2)
        waiting.kill()
    limiter.release()
    other.acquire_sync(timeout=LEASE)


# Redis


def test_the_least_rights_are_enough(redis_server: Server, make: Make, stamped: StampedHook) -> None:
    rights = "~batchkit:* -@all +evalsha +script|load +time +hgetall +hset +hdel +pexpire"
    redis_server.do("ACL", "SETUSER", "limiter", "on", ">secret", *rights.split())
    url = f"redis://limiter:secret@{HOST}:{redis_server.port}"
    limiter, other = make(url, hooks=[stamped]), make(url, hooks=[stamped])
    limiter.acquire_sync(2)
    assert not other.try_acquire()
    limiter.change(limit=3)
    other.acquire_sync(timeout=LEASE)
    assert not stamped.of(Unavailable)


def test_while_redis_is_away(policy: str, own_server: Server, make: Make, stamped: StampedHook) -> None:
    limiter, other = (
        make(own_server.url(), 4, on_unavailable=policy, hooks=hooks) for hooks in ([stamped], [])
    )
    other.acquire_sync(2)
    limiter.acquire_sync()
    own_server.kill()
    eventually(lambda: limiter.statistics().unavailable)  # it has to say that it lives
    began = time.monotonic()
    if policy in ("raise", "deny"):
        check_policy(limiter, policy)
    elif policy == "allow":
        assert all(limiter.try_acquire() for _ in range(5))
    else:  # two of four are its share, and one of them it has
        assert limiter.try_acquire()
        assert not limiter.try_acquire()
        limiter.release()
        assert limiter.try_acquire()
    assert time.monotonic() - began < 1
    went = limiter.statistics().granted
    limiter.release()
    own_server.start()
    back = time.monotonic()
    eventually(lambda: bool(stamped.of(Reconnected)))
    assert stamped.moment(Unavailable) < stamped.moment(Reconnected) < back + RECOVERY
    assert not limiter.statistics().unavailable
    if went > 1:
        limiter.release(went - 1 if policy != "local" else 1)
    # nothing was lost, and nothing is counted twice
    eventually(lambda: bool(limiter.try_acquire(2)))
    assert not other.try_acquire()
    other.release(2)
    eventually(lambda: bool(limiter.try_acquire(2)))


def test_a_redis_that_lost_its_data_gives_no_slot_away_in_which_a_call_is_under_way(
    own_server: Server, make: Make
) -> None:
    limiter = make(own_server.url(), on_unavailable="deny")
    others = [make(own_server.url(), on_unavailable="deny") for _ in range(3)]
    limiter.acquire_sync(2)
    assert not any(other.try_acquire() for other in others)
    own_server.kill()
    went: list[float] = []

    def call(other: RedisConcurrencyLimiter) -> None:
        other.acquire_sync(timeout=DEADLINE)
        went.append(time.monotonic())
        other.release()

    calls = [threading.Thread(target=call, args=(other,)) for other in others]
    for calling in calls:
        calling.start()
    eventually(lambda: all(other.statistics().unavailable for other in others))
    own_server.start()
    with pytest.raises(AcquireTimeout):
        limiter.acquire_sync(timeout=LEASE * 1.5)
    assert not went
    limiter.release(2)
    for calling in calls:
        calling.join(DEADLINE)
    assert len(went) == 3


def test_redis_hangs_for_longer_than_a_lease(own_server: Server, make: Make, stamped: StampedHook) -> None:
    limiter = make(own_server.url(), on_unavailable="deny", hooks=[stamped])
    other = make(own_server.url(), on_unavailable="deny")
    limiter.acquire_sync()
    other.acquire_sync()
    own_server.pause()
    with pytest.raises(AcquireTimeout):
        other.acquire_sync(timeout=LEASE * 2)
    own_server.resume()
    back = time.monotonic()
    eventually(lambda: bool(stamped.of(Reconnected)))
    assert stamped.moment(Reconnected) < back + RECOVERY
    with pytest.raises(AcquireTimeout):
        other.acquire_sync(timeout=LEASE / 2)
    limiter.release()
    other.acquire_sync(timeout=LEASE)


@pytest.mark.parametrize("hours", [1, -1])
def test_the_clock_of_the_server_is_set(hours: int, own_server: Server, make: Make) -> None:
    limiter, other = make(own_server.url(), 1), make(own_server.url(), 1)
    limiter.acquire_sync()
    assert not other.try_acquire()
    own_server.clock_offset = 3600.0 * hours  # an hour ahead, the key has expired
    with pytest.raises(AcquireTimeout):
        other.acquire_sync(timeout=LEASE * 2)
    limiter.release()
    other.acquire_sync(timeout=1)


def test_scripts_are_flushed_and_nobody_notices(
    redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(redis_server.url(), hooks=[stamped])
    for _ in range(3):
        limiter.acquire_sync(2)
        redis_server.do("SCRIPT", "FLUSH")
        limiter.release(2)
    assert not stamped.of(Unavailable)


def test_a_lost_reply_costs_no_slot(redis_server: Server, make: Make) -> None:
    other = make(redis_server.url())
    with FaultProxy(redis_server.port) as proxy:
        limiter = make(proxy.url(), on_unavailable="deny")
        for _ in range(3):
            proxy.drop_replies()
            limiter.acquire_sync(timeout=5)
            limiter.release()
        limiter.acquire_sync()
        assert other.try_acquire()
        assert not other.try_acquire()
        limiter.release()
        other.acquire_sync(timeout=1)
        limiter.close()


def test_a_redis_that_knows_nothing_lets_nobody_go_at_first(redis_server: Server, make: Make) -> None:
    limiter = make(redis_server.url(), cold_start=True)
    began = time.monotonic()
    assert not limiter.try_acquire()
    limiter.acquire_sync(timeout=LEASE * 2)
    assert time.monotonic() - began > LEASE * 0.9

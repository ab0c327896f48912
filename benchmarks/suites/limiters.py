"""Limiters: what a permit costs that is there, one that is not, and a long line of tasks that wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import anyio

from batchkit import TokenBucket
from benchmarks.figures import over_bound, overtaken
from benchmarks.frame import (
    AsyncCase,
    Backend,
    Case,
    Role,
    Skipped,
    Suite,
    SyncCase,
    backends,
    time_awaits,
    time_calls,
    time_run,
)
from benchmarks.peers import Peer, aiometer_runner, async_peers, sync_peers

CALLS = 50_000
FEWER_CALLS = 10_000  # of what takes longer

# Permits a second, and at once. Every call finds one that came in again since the last call, ...
REFILLED = (1e9, 1_000_000)
# ... or one that was there from the start, in a bucket that is not full again.
PART_USED = (1.0, 1_000_000_000)
# No call but the first finds one.
EMPTY = (1e-6, 1)

WAITING_TASKS = 10_000
WAITING_RATE = 20_000  # permits a second
WAITING_BURST = 100


Acquire = Callable[[], Awaitable[object]]


class _Floor:
    """The least that a limiter's method could do."""

    def nothing(self) -> None:
        pass

    def read_clock(self) -> float:
        return time.monotonic()

    async def nothing_async(self) -> None:
        pass


def _sync_case(
    group: str, name: str, role: Role, make: Callable[[], Callable[[], object]], operations: int = CALLS
) -> SyncCase:
    return SyncCase(name=name, role=role, group=group, operations=operations, measure=time_calls(make))


def sync_cases() -> list[Case | Skipped]:
    peers = sync_peers()
    return [
        _sync_case("granted", "empty method", "floor", lambda: _Floor().nothing),
        _sync_case("granted", "method that reads the clock", "floor", lambda: _Floor().read_clock),
        _sync_case("granted", "batchkit, refilled", "batchkit", lambda: TokenBucket(*REFILLED).try_acquire),
        _sync_case("granted", "batchkit, part used", "batchkit", lambda: TokenBucket(*PART_USED).try_acquire),
        *(_try_case("granted", peer, REFILLED) for peer in peers),
        _sync_case("refused", "empty method", "floor", lambda: _Floor().nothing),
        _sync_case("refused", "batchkit", "batchkit", _emptied_try, FEWER_CALLS),
        *(_try_case("refused", peer, EMPTY) for peer in peers if isinstance(peer, Peer)),
    ]


def _try_case(group: str, peer: Peer | Skipped, quota: tuple[float, int]) -> Case | Skipped:
    if isinstance(peer, Skipped):
        return peer

    def make() -> Callable[[], Any]:
        call = peer.make(*quota)
        call()
        if peer.granted(call()) != (group == "granted"):
            raise AssertionError(f"{peer.name} was to be {group}")
        return call

    return _sync_case(group, peer.name, "peer", make, FEWER_CALLS)


def _emptied_try() -> Callable[[], object]:
    bucket = TokenBucket(*EMPTY)
    bucket.try_acquire()
    return bucket.try_acquire


def async_cases() -> list[Case | Skipped]:
    here, missing = backends()
    cases: list[Case | Skipped] = []
    for backend in here:
        cases += [
            _async_case(backend, "empty coroutine", "floor", lambda: _Floor().nothing_async),
            _async_case(backend, "batchkit, refilled", "batchkit", lambda: TokenBucket(*REFILLED).acquire),
            _async_case(backend, "batchkit, part used", "batchkit", lambda: TokenBucket(*PART_USED).acquire),
        ]
        cases.append(_runner_case(backend))
    return [*cases, *map(_acquire_case, async_peers()), *missing]


def _async_case(
    backend: Backend, name: str, role: Role, make: Callable[[], Acquire], operations: int = CALLS
) -> AsyncCase:
    return AsyncCase(
        name=name, role=role, group=backend, backend=backend, operations=operations, measure=time_awaits(make)
    )


def _acquire_case(peer: Peer | Skipped) -> Case | Skipped:
    if isinstance(peer, Skipped):
        return peer
    return _async_case("asyncio", peer.name, "peer", lambda: peer.make(*REFILLED), FEWER_CALLS)


def _runner_case(backend: Backend) -> Case | Skipped:
    run = aiometer_runner()
    if isinstance(run, Skipped):
        return run

    async def nothing(number: int) -> None:
        pass

    return AsyncCase(
        name="aiometer, with the task it starts",
        role="peer",
        group=backend,
        backend=backend,
        operations=FEWER_CALLS,
        measure=time_run(lambda items: partial(run, nothing, items, REFILLED[0]), lambda _: {}),
    )


Gone = list[tuple[int, float]]  # each task's number and the moment at which it went, in seconds


def waiting_cases() -> list[Case | Skipped]:
    return [
        _waiting_case("deque and one timer", "floor", lambda: OneTimer(WAITING_RATE, WAITING_BURST).acquire),
        _ideal_case(),
        _waiting_case("batchkit", "batchkit", lambda: TokenBucket(WAITING_RATE, WAITING_BURST).acquire),
        *(_waiting_peer(peer) for peer in async_peers()),
        _waiting_runner(),
    ]


def _waiting_peer(peer: Peer | Skipped) -> Case | Skipped:
    if isinstance(peer, Skipped):
        return peer
    if not peer.waits:
        return Skipped(peer.name, "it has no way to wait")
    return _waiting_case(peer.name, "peer", lambda: peer.make(WAITING_RATE, WAITING_BURST))


def _waiting_runner() -> Case | Skipped:
    run = aiometer_runner()
    if isinstance(run, Skipped):
        return run

    async def start_each(tasks: int) -> Gone:
        gone: Gone = []

        async def go(number: int) -> None:
            gone.append((number, time.monotonic()))

        await run(go, tasks, WAITING_RATE)
        return gone

    measure = time_run(lambda tasks: partial(start_each, tasks), _judge_waiting)
    return AsyncCase(
        name="aiometer, no burst", role="peer", group="asyncio", operations=WAITING_TASKS, measure=measure
    )


def _waiting_case(name: str, role: Role, make: Callable[[], Acquire]) -> AsyncCase:
    measure = time_run(lambda tasks: partial(_wait_in_line, make(), tasks), _judge_waiting)
    return AsyncCase(name=name, role=role, group="asyncio", operations=WAITING_TASKS, measure=measure)


async def _wait_in_line(acquire: Acquire, tasks: int) -> Gone:
    gone: Gone = []

    async def go(number: int) -> None:
        await acquire()
        gone.append((number, time.monotonic()))

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(go(number))
    return gone


def _judge_waiting(gone: Gone) -> dict[str, float]:
    return {
        "overtaken tasks": overtaken(number for number, _ in gone),
        "permits over the bound": over_bound((moment for _, moment in gone), WAITING_RATE, WAITING_BURST),
    }


def _ideal_case() -> AsyncCase:
    """As long as the quota makes it, without any work at all."""

    def make(tasks: int) -> Callable[[], Awaitable[None]]:
        return partial(anyio.sleep, max(0, tasks - WAITING_BURST) / WAITING_RATE)

    measure = time_run(make, lambda _: {})
    return AsyncCase(name="ideal", role="floor", group="asyncio", operations=WAITING_TASKS, measure=measure)


class OneTimer:
    """The least that a line of tasks needs: one event loop; no timeout, cost or priority.

    A waiter that is cancelled costs a permit.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._tolerance = (burst - 1) / rate
        self._full_at = 0.0  # moment of the loop's clock at which the bucket will be full again
        self._line: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def acquire(self) -> None:
        if not self._line and self._take():
            return
        place = self._loop.create_future()
        self._line.append(place)
        if len(self._line) == 1:
            self._set_timer()
        await place

    def _take(self) -> bool:
        now = self._loop.time()
        if self._full_at - self._tolerance > now:
            return False
        self._full_at = max(self._full_at, now) + self._interval
        return True

    def _serve(self) -> None:
        while self._line and self._take():
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
        if self._line:
            self._set_timer()

    def _set_timer(self) -> None:
        self._loop.call_at(self._full_at - self._tolerance, self._serve)


SUITES: Sequence[Suite] = [
    Suite("limiters_sync", "one try, ns", sync_cases),
    Suite("limiters_async", "one acquire that does not have to wait, ns", async_cases),
    Suite(
        "limiters_waiting",
        f"{WAITING_TASKS:,} tasks (--quick: a tenth) at {WAITING_RATE:,}/s, burst {WAITING_BURST}",
        waiting_cases,
        unit="ms in all",
    ),
]

"""Limiters: what a permit costs that is there, one that is not, and a long line of tasks that wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

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

CALLS = 50_000

# Permits a second, and at once. Every call finds one that came in again since the last call, ...
REFILLED = (1e9, 1_000_000)
# ... or one that was there from the start, in a bucket that is not full again.
PART_USED = (1.0, 1_000_000_000)
# No call but the first finds one.
EMPTY = (1e-6, 1)

WAITING_TASKS = 4_000
WAITING_RATE = 20_000  # permits a second
WAITING_BURST = 100


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
    return [
        _sync_case("granted", "empty method", "floor", lambda: _Floor().nothing),
        _sync_case("granted", "method that reads the clock", "floor", lambda: _Floor().read_clock),
        _sync_case("granted", "batchkit, refilled", "batchkit", lambda: TokenBucket(*REFILLED).try_acquire),
        _sync_case("granted", "batchkit, part used", "batchkit", lambda: TokenBucket(*PART_USED).try_acquire),
        *_token_bucket("granted", *REFILLED),
        _sync_case("refused", "empty method", "floor", lambda: _Floor().nothing),
        _sync_case("refused", "batchkit", "batchkit", _emptied_try, CALLS // 5),
        *_token_bucket("refused", *EMPTY),
    ]


def _emptied_try() -> Callable[[], object]:
    bucket = TokenBucket(*EMPTY)
    bucket.try_acquire()
    return bucket.try_acquire


def _token_bucket(group: str, rate: float, burst: int) -> list[Case | Skipped]:
    try:
        import token_bucket
    except ImportError as error:
        return [Skipped("token-bucket", str(error))]

    def make() -> Callable[[], object]:
        limiter = token_bucket.Limiter(rate, burst, token_bucket.MemoryStorage())
        limiter.consume("key")
        return partial(limiter.consume, "key")

    return [_sync_case(group, "token-bucket", "peer", make)]


def async_cases() -> list[Case | Skipped]:
    here, missing = backends()
    cases: list[Case | Skipped] = []
    for backend in here:
        cases += [
            _async_case(backend, "empty coroutine", "floor", lambda: _Floor().nothing_async),
            _async_case(backend, "batchkit, refilled", "batchkit", lambda: TokenBucket(*REFILLED).acquire),
            _async_case(backend, "batchkit, part used", "batchkit", lambda: TokenBucket(*PART_USED).acquire),
        ]
    return [*cases, *_aiolimiter_uncontended(), *missing]


def _async_case(
    backend: Backend, name: str, role: Role, make: Callable[[], Callable[[], Awaitable[object]]]
) -> AsyncCase:
    measure = time_awaits(make)
    return AsyncCase(name=name, role=role, group=backend, backend=backend, operations=CALLS, measure=measure)


def _aiolimiter_uncontended() -> list[Case | Skipped]:
    try:
        from aiolimiter import AsyncLimiter
    except ImportError as error:
        return [Skipped("aiolimiter", str(error))]
    rate, burst = REFILLED
    return [_async_case("asyncio", "aiolimiter", "peer", lambda: AsyncLimiter(burst, burst / rate).acquire)]


Acquire = Callable[[], Awaitable[object]]
Gone = list[tuple[int, float]]  # each task's number and the moment at which it went, in seconds


def waiting_cases() -> list[Case | Skipped]:
    return [
        _waiting_case("deque and one timer", "floor", lambda: _OneTimer(WAITING_RATE, WAITING_BURST).acquire),
        _ideal_case(),
        _waiting_case("batchkit", "batchkit", lambda: TokenBucket(WAITING_RATE, WAITING_BURST).acquire),
        *_aiolimiter_waiting(),
    ]


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


def _aiolimiter_waiting() -> list[Case | Skipped]:
    try:
        from aiolimiter import AsyncLimiter
    except ImportError as error:
        return [Skipped("aiolimiter", str(error))]
    period = WAITING_BURST / WAITING_RATE  # its burst is what it lets go in a period
    return [_waiting_case("aiolimiter", "peer", lambda: AsyncLimiter(WAITING_BURST, period).acquire)]


class _OneTimer:
    """The least that a line of tasks needs: one event loop; no cancellation, timeout, cost or priority."""

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
            self._line.popleft().set_result(None)
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

"""Each public coroutine is cancelled at each of its awaits: it harms nobody else and leaves nothing."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from itertools import count
from typing import Any

import anyio
import httpx2
import pytest

from batchkit import (
    AdaptiveLimiter,
    BatchedExecutor,
    Batcher,
    ConcurrencyLimiter,
    Retry,
    TokenBucket,
    TTLCache,
    all_of,
    limited,
)
from batchkit.httpx import AsyncLimitedTransport
from batchkit.testing import ManualClock, settle
from tests.executor.helpers import Memory

pytestmark = pytest.mark.anyio


class Striker:
    """Cancels a coroutine as it waits for the n-th time."""

    def __init__(self, strike: int) -> None:
        self.left = strike
        self.scope = anyio.CancelScope()

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        with self.scope:
            await self._step(coroutine)

    @types.coroutine
    def _step(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = partial(coroutine.send, None)
        while True:
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()
            try:
                resume = partial(coroutine.send, (yield waits_for))
            except BaseException as error:
                resume = partial(coroutine.throw, error)


async def strike_at_each_await(attempt: Callable[[Striker], Awaitable[None]]) -> None:
    """Make the attempt with a strike at its first await, its second, ... until it ends before the strike."""
    for strike in count(1):
        striker = Striker(strike)
        await attempt(striker)
        if striker.left > 0:
            assert strike > 1, "it never waits"
            return


@pytest.mark.parametrize(
    "way", ["acquire", "permit", "with", "reservation", "adaptive", "entered", "transport"]
)
async def test_waiting_for_a_limiter(way: str) -> None:
    async def acquire(bucket: TokenBucket) -> None:
        match way:
            case "acquire":
                await bucket.acquire(2, timeout=100)
            case "permit":
                async with bucket.permit(2):
                    pass
            case "with":
                async with bucket:
                    pass
            case "adaptive":
                async with AdaptiveLimiter(bucket, min_rate=1, max_rate=2).permit(2):
                    pass
            case "entered":
                async with AdaptiveLimiter(bucket, min_rate=1, max_rate=2):
                    pass
            case "transport":
                answer = httpx2.MockTransport(lambda _: httpx2.Response(200))
                transport = AsyncLimitedTransport(bucket, answer, cost=2)
                await transport.handle_async_request(httpx2.Request("GET", "http://localhost/"))
            case _:
                with bucket.reserve(2) as reservation:
                    await reservation.wait()

    async def attempt(striker: Striker) -> None:
        clock = ManualClock()
        bucket = TokenBucket(rate=1, burst=2, clock=clock)
        bucket.try_acquire(2)
        gone: list[float] = []

        async def another() -> None:
            await bucket.acquire()
            gone.append(clock.now())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(striker.run, acquire(bucket))
            await settle()
            tasks.start_soon(another)
            await clock.run_for(10)
        cost = 1 if way in ("with", "entered") else 2
        struck = striker.left <= 0
        statistics = bucket.statistics()
        if statistics.granted == 3:  # it was struck before it went
            assert struck
            assert gone == [1.0]
        else:
            assert statistics.granted == 3 + cost
            assert gone == [1.0 + cost]
        assert statistics.waiting == 0
        clock.advance(10)
        assert bucket.try_acquire(2)

    await strike_at_each_await(attempt)


@pytest.mark.parametrize("way", ["acquire", "permit", "with", "limited", "adaptive", "key"])
async def test_waiting_for_several_limits(way: str) -> None:
    async def attempt(striker: Striker) -> None:
        clock = ManualClock()
        bucket = TokenBucket(rate=1, burst=2, clock=clock)
        slots = ConcurrencyLimiter(1, clock=clock)
        adaptive = AdaptiveLimiter(bucket, min_rate=1, max_rate=1.5)
        if way == "key":
            bucket, slots = bucket.for_key("a/b"), slots.for_key("a/b")
        both = all_of(rate=adaptive if way == "adaptive" else bucket, slots=slots)
        both.try_acquire({"rate": 2})
        gone: list[float] = []

        async def call() -> None:
            match way:
                case "acquire":
                    await both.acquire(timeout=100)
                    both.release()
                case "with":
                    async with both:
                        await clock.sleep(0.25)
                case "limited":
                    await limited(both)(clock.sleep)(0.25)
                case _:
                    async with both.permit() as permit:
                        permit.hear(429)
                        await clock.sleep(0.25)

        async def another() -> None:
            async with both:
                gone.append(clock.now())

        async with anyio.create_task_group() as tasks:
            await clock.run_for(0.5)
            tasks.start_soon(striker.run, call())
            await settle()
            tasks.start_soon(another)
            await clock.run_for(0.25)
            both.release()  # the first one is over; it took the slot
            await clock.run_for(10)
        first = bucket.statistics().granted == 4  # it went before it was struck, if it was at all
        assert first or striker.left <= 0
        assert gone == [2.0 if first else 1.0]
        assert slots.statistics().granted == bucket.statistics().granted - 1
        assert slots.statistics().available == 1
        assert bucket.statistics().waiting == slots.statistics().waiting == 0

    await strike_at_each_await(attempt)


@pytest.mark.parametrize("way", ["acquire", "permit"])
async def test_waiting_for_a_slot(way: str) -> None:
    async def attempt(striker: Striker) -> None:
        clock = ManualClock()
        slots = ConcurrencyLimiter(2, clock=clock)
        slots.try_acquire(2)
        gone: list[float] = []

        async def call() -> None:
            if way == "acquire":
                await slots.acquire(2)
                slots.release(2)
            else:
                async with slots.permit(2):
                    await clock.sleep(1)

        async def another() -> None:
            async with slots:
                gone.append(clock.now())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(striker.run, call())
            await settle()
            tasks.start_soon(another)
            await clock.run_for(1)
            slots.release(2)
            await clock.run_for(5)
        assert len(gone) == 1
        assert gone[0] in ((1.0, 2.0) if way == "permit" else (1.0,))
        assert slots.statistics().available == 2
        assert slots.statistics().waiting == 0

    await strike_at_each_await(attempt)


@pytest.mark.parametrize("many", [False, True])
async def test_asking_a_cache(many: bool) -> None:
    async def attempt(striker: Striker) -> None:
        clock = ManualClock()
        cache: TTLCache[str, str] = TTLCache(10, 60, clock=clock)
        loads = 0
        answers: list[Any] = []

        async def load(key: str) -> str:
            nonlocal loads
            loads += 1
            await clock.sleep(1)
            return key.upper()

        async def load_many(keys: list[str]) -> list[str]:
            return [await load(key) for key in keys]

        async def ask() -> None:
            if many:
                answers.append((await cache.get_many(["a"], load_many))["a"])
            else:
                answers.append(await cache.get_or_load("a", load))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(striker.run, ask())
            tasks.start_soon(ask)
            await clock.run_for(5)
        assert answers in (["A"], ["A", "A"])
        assert loads == 1 or striker.left <= 0
        assert loads <= 2  # stopped with its only caller, it is begun again by the next
        assert not cache._shelf.loads.by_key

    await strike_at_each_await(attempt)


@pytest.mark.parametrize("way", ["load", "load_many", "limited", "cached", "thread"])
async def test_asking_a_batcher(way: str) -> None:
    async def attempt(striker: Striker) -> None:
        clock = ManualClock()
        calls: list[list[str]] = []
        running = 0
        answers: list[str] = []
        done = anyio.Event()

        async def load_many(keys: list[str]) -> list[str]:
            nonlocal running
            calls.append(keys)
            running += 1
            try:
                await clock.sleep(1)
            finally:
                running -= 1
            return keys

        def load_many_sync(keys: list[str]) -> list[str]:
            calls.append(keys)
            return keys

        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        batcher: Batcher[str, str] = Batcher(
            load_many_sync if way == "thread" else load_many,
            max_batch_size=2,
            max_wait=0.5,
            max_in_flight=1,
            limiter=bucket if way == "limited" else None,
            cache={} if way == "cached" else None,
            clock=clock,
        )

        async def ask(keys: str) -> None:
            if way == "load_many":
                answers.extend(await batcher.load_many(keys))
            else:
                answers.extend([await batcher.load(key) for key in keys])
            done.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(striker.run, ask("abc"))
            await settle()
            tasks.start_soon(ask, "b")
            if way == "thread":
                await done.wait()
            await clock.run_for(9)
        while batcher._loading._keys.gathering.under_way:  # noqa: ASYNC110 - in a thread, it goes on to its end
            await anyio.sleep(0.001)
        assert answers.count("b") in (1, 2)
        asked = [key for keys in calls for key in keys]
        assert asked.count("b") <= (1 if way == "cached" else 2)
        assert (running, bucket.statistics().waiting) == (0, 0)
        keys = batcher._loading._keys
        assert (keys.gathering.waiting, keys.gathering.under_way) == (0, 0)
        assert not keys.places
        assert not keys.under_way
        rooms = batcher._loading._rooms.by_loop.values()
        assert not any(room.came or room.gatherer for room in rooms)

    await strike_at_each_await(attempt)


@pytest.mark.parametrize("way", ["run", "map", "batches"])
async def test_running_an_executor(way: str) -> None:
    async def attempt(striker: Striker) -> None:
        clock = ManualClock()
        running = 0

        async def work(item: object) -> Any:
            nonlocal running
            running += 1
            try:
                await clock.sleep(1)
            finally:
                running -= 1
            return item

        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        options: dict[str, Any] = {"concurrency": 2, "limiter": bucket, "clock": clock}
        if way == "batches":
            executor = BatchedExecutor[int, int].of_batches(work, batch_size=2, **options)
        else:
            executor = BatchedExecutor[int, int](work, **options)

        async def read() -> None:
            if way == "run":
                await executor.run(range(3))
                return
            async with executor.map(range(3)) as outcomes:
                async for _ in outcomes:
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(striker.run, read())
            await clock.run_for(10)
        assert running == 0
        assert bucket.statistics().waiting == 0

    await strike_at_each_await(attempt)


@pytest.mark.parametrize("way", ["retry", "timeout", "checkpoint", "all"])
async def test_running_an_executor_whose_calls_fail_and_hang(way: str) -> None:
    """What was kept is not called by the next run, and all else is."""

    async def attempt(striker: Striker) -> None:
        clock = ManualClock()
        calls: list[int] = []
        running = 0

        async def work(item: int) -> int:
            nonlocal running
            running += 1
            calls.append(item)
            first = calls.count(item) == 1
            try:
                await clock.sleep(5 if item == 1 and first else 1)
            finally:
                running -= 1
            if item == 2 and first:
                raise ConnectionError("down")
            return item

        memory = Memory()
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        wanted: dict[str, dict[str, Any]] = {
            "retry": {"retry": Retry(attempts=3)},
            "timeout": {"timeout": 3.0},
            "checkpoint": {"checkpoint": memory},
        }
        options = wanted["retry"] | wanted["timeout"] | wanted["checkpoint"] if way == "all" else wanted[way]
        executor = BatchedExecutor(work, concurrency=2, limiter=bucket, clock=clock, **options)

        async def read(items: list[int]) -> None:
            async with executor.map(range(4)) as outcomes:
                async for outcome in outcomes:
                    items.append(outcome.item)  # noqa: PERF401 - also when it is struck

        before: list[int] = []
        after: list[int] = []
        await clock.run(striker.run(read(before)))
        assert (running, bucket.statistics().waiting) == (0, 0)
        assert striker.left <= 0 or sorted(before) == [0, 1, 2, 3]
        kept = {int(key) for key in memory.entries}
        assert kept >= set(before) or "checkpoint" not in options
        calls.clear()
        await clock.run(read(after))
        assert sorted(after) == [0, 1, 2, 3]
        assert set(calls) == {0, 1, 2, 3} - kept

    await strike_at_each_await(attempt)

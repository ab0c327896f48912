"""`BatchedExecutor`: every item gets its outcome, on asyncio and on trio, on a manual clock."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from batchkit import (
    AdaptiveLimiter,
    BatchedExecutor,
    CallCancelled,
    CallFinished,
    ItemFinished,
    OutcomeStream,
    RunFinished,
    RunReport,
    RunStarted,
    TokenBucket,
)
from batchkit.controllers import AIMD
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.executor.helpers import Work, indexes, trickle

pytestmark = pytest.mark.anyio


async def test_every_item_gets_its_outcome(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor(work.one, concurrency=3, clock=clock)
    report = await clock.run(executor.run([1, 13, 2]))
    assert (report.name, report.items, report.succeeded, report.failed, report.calls) == ("one", 3, 2, 1, 3)
    first, second, bad = report.outcomes
    assert (first.index, first.item, first.ok, first.value, first.attempts, first.seconds) == (
        0,
        1,
        True,
        2,
        1,
        1.0,
    )
    assert (second.index, second.value) == (2, 4)
    assert not bad.ok
    assert str(bad.error) == "thirteen"
    assert report.seconds == 13


async def test_a_slow_item_holds_up_nobody(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor(work.one, concurrency=2, clock=clock)
    report = await clock.run(executor.run([10, 1, 1, 1, 1, 1]))
    assert indexes(report) == [1, 2, 3, 4, 5, 0]
    assert report.seconds == 10
    assert work.most_running == 2


async def test_in_order_and_still_nobody_is_held_up(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor(work.one, concurrency=2, clock=clock)
    report = await clock.run(executor.run([10, 1, 1, 1, 1, 1], ordered=True))
    assert indexes(report) == [0, 1, 2, 3, 4, 5]
    assert report.seconds == 10


async def test_no_items(work: Work, clock: ManualClock) -> None:
    report = await clock.run(BatchedExecutor(work.one, clock=clock).run([]))
    assert (report.items, report.limited_by) == (0, "latency")


async def test_the_quota_is_kept_and_named(work: Work, clock: ManualClock) -> None:
    bucket = TokenBucket(rate=1, burst=1, clock=clock)
    executor = BatchedExecutor(work.one, concurrency=5, limiter=bucket, cost=lambda item: item, clock=clock)
    report = await clock.run(executor.run([1] * 5))
    assert [start for start, _ in work.starts] == [0, 1, 2, 3, 4]
    assert report.limited_by == "quota"
    assert "raise the limiter's rate" in report.advice


@pytest.mark.parametrize("raises", [False, True])
async def test_an_adaptive_limiter_hears_what_a_call_returns_or_raises(
    raises: bool, clock: ManualClock
) -> None:
    class Answer(Exception):
        status_code = 429

    async def call(item: int) -> Any:
        if item == 429:
            return item  # a number is no status code
        if raises:
            raise Answer
        return Answer()

    limiter = AdaptiveLimiter(TokenBucket(8, 8, clock=clock), controller=AIMD(8, min_rate=1, max_rate=8))
    executor = BatchedExecutor(call, concurrency=1, limiter=limiter, clock=clock)
    await executor.run([429])
    assert limiter.rate == 8
    await executor.run([1])
    assert limiter.rate == 4


async def test_a_cost_that_could_never_be_granted_is_the_items_error(work: Work, clock: ManualClock) -> None:
    bucket = TokenBucket(rate=1, burst=1, clock=clock)
    executor = BatchedExecutor(work.one, limiter=bucket, cost=lambda item: item, clock=clock)
    report = await clock.run(executor.run([1, 2]))
    assert [(outcome.ok, outcome.attempts) for outcome in report.outcomes] == [(False, 0), (True, 1)]
    assert report.calls == 1


async def test_a_pace_limits_starts(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor(work.one, concurrency=10, pace=2, clock=clock)
    report = await clock.run(executor.run([1] * 4))
    assert [start for start, _ in work.starts] == [0, 0.5, 1, 1.5]
    assert report.limited_by == "pace"


async def test_a_barrier_with_a_pause(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor(work.one, batch_size=3, concurrency=2, barrier=True, pause=10, clock=clock)
    report = await clock.run(executor.run([1, 1, 5, 1, 1, 1]))
    assert [start for start, _ in work.starts] == [0, 0, 1, 16, 16, 17]
    assert report.seconds == 18
    assert report.limited_by == "barrier"


async def test_a_barrier_on_an_async_input(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor(work.one, batch_size=2, concurrency=5, barrier=True, pause=1, clock=clock)
    report = await clock.run(executor.run(trickle(clock, range(1, 5), every=0.0)))
    assert report.succeeded == 4
    assert [start for start, _ in work.starts] == [0, 0, 3, 3]


async def test_too_few_calls_at_once_are_named(work: Work, clock: ManualClock) -> None:
    report = await clock.run(BatchedExecutor(work.one, concurrency=2, clock=clock).run([1] * 20))
    assert report.limited_by == "concurrency"
    assert "concurrency=4" in report.advice


async def test_a_slow_input_is_named(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor(work.one, concurrency=2, clock=clock)
    report = await clock.run(executor.run(trickle(clock, range(1, 4), every=10)))
    assert (report.limited_by, report.succeeded) == ("input", 3)


class TestMap:
    async def test_outcomes_come_as_they_finish(self, work: Work, clock: ManualClock) -> None:
        seen: list[tuple[float, int]] = []

        async def read() -> None:
            async for outcome in BatchedExecutor(work.one, clock=clock).map([3, 1, 2]):
                seen.append((clock.now(), outcome.index))  # noqa: PERF401  # the time counts

        await clock.run(read())
        assert seen == [(1, 1), (2, 2), (3, 0)]

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_an_endless_input_is_read_only_as_far_as_the_window(
        self, clock: ManualClock, ordered: bool
    ) -> None:
        class Item:
            pass

        alive: weakref.WeakSet[Item] = weakref.WeakSet()
        most_alive = 0

        def endless() -> Iterator[Item]:
            while True:
                item = Item()
                alive.add(item)
                yield item

        async def work(item: Item) -> None:
            await clock.sleep(0)

        count = 0
        executor = BatchedExecutor(work, concurrency=4, clock=clock)
        async with executor.map(endless(), ordered=ordered, window=20) as outcomes:
            async for _ in outcomes:
                count += 1
                most_alive = max(most_alive, len(alive))
                if count == 2000:
                    break
        assert most_alive <= 20 + 4
        gc.collect()
        assert len(alive) <= 24

    async def test_a_reader_that_is_slow_is_named(self, clock: ManualClock) -> None:
        async def work(item: int) -> int:
            return item

        executor = BatchedExecutor(work, concurrency=2, clock=clock)

        async def read() -> RunReport[int, int]:
            async with executor.map(range(10), window=2) as outcomes:
                async for _ in outcomes:
                    await clock.sleep(1)
                return outcomes.report()

        report = await clock.run(read())
        assert (report.limited_by, report.succeeded) == ("output", 10)

    async def test_leaving_early_stops_what_is_under_way(self, work: Work, clock: ManualClock) -> None:
        async def read() -> None:
            async with BatchedExecutor(work.one, concurrency=3, clock=clock).map([1, 50, 60, 70]) as outcomes:
                async for _ in outcomes:
                    break

        await clock.run(read())
        assert clock.now() == 1
        assert work.now_running == 0

    async def test_a_stream_that_is_dropped_stops(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([1, 50])
        await clock.run(anext(outcomes))
        del outcomes
        gc.collect()
        await settle()
        assert work.now_running == 0

    async def test_several_tasks_may_read_it(self, work: Work, clock: ManualClock) -> None:
        seen: list[int] = []

        async def read(outcomes: OutcomeStream[int, int]) -> None:
            async for outcome in outcomes:
                seen.append(outcome.index)  # noqa: PERF401  # one by one, as a reader does

        async def read_by_three() -> None:
            async with (
                BatchedExecutor(work.one, concurrency=2, clock=clock).map([1] * 9) as outcomes,
                anyio.create_task_group() as tasks,
            ):
                for _ in range(3):
                    tasks.start_soon(read, outcomes)

        await clock.run(read_by_three())
        assert sorted(seen) == list(range(9))

    async def test_aclose_ends_a_read_that_waits(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([50])
        ends: list[bool] = []

        async def read() -> None:
            ends.append(await anext(outcomes, None) is None)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await settle()
            await outcomes.aclose()
        assert ends == [True]

    async def test_after_aclose_there_is_nothing_more(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([1])
        await outcomes.aclose()  # never begun
        await clock.run(anext(outcomes))
        await outcomes.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)

    async def test_a_window_smaller_than_the_concurrency(self, work: Work, clock: ManualClock) -> None:
        seen: list[int] = []

        async def read() -> None:
            async for outcome in BatchedExecutor(work.one, concurrency=4, clock=clock).map([1] * 9, window=3):
                seen.append(outcome.index)  # noqa: PERF401  # one by one, as a reader does

        await clock.run(read())
        assert sorted(seen) == list(range(9))
        assert work.most_running == 3

    async def test_an_async_input(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor.of_batches(work.many, batch_size=2, max_wait=None, clock=clock)
        report = await clock.run(executor.run(trickle(clock, range(5), every=1), ordered=True))
        assert [size for _, size in work.starts] == [2, 2, 1]
        assert indexes(report) == [0, 1, 2, 3, 4]


class TestErrors:
    async def test_an_input_that_fails_is_raised_after_what_is_under_way(
        self, work: Work, clock: ManualClock
    ) -> None:
        def failing() -> Iterator[int]:
            yield 5
            raise ZeroDivisionError

        seen: list[Any] = []

        async def read() -> None:
            async for outcome in BatchedExecutor(work.one, clock=clock).map(failing()):
                seen.append(outcome.value)  # noqa: PERF401  # what came before the error counts

        with pytest.raises(ZeroDivisionError):
            await clock.run(read())
        assert seen == [10]

    async def test_an_async_input_that_fails(self, work: Work, clock: ManualClock) -> None:
        async def failing() -> AsyncIterator[int]:
            yield 5
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await clock.run(BatchedExecutor(work.one, clock=clock).run(failing()))

    async def test_cancelling_a_run_stops_its_calls(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor(work.one, clock=clock)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(executor.run, [50, 60])
                await settle()
                scope.cancel()
        assert work.now_running == 0

    async def test_what_is_no_error_of_an_item_ends_the_run(self, clock: ManualClock) -> None:
        class Stop(BaseException):
            pass

        async def work(item: int) -> None:
            raise Stop

        with pytest.raises(BaseExceptionGroup) as caught:
            await clock.run(BatchedExecutor(work, concurrency=1, clock=clock).run([1, 2]))
        assert caught.group_contains(Stop)

    def test_a_call_that_is_cancelled_from_inside_is_an_error_of_its_item(self) -> None:
        async def work(item: int) -> int:
            if item == 1:
                raise asyncio.CancelledError
            return item

        report = asyncio.run(BatchedExecutor(work, concurrency=1).run(range(3), ordered=True))
        assert [outcome.ok for outcome in report.outcomes] == [True, False, True]
        assert isinstance(report.outcomes[1].error, CallCancelled)

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"concurrency": 0}, "concurrency is a whole number"),
            ({"batch_size": True}, "batch_size is a whole number"),
            ({"pause": 1}, "a pause needs barrier=True"),
            ({"pause": -1, "barrier": True}, "a pause is a number of seconds"),
        ],
    )
    def test_numbers_that_are_none(self, work: Work, wrong: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            BatchedExecutor(work.one, **wrong)

    def test_a_window_that_is_none(self, work: Work) -> None:
        with pytest.raises(ValueError, match="a window is a whole number"):
            BatchedExecutor(work.one).map([1], window=0)

    @pytest.mark.parametrize("wrong", [3, lambda item: (yield item)])
    def test_what_is_no_function_to_be_called(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match=r"no function|is a generator"):
            BatchedExecutor(wrong)

    async def test_async_functions_of_other_kinds(self, work: Work, clock: ManualClock) -> None:
        class Callable:
            async def __call__(self, item: int) -> int:
                return item

        for function in (partial(work.one), Callable()):
            report = await clock.run(BatchedExecutor(function, clock=clock).run([1]))
            assert report.succeeded == 1


async def test_events(work: Work, clock: ManualClock, hook: RecordingHook) -> None:
    executor = BatchedExecutor(work.one, name="import", hooks=[hook], clock=clock)
    await clock.run(executor.run([13]))
    kinds = [type(event).__name__ for event in hook.events]
    assert kinds == ["RunStarted", "CallStarted", "CallFinished", "ItemFinished", "RunFinished"]
    assert hook.of(RunStarted)[0].total == 1
    assert not hook.of(CallFinished)[0].ok
    assert hook.of(ItemFinished)[0].outcome.item == 13
    assert hook.of(RunFinished)[0].report.failed == 1


async def test_a_hook_that_fails_harms_no_work(
    work: Work, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(event: object) -> None:
        raise ZeroDivisionError

    report = await clock.run(BatchedExecutor(work.one, hooks=[hook], clock=clock).run([1]))
    assert report.succeeded == 1
    assert "a hook failed on RunStarted" in caplog.text

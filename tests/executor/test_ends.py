"""How a run ends before its input does: drained, out of time, stopped by an item, closed or cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import anyio
import anyio.to_thread
import pytest

from batchkit import (
    BatchedExecutor,
    BatchkitError,
    CallCancelled,
    ItemFinished,
    Outcome,
    RunFailed,
    RunFinished,
    RunReport,
    TokenBucket,
    drain_on_signal,
)
from batchkit.retries import Retry, exponential
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.executor.helpers import Calls, Down, Work, trickle
from tests.helpers import eventually, threads

pytestmark = pytest.mark.anyio


def states(report: RunReport[Any, Any]) -> dict[int, str]:
    return {outcome.item: outcome.state for outcome in report.outcomes}


class TestDrain:
    async def test_what_is_under_way_may_finish_and_the_rest_is_not_started(
        self, work: Work, clock: ManualClock
    ) -> None:
        outcomes = BatchedExecutor(work.one, concurrency=2, clock=clock).map([1, 60, 3, 2])
        seen: list[Outcome[int, int]] = []

        async def read() -> None:
            async for outcome in outcomes:
                seen.append(outcome)
                if outcome.item == 1:
                    await clock.sleep(1)
                    outcomes.drain(grace=10)

        await clock.run(read())
        assert {outcome.item: outcome.state for outcome in seen} == {
            1: "value",
            3: "value",
            60: "error",
            2: "not started",
        }
        assert clock.now() == 12
        assert work.now_running == 0
        cut = next(outcome for outcome in seen if outcome.item == 60)
        assert isinstance(cut.error, CallCancelled)
        assert cut.attempts == 1

    async def test_it_ends_as_soon_as_nothing_is_under_way(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, concurrency=2, clock=clock).map([5, 6, 7])
        reports: list[RunReport[int, int]] = []
        async with anyio.create_task_group() as tasks:

            async def collect() -> None:
                reports.append(await outcomes.collect())

            tasks.start_soon(collect)
            await clock.run_for(1)
            outcomes.drain(grace=60)
            await clock.run_for(6)
        assert states(reports[0]) == {5: "value", 6: "value", 7: "not started"}
        assert (reports[0].succeeded, reports[0].not_started, reports[0].items) == (2, 1, 3)

    async def test_who_waits_for_permits_does_not_start(self, work: Work, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        outcomes = BatchedExecutor(work.one, limiter=bucket, clock=clock).map([20, 21, 22])
        reports: list[RunReport[int, int]] = []
        async with anyio.create_task_group() as tasks:

            async def collect() -> None:
                reports.append(await outcomes.collect())

            tasks.start_soon(collect)
            await clock.run_for(0.5)
            outcomes.drain(grace=60)
            await clock.run_for(30)
        assert states(reports[0]) == {20: "value", 21: "not started", 22: "not started"}
        assert reports[0].seconds == 20
        assert bucket.statistics().waiting == 0

    async def test_it_ends_where_all_wait_for_permits(self, work: Work, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=0.001, burst=1, clock=clock)
        bucket.try_acquire()
        outcomes = BatchedExecutor(work.one, limiter=bucket, concurrency=4, clock=clock).map([1, 2])
        async with outcomes:
            await settle()
            outcomes.drain(grace=60)
            await settle()
            report = await clock.run(outcomes.collect())
        assert states(report) == {1: "not started", 2: "not started"}
        assert report.seconds == 0

    async def test_who_waits_to_be_called_again_keeps_its_error(self, clock: ManualClock) -> None:
        async def fail(item: int) -> None:
            raise Down

        slow = exponential(first=100, most=100, jitter="none")
        outcomes = BatchedExecutor(fail, retry=Retry(backoff=slow), clock=clock).map([1])
        async with outcomes:
            await settle()
            outcomes.drain()
            report = await clock.run(outcomes.collect())
        assert isinstance(report.outcomes[0].error, Down)
        assert report.outcomes[0].attempts == 1

    async def test_so_does_who_waits_for_the_half_of_a_batch_that_failed(self, clock: ManualClock) -> None:
        calls = Calls(clock, bad=[1])
        outcomes = BatchedExecutor.of_batches(calls, batch_size=2, concurrency=1, clock=clock).map([0, 1])
        async with outcomes:
            await clock.run_for(1.5)
            outcomes.drain(grace=0)
            report = await clock.run(outcomes.collect())
        assert [(outcome.item, outcome.state, outcome.attempts) for outcome in report.outcomes] == [
            (0, "error", 2),
            (1, "error", 1),
        ]

    async def test_a_second_call_may_shorten_the_time(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([50])
        async with outcomes:
            await settle()
            outcomes.drain(grace=40)
            await clock.run_for(1)
            outcomes.drain(grace=0)
            report = await clock.run(outcomes.collect())
        assert (report.seconds, report.failed) == (1, 1)

    async def test_before_it_began_nothing_is_called(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([1, 2])
        outcomes.drain()
        report = await clock.run(outcomes.collect())
        assert (states(report), work.starts) == ({1: "not started", 2: "not started"}, [])

    async def test_what_was_not_read_is_left_in_the_input(self, work: Work, clock: ManualClock) -> None:
        items = iter(range(1, 100))
        outcomes = BatchedExecutor(work.one, concurrency=2, clock=clock).map(items)
        await clock.run(anext(outcomes))
        outcomes.drain()
        report = await clock.run(outcomes.collect())
        assert sorted([*states(report), 1, *items]) == [*range(1, 100)]

    async def test_from_another_thread(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, concurrency=1, clock=clock).map([5, 6])
        async with outcomes:
            await settle()
            with threads(outcomes.drain):
                pass
            report = await clock.run(outcomes.collect())
        assert states(report) == {5: "value", 6: "not started"}

    async def test_an_async_input_is_left_alone(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map(trickle(clock, [1, 2, 3], every=100))
        async with outcomes:
            await clock.run_for(150)
            outcomes.drain()
            report = await clock.run(outcomes.collect())
        assert (states(report), report.seconds) == ({1: "value"}, 150)

    async def test_in_order(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, concurrency=3, clock=clock).map([9, 1, 2, 3, 4], ordered=True)
        async with outcomes:
            await clock.run_for(1.5)
            outcomes.drain(grace=2)
            report = await clock.run(outcomes.collect())
        assert [outcome.item for outcome in report.outcomes] == [9, 1, 2, 3, 4]
        assert [outcome.state for outcome in report.outcomes] == [
            "error",
            "value",
            "value",
            "error",
            "not started",
        ]

    def test_a_grace_that_is_none(self, work: Work) -> None:
        with pytest.raises(ValueError, match="grace is a number of seconds"):
            BatchedExecutor(work.one).map([1]).drain(grace=-1)


class TestSignals:
    @pytest.mark.skipif(os.name == "nt", reason="no process sends itself SIGTERM there")
    async def test_a_sigterm_drains_and_a_second_one_stops_at_once(
        self, work: Work, clock: ManualClock
    ) -> None:
        before = signal.getsignal(signal.SIGTERM)
        outcomes = BatchedExecutor(work.one, concurrency=1, clock=clock).map([50, 1])
        async with outcomes:
            with drain_on_signal(outcomes, grace=60):
                await settle()
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGTERM)
                    await anyio.to_thread.run_sync(eventually, lambda: outcomes.draining)
                report = await outcomes.collect()
        assert states(report) == {50: "error", 1: "not started"}
        assert signal.getsignal(signal.SIGTERM) is before

    def test_it_is_for_the_main_thread(self, work: Work) -> None:
        def elsewhere() -> None:
            with (
                pytest.raises(ValueError, match="main thread"),
                drain_on_signal(BatchedExecutor(work.one).map([1])),
            ):
                pass

        with threads(elsewhere):
            pass


class TestDeadline:
    async def test_when_the_time_of_a_run_is_over_it_is_cut_off(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor(work.one, concurrency=2, clock=clock)
        report = await clock.run(executor.run([1, 50, 60, 70], deadline=10))
        assert states(report) == {1: "value", 50: "error", 60: "error", 70: "not started"}
        assert report.seconds == 10
        late = [outcome.error for outcome in report.outcomes if outcome.state == "error"]
        assert [type(error) for error in late] == [TimeoutError, TimeoutError]

    async def test_a_run_that_has_time_enough_does_not_notice(self, work: Work, clock: ManualClock) -> None:
        report = await clock.run(BatchedExecutor(work.one, clock=clock).run([1, 2], deadline=10))
        assert (report.succeeded, report.seconds) == (2, 2)


class TestRaise:
    async def test_the_first_failure_stops_the_run(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor(work.one, concurrency=3, on_error="raise", clock=clock)
        with pytest.raises(RunFailed, match="1 item failed, and the run was stopped") as caught:
            await clock.run(executor.run([1, 13, 50, 60, 70, 80]))
        assert [str(error) for error in caught.value.exceptions] == ["thirteen"]
        report = caught.value.report
        assert states(report) == {
            1: "value",
            13: "error",
            50: "error",
            60: "error",
            70: "not started",
            80: "not started",
        }
        assert (clock.now(), work.now_running) == (13, 0)

    async def test_it_is_an_exception_group(self, clock: ManualClock) -> None:
        async def fail(items: list[int]) -> list[Any]:
            return [ValueError(), TypeError()]

        with pytest.raises(RunFailed) as caught:
            await BatchedExecutor[int, int].of_batches(fail, on_error="raise", clock=clock).run([1, 2])
        types, values = caught.value.split(TypeError)
        assert isinstance(types, RunFailed)
        assert isinstance(values, RunFailed)
        assert [[type(error) for error in part.exceptions] for part in (types, values)] == [
            [TypeError],
            [ValueError],
        ]
        assert types.report.failed == 2
        assert isinstance(types, BatchkitError)

    async def test_map_gives_what_went_well_and_then_raises(self, work: Work, clock: ManualClock) -> None:
        seen: list[int] = []

        async def read() -> None:
            executor = BatchedExecutor(work.one, concurrency=1, on_error="raise", clock=clock)
            async with executor.map([1, 2, 13, 4]) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome.item)  # noqa: PERF401  # what came before the error counts

        with pytest.raises(RunFailed) as caught:
            await clock.run(read())
        assert seen == [1, 2]
        assert states(caught.value.report) == {13: "error", 4: "not started"}

    async def test_what_is_mended_by_another_call_stops_nothing(self, clock: ManualClock) -> None:
        calls = 0

        async def flaky(item: int) -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise Down
            return item

        executor = BatchedExecutor(flaky, retry=Retry(), on_error="raise", clock=clock)
        report = await clock.run(executor.run([1, 2]))
        assert report.succeeded == 2


class TestClosed:
    async def test_what_was_not_read_is_left_with_what_did_not_start(
        self, work: Work, clock: ManualClock, hook: RecordingHook
    ) -> None:
        executor = BatchedExecutor(work.one, concurrency=3, hooks=[hook], priority=lambda _: 0, clock=clock)
        async with executor.map([1, 1, 50, 60]) as outcomes:
            await clock.run(anext(outcomes))
        assert [(outcome.item, outcome.state) for outcome in outcomes.left] == [
            (1, "value"),
            (50, "error"),
            (60, "error"),
        ]
        assert len(hook.of(ItemFinished)) == 2
        assert hook.of(RunFinished)[0].report.items == 4

    async def test_a_run_that_is_cancelled_says_by_its_event_what_did_not_start(
        self, work: Work, clock: ManualClock, hook: RecordingHook
    ) -> None:
        executor = BatchedExecutor(work.one, concurrency=1, hooks=[hook], priority=lambda _: 0, clock=clock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(executor.run, [50, 60, 70])
            await settle()
            tasks.cancel_scope.cancel()
        report = hook.of(RunFinished)[0].report
        assert [(outcome.item, outcome.state) for outcome in report.outcomes] == [
            (60, "not started"),
            (70, "not started"),
        ]
        assert (report.failed, report.not_started) == (1, 2)

    @pytest.mark.parametrize("way", ["drain", "close", "raise", "deadline", "end"])
    async def test_no_task_is_left(self, way: str, work: Work, clock: ManualClock) -> None:
        before = running_tasks()
        executor = BatchedExecutor(
            work.one, timeout=500, on_error="raise" if way == "raise" else "collect", clock=clock
        )
        items = trickle(clock, [13, *range(20, 40)], every=0)
        outcomes = executor.map(items, deadline=15 if way == "deadline" else None)

        async def use() -> None:
            async with outcomes:
                await clock.sleep(1)
                if way == "drain":
                    outcomes.drain(1)
                if way != "close":
                    try:
                        await outcomes.collect()
                    except RunFailed:
                        assert way == "raise"

        await clock.run(use())
        await items.aclose()  # type: ignore[attr-defined]  # it is a generator, which the test closes
        await settle()
        assert running_tasks() == before
        assert work.now_running == 0


def running_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living

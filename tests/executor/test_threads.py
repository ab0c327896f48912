"""Plain functions: in threads beside an event loop, and without any loop at all."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from batchkit import (
    BatchedExecutor,
    CallCancelled,
    ItemFinished,
    NotStarted,
    RunFailed,
    RunFinished,
    SyncOutcomeStream,
    TokenBucket,
    TTLCache,
    current_call,
    drain_on_signal,
)
from batchkit.retries import Retry, exponential
from batchkit.testing import ManualClock, RecordingHook
from tests.executor.helpers import Down, trickle
from tests.helpers import DEADLINE, eventually, threads

AT_ONCE = exponential(first=0, most=0)
names: ContextVar[str] = ContextVar("names", default="nobody")


class Gate:
    """A plain function whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened = threading.Event()
        self.started: list[Any] = []
        self.running = 0
        self.most_running = 0

    def __call__(self, item: Any) -> Any:
        with self.lock:
            self.started.append(item)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            assert self.opened.wait(DEADLINE)
        finally:
            with self.lock:
                self.running -= 1
        return item


def double(item: int) -> int:
    if item == 13:
        raise ValueError("thirteen")
    return item * 2


def double_all(items: list[int]) -> list[int]:
    return [double(item) for item in items]


def batchkit_threads() -> list[str]:
    """Those of executors; a cache or a limiter of another test may be about to be collected, with its own."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("batchkit ") and name != "batchkit sweep"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    eventually(lambda: not batchkit_threads())


class TestInAnEventLoop:
    pytestmark = pytest.mark.anyio

    async def test_a_plain_function_runs_in_threads(self) -> None:
        gate = Gate()
        executor = BatchedExecutor(gate, concurrency=3)
        async with executor.map(range(10)) as outcomes, anyio.create_task_group() as tasks:

            async def let_go() -> None:
                await anyio.to_thread.run_sync(eventually, lambda: len(gate.started) == 3)
                gate.opened.set()

            tasks.start_soon(let_go)
            assert (await outcomes.collect()).succeeded == 10
        assert gate.most_running == 3

    async def test_as_many_at_once_as_is_asked_for_whatever_others_do(self) -> None:
        gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(BatchedExecutor(gate, concurrency=60).run, range(60))
            await anyio.to_thread.run_sync(eventually, lambda: gate.running == 60)
            gate.opened.set()

    async def test_a_plain_function_of_batches(self) -> None:
        executor = BatchedExecutor.of_batches(double_all, batch_size=5)
        report = await executor.run(range(10, 20), ordered=True)
        assert [outcome.value for outcome in report.outcomes if outcome.ok] == [
            item * 2 for item in range(10, 20) if item != 13
        ]

    async def test_it_knows_its_call_and_its_context(self) -> None:
        names.set("me")

        def tell(item: int) -> object:
            return current_call().keys, names.get()

        executor = BatchedExecutor(tell, key=str, name="x")
        report = await executor.run([7])
        assert report.outcomes[0].value == (("7",), "me")

    async def test_cancelling_waits_for_the_calls_under_way(self) -> None:
        gate = Gate()
        executor = BatchedExecutor(gate, concurrency=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(executor.run, range(5))
            await anyio.to_thread.run_sync(eventually, lambda: gate.running == 2)
            tasks.cancel_scope.cancel()
            threading.Timer(0.01, gate.opened.set).start()
        assert gate.running == 0
        assert sorted(gate.started) == [0, 1]


class TestWithoutALoop:
    def test_every_item_gets_its_outcome(self, hook: RecordingHook) -> None:
        executor = BatchedExecutor(double, concurrency=4, hooks=[hook])
        report = executor.run_sync(range(20), ordered=True)
        assert [outcome.item for outcome in report.outcomes] == [*range(20)]
        assert [outcome.item for outcome in report.outcomes if not outcome.ok] == [13]
        assert (report.succeeded, report.failed, report.calls) == (19, 1, 20)
        assert len(hook.of(ItemFinished)) == 20
        assert hook.of(RunFinished)[0].report.succeeded == 19

    def test_batches_are_split_there_too(self) -> None:
        executor = BatchedExecutor.of_batches(double_all, batch_size=10, concurrency=3)
        report = executor.run_sync(range(100))
        assert [outcome.item for outcome in report.outcomes if not outcome.ok] == [13]
        assert report.calls <= 9 + 1 + 2 * 4

    def test_no_more_calls_at_once_than_is_asked_for(self) -> None:
        gate = Gate()
        executor = BatchedExecutor(gate, concurrency=3)

        def let_go() -> None:
            eventually(lambda: gate.running == 3)
            gate.opened.set()

        with threads(let_go):
            assert executor.run_sync(range(9)).succeeded == 9
        assert gate.most_running == 3

    def test_an_async_function_or_input_needs_a_loop(self, clock: ManualClock) -> None:
        async def ask(item: int) -> int:
            return item

        with pytest.raises(TypeError, match="ask is async: use map or run"):
            BatchedExecutor(ask).run_sync([1])
        with pytest.raises(TypeError, match="an async input needs an event loop"):
            BatchedExecutor(double).run_sync(trickle(clock, [1], 1))  # type: ignore[arg-type]

    def test_the_limiter_is_asked_in_each_thread(self) -> None:
        bucket = TokenBucket(rate=1e6, burst=5)
        executor = BatchedExecutor(double, concurrency=4, limiter=bucket, cost=2, pace=1e6)
        report = executor.run_sync(range(50))
        assert (report.items, bucket.statistics().granted) == (50, 100)

    def test_what_may_go_better_later_is_called_again(self) -> None:
        failed: set[int] = set()

        def flaky(item: int) -> int:
            if item not in failed:
                failed.add(item)
                raise Down
            return item

        executor = BatchedExecutor(flaky, concurrency=2, retry=Retry(backoff=AT_ONCE, budget=None))
        report = executor.run_sync(range(50))
        assert (report.succeeded, report.retries) == (50, 50)

    def test_on_a_clock_that_is_moved_by_hand(self, clock: ManualClock) -> None:
        def slow(item: int) -> int:
            clock.sleep_sync(10)
            return item

        executor = BatchedExecutor(slow, concurrency=2, clock=clock)
        done = threading.Event()

        def move() -> None:
            while not done.is_set():
                clock.advance(1)
                done.wait(0.0005)

        with threads(move):
            report = executor.run_sync(range(4))
            done.set()
        assert report.succeeded == 4
        assert report.seconds >= 20

    def test_a_value_that_was_dropped_from_the_cache_during_its_call_is_not_kept(self) -> None:
        cache: TTLCache[int, int] = TTLCache(maxsize=100, ttl=60)

        def change(item: int) -> int:
            if item == 1:
                cache.delete(1)
            return item

        BatchedExecutor(change, cache=cache).run_sync([1, 2])
        assert cache.get_present([1, 2]) == {2: 2}

    def test_a_cache_and_priorities(self) -> None:
        cache: TTLCache[int, int] = TTLCache(maxsize=100, ttl=60)
        executor = BatchedExecutor(double, concurrency=1, cache=cache, priority=lambda item: item)
        assert [outcome.item for outcome in executor.run_sync([1, 3, 2]).outcomes] == [3, 2, 1]
        report = executor.run_sync([1, 2, 3])
        assert (report.calls, report.cached) == (0, 3)

    def test_the_input_is_read_only_as_far_as_the_window(self) -> None:
        taken = 0

        def endless() -> Iterator[int]:
            nonlocal taken
            while True:
                taken += 1
                yield taken

        with BatchedExecutor(double, concurrency=2).map_sync(endless(), window=7) as outcomes:
            for _, count in zip(outcomes, range(100), strict=False):
                assert taken <= count + 1 + 7 + 1

    def test_an_input_that_blocks_holds_up_no_outcome(self) -> None:
        released = threading.Event()

        def blocks() -> Iterator[int]:
            yield 1
            assert released.wait(DEADLINE)
            yield 2

        with BatchedExecutor(double).map_sync(blocks()) as outcomes:
            assert next(outcomes).value == 2
            released.set()
            assert [outcome.value for outcome in outcomes] == [4]

    def test_an_input_that_fails_is_raised_after_what_is_under_way(self) -> None:
        def failing() -> Iterator[int]:
            yield 5
            raise ZeroDivisionError

        seen: list[Any] = []
        with pytest.raises(ZeroDivisionError):
            seen.extend(outcome.value for outcome in BatchedExecutor(double).map_sync(failing()))
        assert seen == [10]

    def test_items_may_be_added_also_by_the_function(self) -> None:
        def crawl(item: int) -> int:
            if item < 8:
                outcomes.submit(2 * item)
                outcomes.submit(2 * item + 1)
            return item

        outcomes = BatchedExecutor(crawl, concurrency=3).map_sync([1])
        with outcomes:
            assert sorted(outcome.item for outcome in outcomes) == [*range(1, 16)]

    def test_a_run_that_is_kept_open(self) -> None:
        outcomes: SyncOutcomeStream[int, int] = BatchedExecutor(double).map_sync(keep_open=True)
        with outcomes:
            outcomes.submit(1)
            assert next(outcomes).value == 2
            outcomes.submit(2)
            outcomes.end()
            assert [outcome.value for outcome in outcomes] == [4]

    def test_what_is_no_error_of_an_item_ends_the_run(self) -> None:
        def leave(item: int) -> None:
            raise SystemExit

        with pytest.raises(SystemExit):
            BatchedExecutor(leave, concurrency=1).run_sync([1, 2])

    def test_the_first_failure_stops_the_run(self) -> None:
        executor = BatchedExecutor(double, concurrency=1, on_error="raise")
        with pytest.raises(RunFailed) as caught:
            executor.run_sync([1, 13, 2])
        states = {outcome.item: outcome.state for outcome in caught.value.report.outcomes}
        assert states == {1: "value", 13: "error", 2: "not started"}

    def test_closing_waits_for_the_calls_under_way(self) -> None:
        gate = Gate()
        outcomes = BatchedExecutor(gate, concurrency=2).map_sync(range(5))
        with outcomes:
            eventually(lambda: gate.running == 2)
            threading.Timer(0.01, gate.opened.set).start()
        assert gate.running == 0
        assert sorted(outcome.item for outcome in outcomes.left if outcome.ok) == [0, 1]

    def test_draining_lets_calls_finish_and_starts_none(self) -> None:
        gate = Gate()
        with BatchedExecutor(gate, concurrency=2).map_sync(range(5)) as outcomes:
            eventually(lambda: gate.running == 2)
            outcomes.drain()
            gate.opened.set()
            states = {outcome.item: outcome.state for outcome in outcomes}
        assert states == {0: "value", 1: "value", 2: "not started", 3: "not started", 4: "not started"}

    def test_after_its_grace_a_call_is_not_waited_for(self) -> None:
        gate = Gate()
        with BatchedExecutor(gate, concurrency=1).map_sync(range(2)) as outcomes:
            eventually(lambda: gate.running == 1)
            outcomes.drain(grace=0.01)
            cut, never = sorted(outcomes, key=lambda outcome: outcome.index)
        assert isinstance(cut.error, CallCancelled)
        assert isinstance(never.error, NotStarted)
        gate.opened.set()

    def test_nor_after_the_time_of_the_run(self) -> None:
        gate = Gate()
        report = BatchedExecutor(gate, concurrency=1).run_sync(range(2), deadline=0.05)
        assert [type(outcome.error) for outcome in report.outcomes] == [TimeoutError, NotStarted]
        gate.opened.set()

    def test_who_waits_for_permits_does_not_hold_up_the_end(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        with BatchedExecutor(double, concurrency=2, limiter=bucket).map_sync(range(4)) as outcomes:
            assert next(outcomes).item == 0
            eventually(lambda: bucket.statistics().waiting == 2)
            outcomes.drain()
            assert {outcome.state for outcome in outcomes} == {"not started"}

        def is_over() -> bool:
            clock.advance(1)
            return not batchkit_threads()

        eventually(is_over)

    def test_a_stream_that_is_dropped_stops(self) -> None:
        outcomes = BatchedExecutor(double).map_sync(iter(range(10**9)))
        next(outcomes)
        del outcomes
        gc.collect()
        eventually(lambda: not batchkit_threads())

    @pytest.mark.skipif(os.name == "nt", reason="no process sends itself SIGTERM there")
    def test_a_sigterm_drains(self) -> None:
        gate = Gate()
        with (
            BatchedExecutor(gate, concurrency=1).map_sync(range(3)) as outcomes,
            drain_on_signal(outcomes, grace=60),
        ):
            eventually(lambda: gate.running == 1)
            os.kill(os.getpid(), signal.SIGTERM)
            eventually(lambda: outcomes.draining)
            gate.opened.set()
            report = outcomes.collect()
        assert [outcome.state for outcome in report.outcomes] == ["value", "not started", "not started"]

    def test_several_threads_may_read_and_submit(self) -> None:
        outcomes = BatchedExecutor(double, concurrency=4).map_sync(keep_open=True)
        seen: list[int] = []

        def read() -> None:
            seen.extend(outcome.item for outcome in outcomes)

        def submit(start: int) -> None:
            for item in range(start, start + 200):
                outcomes.submit(item)

        with outcomes, threads(read, read, read):
            with threads(*(lambda start=start: submit(start) for start in (1000, 2000, 3000))):
                pass
            outcomes.end()
        assert sorted(seen) == [*range(1000, 1200), *range(2000, 2200), *range(3000, 3200)]

    def test_in_a_thread_beside_a_running_loop(self) -> None:
        async def main() -> int:
            report = await asyncio.to_thread(BatchedExecutor(double).run_sync, range(5))
            return report.succeeded

        assert asyncio.run(main()) == 5


def test_a_stream_that_was_held_up_by_its_window_is_collected_to_its_end() -> None:
    for _ in range(20):
        called = threading.Semaphore(0)

        def ask(item: int, called: threading.Semaphore = called) -> int:
            called.release()
            return item

        with BatchedExecutor(ask, concurrency=2).map_sync(range(40), window=2) as outcomes:
            for _ in range(2):
                assert called.acquire(timeout=30)
            assert outcomes.collect().succeeded == 40

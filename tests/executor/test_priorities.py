"""What goes first, what comes while a run goes on, what needs no call, and how many at once are enough."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from batchkit import BatchedExecutor, RunReport, StreamClosed, TokenBucket, TTLCache
from batchkit.testing import ManualClock, settle
from tests.executor.helpers import Calls, Work, trickle
from tests.helpers import threads

pytestmark = pytest.mark.anyio


class Order:
    """Takes a second for each item, and remembers the order."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.items: list[Any] = []

    async def __call__(self, item: Any) -> Any:
        self.items.append(item)
        await self.clock.sleep(1)
        return item


class TestPriorities:
    async def test_higher_goes_first_among_what_was_read_ahead(self, clock: ManualClock) -> None:
        order = Order(clock)
        executor = BatchedExecutor(order, concurrency=1, priority=lambda item: item % 3, clock=clock)
        await clock.run(executor.run(range(9)))
        assert order.items == [2, 5, 8, 1, 4, 7, 0, 3, 6]

    async def test_low_ones_move_too_since_waiting_counts(self, clock: ManualClock) -> None:
        order = Order(clock)
        executor = BatchedExecutor(
            order, concurrency=1, priority=lambda item: item > 0, patience=5, clock=clock
        )
        async with executor.map([0, 1], keep_open=True) as outcomes, anyio.create_task_group() as tasks:
            tasks.start_soon(outcomes.collect)
            for item in range(2, 20):  # users without end
                outcomes.submit(item)
                await clock.run_for(1)
            outcomes.end()
            await clock.run_for(20)
        assert 5 <= order.items.index(0) <= 8

    async def test_the_limiter_hears_of_it(self, clock: ManualClock) -> None:
        order = Order(clock)
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        executor = BatchedExecutor(
            order, concurrency=10, limiter=bucket, priority=lambda item: item, clock=clock
        )
        await clock.run(executor.run([0, 0, 5, 1]))
        assert order.items == [5, 1, 0, 0]

    async def test_a_batch_takes_the_most_urgent_first(self, clock: ManualClock) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(
            calls, batch_size=2, concurrency=1, priority=lambda item: item, clock=clock
        )
        await clock.run(executor.run([1, 3, 2, 4]))
        assert calls.made == [[4, 3], [2, 1]]


class TestSubmit:
    async def test_items_may_be_added_while_a_run_goes_on(self, work: Work, clock: ManualClock) -> None:
        seen: list[tuple[int, int]] = []

        async def read() -> None:
            async with BatchedExecutor(work.one, clock=clock).map([1, 2]) as outcomes:
                async for outcome in outcomes:
                    seen.append((outcome.index, outcome.item))
                    if outcome.item == 1:
                        outcomes.submit(3)

        await clock.run(read())
        assert seen == [(0, 1), (1, 2), (2, 3)]
        assert clock.now() == 4

    async def test_the_function_itself_may_add_items(self, clock: ManualClock) -> None:
        links = {"/": ["/a", "/b"], "/a": ["/c"], "/b": [], "/c": []}
        seen: list[str] = []

        async def crawl(page: str) -> None:
            await clock.sleep(1)
            for link in links[page]:
                outcomes.submit(link)
            seen.append(page)

        outcomes = BatchedExecutor(crawl, clock=clock).map(["/"])
        report = await clock.run(outcomes.collect())
        assert (sorted(seen), report.succeeded, report.seconds) == (["/", "/a", "/b", "/c"], 4, 3)

    async def test_a_run_without_an_input_waits_for_items_until_it_is_ended(self, clock: ManualClock) -> None:
        order = Order(clock)
        reports: list[RunReport[str, str]] = []
        outcomes = BatchedExecutor(order, concurrency=1, clock=clock).map(keep_open=True)

        async def collect() -> None:
            reports.append(await outcomes.collect())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            await clock.run_for(10)
            for item in "bulk", "bulk", "bulk":
                outcomes.submit(item)
            await clock.run_for(0.5)
            outcomes.submit("urgent", priority=1)
            assert outcomes.waiting == 3
            await clock.run_for(10)
            assert reports == []
            outcomes.end()
        assert order.items == ["bulk", "urgent", "bulk", "bulk"]
        assert reports[0].succeeded == 4

    async def test_from_another_thread(self, clock: ManualClock) -> None:
        order = Order(clock)
        outcomes = BatchedExecutor(order, clock=clock).map(keep_open=True)

        def feed() -> None:
            for item in range(100):
                outcomes.submit(item)
            outcomes.end()

        async with outcomes, anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, feed)
            report = await clock.run(outcomes.collect())
            assert report.succeeded == 100
        assert sorted(order.items) == [*range(100)]

    async def test_a_batch_of_submitted_items_does_not_wait_for_ever(self, clock: ManualClock) -> None:
        calls = Calls(clock)
        outcomes = BatchedExecutor.of_batches(calls, batch_size=10, max_wait=0.5, clock=clock).map(
            keep_open=True
        )
        async with outcomes:
            for item in range(3):
                outcomes.submit(item)
            await clock.run_for(2)
            assert calls.made == [[0, 1, 2]]
            assert calls.times == [0.5]

    async def test_before_the_run_began(self, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([1])
        outcomes.submit(2)
        report = await clock.run(outcomes.collect())
        assert [outcome.item for outcome in report.outcomes] == [1, 2]

    @pytest.mark.parametrize("how", ["read", "closed", "drained"])
    async def test_a_run_that_ends_takes_no_more(self, how: str, work: Work, clock: ManualClock) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([1])
        if how == "read":
            await clock.run(outcomes.collect())
        elif how == "closed":
            await outcomes.aclose()
        else:
            outcomes.drain()
        with pytest.raises(StreamClosed, match="takes no further items"):
            outcomes.submit(2)

    async def test_an_item_that_comes_in_the_moment_of_the_end_is_not_lost(
        self, work: Work, clock: ManualClock
    ) -> None:
        outcomes = BatchedExecutor(work.one, clock=clock).map([1])
        async with outcomes:
            await settle()
            with threads(partial(outcomes.submit, 2)):  # accepted, and not in the loop yet
                pass
            await outcomes.aclose()
        await settle()
        assert sorted(outcome.item for outcome in outcomes.left) == [1, 2]


class TestKeys:
    async def test_a_value_that_the_cache_has_needs_no_call(self, clock: ManualClock) -> None:
        order = Order(clock)
        bucket = TokenBucket(rate=1, burst=10, clock=clock)
        cache: TTLCache[str, str] = TTLCache(maxsize=10, ttl=60, clock=clock)
        cache.set("a", "A")
        executor = BatchedExecutor(order, cache=cache, limiter=bucket, clock=clock)
        report = await clock.run(executor.run("ab", ordered=True))
        assert [(outcome.value, outcome.attempts) for outcome in report.outcomes] == [("A", 0), ("b", 1)]
        assert (report.calls, report.cached, report.succeeded) == (1, 1, 2)
        assert bucket.statistics().granted == 1
        assert cache.get("b") == "b"

    async def test_a_value_that_was_dropped_from_the_cache_during_its_call_is_not_kept(
        self, clock: ManualClock
    ) -> None:
        cache: TTLCache[int, int] = TTLCache(maxsize=10, ttl=60, clock=clock)
        executor = BatchedExecutor.of_batches(Calls(clock), batch_size=2, cache=cache, clock=clock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(executor.run, [1, 2])
            await clock.run_for(0.5)
            cache.delete(1)
            await clock.run_for(1)
        assert cache.get_present([1, 2]) == {2: 2}

    async def test_none_is_a_value_and_an_error_is_not_kept(self, clock: ManualClock) -> None:
        calls = 0

        async def nothing(item: str) -> None:
            nonlocal calls
            calls += 1
            if item == "bad":
                raise ValueError

        cache: TTLCache[str, None] = TTLCache(maxsize=10, ttl=60, clock=clock)
        executor = BatchedExecutor(nothing, cache=cache, clock=clock)
        await clock.run(executor.run(["good", "bad"]))
        report = await clock.run(executor.run(["good", "bad"]))
        assert (calls, report.cached, report.failed) == (3, 1, 1)

    async def test_items_with_the_same_key_share_a_call(self, clock: ManualClock) -> None:
        calls = Calls(clock, bad=["x"])
        executor = BatchedExecutor.of_batches(calls, key=str.lower, batch_size=2, clock=clock)
        report = await clock.run(executor.run(["a", "A", "b", "a", "x", "X"], ordered=True))
        assert calls.made[:2] == [["a", "b"], ["x"]]
        assert [outcome.value for outcome in report.outcomes] == ["a", "a", "b", "a", None, None]
        assert [outcome.attempts for outcome in report.outcomes] == [1, 0, 1, 0, 1, 0]
        assert report.outcomes[4].error is report.outcomes[5].error

    async def test_so_do_those_of_a_function_of_one_item(self, clock: ManualClock) -> None:
        called: list[str] = []

        async def ask(item: str) -> str:
            called.append(item)
            await clock.sleep(1)
            return item

        executor = BatchedExecutor(ask, key=str.lower, clock=clock)
        report = await clock.run(executor.run(["a", "A", "b"], ordered=True))
        assert called == ["a", "b"]
        assert [outcome.value for outcome in report.outcomes] == ["a", "a", "b"]

    async def test_a_batch_has_only_what_is_missing(self, clock: ManualClock) -> None:
        calls = Calls(clock)
        cache: TTLCache[int, int] = TTLCache(maxsize=100, ttl=60, clock=clock)
        for item in range(0, 20, 2):
            cache.set(item, item)
        executor = BatchedExecutor.of_batches(calls, batch_size=5, cache=cache, concurrency=1, clock=clock)
        report = await clock.run(executor.run(range(20)))
        assert calls.made == [[1, 3, 5, 7, 9], [11, 13, 15, 17, 19]]
        assert report.cached == 10


class TestFoundConcurrency:
    async def test_with_a_quota_it_is_what_rate_and_latency_need(self, clock: ManualClock) -> None:
        running, most = 0, 0

        async def call(item: int) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await clock.sleep(0.5)
            running -= 1

        bucket = TokenBucket(rate=20, burst=1, clock=clock)
        executor = BatchedExecutor(call, concurrency=(1, 100), limiter=bucket, clock=clock)
        report = await clock.run(executor.run(range(1000)))
        assert 10 <= most <= 16  # 20 a second for half a second each
        assert report.seconds <= 1.1 * 1000 / 20
        assert report.limited_by == "quota"

    async def test_without_one_it_grows_as_long_as_that_helps(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor(work.one, concurrency=(2, 30), clock=clock)
        await clock.run(executor.run([1] * 500))
        assert work.most_running == 30

    async def test_a_slow_input_takes_few(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor(work.one, concurrency=(2, 30), clock=clock)
        await clock.run(executor.run(trickle(clock, [1] * 100, every=1)))
        assert work.most_running <= 3

    async def test_who_is_one_too_many_waits_for_a_call_to_end_and_not_for_a_moment(
        self, clock: ManualClock
    ) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(
            calls, batch_size=2, concurrency=(1, 4), max_wait=0.1, clock=clock
        )
        async with executor.map(keep_open=True) as outcomes:
            for item in range(3):
                outcomes.submit(item)
            await clock.run_for(0.9)  # the third item is due, and only one call at once is allowed
            assert calls.made == [[0, 1]]
            await clock.run_for(1)
            assert calls.made == [[0, 1], [2]]

"""Functions of batches: how large a batch is, who shares one, and what becomes of a failed one."""

from __future__ import annotations

import random
from itertools import combinations
from math import ceil, log2
from typing import Any

import pytest

from batchkit import (
    BatchedExecutor,
    BatchFailed,
    BatchSplit,
    LimiterUnavailable,
    TokenBucket,
    batched,
)
from batchkit._core.agenda import Agenda, Job, Sizes
from batchkit._dispatch import Attempt
from batchkit._options import plan_for_batches
from batchkit._running.plan import Plan
from batchkit._running.verdicts import ruling
from batchkit.retries import Retry
from batchkit.testing import ManualClock, RecordingHook
from tests.executor.helpers import Calls, TooFast, Work, trickle

pytestmark = pytest.mark.anyio
BAD = ValueError("bad")


async def test_many_items_become_few_calls(work: Work, clock: ManualClock) -> None:
    executor = BatchedExecutor.of_batches(work.many, batch_size=10, concurrency=2, clock=clock)
    report = await clock.run(executor.run(range(20, 45), ordered=True))
    assert [size for _, size in work.starts] == [10, 10, 5]
    assert [outcome.value for outcome in report.outcomes] == [item * 2 for item in range(20, 45)]
    assert report.seconds == 2


async def test_a_failed_batch_is_split_until_the_bad_item_stands_alone(
    work: Work, clock: ManualClock, hook: RecordingHook
) -> None:
    executor = BatchedExecutor.of_batches(work.many, batch_size=10, hooks=[hook], clock=clock)
    report = await clock.run(executor.run(range(10, 20), ordered=True))
    assert [outcome.item for outcome in report.outcomes if not outcome.ok] == [13]
    assert report.calls <= 1 + 2 * 4
    assert report.splits == len(hook.of(BatchSplit)) == (report.calls - 1) // 2
    assert report.outcomes[3].attempts > 2


async def test_an_answer_of_the_wrong_length_is_a_failed_batch(clock: ManualClock) -> None:
    async def drop_thirteen(items: list[int]) -> list[int]:
        return [item for item in items if item != 13]

    executor = BatchedExecutor.of_batches(drop_thirteen, clock=clock)
    report = await clock.run(executor.run(range(10, 20), ordered=True))
    assert [outcome.item for outcome in report.outcomes if not outcome.ok] == [13]
    assert isinstance(report.outcomes[3].error, BatchFailed)


async def test_an_exception_as_a_value_is_the_error_of_that_item(clock: ManualClock) -> None:
    async def halve(items: list[int]) -> list[int | Exception]:
        return [item // 2 if item % 2 == 0 else ValueError("odd") for item in items]

    executor = BatchedExecutor[int, int].of_batches(halve, clock=clock)
    report = await clock.run(executor.run([4, 5], ordered=True))
    assert [(outcome.value, outcome.ok) for outcome in report.outcomes] == [(2, True), (None, False)]
    assert report.calls == 1


async def test_batched_makes_an_executor_of_a_function(clock: ManualClock) -> None:
    @batched(batch_size=2, clock=clock)
    async def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    report = await clock.run(double.run([1, 2, 3]))
    assert (report.name, report.calls, report.succeeded) == ("double", 2, 3)
    assert repr(double) == "BatchedExecutor(name='double', concurrency=10)"


def calls_for(plan: Plan, size: int, bad: int) -> int:
    """Calls for a batch in which the items of the bits of `bad` are bad, as rulings have it."""
    agenda: Agenda[int] = Agenda(Sizes(size, size))
    for index in range(size):
        agenda.add(Job(index, index))
    calls, failed = 0, 0
    while batch := agenda.next(0):
        calls += 1
        spoilt = any(bad >> job.index & 1 for job in batch.jobs)
        attempt = Attempt(None, BAD) if spoilt else Attempt([job.item for job in batch.jobs], None)
        ruled = ruling(plan, batch, attempt, 0)
        for part in ruled.parts:
            agenda.put_back(part)
        for job, done in ruled.done:
            assert done.ok == (not bad >> job.index & 1)
            failed += not done.ok
    assert failed == bad.bit_count()
    return calls


class TestSizes:
    async def test_the_most_weight_bounds_a_batch_and_what_is_heavier_stands_alone(
        self, clock: ManualClock
    ) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(
            calls, batch_size=4, max_weight=10, weight=float, concurrency=1, clock=clock
        )
        report = await clock.run(executor.run([4, 5, 3, 25, 1, 1, 1, 1, 1], ordered=True))
        assert calls.made == [[4, 5], [3], [25], [1, 1, 1, 1], [1]]
        assert report.succeeded == 9

    @pytest.mark.parametrize(("items", "sizes"), [(3, [2, 1]), (10, [5, 5]), (60, [20, 20, 20])])
    async def test_by_queue_depth_between_bounds(
        self, clock: ManualClock, items: int, sizes: list[int]
    ) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(calls, batch_size=(2, 20), concurrency=2, clock=clock)
        await clock.run(executor.run(range(items)))
        assert calls.sizes == sizes

    async def test_similar_items_share_a_batch(self, clock: ManualClock) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(
            calls, batch_size=3, group_by=lambda item: item % 2, concurrency=1, clock=clock
        )
        report = await clock.run(executor.run(range(12), ordered=True))
        assert calls.made == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]
        assert [outcome.value for outcome in report.outcomes] == [*range(12)]

    async def test_a_rare_group_is_not_held_back_for_ever(self, clock: ManualClock) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(
            calls, batch_size=2, group_by=lambda item: item == 0, concurrency=1, max_wait=None, clock=clock
        )
        async with executor.map(range(10_000)) as outcomes:

            async def read() -> int:
                count = 0
                async for outcome in outcomes:
                    count += 1
                    if outcome.item == 0:
                        return count
                return 0

            assert 0 < await clock.run(read()) <= 25

    async def test_a_batch_that_is_not_full_waits_a_second_for_an_input_that_trickles(
        self, clock: ManualClock
    ) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(calls, batch_size=3, clock=clock)
        await clock.run(executor.run(trickle(clock, range(5), every=0.75)))
        assert calls.made == [[0, 1], [2, 3], [4]]
        assert calls.times[:2] == [1.75, 3.25]

    async def test_it_may_be_asked_to_wait_as_long_as_it_takes(self, clock: ManualClock) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(calls, batch_size=3, max_wait=None, clock=clock)
        await clock.run(executor.run(trickle(clock, range(5), every=60)))
        assert calls.sizes == [3, 2]

    async def test_while_all_calls_are_busy_a_batch_goes_on_filling(self, clock: ManualClock) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(calls, batch_size=10, concurrency=1, max_wait=0.1, clock=clock)
        await clock.run(executor.run(trickle(clock, range(9), every=0.2)))
        assert calls.made == [[0], [1, 2, 3, 4, 5], [6, 7, 8]]

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"max_weight": 3}, "belong together"),
            ({"weight": float}, "belong together"),
            ({"weight": float, "max_weight": 0}, "max_weight is a number above 0"),
            ({"batch_size": (3, 2)}, "batch_size is a number, or the least and the most"),
            ({"batch_size": (0, 2)}, "batch_size is a whole number"),
            ({"max_wait": -1}, "max_wait is a number of seconds"),
        ],
    )
    def test_sizes_that_are_none(self, clock: ManualClock, wrong: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            BatchedExecutor[Any, Any].of_batches(Calls(clock), **wrong)

    def test_a_barrier_is_for_functions_of_one_item(self, clock: ManualClock) -> None:
        options: Any = {"barrier": True}
        with pytest.raises(TypeError, match="barrier"):
            BatchedExecutor[Any, Any].of_batches(Calls(clock), **options)

    async def test_a_function_of_an_item_that_raises_is_the_error_of_that_item(
        self, clock: ManualClock
    ) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(
            calls, batch_size=3, max_weight=3, weight=lambda item: 1 / item, clock=clock
        )
        report = await clock.run(executor.run([1, 0, 1], ordered=True))
        assert [outcome.ok for outcome in report.outcomes] == [True, False, True]
        assert isinstance(report.outcomes[1].error, ZeroDivisionError)
        assert report.outcomes[1].attempts == 0


class TestSplitting:
    @pytest.mark.parametrize("size", range(2, 15))
    def test_k_bad_items_of_up_to_14_cost_few_calls(self, size: int, clock: ManualClock) -> None:
        """Of the largest a thousand sets, for the tests of the core try all."""
        plan = plan_for_batches(Calls(clock), priority=0)
        for bad in random.Random(size).sample(range(2**size), min(2**size, 1000)):
            assert calls_for(plan, size, bad) <= 1 + 2 * bad.bit_count() * ceil(log2(size))

    @pytest.mark.parametrize("size", range(1, 10))
    async def test_k_bad_items_cost_few_calls_whichever_they_are(self, size: int, clock: ManualClock) -> None:
        """All sets of bad items in one run: each batch has a set of its own."""
        sets = [{*bad} for count in range(size + 1) for bad in combinations(range(size), count)]
        made = [0] * len(sets)

        async def function(items: list[tuple[int, int]]) -> list[tuple[int, int]]:
            made[items[0][0]] += 1
            if any(number in sets[batch] for batch, number in items):
                raise ValueError("bad")
            return items

        executor = BatchedExecutor.of_batches(function, batch_size=size, concurrency=3, clock=clock)
        report = await executor.run([(batch, number) for batch in range(len(sets)) for number in range(size)])
        failed = {outcome.item for outcome in report.outcomes if not outcome.ok}
        assert failed == {(batch, number) for batch, bad in enumerate(sets) for number in bad}
        assert report.items == size * len(sets)
        for bad, calls in zip(sets, made, strict=True):
            assert calls <= (1 + 2 * len(bad) * ceil(log2(size)) if size > 1 else 1)

    async def test_halves_are_called_side_by_side(self, clock: ManualClock) -> None:
        calls = Calls(clock, bad=[0])
        executor = BatchedExecutor.of_batches(calls, batch_size=4, concurrency=2, clock=clock)
        await clock.run(executor.run(range(4)))
        assert calls.times == [0, 1, 1, 2, 2]

    async def test_they_go_before_what_came_later(self, clock: ManualClock) -> None:
        calls = Calls(clock, bad=[0])
        executor = BatchedExecutor.of_batches(calls, batch_size=4, concurrency=1, clock=clock)
        await clock.run(executor.run(range(8)))
        assert calls.made == [[0, 1, 2, 3], [0, 1], [0], [1], [2, 3], [4, 5, 6, 7]]

    async def test_a_batch_that_was_refused_for_coming_too_fast_is_not_split(
        self, clock: ManualClock
    ) -> None:
        async def refuse(items: list[int]) -> list[int]:
            raise TooFast

        executor = BatchedExecutor[int, int].of_batches(refuse, batch_size=8, clock=clock)
        report = await clock.run(executor.run(range(8)))
        assert (report.calls, report.splits, report.failed) == (1, 0, 8)

    async def test_nor_is_one_whose_limiter_is_not_available(self, clock: ManualClock) -> None:
        class Gone(TokenBucket):
            def permit(self, *args: Any, **named: Any) -> Any:
                raise LimiterUnavailable("gone")

        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(
            calls, batch_size=8, limiter=Gone(1, 1, clock=clock), clock=clock
        )
        report = await clock.run(executor.run(range(8)))
        assert (report.calls, report.splits, report.failed) == (0, 0, 8)

    async def test_a_cost_that_is_too_high_for_the_whole_is_paid_for_the_halves(
        self, clock: ManualClock
    ) -> None:
        calls = Calls(clock)
        bucket = TokenBucket(rate=10, burst=4, clock=clock)
        executor = BatchedExecutor.of_batches(calls, batch_size=8, limiter=bucket, cost=len, clock=clock)
        report = await clock.run(executor.run(range(8)))
        assert (calls.sizes, report.succeeded) == ([4, 4], 8)

    async def test_what_may_go_better_later_is_called_again_as_it_is(self, clock: ManualClock) -> None:
        tries = 0

        async def recover(items: list[int]) -> list[int]:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ConnectionError
            return items

        executor = BatchedExecutor.of_batches(recover, batch_size=8, retry=Retry(), clock=clock)
        report = await clock.run(executor.run(range(8)))
        assert (report.calls, report.splits, report.retries, report.succeeded) == (3, 0, 2, 8)
        assert {outcome.attempts for outcome in report.outcomes} == {3}

    async def test_when_that_is_given_up_it_is_split_so_that_nobody_is_spoilt(
        self, clock: ManualClock
    ) -> None:
        calls = 0

        async def choke(items: list[int]) -> list[int]:
            nonlocal calls
            calls += 1
            if 3 in items:
                raise ConnectionError  # a server that dies of an item
            return items

        executor = BatchedExecutor.of_batches(choke, batch_size=8, retry=Retry(attempts=2), clock=clock)
        report = await clock.run(executor.run(range(8)))
        assert [outcome.item for outcome in report.outcomes if not outcome.ok] == [3]
        assert calls == 11  # twice on each of four levels, and once for each sound half

    async def test_an_exception_as_a_value_that_may_go_better_is_called_again_alone(
        self, clock: ManualClock
    ) -> None:
        made: list[list[int]] = []

        async def flaky(items: list[int]) -> list[int | Exception]:
            made.append([*items])
            return [TooFast() if item < 2 and len(made) == 1 else item for item in items]

        executor = BatchedExecutor[int, int].of_batches(flaky, batch_size=4, retry=Retry(), clock=clock)
        report = await clock.run(executor.run(range(4), ordered=True))
        assert made == [[0, 1, 2, 3], [0, 1]]
        assert [outcome.attempts for outcome in report.outcomes] == [2, 2, 1, 1]
        assert report.succeeded == 4

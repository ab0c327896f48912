"""Calls that are made again after a failure, and how long a call, an item and a run may take."""

from __future__ import annotations

from typing import Any

import pytest

from batchkit import (
    AcquireTimeout,
    BatchedExecutor,
    ItemRetried,
    Throttled,
    TokenBucket,
    current_call,
)
from batchkit.breaker import CircuitBreaker
from batchkit.retries import Retry, RetryBudget, exponential
from batchkit.testing import ManualClock, RecordingHook
from tests.executor.helpers import Calls, Down, TooFast, Work

pytestmark = pytest.mark.anyio

STEADY = exponential(first=2, most=2, jitter="none")


class Flaky:
    """Fails the first calls of each item, and says when it was called."""

    def __init__(self, clock: ManualClock, failures: int, error: type[Exception] = Down) -> None:
        self.clock = clock
        self.failures = failures
        self.error = error
        self.made: list[tuple[float, Any]] = []

    async def __call__(self, item: Any) -> Any:
        self.made.append((self.clock.now(), item))
        await self.clock.sleep(1)
        if sum(item == other for _, other in self.made) <= self.failures:
            raise self.error
        return item


class TestRetries:
    async def test_a_call_that_may_go_better_later_is_made_again(
        self, clock: ManualClock, hook: RecordingHook
    ) -> None:
        flaky = Flaky(clock, failures=2)
        executor = BatchedExecutor(flaky, name="ask", retry=Retry(backoff=STEADY), hooks=[hook], clock=clock)
        report = await clock.run(executor.run("a"))
        assert flaky.made == [(0, "a"), (3, "a"), (6, "a")]
        assert (report.outcomes[0].value, report.outcomes[0].attempts) == ("a", 3)
        assert (report.calls, report.retries) == (3, 2)
        told = [(event.index, event.attempt, event.delay) for event in hook.of(ItemRetried)]
        assert told == [(0, 1, 2), (0, 2, 2)]

    async def test_when_it_is_given_up_the_last_error_is_the_items(self, clock: ManualClock) -> None:
        executor = BatchedExecutor(Flaky(clock, 9), retry=Retry(attempts=2), clock=clock)
        report = await clock.run(executor.run("a"))
        assert (report.failed, report.outcomes[0].attempts) == (1, 2)
        assert isinstance(report.outcomes[0].error, Down)

    async def test_what_no_waiting_mends_is_not_called_again(self, clock: ManualClock) -> None:
        report = await clock.run(
            BatchedExecutor(Flaky(clock, 9, ValueError), retry=Retry(), clock=clock).run("a")
        )
        assert report.calls == 1

    async def test_who_waits_to_be_called_again_keeps_no_slot(self, clock: ManualClock) -> None:
        flaky = Flaky(clock, failures=1)
        executor = BatchedExecutor(flaky, concurrency=1, retry=Retry(backoff=STEADY), clock=clock)
        report = await clock.run(executor.run("abcd"))
        assert "".join(item for _, item in flaky.made) == "abcabcdd"  # who came first goes first, once due
        assert [moment for moment, _ in flaky.made] == [0, 1, 2, 3, 4, 5, 6, 9]
        assert report.succeeded == 4

    async def test_but_no_more_items_are_taken_than_are_kept_under_way(self, clock: ManualClock) -> None:
        taken = 0

        def endless() -> Any:
            nonlocal taken
            while True:
                taken += 1
                yield taken

        slow = exponential(first=1e6, most=1e6, jitter="none")
        executor = BatchedExecutor(
            Flaky(clock, 1), concurrency=2, retry=Retry(backoff=slow, budget=None), clock=clock
        )
        async with executor.map(endless(), window=10_000):
            await clock.run_for(1000)
            assert taken == 20

    async def test_each_attempt_takes_its_own_permits(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=3, clock=clock)
        executor = BatchedExecutor(Flaky(clock, 2), retry=Retry(), limiter=bucket, cost=3, clock=clock)
        await clock.run(executor.run("a"))
        assert bucket.statistics().granted == 9

    async def test_a_refusal_is_told_and_its_retry_after_is_obeyed(
        self, clock: ManualClock, hook: RecordingHook
    ) -> None:
        class Refused(TooFast):
            headers = {"retry-after": "7"}  # noqa: RUF012 - a class of a client

        flaky = Flaky(clock, 1, Refused)
        executor = BatchedExecutor(flaky, retry=Retry(), hooks=[hook], clock=clock)
        await clock.run(executor.run("a"))
        assert flaky.made == [(0, "a"), (8, "a")]
        assert [event.retry_after for event in hook.of(Throttled)] == [7]

    async def test_the_budget_learns_of_calls_that_went_well(self, clock: ManualClock) -> None:
        budget = RetryBudget(size=10, gain=1)
        executor = BatchedExecutor(Flaky(clock, 1), retry=Retry(budget=budget), clock=clock)
        await clock.run(executor.run("abc"))
        assert budget.left == 10

    async def test_waiting_to_call_again_is_named_as_what_held_the_run_back(self, clock: ManualClock) -> None:
        slow = exponential(first=100, most=100, jitter="none")
        executor = BatchedExecutor(Flaky(clock, 1), concurrency=2, retry=Retry(backoff=slow), clock=clock)
        report = await clock.run(executor.run("ab"))
        assert report.limited_by == "retries"
        assert "look at the errors" in report.advice

    async def test_the_function_may_ask_which_call_it_is(self, clock: ManualClock) -> None:
        asked: list[Any] = []

        async def ask(item: str) -> str:
            asked.append(current_call())
            if len(asked) < 3:
                raise Down
            return item

        executor = BatchedExecutor(
            ask, key=lambda item: f"card-{item}", retry=Retry(), name="ask", clock=clock
        )
        await clock.run(executor.run("a"))
        assert [call.attempt for call in asked] == [1, 2, 3]
        assert {call.keys for call in asked} == {("card-a",)}
        assert len({call.idempotency_key for call in asked}) == 1
        await clock.run(executor.run("a"))
        assert asked[0].idempotency_key == asked[-1].idempotency_key

    async def test_without_keys_no_other_run_has_the_same_calls(self, clock: ManualClock) -> None:
        keys: list[str] = []

        async def ask(items: list[str]) -> list[str]:
            keys.append(current_call().idempotency_key)
            return items

        async def ask_one(item: str) -> None:
            keys.append(current_call().idempotency_key)

        for executor in (
            BatchedExecutor.of_batches(ask, batch_size=2, clock=clock),
            BatchedExecutor[Any, Any](ask_one, clock=clock),
        ):
            for _ in range(2):
                await clock.run(executor.run("abcd"))
        assert len(set(keys)) == len(keys) == 12


class TestBreaker:
    async def test_a_service_that_is_down_is_left_alone_and_the_items_wait(self, clock: ManualClock) -> None:
        made: list[float] = []

        async def ask(item: int) -> int:
            made.append(clock.now())
            await clock.sleep(1)
            if clock.now() < 60:
                raise Down
            return item

        breaker = CircuitBreaker(failures=3, reset_after=30)
        executor = BatchedExecutor(ask, concurrency=1, breaker=breaker, clock=clock)
        report = await clock.run(executor.run(range(100)))
        assert made[:6] == [0, 1, 2, 33, 64, 65]
        assert (report.failed, report.succeeded) == (4, 96)
        assert breaker.state == "closed"
        assert report.limited_by == "retries"

    async def test_what_is_called_again_counts_as_the_calls_that_it_is(self, clock: ManualClock) -> None:
        made: list[float] = []

        async def ask(item: int) -> int:
            made.append(clock.now())
            if len(made) < 3:
                raise Down
            return item

        executor = BatchedExecutor(
            ask,
            concurrency=1,
            breaker=CircuitBreaker(failures=2, reset_after=30),
            retry=Retry(backoff=STEADY),
            clock=clock,
        )
        report = await clock.run(executor.run([1]))
        assert (made, report.succeeded) == ([0, 2, 32], 1)

    async def test_a_probe_that_is_stopped_leaves_the_circuit_as_it_was(
        self, work: Work, clock: ManualClock
    ) -> None:
        breaker = CircuitBreaker(failures=1, reset_after=5)
        breaker.failed(0)
        async with BatchedExecutor(work.one, breaker=breaker, clock=clock).map([50]):
            await clock.run_for(6)
            assert breaker.state == "half-open"
        assert breaker.allow(100) == 0

    async def test_a_call_that_was_not_made_says_nothing_about_the_service(self, clock: ManualClock) -> None:
        async def ask(item: int) -> int:
            return item

        breaker = CircuitBreaker(failures=1)
        bucket = TokenBucket(1, 1, clock=clock)
        executor = BatchedExecutor(ask, breaker=breaker, limiter=bucket, cost=2, clock=clock)
        assert (await clock.run(executor.run([1, 2]))).failed == 2
        assert breaker.state == "closed"


class TestTimeouts:
    async def test_a_call_that_takes_too_long_is_cancelled(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor(work.one, timeout=5, clock=clock)
        report = await clock.run(executor.run([4, 6, 600], ordered=True))
        assert [outcome.ok for outcome in report.outcomes] == [True, False, False]
        assert isinstance(report.outcomes[1].error, TimeoutError)
        assert (report.seconds, work.now_running) == (5, 0)

    async def test_the_wait_for_permits_is_no_part_of_the_call(self, work: Work, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=0.1, burst=1, clock=clock)
        executor = BatchedExecutor(work.one, timeout=5, limiter=bucket, clock=clock)
        report = await clock.run(executor.run([1, 1]))
        assert (report.succeeded, report.seconds) == (2, 11)

    async def test_a_call_that_took_too_long_is_made_again(self, clock: ManualClock) -> None:
        seconds = iter([100, 1])

        async def slow_at_first(item: str) -> str:
            await clock.sleep(next(seconds))
            return item

        executor = BatchedExecutor(slow_at_first, timeout=5, retry=Retry(backoff=STEADY), clock=clock)
        report = await clock.run(executor.run("a"))
        assert (report.succeeded, report.seconds) == (1, 8)

    async def test_an_item_has_its_deadline_whatever_it_waits_for(
        self, work: Work, clock: ManualClock
    ) -> None:
        executor = BatchedExecutor(work.one, concurrency=1, deadline=5, clock=clock)
        report = await clock.run(executor.run([3, 6, 3]))
        assert [outcome.ok for outcome in report.outcomes] == [True, False, True]
        assert isinstance(report.outcomes[1].error, TimeoutError)
        assert report.seconds == 11

    async def test_an_item_that_waited_too_long_is_not_called(self, work: Work, clock: ManualClock) -> None:
        executor = BatchedExecutor(
            work.one,
            concurrency=1,
            deadline=lambda item: 100 if item > 5 else 5,
            priority=lambda item: item,
            clock=clock,
        )
        report = await clock.run(executor.run([1, 10]))
        assert [outcome.item for outcome in report.outcomes] == [10, 1]
        assert [outcome.attempts for outcome in report.outcomes] == [1, 0]
        assert isinstance(report.outcomes[1].error, TimeoutError)

    async def test_no_permit_is_waited_for_that_would_come_too_late(
        self, work: Work, clock: ManualClock
    ) -> None:
        bucket = TokenBucket(rate=0.1, burst=1, clock=clock)
        executor = BatchedExecutor(work.one, deadline=5, limiter=bucket, clock=clock)
        report = await clock.run(executor.run([1, 1]))
        assert isinstance(report.outcomes[0].error, AcquireTimeout)
        assert (report.outcomes[0].attempts, report.seconds) == (0, 1)

    async def test_nothing_is_called_again_after_its_deadline(self, clock: ManualClock) -> None:
        executor = BatchedExecutor(
            Flaky(clock, 9), deadline=5, retry=Retry(attempts=None, backoff=STEADY), clock=clock
        )
        report = await clock.run(executor.run("a"))
        assert (report.calls, report.seconds) == (2, 4)
        assert isinstance(report.outcomes[0].error, Down)

    async def test_a_batch_is_cancelled_when_the_time_of_all_its_items_is_over(
        self, clock: ManualClock
    ) -> None:
        calls = Calls(clock)
        executor = BatchedExecutor.of_batches(calls, deadline=lambda item: item, timeout=60, clock=clock)
        report = await clock.run(executor.run([0.5, 2]))
        assert report.succeeded == 2
        report = await clock.run(executor.run([0.25, 0.5]))
        assert (report.failed, report.calls) == (2, 1)

    async def test_the_call_knows_its_deadline(self, clock: ManualClock) -> None:
        deadlines: list[Any] = []

        async def ask(item: int) -> None:
            deadlines.append(current_call().deadline)
            await clock.sleep(1)

        await clock.run(BatchedExecutor(ask, timeout=3, concurrency=1, clock=clock).run(range(2)))
        await clock.run(BatchedExecutor(ask, clock=clock).run(range(1)))
        assert deadlines == [3, 4, None]

    async def test_a_plain_function_is_given_no_timeout(self) -> None:
        with pytest.raises(TypeError, match="cannot be stopped when its time is over"):
            BatchedExecutor(len, timeout=1)

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"timeout": 0}, "timeout is a number of seconds above 0"),
            ({"deadline": -1}, "deadline is a number of seconds above 0"),
            ({"on_error": "ignore"}, "on_error is"),
            ({"concurrency": (3, 1)}, "concurrency is a number, or the least and the most"),
            ({"patience": -1}, "patience is a number of seconds"),
        ],
    )
    def test_numbers_that_are_none(self, work: Work, wrong: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            BatchedExecutor(work.one, **wrong)

"""`TokenBucket` on asyncio, on trio and in threads, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import threading
from fractions import Fraction
from functools import partial
from math import inf, nan
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit import (
    AcquireTimeout,
    ConcurrencyLimiter,
    CostExceedsBurst,
    Decision,
    InvalidCost,
    RateChanged,
    Reservation,
    TokenBucket,
    Waited,
)
from batchkit._core.bucket import Bucket
from batchkit.abc import Limiter
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.helpers import History, eventually, threads, worst_excess

pytestmark = pytest.mark.anyio


@pytest.fixture
def bucket(clock: ManualClock) -> TokenBucket:
    """Rate 2/s, burst 2, and empty."""
    bucket = TokenBucket(rate=2, burst=2, clock=clock)
    assert bucket.try_acquire(cost=2)
    return bucket


class Log:
    """Who went when."""

    def __init__(self, bucket: TokenBucket, clock: ManualClock, history: History) -> None:
        self.bucket = bucket
        self.clock = clock
        self.history = history
        self.gone: list[tuple[str, float]] = []

    def has(self, gone: int) -> bool:
        return len(self.gone) == gone

    async def acquire(
        self,
        name: str,
        cost: int = 1,
        priority: int = 0,
        timeout: float | None = None,
        scope: anyio.CancelScope | None = None,
    ) -> None:
        with scope or anyio.CancelScope():
            await self.bucket.acquire(cost, priority=priority, timeout=timeout)
            self.goes(name, cost)

    def acquire_sync(self, name: str, cost: int = 1, priority: int = 0) -> None:
        self.bucket.acquire_sync(cost, priority=priority)
        self.goes(name, cost)

    async def wait(self, name: str, reservation: Reservation) -> None:
        await reservation.wait()
        self.goes(name, reservation.cost)

    def goes(self, name: str, cost: int) -> None:
        self.gone.append((name, self.clock.now()))
        self.history.note(self.bucket, cost)

    @property
    def names(self) -> str:
        return "".join(name for name, _ in self.gone)


@pytest.fixture
def log(bucket: TokenBucket, clock: ManualClock, history: History) -> Log:
    history.note(bucket, 2)  # what was taken before the test
    return Log(bucket, clock, history)


def test_it_is_a_limiter(bucket: TokenBucket) -> None:
    assert isinstance(bucket, Limiter)


class TestTry:
    def test_a_burst_goes_at_once_and_the_next_call_is_told_when(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=2, burst=5, clock=clock)
        assert all(bucket.try_acquire() for _ in range(5))
        assert bucket.try_acquire() == Decision(allowed=False, retry_after=0.5)
        assert bucket.try_acquire(cost=5) == Decision(allowed=False, retry_after=2.5)

    def test_it_goes_after_the_seconds_that_it_was_told(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1 / 3, burst=1, clock=clock)
        clock.advance(1e6 / 7)
        for _ in range(100):
            assert bucket.try_acquire()
            decision = bucket.try_acquire()
            assert not decision
            clock.advance(decision.retry_after)

    async def test_it_does_not_overtake_those_who_wait(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "a", cost=2))
            await settle()
            clock.advance(0.5)
            assert bucket.try_acquire() == Decision(allowed=False, retry_after=1.0)
            await clock.run_for(0.5)
        assert log.gone == [("a", 1.0)]


class TestCost:
    async def test_a_refused_cost_changes_nothing_for_those_who_wait(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(log.acquire, name)
                await settle()
            with pytest.raises(CostExceedsBurst):
                bucket.try_acquire(3)
            await clock.run_for(1.5)
        assert log.gone == [("a", 0.5), ("b", 1.0), ("c", 1.5)]

    @pytest.mark.parametrize("cost", [0, -1, True, 1.0, nan, inf, "1", None])
    async def test_a_cost_that_is_none_is_refused_before_anything_happens(
        self, clock: ManualClock, cost: Any
    ) -> None:
        bucket = TokenBucket(rate=2, burst=2, clock=clock)
        with pytest.raises(InvalidCost, match="whole number of permits"):
            bucket.try_acquire(cost)
        with pytest.raises(InvalidCost):
            bucket.acquire_sync(cost)
        with pytest.raises(InvalidCost):
            await bucket.acquire(cost)
        assert bucket.statistics().available == 2

    async def test_a_cost_over_the_burst_could_never_be_granted(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=2, burst=5, name="openai", clock=clock)
        with pytest.raises(
            CostExceedsBurst, match="cost 8 exceeds burst 5 of openai: it could never be granted"
        ):
            await bucket.acquire(8)

    @pytest.mark.parametrize("rate", [0, -1, nan, inf, True])
    def test_a_rate_that_is_none(self, rate: float) -> None:
        with pytest.raises(ValueError, match="a rate is a positive number"):
            TokenBucket(rate=rate, burst=1)

    @pytest.mark.parametrize("burst", [0, -1, 1.5, True])
    def test_a_burst_that_is_none(self, burst: Any) -> None:
        with pytest.raises(ValueError, match="a burst is a whole number"):
            TokenBucket(rate=1, burst=burst)


class TestWaiting:
    async def test_first_come_first_served_on_time(self, clock: ManualClock, log: Log) -> None:
        async with anyio.create_task_group() as tasks:
            for name in "abcde":
                tasks.start_soon(log.acquire, name)
                await settle()
            await clock.run_for(3)
        assert log.gone == [("a", 0.5), ("b", 1.0), ("c", 1.5), ("d", 2.0), ("e", 2.5)]

    async def test_a_higher_priority_goes_first(self, clock: ManualClock, log: Log) -> None:
        async with anyio.create_task_group() as tasks:
            for name, priority in [("a", 0), ("b", 0), ("c", 1)]:
                tasks.start_soon(partial(log.acquire, name, priority=priority))
                await settle()
            await clock.run_for(2)
        assert log.names == "cab"

    async def test_a_large_cost_is_not_starved(self, clock: ManualClock, log: Log) -> None:
        async with anyio.create_task_group() as tasks:
            for name, cost in [("L", 2), ("a", 1), ("b", 1)]:
                tasks.start_soon(partial(log.acquire, name, cost=cost))
                await settle()
            await clock.run_for(3)
        assert log.gone == [("L", 1.0), ("a", 1.5), ("b", 2.0)]

    async def test_a_stall_lets_no_backlog_go(self, clock: ManualClock, log: Log) -> None:
        """A loop that was blocked for 100 s at 2/s burst 2 lets two go when it wakes; a wake-up time for each
        waiter would let all of them go.
        """
        async with anyio.create_task_group() as tasks:
            for name in "abcdef":
                tasks.start_soon(log.acquire, name)
            await settle()
            clock.advance(100)
            await settle()
            assert len(log.gone) == 2
            await clock.run_for(2)

    async def test_an_acquire_that_need_not_wait_does_not_yield(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        with pytest.raises(StopIteration):
            bucket.acquire().send(None)

    async def test_as_a_context_manager(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=3, clock=clock)
        async with bucket:
            pass
        with bucket:
            pass
        assert bucket.statistics().granted == 2

    async def test_a_bucket_made_before_any_loop_serves_one_after_the_other(
        self, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        # as in https://github.com/mjpieters/aiolimiter/issues/292
        def run() -> None:
            asyncio.run(clock.run(bucket.acquire()))

        for _ in range(3):
            await anyio.to_thread.run_sync(run)
        assert clock.now() == 1.5


class TestCancellation:
    async def test_cancelled_waiters_cost_the_next_caller_nothing(self, clock: ManualClock, log: Log) -> None:
        """https://github.com/otovo/redis-rate-limiters and steindamm charge 4 s for this."""
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(partial(log.acquire, f"{number}", scope=scope))
                await settle()
                scope.cancel()
                scope = anyio.CancelScope()
            tasks.start_soon(log.acquire, "a")
            await clock.run_for(0.5)
            assert log.gone == [("a", 0.5)]

    async def test_a_permit_granted_in_the_tick_of_a_cancel_is_lost_by_nobody(
        self, clock: ManualClock, log: Log
    ) -> None:
        # as in https://github.com/agronholm/anyio/issues/947
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "a", scope=scope))
            await settle()
            tasks.start_soon(log.acquire, "b")
            await settle()
            clock.advance(0.5)  # wakes a
            scope.cancel()
            await settle()
            assert [moment for _, moment in log.gone] == [0.5]
            await clock.run_for(0.5)
        assert log.names in ("b", "ab")  # whether a still noticed the cancel is its event loop's choice

    def test_a_task_of_asyncio_cancelled_in_the_tick_of_its_grant_hands_it_on(
        self, clock: ManualClock, log: Log
    ) -> None:
        # as in https://github.com/python/asyncio/issues/270; asynciolimiter loses the permit
        async def main() -> None:
            first = asyncio.create_task(log.acquire("a"))
            await settle()
            second = asyncio.create_task(log.acquire("b"))
            await settle()
            clock.advance(0.5)
            first.cancel()
            await second
            assert first.cancelled()

        asyncio.run(main())
        assert log.gone == [("b", 0.5)]

    async def test_when_the_keeper_of_the_timer_leaves_another_one_keeps_it(
        self, clock: ManualClock, log: Log, bucket: TokenBucket
    ) -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "a", scope=scope))
            await settle()
            for name in "bcd":
                tasks.start_soon(log.acquire, name)
                await settle()
            scope.cancel()
            await clock.run_for(2)
        assert log.gone == [("b", 0.5), ("c", 1.0), ("d", 1.5)]
        assert bucket.statistics().waiting == 0

    async def test_a_smaller_call_behind_one_that_leaves_goes_at_its_own_time(
        self, clock: ManualClock, log: Log
    ) -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "k")
            await settle()
            await clock.run_for(0.5)
            tasks.start_soon(partial(log.acquire, "L", cost=2, scope=scope))
            await settle()
            tasks.start_soon(log.acquire, "a")
            await settle()
            scope.cancel()
            await clock.run_for(1)
        assert log.gone == [("k", 0.5), ("a", 1.0)]


class TestTimeout:
    async def test_it_is_raised_as_soon_as_it_is_certain(
        self, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        with pytest.raises(
            AcquireTimeout, match=r"do not come in within 0.4 s .*could be there in 0.5 s"
        ) as error:
            await bucket.acquire(timeout=0.4)
        assert clock.now() == 0.0
        assert error.value.retry_after == 0.5
        assert bucket.statistics().timeouts == 1

    async def test_in_a_line_it_may_still_come_true(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "a", scope=scope))
            await settle()
            tasks.start_soon(partial(log.acquire, "b", timeout=0.6))
            await settle()
            scope.cancel()
            await clock.run_for(1)
        assert log.gone == [("b", 0.5)]

    async def test_behind_others_it_ends_when_the_next_permit_comes_too_late(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        ended: list[float] = []

        async def acquire() -> None:
            with pytest.raises(AcquireTimeout):
                await bucket.acquire(timeout=0.9)
            ended.append(clock.now())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "a")
            await settle()
            tasks.start_soon(acquire)
            await settle()
            await clock.run_for(2)
        assert ended == [0.5]

    async def test_zero_is_a_try_that_raises(self, bucket: TokenBucket, clock: ManualClock) -> None:
        with pytest.raises(AcquireTimeout):
            await bucket.acquire(timeout=0)
        with pytest.raises(AcquireTimeout):
            bucket.acquire_sync(timeout=0)
        clock.advance(0.5)
        await bucket.acquire(timeout=0)

    @pytest.mark.parametrize("timeout", [-1, nan])
    async def test_a_timeout_that_is_none(
        self, bucket: TokenBucket, clock: ManualClock, timeout: float
    ) -> None:
        with pytest.raises(ValueError, match="timeout is a number of seconds"):
            await bucket.acquire(timeout=timeout)
        clock.advance(10)  # nor where nothing is to be waited for
        with pytest.raises(ValueError, match="timeout is a number of seconds"):
            bucket.acquire_sync(timeout=timeout)

    @pytest.mark.parametrize("priority", [nan, 0.5, True])
    async def test_a_priority_that_is_none(self, bucket: TokenBucket, priority: int) -> None:
        with pytest.raises(ValueError, match="a priority is a whole number"):
            await bucket.acquire(priority=priority)


class TestPermit:
    async def test_a_true_cost_below_is_given_back(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=10, clock=clock)
        async with bucket.permit(cost=8) as permit:
            permit.settle(5)
            permit.settle(3)  # the last word counts
        assert bucket.statistics().available == 7
        assert bucket.statistics().granted == 3

    def test_a_true_cost_above_is_a_debt(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=10, clock=clock)
        with bucket.permit(cost=8) as permit:
            permit.settle(15)
        assert bucket.statistics().available == -5
        assert bucket.try_acquire().retry_after == 6

    async def test_what_is_given_back_goes_to_those_who_wait(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        clock.advance(1)
        async with bucket.permit(cost=2) as permit, anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "a")
            await settle()
            permit.settle(0)
            await settle()
            assert log.gone == [("a", 1.0)]

    @pytest.mark.parametrize("actual", [-1, 1.5, True])
    def test_a_true_cost_that_is_none(self, clock: ManualClock, actual: Any) -> None:
        bucket = TokenBucket(rate=1, burst=10, clock=clock)
        with bucket.permit() as permit, pytest.raises(InvalidCost):
            permit.settle(actual)

    @pytest.mark.parametrize("permits", [nan, inf, 1.5, True])
    def test_a_charge_that_is_none(self, clock: ManualClock, permits: Any) -> None:
        for limiter in (TokenBucket(1, 2, clock=clock), ConcurrencyLimiter(2, clock=clock)):
            with pytest.raises(InvalidCost):
                limiter.charge(permits)
            assert limiter.statistics().available == 2


class TestChange:
    async def test_those_who_wait_are_told_of_a_new_rate(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(log.acquire, name)
                await settle()
            await clock.run_for(0.25)
            bucket.change(rate=4)
            await clock.run_for(1)
        assert [moment for _, moment in log.gone] == pytest.approx([0.375, 0.625, 0.875])

    async def test_a_lower_burst_ends_calls_that_could_never_go(
        self, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        async def acquire() -> None:
            with pytest.raises(CostExceedsBurst, match="cost 2 exceeds burst 1"):
                await bucket.acquire(2)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(acquire)
            await settle()
            bucket.change(burst=1)

    def test_it_is_an_event(self, clock: ManualClock, hook: RecordingHook) -> None:
        bucket = TokenBucket(rate=2, burst=5, name="text", hooks=[hook], clock=clock)
        bucket.change(rate=1, burst=3)
        assert hook.events == [RateChanged("text", rate=1, burst=3, rate_before=2, burst_before=5)]
        assert (bucket.rate, bucket.burst) == (1, 3)


async def test_a_wait_is_an_event(clock: ManualClock, hook: RecordingHook) -> None:
    bucket = TokenBucket(rate=2, burst=1, name="text", hooks=[hook], clock=clock)
    await bucket.acquire()
    await clock.run(bucket.acquire())
    assert hook.events == [Waited("text", cost=1, seconds=0.5)]


async def test_statistics(bucket: TokenBucket, clock: ManualClock, log: Log) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log.acquire, "a")
        tasks.start_soon(log.acquire, "b")
        await settle()
        assert bucket.statistics().waiting == 2
        await clock.run_for(2)
    statistics = bucket.statistics()
    assert (statistics.rate, statistics.burst, statistics.waiting) == (2, 2, 0)
    assert (statistics.granted, statistics.waits, statistics.waited) == (4, 2, 1.5)
    assert statistics.available == 2
    assert repr(bucket) == "TokenBucket(rate=2, burst=2, name='limiter')"


@given(
    rate=st.floats(1e-3, 1e9) | st.sampled_from([1.0, 2.0, 0.1, 1 / 3, 55 / 60]),
    burst=st.integers(1, 20),
    steps=st.lists(
        st.tuples(st.floats(0, 100) | st.sampled_from([0.0, -1.0]), st.integers(1, 20), st.booleans()),
        max_size=60,
    ),
)
def test_it_goes_exactly_when_the_pure_bucket_does(
    rate: float, burst: int, steps: list[tuple[float, int, bool]]
) -> None:
    """A step of -1 goes to the moment at which the call is due, where rounding matters most."""
    clock = ManualClock()
    bucket, pure = TokenBucket(rate, burst, clock=clock), Bucket(rate, burst, clock.now())

    async def goes_at_once(cost: int) -> bool:
        try:
            await bucket.acquire(cost, timeout=0)
        except AcquireTimeout:
            return False
        return True

    with asyncio.Runner() as runner:
        for step, cost, by_acquire in steps:
            cost = min(cost, burst)
            clock.advance(pure.due(cost, clock.now()) - clock.now() if step < 0 else step)
            went = runner.run(goes_at_once(cost)) if by_acquire else bool(bucket.try_acquire(cost))
            assert went == pure.take(cost, clock.now())
            assert bucket.statistics().granted == pure.granted


def test_within_never_lets_more_go_in_any_window(clock: ManualClock) -> None:
    # as in https://github.com/mjpieters/aiolimiter/issues/298
    bucket = TokenBucket.within(60, per=60, burst=5, clock=clock)
    assert (bucket.rate, bucket.burst) == (55 / 60, 5)
    gone: list[float] = []
    while clock.now() < 200:
        decision = bucket.try_acquire()
        if decision:
            gone.append(clock.now())
        clock.advance(decision.retry_after)
    assert max(sum(start <= moment < start + 60 for moment in gone) for start in gone) <= 60


@pytest.mark.parametrize(
    ("limit", "per", "burst", "words"),
    [
        (60, 60, 60, "below the limit 60"),
        (60, 60, 0, "a burst is"),
        (60, 0, 5, "per is a number"),
        (60, nan, 5, "per is a number"),
        (60.5, 60, 5, "a limit is"),
    ],
)
def test_within_needs_room_for_a_rate(limit: int, per: float, burst: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TokenBucket.within(limit, per=per, burst=burst)


@pytest.mark.parametrize("patience", [-1, nan, inf])
def test_a_patience_that_is_none(patience: float) -> None:
    with pytest.raises(ValueError, match="patience is a number of seconds"):
        TokenBucket(1, 1, patience=patience)


class TestThreads:
    def test_a_thread_waits_its_turn(self, bucket: TokenBucket, clock: ManualClock, log: Log) -> None:
        with threads(*(partial(log.acquire_sync, name) for name in "abc")):
            eventually(lambda: bucket.statistics().waiting == 3)
            for turn in (1, 2, 3):
                clock.advance(0.5)
                eventually(partial(log.has, turn))
        assert [moment for _, moment in log.gone] == [0.5, 1.0, 1.5]

    async def test_threads_and_a_loop_share_one_line(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        async with anyio.create_task_group() as tasks:
            with threads(partial(log.acquire_sync, "t")):
                eventually(lambda: bucket.statistics().waiting == 1)
                tasks.start_soon(log.acquire, "a")
                await settle()
                clock.advance(0.5)
                eventually(lambda: len(log.gone) == 1)
                await clock.run_for(0.5)
        assert log.gone == [("t", 0.5), ("a", 1.0)]

    def test_loops_of_asyncio_and_trio_and_threads_at_once(self, clock: ManualClock) -> None:
        """Real time: whoever goes when, no window is over, and everybody goes."""
        # as in https://github.com/alisaifee/limits/issues/26; aiolimiter raises
        bucket = TokenBucket(rate=2000, burst=10)
        gone: list[float] = []

        def by_thread() -> None:
            for _ in range(50):
                bucket.acquire_sync()
                gone.append(anyio_clock())

        async def by_tasks() -> None:
            async def acquire() -> None:
                for _ in range(10):
                    await bucket.acquire()
                    gone.append(anyio_clock())

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(acquire)

        with threads(
            *(by_thread for _ in range(4)),
            partial(anyio.run, by_tasks, backend="asyncio"),
            partial(anyio.run, by_tasks, backend="asyncio"),
            partial(anyio.run, by_tasks, backend="trio"),
        ):
            pass
        assert len(gone) == 350
        assert bucket.statistics().granted == 350
        assert bucket.statistics().waiting == 0

    def test_two_hundred_threads_keep_the_bound(self, clock: ManualClock, history: History) -> None:
        bucket = TokenBucket(rate=2, burst=2, clock=clock)
        log = Log(bucket, clock, history)
        with threads(*(partial(log.acquire_sync, "t") for _ in range(200))):
            eventually(lambda: len(log.gone) + bucket.statistics().waiting == 200)
            for gone in range(2, 200):
                eventually(partial(log.has, gone))
                clock.advance(0.5)
        assert len(log.gone) == 200
        assert max(moment for _, moment in log.gone) == 99.0

    async def test_ten_thousand_tasks_go_in_the_order_of_their_arrival(
        self, clock: ManualClock, anyio_backend_name: str
    ) -> None:
        # as in https://github.com/mjpieters/aiolimiter/issues/73
        tasks_in_line = 10_000 if anyio_backend_name == "asyncio" else 1_000
        bucket = TokenBucket(rate=100, burst=100, clock=clock)
        gone: list[tuple[int, float]] = []

        async def acquire(number: int) -> None:
            await bucket.acquire()
            gone.append((number, clock.now()))

        async with anyio.create_task_group() as tasks:
            for number in range(tasks_in_line):
                tasks.start_soon(acquire, number)
                if anyio_backend_name == "trio":  # it starts a batch of tasks in random order
                    await anyio.lowlevel.checkpoint()
            await clock.run_for(0)
            for _ in range(tasks_in_line // 100):
                clock.advance(1.0)  # a hundred go at once
                await settle()
        assert len(gone) == tasks_in_line
        assert worst_excess([moment for _, moment in gone], rate=100, burst=100) <= 0
        if anyio_backend_name == "asyncio":
            assert [number for number, _ in gone] == list(range(tasks_in_line))
        else:  # and it resumes one in random order, too: those of a moment are those whose turn it was
            assert [number // 100 for number, _ in gone] == [number // 100 for number in range(tasks_in_line)]

    def test_a_blocked_loop_holds_up_no_thread(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        blocked, release = threading.Event(), threading.Event()

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.acquire, "a")
                await settle()
                blocked.set()
                release.wait()

        with threads(partial(anyio.run, main)):
            blocked.wait()
            with threads(partial(log.acquire_sync, "t")):
                eventually(lambda: bucket.statistics().waiting == 2)
                clock.advance(0.5)  # a's turn, but its loop does not run

                def gone_after_a_moment() -> bool:
                    clock.advance(0.001)
                    return bool(log.gone)

                eventually(gone_after_a_moment)
            release.set()
            eventually(lambda: bucket.statistics().waiting == 1)
            clock.advance(2)
            eventually(lambda: len(log.gone) == 2)
        assert log.names == "ta"

    def test_a_closed_loop_holds_up_nobody(self, bucket: TokenBucket, clock: ManualClock, log: Log) -> None:
        loop = asyncio.new_event_loop()
        lost = loop.create_task(log.acquire("lost"))
        loop.run_until_complete(asyncio.sleep(0))  # one round, in which the task joins the line
        assert bucket.statistics().waiting == 1
        with threads(partial(log.acquire_sync, "t")):
            eventually(lambda: bucket.statistics().waiting == 2)
            loop.close()
            clock.advance(0.5)
            eventually(lambda: len(log.gone) == 1)
        assert log.names == "t"
        assert bucket.statistics().waiting == 0
        with pytest.raises(RuntimeError):
            lost.get_coro().throw(RuntimeError("the loop is gone"))

    def test_a_caller_that_is_about_to_lay_the_bucket_back_is_waited_for(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=2, clock=clock)
        held = bucket._table.pop()  # as a thread does that is switched off in the middle of a try
        with threads(*[bucket.acquire_sync] * 3):
            eventually(bucket.gate._lock.locked)
            bucket._table.append(held)
            eventually(lambda: bucket.statistics().waiting == 1)
            clock.advance(1)
        assert bucket.statistics().granted == 3


class TestPause:
    async def test_nobody_goes_in_a_pause(self, clock: ManualClock, history: History) -> None:
        bucket = TokenBucket(rate=2, burst=2, clock=clock)
        log = Log(bucket, clock, history)
        bucket.pause_for(3)
        assert bucket.try_acquire() == Decision(allowed=False, retry_after=3.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "a")
            await clock.run_for(3)
        assert log.gone == [("a", 3.0)]
        assert bucket.try_acquire()
        assert not bucket.try_acquire()

    async def test_those_who_wait_are_told(self, bucket: TokenBucket, clock: ManualClock, log: Log) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "a")
            await settle()
            bucket.pause_for(2)
            await clock.run_for(2)
        assert log.gone == [("a", 2.0)]

    async def test_a_timeout_within_the_pause_is_known_at_once(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=2, burst=2, clock=clock)
        bucket.pause_for(2)
        with pytest.raises(AcquireTimeout) as caught:
            await bucket.acquire(timeout=1)
        assert caught.value.retry_after == 2.0

    @pytest.mark.parametrize("remaining", [-1, nan, 0.5])
    def test_what_cannot_remain(self, bucket: TokenBucket, remaining: Any) -> None:
        with pytest.raises(InvalidCost):
            bucket.drain(remaining)

    def test_drained_it_has_to_fill_first(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=2, burst=2, clock=clock)
        bucket.drain()
        assert bucket.try_acquire().retry_after == 0.5
        assert bucket.statistics().granted == 0

    @pytest.mark.parametrize("seconds", [-1, nan, inf])
    def test_a_pause_that_is_none(self, bucket: TokenBucket, seconds: float) -> None:
        with pytest.raises(ValueError, match="a pause is a number of seconds"):
            bucket.pause_for(seconds)


class TestReserve:
    async def test_a_place_is_taken_now_and_waited_at_later(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        reservation = bucket.reserve()
        assert reservation.delay == 0.5
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "b")
            await settle()
            await clock.run_for(0.4)
            await clock.run(reservation.wait())
            assert clock.now() == 0.5
            assert log.gone == []
            await clock.run_for(0.5)
        assert log.gone == [("b", 1.0)]

    async def test_given_up_it_costs_nobody_anything(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        with bucket.reserve(cost=2) as reservation:
            assert repr(reservation) == "Reservation(cost=2, delay=1)"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.acquire, "b")
                await settle()
                reservation.cancel()
                reservation.cancel()
                await clock.run_for(0.5)
        assert log.gone == [("b", 0.5)]
        assert bucket.statistics().granted == 3

    async def test_who_comes_late_was_passed_and_goes_first(
        self, bucket: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        late, forgotten = bucket.reserve(), bucket.reserve()
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(log.acquire, name)
                await settle()
            await clock.run_for(1.2)
            assert log.gone == [("a", 0.52), ("b", 1.0)]  # 0.01 s was kept for each of those reserved
            tasks.start_soon(log.wait, "late", late)
            await settle()
            await clock.run_for(1.0)
        assert log.names == "ablatec"
        forgotten.cancel()

    async def test_a_forgotten_one_stops_no_try(self, bucket: TokenBucket, clock: ManualClock) -> None:
        forgotten = bucket.reserve()
        assert not bucket.try_acquire()
        clock.advance(0.5)
        assert not bucket.try_acquire()  # its moment
        clock.advance(0.5)
        assert bucket.try_acquire()
        assert bucket.statistics().waiting == 1
        forgotten.cancel()
        assert bucket.statistics().waiting == 0

    def test_in_a_thread(self, bucket: TokenBucket, clock: ManualClock) -> None:
        reservation, other = bucket.reserve(), bucket.reserve()
        with threads(reservation.wait_sync):
            eventually(lambda: len(bucket.gate.waiters._rooms) == 2)  # one of them is the absent's
            clock.advance(0.5)
        assert bucket.statistics().granted == 3
        other.cancel()

    async def test_it_is_used_once(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        with bucket.reserve() as reservation:
            await reservation.wait()
            with pytest.raises(RuntimeError, match="before"):
                await reservation.wait()
        with pytest.raises(RuntimeError, match="before"):
            reservation.wait_sync()
        assert bucket.statistics().granted == 1

    def test_what_is_refused(self, bucket: TokenBucket) -> None:
        with pytest.raises(CostExceedsBurst):
            bucket.reserve(3)
        with pytest.raises(InvalidCost):
            bucket.reserve(0)
        with pytest.raises(ValueError, match="a priority"):
            bucket.reserve(priority=nan)  # type: ignore[arg-type]  # the wrong type is the point


def anyio_clock() -> float:
    return TokenBucket(rate=1, burst=1).gate.clock.now()


def test_the_checker_of_windows_finds_an_excess() -> None:
    assert worst_excess([0, 0, 0, 1], rate=1, burst=2) == 1
    assert worst_excess([0, 0, 1, 2], rate=1, burst=2) == 0
    assert worst_excess([0.0, 0.5], rate=1, burst=1) == Fraction(1, 2)

"""What went wrong in other rate limiters, and must not here.

Each test names who failed, and links the public thread about it where there is one. What was found without
such a thread is what that library did in its version of November 2026. Further failures have their tests
beside the feature: in test_limiters.py, test_groups.py, test_keys.py and others; what needs a server is in
tests/faults/test_failures_of_peers.py.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from math import nan
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit import InvalidCost, TokenBucket, all_of
from batchkit.testing import ManualClock, settle
from tests.helpers import eventually, threads, worst_excess

pytestmark = pytest.mark.anyio

IMPORT_CLOCK = ManualClock()
MADE_AT_IMPORT = TokenBucket(rate=1, burst=1, clock=IMPORT_CLOCK)


class SteppedClock(ManualClock):
    """A clock that can be set to any moment, also an earlier one."""

    def set(self, moment: float) -> None:
        self._now = moment


class Log:
    """Who went when."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.gone: list[tuple[str, float]] = []

    async def acquire(self, name: str, bucket: TokenBucket, cost: int = 1) -> None:
        await bucket.acquire(cost)
        self.gone.append((name, self.clock.now()))

    @property
    def moments(self) -> list[float]:
        return [moment for _, moment in self.gone]


@pytest.fixture
def log(clock: ManualClock) -> Log:
    return Log(clock)


def empty(rate: float, burst: int, clock: ManualClock) -> TokenBucket:
    bucket = TokenBucket(rate=rate, burst=burst, clock=clock)
    assert bucket.try_acquire(burst)
    return bucket


def went(limiter: TokenBucket, tries: int) -> int:
    return sum(bool(limiter.try_acquire()) for _ in range(tries))


class TestFairness:
    async def test_a_call_of_cost_50_is_not_starved_by_a_stream_of_calls_of_cost_1(
        self, clock: ManualClock, log: Log
    ) -> None:
        # aiolimiter wakes the smallest amount first: https://github.com/mjpieters/aiolimiter/pull/290
        bucket = empty(10, 50, clock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "large", bucket, 50)
            await settle()
            for _ in range(120):  # twice as many as the rate allows
                tasks.start_soon(log.acquire, "small", bucket)
                await clock.run_for(0.0625)
            assert log.gone[0] == ("large", 5.0)
            assert log.moments[1:] == pytest.approx([5.0 + number / 10 for number in range(1, 26)])
            tasks.cancel_scope.cancel()

    async def test_a_call_waits_only_for_the_permits_that_are_missing(
        self, clock: ManualClock, log: Log
    ) -> None:
        # aiolimiter waited for the whole amount: https://github.com/mjpieters/aiolimiter/issues/217
        bucket = TokenBucket(rate=1, burst=3, clock=clock)
        assert bucket.try_acquire()
        await clock.run(log.acquire("large", bucket, 3))
        assert log.gone == [("large", 1.0)]

    async def test_whoever_waits_is_woken_however_often_the_bucket_ran_dry_before(
        self, clock: ManualClock, log: Log
    ) -> None:
        # asynciolimiter's leaky bucket did not: https://github.com/bharel/asynciolimiter/issues/17
        bucket = TokenBucket(rate=4, burst=2, clock=clock)
        for quiet in (0.0, 0.125, 0.25, 0.375, 10.0):
            log.gone.clear()
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(log.acquire, "a", bucket)
                await clock.run_for(1.0)
                assert len(log.gone) == 4
            await clock.run_for(quiet)


class TestStall:
    @pytest.mark.parametrize(
        "stalls",
        [
            pytest.param([1.5], id="at once"),
            pytest.param([0.05, 1.5], id="between the wake-up and the go"),
            pytest.param([1.5, 1.5], id="twice"),
        ],
    )
    async def test_a_loop_that_stalled_for_1_5_s_at_20_a_second_lets_2_go_when_it_wakes(
        self, stalls: list[float], clock: ManualClock, log: Log
    ) -> None:
        # with a wake-up time for each waiter 31 go at once
        bucket = empty(20, 2, clock)
        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(log.acquire, "a", bucket)
            await settle()
            for stall in stalls:
                clock.advance(stall)
            await settle()
            assert len(log.gone) == 2
            await clock.run_for(3.0)
        assert worst_excess(log.moments, rate=20, burst=2) <= 0

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    async def test_a_blocked_loop_holds_up_no_other_loop(
        self, backend: str, clock: ManualClock, log: Log
    ) -> None:
        # aiolimiter and asynciolimiter belong to one loop; a line for several must not wait for one
        bucket = empty(2, 2, clock)
        blocked, release = threading.Event(), threading.Event()

        async def block() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(log.acquire, "blocked", bucket)
                await settle()
                blocked.set()
                release.wait()

        with threads(partial(anyio.run, block, backend=backend)):
            await anyio.to_thread.run_sync(blocked.wait)
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(log.acquire, "other", bucket)
                    await settle()
                await clock.run_for(3.0)
            assert [name for name, _ in log.gone] == ["other"] * 4
            assert log.gone[0][1] < 0.5 + 0.5  # it was the turn of the blocked one at 0.5
            assert log.gone[-1][1] < 2.0 + 0.5  # and there was one delay, not one for each
            release.set()
            await anyio.to_thread.run_sync(eventually, lambda: bucket.statistics().waiting < 2)
            clock.advance(3.0)
            await anyio.to_thread.run_sync(eventually, lambda: len(log.gone) == 6)
        assert worst_excess(log.moments, rate=2, burst=2) <= 0

    async def test_a_loop_that_is_gone_holds_up_no_other_loop(self, clock: ManualClock, log: Log) -> None:
        bucket = empty(2, 2, clock)
        lost: list[asyncio.Task[None]] = []

        def leave() -> None:
            loop = asyncio.new_event_loop()
            lost.extend(loop.create_task(log.acquire("lost", bucket)) for _ in range(3))
            loop.run_until_complete(asyncio.sleep(0))  # one round, in which they join the line
            loop.close()

        await anyio.to_thread.run_sync(leave)
        assert bucket.statistics().waiting == 3
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(log.acquire, "other", bucket)
                await settle()
            await clock.run_for(3.0)
        assert [name for name, _ in log.gone] == ["other"] * 3
        assert log.gone[0][1] < 0.5 + 0.5
        assert log.gone[-1][1] < 1.5 + 0.5
        assert bucket.statistics().waiting == 0
        for task in lost:
            with pytest.raises(RuntimeError):
                task.get_coro().throw(RuntimeError("the loop is gone"))


class TestEventLoops:
    # https://github.com/mjpieters/aiolimiter/issues/292; asynciolimiter hangs in the second loop
    @pytest.mark.parametrize("second", ["asyncio", "trio"])
    @pytest.mark.parametrize("first", ["asyncio", "trio"])
    def test_a_limiter_whose_loop_ended_amid_a_wait_serves_the_next_loop(
        self, first: str, second: str, clock: ManualClock
    ) -> None:
        bucket = empty(2, 2, clock)

        async def end_amid_a_wait() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(bucket.acquire)
                await settle()
                tasks.cancel_scope.cancel()

        async def acquire() -> None:
            await clock.run(bucket.acquire())

        anyio.run(end_amid_a_wait, backend=first)
        anyio.run(acquire, backend=second)
        assert clock.now() == 0.5

    def test_tasks_that_asyncio_run_cancels_as_it_ends_leave_nothing(self, clock: ManualClock) -> None:
        bucket = empty(2, 2, clock)
        left: set[asyncio.Task[None]] = set()

        async def leave_tasks_behind() -> None:
            left.update(asyncio.create_task(bucket.acquire()) for _ in range(3))
            await settle()

        asyncio.run(leave_tasks_behind())
        assert bucket.statistics().waiting == 0
        asyncio.run(clock.run(bucket.acquire()))
        assert clock.now() == 0.5

    async def test_one_that_was_made_at_import_time_serves_every_loop(self) -> None:
        # a module-level limiter, as in https://github.com/mjpieters/aiolimiter/issues/292
        begin, before = IMPORT_CLOCK.now(), MADE_AT_IMPORT.statistics().granted
        for _ in range(3):
            await IMPORT_CLOCK.run(MADE_AT_IMPORT.acquire())
        assert MADE_AT_IMPORT.statistics().granted == before + 3
        assert IMPORT_CLOCK.now() >= begin + 2

    async def test_who_waits_does_not_block_the_event_loop(self, clock: ManualClock, log: Log) -> None:
        # https://github.com/vutran1710/PyrateLimiter/pull/208
        bucket = empty(1, 1, clock)
        ticks = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "a", bucket)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
                ticks += 1
            assert (ticks, log.gone) == (100, [])
            await clock.run_for(1.0)
        assert log.gone == [("a", 1.0)]

    async def test_ten_thousand_who_wait_need_no_thread_no_task_and_one_timer(
        self, clock: ManualClock, anyio_backend_name: str
    ) -> None:
        # a timeout for each waiter: https://github.com/mjpieters/aiolimiter/issues/73
        # a thread for each bucket, until there are no more: https://github.com/vutran1710/PyrateLimiter/issues/136
        waiters = 10_000 if anyio_backend_name == "asyncio" else 1000
        bucket = empty(64, 1, clock)
        running, tasks_before = set(threading.enumerate()), len(anyio.get_running_tasks())
        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(bucket.acquire)
            await settle()
            assert bucket.statistics().waiting == waiters
            assert set(threading.enumerate()) <= running
            assert len(anyio.get_running_tasks()) - waiters == tasks_before
            assert timers(clock) == 1
            await clock.run_for(0.125)
            assert bucket.statistics().waiting == waiters - 8
            tasks.cancel_scope.cancel()
        assert bucket.statistics().waiting == 0
        assert set(threading.enumerate()) <= running
        assert len(anyio.get_running_tasks()) == tasks_before
        assert timers(clock) == 0


def timers(clock: ManualClock) -> int:
    return sum(not alarm.off for _, _, alarm in clock._alarms)


class TestCost:
    # limits: a negative cost mints permits, https://github.com/alisaifee/limits/pull/362; NaN poisons the key
    @pytest.mark.parametrize("cost", [-1, -1000, 0, nan, 0.5, True])
    async def test_a_cost_that_is_none_mints_and_poisons_nothing_whichever_way_it_comes(
        self, cost: Any, clock: ManualClock
    ) -> None:
        bucket = TokenBucket(rate=1, burst=2, clock=clock)
        both = all_of(it=bucket, other=TokenBucket(rate=1, burst=2, clock=clock))
        ways: list[Callable[[], object]] = [
            lambda: bucket.try_acquire(cost),
            lambda: bucket.acquire_sync(cost, timeout=0),
            lambda: bucket.permit(cost).__enter__(),
            lambda: bucket.reserve(cost),
            lambda: bucket.for_key("a").try_acquire(cost),
        ]
        if cost != 0:  # which leaves a limiter of a group out
            ways.append(lambda: both.try_acquire(it=cost))
        for way in ways:
            with pytest.raises(InvalidCost):
                way()
        with pytest.raises(InvalidCost):
            await bucket.acquire(cost)
        with pytest.raises(InvalidCost):
            async with bucket.permit(cost):
                pass
        assert bucket.statistics().granted == 0
        assert went(bucket, 10) == went(bucket.for_key("a"), 10) == 2
        clock.advance(1)
        assert went(bucket, 10) == went(bucket.for_key("a"), 10) == 1

    def test_a_number_that_no_float_can_hold_is_refused_and_poisons_nothing(self, clock: ManualClock) -> None:
        # say a count of tokens that a server got wrong
        bucket = TokenBucket(rate=1, burst=2, clock=clock)
        ways: list[Callable[[], object]] = [
            lambda: bucket.charge(10**400),
            lambda: bucket.drain(10**400),
            lambda: bucket.permit(1).settle(10**400),
            lambda: bucket.change(burst=10**400),
            lambda: TokenBucket(rate=1, burst=10**400),
        ]
        for way in ways:
            with pytest.raises(ValueError, match="at most"):
                way()
        assert went(bucket, 10) == 2


class TestRate:
    def test_a_burst_that_is_back_within_half_a_second_still_limits(self, clock: ManualClock) -> None:
        # throttled-py on Redis: the state lives for whole seconds, here 0, and every call is admitted
        bucket = TokenBucket(rate=1024, burst=100, clock=clock)
        gone: list[float] = []
        for _ in range(4096):
            gone += [clock.now()] * went(bucket, 4)
            clock.advance(1 / 2048)
        assert len(gone) == 100 + 2047
        assert worst_excess(gone, rate=1024, burst=100) <= 0

    @pytest.mark.parametrize("rate", [5000, 12_345, 1_000_000])
    def test_permits_less_than_a_millisecond_apart_come_one_by_one(
        self, rate: int, clock: ManualClock
    ) -> None:
        # throttled-py's clock is in whole seconds: a second's permits leave within 0.1 s
        bucket = TokenBucket(rate=rate, burst=1, clock=clock)
        gone: list[float] = []
        while len(gone) < 1000:
            decision = bucket.try_acquire()
            if decision:
                gone.append(clock.now())
            clock.advance(decision.retry_after)
        assert worst_excess(gone, rate=rate, burst=1) <= 0
        assert gone[-1] == pytest.approx(999 / rate, rel=1e-9)

    def test_calls_as_far_apart_as_the_rate_says_all_go(self, clock: ManualClock) -> None:
        # https://github.com/vutran1710/PyrateLimiter/issues/125
        bucket = TokenBucket(rate=8, burst=1, clock=clock)
        for _ in range(100):
            assert bucket.try_acquire()
            clock.advance(1 / 8)

    @given(
        rate=st.floats(1e-3, 1e6),
        burst=st.integers(1, 20),
        calls=st.lists(
            st.tuples(st.floats(0, 10), st.integers(1, 20), st.floats(0, 0.999)), min_size=1, max_size=30
        ),
    )
    def test_what_is_refused_is_refused_until_the_moment_that_was_told_and_goes_at_it(
        self, rate: float, burst: int, calls: list[tuple[float, int, float]]
    ) -> None:
        # throttled-py: https://github.com/ZhuoZhuoCrayon/throttled-py/pull/87
        clock = SteppedClock()
        bucket = TokenBucket(rate, burst, clock=clock)
        for idle, cost, part in calls:
            cost = min(cost, burst)
            clock.advance(idle)
            decision = bucket.try_acquire(cost)
            if not decision:
                told = clock.now() + decision.retry_after
                before = clock.now() + decision.retry_after * part
                if told - before > 1e-9:  # else rounding makes the two one moment
                    clock.set(before)
                    assert not bucket.try_acquire(cost)
                clock.set(told)
                assert bucket.try_acquire(cost)


class TestReservations:
    # Go's x/time/rate: https://github.com/golang/go/issues/69419, https://github.com/golang/go/issues/56924;
    # and in reverse: https://github.com/thrasher-corp/gocryptotrader/issues/2371
    @pytest.mark.parametrize("order", ["as made", "in reverse", "shuffled"])
    @pytest.mark.parametrize("full", [False, True])
    def test_cancelling_a_hundred_leaves_no_debt(self, full: bool, order: str, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=60, burst=5, clock=clock) if full else empty(60, 5, clock)
        before = bucket.statistics().available
        reservations = [bucket.reserve(cost=1 + number % 5) for number in range(100)]
        if order == "in reverse":
            reservations.reverse()
        elif order == "shuffled":
            random.Random(1).shuffle(reservations)
        for reservation in reservations:
            reservation.cancel()
        assert bucket.statistics().available == before
        assert bucket.statistics().waiting == 0
        assert went(bucket, 10) == before
        clock.advance(0.5)
        assert went(bucket, 10) == 5

    async def test_who_waits_behind_those_that_are_cancelled_moves_up(
        self, clock: ManualClock, log: Log
    ) -> None:
        bucket = empty(10, 5, clock)
        reservations = [bucket.reserve(cost=5) for _ in range(100)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "a", bucket)
            await settle()
            for reservation in reservations:
                reservation.cancel()
            await clock.run_for(0.1)
        assert log.gone == [("a", 0.1)]


class TestClock:
    async def test_a_clock_that_stands_still_admits_the_burst_and_no_more(
        self, clock: ManualClock, log: Log
    ) -> None:
        bucket = TokenBucket(rate=1e6, burst=5, clock=clock)
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(log.acquire, "a", bucket)
            await settle()
            assert len(log.gone) == 5
            assert went(bucket, 100) == 0
            tasks.cancel_scope.cancel()

    async def test_a_clock_that_steps_an_hour_ahead_admits_the_burst_and_no_more(
        self, clock: ManualClock, log: Log
    ) -> None:
        # pyrate-limiter admits too much when a client's clock is ahead
        bucket = empty(10, 5, clock)
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(log.acquire, "a", bucket)
            await settle()
            clock.advance(3600)
            await settle()
            assert len(log.gone) == 5
            await clock.run_for(1.5)
        assert log.moments[5:] == pytest.approx([3600 + number / 10 for number in range(1, 16)])

    def test_a_clock_that_goes_back_and_forth_mints_nothing(self) -> None:
        # Go's x/time/rate: https://github.com/golang/go/issues/56287
        clock = SteppedClock()
        bucket = empty(1, 5, clock)
        gone = 0
        for _ in range(100):
            clock.set(10.0)
            gone += went(bucket, 10)
            clock.set(0.0)
            gone += went(bucket, 10)
        assert gone <= 10

    def test_the_clock_on_the_wall_is_not_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # set back by an hour it makes limits deny for an hour; pyrate-limiter went by it, too:
        # https://github.com/vutran1710/PyrateLimiter/pull/231
        def wall_clock() -> float:
            raise AssertionError("looked at the wall clock")

        with monkeypatch.context() as patch:
            patch.setattr(time, "time", wall_clock)
            bucket = TokenBucket(rate=1000, burst=1)
            for _ in range(3):
                bucket.acquire_sync()
                bucket.for_key("a").acquire_sync()
        assert bucket.statistics().granted == 3

    def test_a_pause_is_not_cut_short_by_a_shorter_one(self, clock: ManualClock) -> None:
        # what ends first let all go: https://github.com/python-telegram-bot/python-telegram-bot/issues/5338
        bucket = TokenBucket(rate=10, burst=5, clock=clock)
        bucket.pause_for(10)
        bucket.pause_for(1)
        bucket.end_call(1)
        clock.advance(9)
        assert bucket.try_acquire().retry_after == 1
        clock.advance(1)
        assert bucket.try_acquire()


class TestKeys:
    @pytest.fixture
    def family(self, clock: ManualClock) -> TokenBucket:
        return TokenBucket(rate=1, burst=2, clock=clock)

    def test_keys_that_read_alike_are_different_ones(self, family: TokenBucket) -> None:
        # limits joins the parts of a key with a slash, so that the first two were one
        keys = ["a/b", ("a", "b"), ("a/b",), (("a",), "b"), "a:b", "", (), None, 1, "1"]
        assert [went(family.for_key(key), 5) for key in keys] == [2] * len(keys)
        assert [went(family.for_key(key), 5) for key in keys] == [0] * len(keys)

    async def test_a_key_that_is_empty_holds_up_nobody_of_another_key(
        self, family: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        # https://github.com/vutran1710/PyrateLimiter/issues/301
        busy = family.for_key("busy")
        assert went(busy, 5) == 2
        with threads(busy.acquire_sync):
            await anyio.to_thread.run_sync(eventually, lambda: busy.statistics().waiting == 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.acquire, "busy", busy)
                await settle()
                await log.acquire("other", family.for_key("other"))
                family.for_key("another").acquire_sync(timeout=0)
                family.acquire_sync(timeout=0)
                assert log.gone == [("other", 0.0)]
                clock.advance(2.0)

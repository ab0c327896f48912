"""`all_of` on asyncio, on trio and in threads, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import Any

import anyio
import pytest

from batchkit import (
    AcquireTimeout,
    AllOf,
    ConcurrencyLimiter,
    CostExceedsBurst,
    Decision,
    InvalidCost,
    TokenBucket,
    Waited,
    all_of,
)
from batchkit.abc import Limiter
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.helpers import History, eventually, threads, worst_excess

pytestmark = pytest.mark.anyio


@pytest.fixture
def requests(clock: ManualClock) -> TokenBucket:
    """1/s, burst 2."""
    return TokenBucket(rate=1, burst=2, name="requests", clock=clock)


@pytest.fixture
def tokens(clock: ManualClock) -> TokenBucket:
    """10/s, burst 100."""
    return TokenBucket(rate=10, burst=100, name="tokens", clock=clock)


@pytest.fixture
def both(requests: TokenBucket, tokens: TokenBucket) -> AllOf:
    return all_of(requests=requests, tokens=tokens)


class Log:
    def __init__(self, clock: ManualClock, history: History) -> None:
        self.clock = clock
        self.history = history
        self.gone: list[tuple[str, float]] = []

    async def acquire(self, name: str, limiter: Any, *costs: int, **named: int) -> None:
        await limiter.acquire(*costs, **named)
        self.goes(name, limiter, *costs, **named)

    def acquire_sync(self, name: str, limiter: Any, *costs: int, **named: int) -> None:
        limiter.acquire_sync(*costs, **named)
        self.goes(name, limiter, *costs, **named)

    def goes(self, name: str, limiter: Any, cost: int = 1, *, priority: int = 0, **costs: int) -> None:
        self.gone.append((name, self.clock.now()))
        self.history.note(limiter, costs if isinstance(limiter, AllOf) else cost)


@pytest.fixture
def log(clock: ManualClock, history: History) -> Log:
    return Log(clock, history)


def available(*limiters: TokenBucket) -> list[float]:
    return [limiter.statistics().available for limiter in limiters]


def test_it_is_a_limiter(both: AllOf) -> None:
    assert isinstance(both, Limiter)


class TestTry:
    def test_all_or_nothing(self, both: AllOf, requests: TokenBucket, tokens: TokenBucket) -> None:
        assert both.try_acquire(requests=1, tokens=90)
        assert available(requests, tokens) == [1, 10]
        assert both.try_acquire(requests=1, tokens=20) == Decision(allowed=False, retry_after=1.0)
        assert available(requests, tokens) == [1, 10]
        assert both.try_acquire(tokens=10)
        assert both.try_acquire(requests=2, tokens=1) == Decision(allowed=False, retry_after=2.0)

    def test_costs_by_name_by_mapping_or_one_for_all(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket
    ) -> None:
        assert both.try_acquire({"requests": 1, "tokens": 30})
        assert both.try_acquire(
            {"tokens": 30}, tokens=20
        )  # the other one costs 1, what is named twice the latter
        assert available(requests, tokens) == [0, 50]
        assert both.try_acquire(requests=0, tokens=50)  # 0 leaves it out
        assert available(requests, tokens) == [0, 0]

    @pytest.mark.parametrize(
        "costs",
        [{"requests": -1}, {"requests": 1.0}, {"tokens": True}, {"cards": 1}, {"requests": 0, "tokens": 0}],
    )
    def test_a_cost_that_is_none(self, both: AllOf, costs: Any) -> None:
        with pytest.raises(InvalidCost):
            both.try_acquire(**costs)

    def test_a_cost_that_could_never_be_granted(self, both: AllOf, tokens: TokenBucket) -> None:
        with pytest.raises(CostExceedsBurst, match="cost 101 exceeds burst 100 of tokens"):
            both.try_acquire(tokens=101)
        assert available(tokens) == [100]


class TestWait:
    async def test_it_goes_when_the_slowest_limit_lets_it_and_takes_all_in_that_moment(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        tokens.try_acquire(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "a", both, tokens=50))
            await clock.run_for(4.0)
            assert log.gone == []
            assert available(requests, tokens) == [2, 40]
            await clock.run_for(1.0)
        assert log.gone == [("a", 5.0)]
        assert available(requests, tokens) == [1, 0]

    async def test_first_come_first_served(self, both: AllOf, clock: ManualClock, log: Log) -> None:
        async with anyio.create_task_group() as tasks:
            for name, cost in (("a", 90), ("b", 50), ("c", 1), ("d", 1)):
                tasks.start_soon(partial(log.acquire, name, both, tokens=cost))
                await settle()
            await clock.run_for(10)
        # b waits 4 s for tokens; meanwhile requests come in, for c; d has to wait for its own
        assert [name for name, _ in log.gone] == list("abcd")
        assert [moment for _, moment in log.gone] == pytest.approx([0.0, 4.0, 4.1, 5.0])

    async def test_who_waits_for_another_limit_blocks_nobody(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        tokens.try_acquire(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "slow", both, tokens=100))
            await settle()
            for name in "abcdefg":
                tasks.start_soon(log.acquire, name, requests)
                await settle()
            await clock.run_for(20)
        # what is kept for the slow one is there at 10.0; until then others have the rest
        assert log.gone[:2] == [("a", 0), ("b", 0)]
        assert log.gone[2:7] == [(name, number + 1.0) for number, name in enumerate("cdefg")]
        assert log.gone[7] == ("slow", 10.0)

    async def test_what_is_kept_for_it_is_there_in_its_moment_however_many_want_it(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        tokens.try_acquire(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "slow", both, requests=2, tokens=45))
            await settle()
            for number in range(20):
                tasks.start_soon(log.acquire, str(number), requests)
            await clock.run_for(30)
        assert ("slow", 4.5) in log.gone
        assert worst_excess([moment for name, moment in log.gone if name != "slow"] + [4.5, 4.5], 1, 2) <= 0
        assert log.gone[-1][1] == 20.5  # kept is a whole burst here, so that it is full for half a second

    async def test_a_newcomer_may_try_what_is_not_kept(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        tokens.try_acquire(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "slow", both, requests=2, tokens=15))
            await settle()
            assert requests.try_acquire()  # it has come in again at 1.0
            assert requests.try_acquire() == Decision(allowed=False, retry_after=2.0)
            await clock.run_for(1.5)
            assert log.gone == [("slow", 1.5)]

    async def test_groups_of_any_order_do_not_wait_in_a_circle(self, clock: ManualClock, log: Log) -> None:
        one, two, three = (TokenBucket(rate=rate, burst=4, clock=clock) for rate in (1, 2, 3))
        groups = [
            all_of(x=one, y=two),
            all_of(x=two, y=one),
            all_of(x=two, y=three),
            all_of(x=three, y=one),
            all_of(x=three, y=two, z=one),
        ]
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                costs = {"x": 1 + number % 3, "y": 1 + number % 2}
                tasks.start_soon(
                    partial(log.acquire, str(number), groups[number % 5], priority=number % 2, **costs)
                )
                if number % 7 == 0:
                    tasks.start_soon(partial(log.acquire, "direct", two, 4))
            await clock.run_for(200)
        assert len(log.gone) == 58
        assert log.gone[-1][1] <= 100

    async def test_a_cancelled_call_costs_nobody_anything(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        both.try_acquire(requests=2, tokens=100)
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as cancelled:
                for _ in range(20):
                    cancelled.start_soon(partial(both.acquire, requests=2, tokens=100))
                await settle()
                cancelled.cancel_scope.cancel()
            tasks.start_soon(partial(log.acquire, "next", both, tokens=10))
            await clock.run_for(1.0)
        assert log.gone == [("next", 1.0)]
        assert available(requests, tokens) == [0, 0]

    async def test_a_timeout_is_known_as_soon_as_one_limit_makes_it_certain(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock
    ) -> None:
        both.try_acquire(requests=1, tokens=100)
        with pytest.raises(AcquireTimeout, match="50 permits of tokens") as caught:
            await both.acquire(tokens=50, timeout=4.9)
        assert clock.now() == 0.0
        assert caught.value.retry_after == 5.0
        assert tokens.statistics().timeouts == 1
        assert requests.statistics().waiting == tokens.statistics().waiting == 0
        await clock.run(both.acquire(tokens=50, timeout=5.0))
        assert clock.now() == 5.0
        with pytest.raises(AcquireTimeout):
            both.acquire_sync(tokens=50, timeout=0)

    async def test_a_higher_priority_goes_first(self, both: AllOf, clock: ManualClock, log: Log) -> None:
        both.try_acquire(requests=2, tokens=100)
        async with anyio.create_task_group() as tasks:
            for name, priority in (("a", 0), ("b", 0), ("c", 1)):
                tasks.start_soon(partial(log.acquire, name, both, tokens=10, priority=priority))
                await settle()
            await clock.run_for(3)
        assert log.gone == [("c", 1.0), ("a", 2.0), ("b", 3.0)]

    async def test_a_lower_burst_ends_what_could_never_go(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock
    ) -> None:
        async def refused() -> None:
            with pytest.raises(CostExceedsBurst, match="of requests"):
                await both.acquire(requests=2, tokens=50)

        tokens.try_acquire(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused)
            await settle()
            requests.change(burst=1)
        assert tokens.statistics().waiting == 0

    async def test_a_pause_of_one_limit_holds_the_call_and_nobody_else(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock, log: Log
    ) -> None:
        tokens.pause_for(3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.acquire, "a", both)
            await settle()
            tasks.start_soon(log.acquire, "b", requests)
            await clock.run_for(5)
        assert log.gone == [("b", 0.0), ("a", 3.0)]

    async def test_a_stall_lets_no_backlog_go(self, both: AllOf, clock: ManualClock, log: Log) -> None:
        both.try_acquire(requests=2)
        async with anyio.create_task_group() as tasks:
            for name in "abcdef":
                tasks.start_soon(log.acquire, name, both)
            await settle()
            clock.advance(100)
            await settle()
            assert len(log.gone) == 2
            await clock.run_for(10)

    async def test_a_wait_is_an_event_of_each_limiter(self, clock: ManualClock, hook: RecordingHook) -> None:
        requests = TokenBucket(rate=1, burst=1, name="requests", hooks=[hook], clock=clock)
        tokens = TokenBucket(rate=10, burst=10, name="tokens", hooks=[hook], clock=clock)
        both = all_of(requests=requests, tokens=tokens)
        await both.acquire(tokens=5)
        assert hook.events == []
        await clock.run(both.acquire(tokens=5))
        assert hook.events == [Waited("requests", 1, 1.0), Waited("tokens", 5, 1.0)]
        statistics = both.statistics()
        assert statistics["tokens"].granted == 10
        assert statistics["requests"].waits == 1


class TestSettle:
    async def test_the_true_cost_is_settled_both_ways(
        self, both: AllOf, requests: TokenBucket, tokens: TokenBucket, clock: ManualClock
    ) -> None:
        async with both.permit(tokens=60) as permit:
            assert permit.cost == {"requests": 1, "tokens": 60}
            permit.settle(tokens=20)
        assert available(requests, tokens) == [1, 80]
        with both.permit(tokens=60) as permit:
            permit.settle({"tokens": 120})
            permit.hear(None)
        assert available(requests, tokens) == [0, -40]
        await clock.run(both.acquire())
        assert clock.now() == pytest.approx(4.1)

    def test_what_a_call_did_not_take_cannot_be_settled(self, both: AllOf) -> None:
        with both.permit(requests=0, tokens=60) as permit:
            with pytest.raises(InvalidCost, match="took no permits of 'requests'"):
                permit.settle(requests=1)
            with pytest.raises(InvalidCost):
                permit.settle(tokens=-1)


class TestCallsAtOnce:
    @pytest.fixture
    def slots(self, clock: ManualClock) -> ConcurrencyLimiter:
        return ConcurrencyLimiter(1, name="slots", clock=clock)

    @pytest.fixture
    def limited(self, requests: TokenBucket, slots: ConcurrencyLimiter) -> AllOf:
        return all_of(requests=requests, slots=slots)

    async def test_a_slot_is_given_back_when_the_call_ends(
        self, limited: AllOf, slots: ConcurrencyLimiter, clock: ManualClock
    ) -> None:
        begun: list[float] = []

        async def call() -> None:
            async with limited.permit():
                begun.append(clock.now())
                await clock.sleep(0.25)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(call)
            await clock.run_for(10)
        assert begun == [0, 0.25, 1.0, 2.0]
        assert slots.statistics().available == 1

    async def test_the_group_itself_as_a_context(self, limited: AllOf, slots: ConcurrencyLimiter) -> None:
        async with limited:
            assert slots.statistics().available == 0
        with limited:
            assert limited.try_acquire() == Decision(allowed=False, retry_after=inf)
        await limited.acquire(requests=0)
        limited.release(requests=0)
        assert slots.statistics().available == 1

    async def test_a_slot_is_not_kept_for_who_waits_for_the_quota(
        self, limited: AllOf, requests: TokenBucket, slots: ConcurrencyLimiter, clock: ManualClock, log: Log
    ) -> None:
        requests.try_acquire(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(log.acquire, "a", limited, requests=2))
            await settle()
            assert slots.try_acquire()
            await clock.run_for(2.0)
            assert log.gone == []  # its permits are there, and kept, until the slot comes back
            assert not requests.try_acquire()
            slots.release()
            await settle()
            assert log.gone == [("a", 2.0)]

    async def test_who_waits_for_a_slot_is_not_starved_of_the_quota(
        self, limited: AllOf, requests: TokenBucket, slots: ConcurrencyLimiter, clock: ManualClock, log: Log
    ) -> None:
        async def hog(limiter: ConcurrencyLimiter) -> None:
            while True:
                async with limiter:
                    await clock.sleep(0.7)

        async def greedy() -> None:
            while True:
                await requests.acquire()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hog, slots)
            tasks.start_soon(hog, slots)
            tasks.start_soon(greedy)
            tasks.start_soon(greedy)
            await clock.run_for(5)
            tasks.start_soon(partial(log.acquire, "a", limited, requests=2))
            await clock.run_for(5)
            tasks.cancel_scope.cancel()
        assert [name for name, _ in log.gone] == ["a"]


class TestThreads:
    def test_threads_and_tasks_of_two_loops_share_it(self) -> None:
        one = TokenBucket(rate=2000, burst=5)
        two = TokenBucket(rate=1000, burst=5)
        groups = [all_of(a=one, b=two), all_of(b=two, a=one)]
        gone: list[int] = []

        def thread(number: int) -> None:
            for _ in range(20):
                groups[number % 2].acquire_sync(a=2)
                gone.append(number)

        async def task(number: int) -> None:
            for _ in range(20):
                await groups[number % 2].acquire(a=2)
                gone.append(number)

        async def tasks(count: int) -> None:
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(task, number)

        with threads(
            *(partial(thread, number) for number in range(4)),
            lambda: anyio.run(tasks, 4),
            lambda: anyio.run(tasks, 4, backend="trio"),
        ):
            pass
        assert len(gone) == 240
        assert one.statistics().granted == 480
        assert two.statistics().granted == 240
        assert one.statistics().waiting == two.statistics().waiting == 0

    def test_a_call_of_a_closed_loop_leaves_every_line(self, clock: ManualClock, log: Log) -> None:
        one = TokenBucket(rate=1, burst=1, clock=clock)
        two = TokenBucket(rate=1, burst=2, clock=clock)
        both = all_of(one=one, two=two)
        both.try_acquire()
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # it would tell that a task of it is lost
        lost = loop.create_task(both.acquire())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert two.statistics().waiting == 1
        with threads(partial(log.acquire_sync, "t", both)):
            eventually(lambda: one.statistics().waiting == 2)
            clock.advance(1)
            eventually(lambda: len(log.gone) == 1)
        assert one.statistics().waiting == two.statistics().waiting == 0
        with pytest.raises(RuntimeError):
            lost.get_coro().throw(RuntimeError("the loop is gone"))


class TestMaking:
    def test_what_cannot_be_joined(self, both: AllOf, requests: TokenBucket, tokens: TokenBucket) -> None:
        with pytest.raises(ValueError, match="at least one"):
            all_of()
        with pytest.raises(ValueError, match="twice"):
            all_of(a=requests, b=requests)
        with pytest.raises(ValueError, match="one clock"):
            all_of(a=requests, b=TokenBucket(1, 1))
        with pytest.raises(TypeError, match="cannot be called priority"):
            all_of(priority=requests)
        with pytest.raises(TypeError, match="b is no"):
            all_of(a=requests, b=both)  # type: ignore[arg-type]  # the wrong type is the point
        with pytest.raises(ValueError, match="a priority"):
            both.acquire_sync(priority=1.0)  # type: ignore[arg-type]

    def test_it_says_what_it_is(self, both: AllOf) -> None:
        assert repr(both) == (
            "all_of(requests=TokenBucket(rate=1, burst=2, name='requests'), "
            "tokens=TokenBucket(rate=10, burst=100, name='tokens'))"
        )

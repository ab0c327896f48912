"""`ConcurrencyLimiter` on asyncio, on trio and in threads."""

from __future__ import annotations

import gc
import os
from functools import partial
from math import inf
from typing import Any

import anyio
import pytest

from batchkit import (
    AcquireTimeout,
    ConcurrencyLimiter,
    CostExceedsBurst,
    Decision,
    InvalidCost,
    LimitChanged,
    Waited,
    all_of,
)
from batchkit._gate import Gate
from batchkit.abc import Limiter
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.helpers import eventually, threads

pytestmark = pytest.mark.anyio


@pytest.fixture
def limiter(clock: ManualClock, hook: RecordingHook) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(2, name="speech", hooks=[hook], clock=clock)


class Calls:
    """Calls that last for some seconds, and when each began."""

    def __init__(self, limiter: ConcurrencyLimiter, clock: ManualClock) -> None:
        self.limiter = limiter
        self.clock = clock
        self.begun: list[tuple[str, float]] = []
        self.under_way = 0
        self.most = 0

    async def call(self, name: str, seconds: float = 1.0, **wish: Any) -> None:
        async with self.limiter.permit(**wish) as permit:
            self.begun.append((name, self.clock.now()))
            self.under_way += permit.cost
            self.most = max(self.most, self.under_way)
            try:
                await self.clock.sleep(seconds)
            finally:
                self.under_way -= permit.cost


@pytest.fixture
def calls(limiter: ConcurrencyLimiter, clock: ManualClock) -> Calls:
    return Calls(limiter, clock)


def test_it_is_a_limiter(limiter: ConcurrencyLimiter) -> None:
    assert isinstance(limiter, Limiter)


def test_a_slot_is_free_again_when_its_call_ends(limiter: ConcurrencyLimiter) -> None:
    assert limiter.try_acquire()
    assert limiter.try_acquire()
    assert limiter.try_acquire() == Decision(allowed=False, retry_after=inf)
    limiter.release()
    assert limiter.try_acquire()
    limiter.release(2)
    assert limiter.statistics().available == 2


async def test_calls_go_in_order_and_never_too_many(calls: Calls, clock: ManualClock) -> None:
    async with anyio.create_task_group() as tasks:
        for name in "abcde":
            tasks.start_soon(calls.call, name)
            await settle()
        await clock.run_for(3)
    assert sorted(calls.begun) == [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 2)]
    assert calls.most == 2


async def test_a_higher_priority_goes_first_and_a_large_cost_is_not_starved(
    calls: Calls, clock: ManualClock
) -> None:
    async with anyio.create_task_group() as tasks:
        for name, wish in (("a", {}), ("b", {}), ("L", {"cost": 2}), ("c", {}), ("p", {"priority": 1})):
            tasks.start_soon(partial(calls.call, name, **wish))
            await settle()
        await clock.run_for(4)
    assert calls.begun == [("a", 0), ("b", 0), ("p", 1), ("L", 2), ("c", 3)]
    assert calls.most == 2


async def test_a_timeout_ends_when_it_has_passed_since_a_call_may_end_at_any_time(
    calls: Calls, limiter: ConcurrencyLimiter, clock: ManualClock
) -> None:
    async def patient(seconds: float) -> None:
        with pytest.raises(AcquireTimeout, match="a call has to end first") as caught:
            await limiter.acquire(timeout=seconds)
        assert caught.value.retry_after == inf
        assert clock.now() == seconds

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(calls.call, "a", 1.0)
        tasks.start_soon(calls.call, "b", 5.0)
        await settle()
        tasks.start_soon(patient, 0.5)
        tasks.start_soon(partial(calls.call, "c", timeout=1.5))
        await clock.run_for(6)
    assert ("c", 1.0) in calls.begun
    assert limiter.statistics().timeouts == 1


async def test_a_cancelled_call_gives_its_slot_back(
    calls: Calls, limiter: ConcurrencyLimiter, clock: ManualClock
) -> None:
    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(calls.call, name, 1000.0)
            await settle()
        tasks.cancel_scope.cancel()
    assert limiter.statistics().available == 2
    assert limiter.statistics().waiting == 0


async def test_a_change_of_the_limit_is_told_at_once(
    calls: Calls, limiter: ConcurrencyLimiter, clock: ManualClock, hook: RecordingHook
) -> None:
    async def too_much() -> None:
        with pytest.raises(CostExceedsBurst, match="cost 2 exceeds limit 1 of speech"):
            await limiter.acquire(2)

    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(calls.call, name, 2.0)
            await settle()
        tasks.start_soon(too_much)
        await clock.run_for(0.5)
        limiter.change(limit=3)
        await clock.run_for(0.5)
        limiter.change(limit=1)
        await clock.run_for(6)
    assert calls.begun == [("a", 0), ("b", 0), ("c", 0.5), ("d", 2.5)]
    assert hook.of(LimitChanged) == [LimitChanged("speech", 3, 2), LimitChanged("speech", 1, 3)]
    assert hook.of(Waited) == [Waited("speech", 1, 0.5), Waited("speech", 1, 2.5)]
    assert limiter.limit == 1
    assert repr(limiter) == "ConcurrencyLimiter(1, name='speech')"


def test_a_call_that_turns_out_to_be_larger_or_smaller(limiter: ConcurrencyLimiter) -> None:
    with limiter.permit(2) as permit:
        permit.settle(1)
        assert limiter.try_acquire()
        permit.settle(3)
        assert limiter.statistics().available == -2
        permit.hear(None)
    assert limiter.statistics().available == 1
    with limiter.permit() as permit:
        permit.settle(0)
    with limiter:
        assert limiter.statistics().available == 0
    assert limiter.statistics().available == 1


async def test_with_a_pause_nobody_begins(
    calls: Calls, limiter: ConcurrencyLimiter, clock: ManualClock
) -> None:
    limiter.pause_for(3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(calls.call, "a")
        await clock.run_for(5)
    assert calls.begun == [("a", 3.0)]


@pytest.mark.parametrize("cost", [0, -1, 1.0, True])
def test_a_cost_that_is_none(limiter: ConcurrencyLimiter, cost: Any) -> None:
    with pytest.raises(InvalidCost):
        limiter.try_acquire(cost)
    with pytest.raises(InvalidCost):
        limiter.release(cost)


def test_more_than_is_out_cannot_be_given_back(limiter: ConcurrencyLimiter) -> None:
    with pytest.raises(ValueError, match="1 permits given back to speech, but only 0 are out"):
        limiter.release()
    with limiter, pytest.raises(ValueError, match="only 1 are out"):
        limiter.release(2)
    assert limiter.statistics().available == 2


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, inf])
def test_a_limit_that_is_none(limiter: ConcurrencyLimiter, limit: Any) -> None:
    with pytest.raises(ValueError, match="a limit is a whole number"):
        ConcurrencyLimiter(limit)
    with pytest.raises(ValueError, match="a limit is a whole number"):
        limiter.change(limit=limit)


def test_threads_share_it() -> None:
    limiter = ConcurrencyLimiter(3)
    under_way: list[int] = []
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(50):
            with limiter.permit():
                under_way.append(1)
                most = max(most, len(under_way))
                under_way.pop()

    with threads(*[work] * 8):
        pass
    assert most <= 3
    assert limiter.statistics().granted == 400
    assert limiter.statistics().available == 3


def test_a_thread_waits_for_one_that_holds_it(limiter: ConcurrencyLimiter) -> None:
    limiter.acquire_sync(2)
    with threads(limiter.acquire_sync):
        eventually(lambda: limiter.statistics().waiting == 1)
        limiter.release()
    assert limiter.statistics().available == 0


def test_after_a_fork_nobody_of_the_parent_holds_a_slot(limiter: ConcurrencyLimiter) -> None:
    with limiter:  # the child leaves this block, too
        child = os.fork()
        if child == 0:
            fine = bool(limiter.try_acquire(2))
            limiter.release(2)
            limiter.end_call(1)
            os._exit(0 if fine and limiter.statistics().available == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert limiter.statistics().available == 1


def test_a_coroutine_that_is_collected_amid_a_decision_gives_its_slot_back(clock: ManualClock) -> None:
    limiter = ConcurrencyLimiter(1, clock=clock)

    def collect(_: float) -> None:
        lost.clear()
        gc.collect()

    lost = [waits_in_line(limiter)]
    lost[0].send(None)
    assert limiter.statistics().available == 0
    limiter.gate.alone(collect)
    assert limiter.statistics().available == 1


def test_a_coroutine_that_is_collected_amid_the_decision_of_another_limiter_is_heard_after_it(
    clock: ManualClock,
) -> None:
    one, two = ConcurrencyLimiter(1, clock=clock), ConcurrencyLimiter(1, clock=clock)

    def collect(_: float) -> None:
        lost.clear()
        gc.collect()
        assert one.gate.store.taken == 1  # later: its lock may be in the hands of who waits for this one

    lost = [waits_in_line(one)]
    lost[0].send(None)
    two.gate.alone(collect)
    assert one.statistics().available == 1
    lost = [waits_in_line(one)]
    lost[0].send(None)
    both: list[Any] = [one.gate, two.gate]
    Gate.together(both, collect)
    assert one.statistics().available == 1


def test_what_a_finalizer_asks_amid_a_decision_is_an_error_and_no_deadlock(clock: ManualClock) -> None:
    limiter = ConcurrencyLimiter(2, clock=clock)
    group = all_of(limiter=limiter)

    def decide(_: float) -> None:
        for ask in (limiter.try_acquire, limiter.statistics, group.try_acquire):
            with pytest.raises(RuntimeError, match="while this thread decided"):
                ask()
        limiter.charge(1)  # what needs no answer is done right after it

    limiter.gate.alone(decide)
    assert limiter.statistics().available == 1


def test_a_finalizer_that_is_wrong_harms_nobody_else(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = ConcurrencyLimiter(2, clock=clock)
    limiter.gate.alone(lambda now: limiter.release())
    assert "only 0 are out" in caplog.text
    assert limiter.try_acquire(2)


async def waits_in_line(limiter: ConcurrencyLimiter) -> None:
    async with limiter:
        await _Forever()


class _Forever:
    def __await__(self) -> Any:
        yield

"""Limiters, groups and reservations in any order of events, against buckets in exact fractions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchkit import AcquireTimeout, ConcurrencyLimiter, CostExceedsBurst, TokenBucket, all_of
from batchkit._local import LocalLimiter
from batchkit.testing import ManualClock, settle
from tests.helpers import DEADLINE

SLACK = Fraction(1, 2**40)  # of a permit: a changed rate is reckoned from a rounded moment on
rates = st.sampled_from([0.1, 1 / 3, 1.0, 7.0, 1000.0])
bursts = st.integers(1, 5)
seconds = st.sampled_from([0.0, 0.01, 0.1, 1 / 3, 1.0, 2.5, 60.0])
costs = st.integers(1, 4)
priorities = st.integers(-1, 2)
timeouts = st.sampled_from([None, None, None, 0.0, 0.5, 3.0])
which = st.integers(0, 1)


class Reference:
    """A bucket as the textbook has it: a level, filled by the rate at every event, in fractions."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = Fraction(rate)
        self.burst = burst
        self.level = Fraction(burst)
        self.now = Fraction(0)

    def fill(self, now: float) -> None:
        self.level = min(Fraction(self.burst), self.level + self.rate * (Fraction(now) - self.now))
        self.now = Fraction(now)

    def take(self, cost: int, now: float) -> None:
        self.fill(now)
        assert self.level - cost >= -SLACK, f"{cost} went where {float(self.level)} were"
        self.level -= cost

    def charge(self, permits: int, now: float) -> None:
        self.fill(now)
        self.level = min(Fraction(self.burst), self.level - permits)

    def drain(self, remaining: int, now: float) -> None:
        self.fill(now)
        self.level = min(self.level, Fraction(remaining))

    def change(self, rate: float, burst: int, now: float) -> None:
        self.fill(now)  # what is owed stays owed
        owed = self.burst - self.level
        self.rate, self.burst = Fraction(rate), burst
        self.level = burst - owed


class Limiters(RuleBasedStateMachine):
    """Two buckets, a limit of calls at once, and groups of them in different orders."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.tasks: list[asyncio.Task[None]] = []
        self.under_way = 0

    @initialize(one=st.tuples(rates, bursts), two=st.tuples(rates, bursts), limit=st.integers(1, 3))
    def start(self, one: tuple[float, int], two: tuple[float, int], limit: int) -> None:
        clock = self.clock
        self.buckets = [
            TokenBucket(*one, name="one", clock=clock),
            TokenBucket(*two, name="two", clock=clock),
        ]
        self.references = [Reference(*one), Reference(*two)]
        self.slots = ConcurrencyLimiter(limit, name="slots", clock=clock)
        first, second = self.buckets
        self.groups: list[Any] = [
            all_of(one=first, two=second),
            all_of(two=second, one=first),
            all_of(slots=self.slots, two=second),
            all_of(one=first, slots=self.slots, two=second),
        ]

    @rule(bucket=which, cost=costs, priority=priorities, timeout=timeouts)
    def acquire(self, bucket: int, cost: int, priority: int, timeout: float | None) -> None:
        async def work() -> None:
            await self.buckets[bucket].acquire(cost, priority=priority, timeout=timeout)
            self.references[bucket].take(cost, self.clock.now())

        self.begin(work)

    @rule(group=st.integers(0, 3), one=costs, two=costs, priority=priorities, timeout=timeouts, lasts=seconds)
    def acquire_all(
        self, group: int, one: int, two: int, priority: int, timeout: float | None, lasts: float
    ) -> None:
        wanted = {"one": one, "two": two} if group != 2 else {"two": two}

        async def work() -> None:
            async with self.groups[group].permit(wanted, priority=priority, timeout=timeout) as permit:
                for reference, name in zip(self.references, ("one", "two"), strict=True):
                    if name in permit.cost:
                        reference.take(permit.cost[name], self.clock.now())
                slots = permit.cost.get("slots", 0)
                self.under_way += slots
                try:
                    await self.clock.sleep(lasts if slots else 0.0)
                finally:
                    self.under_way -= slots

        self.begin(work)

    @rule(lasts=seconds)
    def take_a_slot(self, lasts: float) -> None:
        async def work() -> None:
            async with self.slots:
                self.under_way += 1
                try:
                    await self.clock.sleep(lasts)
                finally:
                    self.under_way -= 1

        self.begin(work)

    @rule(bucket=which, cost=costs, after=seconds, used=st.booleans())
    def reserve(self, bucket: int, cost: int, after: float, used: bool) -> None:
        async def work() -> None:
            with self.buckets[bucket].reserve(cost) as reservation:
                await self.clock.sleep(after)
                if used:
                    await reservation.wait()
                    self.references[bucket].take(cost, self.clock.now())

        self.begin(work)

    @rule(bucket=which, cost=costs)
    def try_one(self, bucket: int, cost: int) -> None:
        if cost <= self.buckets[bucket].burst and self.buckets[bucket].try_acquire(cost):
            self.references[bucket].take(cost, self.clock.now())

    @rule(number=st.integers(0, 30))
    def cancel(self, number: int) -> None:
        if self.tasks:
            self.tasks[number % len(self.tasks)].cancel()
            self.run(settle())

    @rule(amount=seconds)
    def time_passes(self, amount: float) -> None:
        self.run(self.clock.run_for(amount))

    @rule(amount=seconds)
    def stall(self, amount: float) -> None:
        self.clock.advance(amount)
        self.run(settle())

    @rule(bucket=which, rate=rates, burst=bursts)
    def change(self, bucket: int, rate: float, burst: int) -> None:
        self.references[bucket].change(rate, burst, self.clock.now())
        self.buckets[bucket].change(rate=rate, burst=burst)
        self.run(settle())

    @rule(limit=st.integers(1, 3))
    def change_limit(self, limit: int) -> None:
        self.slots.change(limit=limit)
        self.run(settle())

    @rule(bucket=which, permits=st.integers(-3, 3))
    def charge(self, bucket: int, permits: int) -> None:
        self.references[bucket].charge(permits, self.clock.now())
        self.buckets[bucket].charge(permits)
        self.run(settle())

    @rule(bucket=which, remaining=st.integers(0, 2))
    def drain(self, bucket: int, remaining: int) -> None:
        remaining = min(remaining, self.buckets[bucket].burst)
        self.references[bucket].drain(remaining, self.clock.now())
        self.buckets[bucket].drain(remaining)
        self.run(settle())

    @rule(bucket=which, amount=seconds)
    def pause(self, bucket: int, amount: float) -> None:
        self.buckets[bucket].pause_for(amount)

    @invariant()
    def levels_agree(self) -> None:
        for bucket, reference in zip(self.buckets, self.references, strict=True):
            reference.fill(self.clock.now())
            reserved = bucket.gate.line.reserved  # granted to an absent owner, and not yet taken
            level = Fraction(bucket.statistics().available) + reserved
            assert abs(level - reference.level) < Fraction(1, 2**30)

    @invariant()
    def never_too_many_calls_at_once(self) -> None:
        assert self.slots.statistics().available == self.slots.limit - self.under_way

    def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        async def outcome() -> None:
            with suppress(AcquireTimeout, CostExceedsBurst):  # whoever has such an answer has taken nothing
                await work()

        self.tasks.append(self.loop.create_task(outcome()))
        self.run(settle())
        self.tasks = [task for task in self.tasks if not self.is_over(task)]

    def is_over(self, task: asyncio.Task[None]) -> bool:
        if not task.done():
            return False
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        return True

    def is_quiet(self, limiter: LocalLimiter[Any]) -> bool:
        return limiter.statistics().waiting == 0 and limiter.gate.line.quiet(self.clock.now())

    def run(self, work: Awaitable[None]) -> None:
        async def doing() -> None:
            async with asyncio.timeout(DEADLINE):  # those who wake each other for ever never let it settle
                await work

        self.loop.run_until_complete(doing())

    def teardown(self) -> None:
        if hasattr(self, "buckets"):
            self.run(self.clock.run_for(10_000))
            for task in self.tasks:
                assert self.is_over(task), "somebody waits for ever"
            assert all(self.is_quiet(bucket) for bucket in self.buckets)
            assert self.is_quiet(self.slots)
            self.levels_agree()
        self.loop.close()


TestLimiters = Limiters.TestCase
TestLimiters.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

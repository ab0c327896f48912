"""Limiters by key: `for_key` of buckets and of limiters of calls at once."""

from __future__ import annotations

import gc
import os
import weakref
from functools import partial
from math import inf
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchkit import (
    AcquireTimeout,
    AdaptiveLimiter,
    ConcurrencyLimiter,
    CostExceedsBurst,
    Decision,
    RateChanged,
    TokenBucket,
    Waited,
    all_of,
)
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.helpers import eventually, in_child, threads, worst_excess
from tests.test_limiters_interrupted import CtrlC

pytestmark = pytest.mark.anyio

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def accounts(clock: ManualClock, hook: RecordingHook) -> TokenBucket:
    """1/s, burst 2, for each account."""
    return TokenBucket(rate=1, burst=2, name="api", hooks=[hook], clock=clock)


@pytest.fixture
def users(clock: ManualClock, hook: RecordingHook) -> ConcurrencyLimiter:
    """2 at once, for each user."""
    return ConcurrencyLimiter(2, name="calls", hooks=[hook], clock=clock)


def kept(limiter: TokenBucket | ConcurrencyLimiter) -> int:
    """How many keys are remembered."""
    return 0 if limiter._family is None else len(limiter._family)


def stir(limiter: TokenBucket | ConcurrencyLimiter) -> None:
    """Ask for other keys, so that each one that is kept is looked at."""
    for number in range(2 * kept(limiter) + 2):
        limiter.for_key(("stir", number % 2))


class TestOneForEach:
    def test_the_same_key_the_same_limiter(self, accounts: TokenBucket, users: ConcurrencyLimiter) -> None:
        for limiter in (accounts, users):
            one = limiter.for_key("a")
            stir(limiter)
            assert limiter.for_key("a") is one
            assert limiter.for_key("b") is not one
            assert type(one) is type(limiter)

    def test_it_is_of_the_same_size_and_name(self, accounts: TokenBucket, users: ConcurrencyLimiter) -> None:
        assert repr(accounts.for_key("a")) == repr(accounts)
        assert repr(users.for_key("a")) == repr(users)
        assert accounts.for_key("a").clock is accounts.clock

    def test_one_takes_nothing_from_another(self, accounts: TokenBucket) -> None:
        assert accounts.for_key("a").try_acquire(2)
        assert accounts.for_key("b").try_acquire(2)
        assert accounts.try_acquire(2)
        assert not accounts.for_key("a").try_acquire()

    @pytest.mark.parametrize("key", [None, 0, "", ("a", 1), frozenset({1})])
    def test_whatever_can_be_a_key(self, accounts: TokenBucket, key: Any) -> None:
        assert accounts.for_key(key).try_acquire(2)
        assert not accounts.for_key(key).try_acquire()

    def test_the_limiter_of_a_key_has_no_keys(self, accounts: TokenBucket, users: ConcurrencyLimiter) -> None:
        for limiter in (accounts, users):
            with pytest.raises(TypeError, match="take a tuple"):
                limiter.for_key("a").for_key("b")

    def test_what_cannot_be_one(self, accounts: TokenBucket) -> None:
        accounts.for_key("a").try_acquire(2)
        for key in ([1], {1: 2}):
            with pytest.raises(TypeError, match="unhashable"):
                accounts.for_key(key)  # type: ignore[arg-type]  # the wrong type is the point
        assert not accounts.for_key("a").try_acquire()
        assert accounts.try_acquire()

    async def test_those_of_a_key_wait_in_one_line(
        self, accounts: TokenBucket, clock: ManualClock, hook: RecordingHook
    ) -> None:
        gone: list[tuple[str, float]] = []

        async def call(key: str) -> None:
            await accounts.for_key(key).acquire()
            gone.append((key, clock.now()))

        async with anyio.create_task_group() as tasks:
            for key in "aaaabb":
                tasks.start_soon(call, key)
                await settle()
            gc.collect()
            await clock.run_for(5)
        assert gone == [("a", 0), ("a", 0), ("b", 0), ("b", 0), ("a", 1), ("a", 2)]
        assert hook.of(Waited) == [Waited("api", 1, 1), Waited("api", 1, 2)]

    async def test_it_is_a_limiter_like_any_other(self, accounts: TokenBucket, clock: ManualClock) -> None:
        a = accounts.for_key("a")
        async with a.permit(2) as permit:
            permit.settle(3)
        assert accounts.for_key("a").statistics().available == -1
        with pytest.raises(AcquireTimeout, match="of api"):
            await accounts.for_key("a").acquire(timeout=1)
        with pytest.raises(CostExceedsBurst, match="cost 3 exceeds burst 2 of api"):
            accounts.for_key("a").try_acquire(3)
        with accounts.for_key("a").reserve() as reservation:
            assert reservation.delay == 2
            stir(accounts)
            await clock.run(reservation.wait())
        assert clock.now() == 2

    async def test_in_a_group_and_adaptive(self, accounts: TokenBucket, clock: ManualClock) -> None:
        everybody = TokenBucket(rate=1, burst=3, clock=clock)
        for key, allowed in (("a", True), ("b", True), ("a", True), ("b", False)):
            assert all_of(one=accounts.for_key(key), all=everybody).try_acquire().allowed is allowed
        smart = AdaptiveLimiter(accounts.for_key("a"), min_rate=0.1, max_rate=10)
        clock.advance(1)
        smart.learn(429, sent=0.5)
        assert accounts.for_key("a").rate < 1
        assert accounts.for_key("b").rate == accounts.rate == 1


class TestWhatIsKept:
    def test_permits_until_they_have_come_in(self, accounts: TokenBucket, clock: ManualClock) -> None:
        accounts.for_key("a").try_acquire(2)
        for waited, allowed in ((0.5, False), (0.25, False), (0.25, True), (1.5, True), (0.0, False)):
            clock.advance(waited)
            gc.collect()
            stir(accounts)
            assert accounts.for_key("a").try_acquire().allowed is allowed

    def test_calls_under_way(self, users: ConcurrencyLimiter) -> None:
        users.for_key("a").acquire_sync(2)
        stir(users)
        assert users.for_key("a").try_acquire() == Decision(allowed=False, retry_after=inf)
        users.for_key("a").release(2)
        stir(users)
        assert users.for_key("a").try_acquire(2)

    @pytest.mark.parametrize("kind", ["accounts", "users"])
    def test_a_pause(self, request: pytest.FixtureRequest, clock: ManualClock, kind: str) -> None:
        limiter: TokenBucket | ConcurrencyLimiter = request.getfixturevalue(kind)
        limiter.for_key("a").pause_for(10)
        stir(limiter)
        assert limiter.for_key("a").try_acquire() == Decision(allowed=False, retry_after=10)
        assert limiter.for_key("b").try_acquire()
        clock.advance(9)
        stir(limiter)
        assert not limiter.for_key("a").try_acquire()
        clock.advance(1)
        stir(limiter)
        assert limiter.for_key("a").try_acquire(2)

    async def test_a_pause_for_those_who_come_to_wait(
        self, accounts: TokenBucket, clock: ManualClock
    ) -> None:
        accounts.for_key("a").pause_for(10)
        stir(accounts)
        await clock.run(accounts.for_key("a").acquire())
        assert clock.now() == 10

    def test_a_size_of_its_own(self, accounts: TokenBucket, users: ConcurrencyLimiter) -> None:
        accounts.for_key("vip").change(rate=10, burst=20)
        users.for_key("vip").change(limit=20)
        for limiter in (accounts, users):
            stir(limiter)
            assert limiter.for_key("vip").try_acquire(20)
            assert not limiter.for_key("vip").try_acquire()
        assert accounts.for_key("vip").rate == 10

    def test_a_limiter_that_somebody_holds(self, accounts: TokenBucket) -> None:
        held = accounts.for_key("a")
        stir(accounts)
        assert accounts.for_key("a") is held
        held.try_acquire(2)
        assert not accounts.for_key("a").try_acquire()
        lost = weakref.ref(held)
        del held
        gc.collect()
        assert lost() is None
        assert not accounts.for_key("a").try_acquire()


class TestMemory:
    def test_keys_that_are_used_once_are_forgotten_as_time_goes_by(self) -> None:
        clock = ManualClock()
        accounts = TokenBucket(rate=1, burst=2, clock=clock)
        most = 0
        for number in range(100_000):
            assert accounts.for_key(number).try_acquire()
            clock.advance(1 / 128)
            most = max(most, kept(accounts))
        # each is full again after a second, in which 128 others come; each search looks at two
        assert most <= 2 * 128 + 4
        clock.advance(2)
        stir(accounts)
        assert kept(accounts) <= 2

    def test_so_are_calls_that_have_ended(self, users: ConcurrencyLimiter) -> None:
        under_way = users.for_key("long")
        under_way.acquire_sync()
        for number in range(1000):
            with users.for_key(number):
                pass
        assert kept(users) <= 4
        assert under_way.statistics().available == 1

    def test_so_are_keys_that_were_only_asked_for(self, accounts: TokenBucket) -> None:
        held = [accounts.for_key(number) for number in range(100)]
        assert kept(accounts) == 100
        held.clear()
        stir(accounts)
        assert kept(accounts) <= 2
        assert accounts._family is not None
        assert len(accounts._family._held) <= 2


class TestChange:
    def test_of_the_rate_reaches_all_keys(
        self, accounts: TokenBucket, clock: ManualClock, hook: RecordingHook
    ) -> None:
        held = accounts.for_key("held")
        held.try_acquire(2)
        accounts.for_key("unheld").try_acquire(2)
        accounts.change(rate=4, reason="a larger plan")
        clock.advance(0.25)
        for key in ("held", "unheld"):
            assert accounts.for_key(key).rate == 4
            assert accounts.for_key(key).try_acquire()
            assert accounts.for_key(key).try_acquire() == Decision(allowed=False, retry_after=0.25)
        assert accounts.for_key("new").rate == 4
        assert (
            hook.of(RateChanged) == [RateChanged("api", 4, 2, 1, 2, "a larger plan")] * 2
        )  # its own, and held

    def test_it_reaches_those_that_were_changed_alone_before(self, accounts: TokenBucket) -> None:
        held = accounts.for_key("held")
        for key in ("held", "unheld"):
            accounts.for_key(key).change(rate=10)
        accounts.change(burst=3)
        assert (held.rate, held.burst) == (1, 3)
        assert (accounts.for_key("unheld").rate, accounts.for_key("unheld").burst) == (1, 3)

    def test_of_the_burst_mints_nothing(self, accounts: TokenBucket) -> None:
        held = accounts.for_key("held")
        held.try_acquire(2)
        accounts.for_key("unheld").try_acquire(2)
        accounts.change(burst=5)
        for key in ("held", "unheld"):
            assert accounts.for_key(key).statistics().available == 3
        accounts.change(burst=1)
        for key in ("held", "unheld"):
            assert accounts.for_key(key).statistics().available == -1
        stir(accounts)
        assert not accounts.for_key("unheld").try_acquire()

    async def test_those_who_wait_for_a_key_are_told(self, accounts: TokenBucket, clock: ManualClock) -> None:
        accounts.for_key("a").try_acquire(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accounts.for_key("a").acquire)
            await settle()
            accounts.change(rate=10)
            await clock.run_for(0.1)
            assert accounts.for_key("a").statistics().waiting == 0

    def test_of_a_limit(self, users: ConcurrencyLimiter) -> None:
        held = users.for_key("held")
        held.acquire_sync()
        users.for_key("unheld").acquire_sync()
        users.change(limit=4)
        for key in ("held", "unheld", "new"):
            assert users.for_key(key).limit == 4
        assert held.try_acquire(3)
        assert not held.try_acquire()
        assert users.for_key("unheld").statistics().available == 3

    def test_while_limiters_are_dropped_and_made(self) -> None:
        accounts = TokenBucket(rate=1000, burst=2)
        running = True

        def use(seed: int) -> None:
            mine: list[TokenBucket] = []
            number = seed
            while running:
                number = (number * 5 + 7) % 64
                mine.append(accounts.for_key(number))
                if len(mine) > 8:
                    mine.clear()

        def change() -> None:
            nonlocal running
            try:
                for rate in range(1, 400):
                    accounts.change(rate=rate)
            finally:
                running = False

        with threads(partial(use, 1), partial(use, 2), partial(use, 3), change):
            pass
        assert [accounts.for_key(number).rate for number in range(64)] == [399] * 64


class TestExactly(RuleBasedStateMachine):
    """A family against a limiter of its own for each key, that is never forgotten."""

    keys = st.integers(0, 4)

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.rate, self.burst = 1.0, 3
        self.family = TokenBucket(self.rate, self.burst, clock=self.clock)
        self.single: dict[int, TokenBucket] = {}
        self.held: list[TokenBucket] = []

    def of(self, key: int) -> TokenBucket:
        if key not in self.single:
            self.single[key] = TokenBucket(self.rate, self.burst, clock=self.clock)
        return self.single[key]

    @rule(key=keys, cost=st.integers(1, 3), hold=st.booleans())
    def take(self, key: int, cost: int, hold: bool) -> None:
        if cost <= self.burst:
            limiter = self.family.for_key(key)
            assert limiter.try_acquire(cost) == self.of(key).try_acquire(cost)
            if hold:
                self.held.append(limiter)

    @rule(key=keys, permits=st.integers(-4, 4))
    def charge(self, key: int, permits: int) -> None:
        self.family.for_key(key).charge(permits)
        self.of(key).charge(permits)

    @rule(key=keys, seconds=st.integers(0, 8).map(lambda eighths: eighths / 8))
    def pause(self, key: int, seconds: float) -> None:
        self.family.for_key(key).pause_for(seconds)
        self.of(key).pause_for(seconds)

    @rule(key=keys, remaining=st.integers(0, 3))
    def drain(self, key: int, remaining: int) -> None:
        self.family.for_key(key).drain(remaining)
        self.of(key).drain(remaining)

    @rule(rate=st.sampled_from([0.5, 1.0, 2.0]), burst=st.integers(1, 3))
    def change(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.family.change(rate=rate, burst=burst)
        for limiter in self.single.values():
            limiter.change(rate=rate, burst=burst)

    @rule(eighths=st.integers(0, 40))
    def wait(self, eighths: int) -> None:
        self.clock.advance(eighths / 8)

    @rule()
    def drop(self) -> None:
        self.held.clear()

    @rule()
    def look(self) -> None:
        stir(self.family)

    @precondition(lambda self: self.single)
    @invariant()
    def all_have_the_same(self) -> None:
        # read in the stores, since to ask for a key would change what is held
        assert self.family._family is not None
        for key, limiter in self.single.items():
            available = limiter.statistics().available
            store = self.family._family._stores.get(key)
            assert available == (self.burst if store is None else store.available(self.clock.now()))


TestExactlyAsOneForEach = TestExactly.TestCase
del TestExactly


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "return", "drop", "look"]), st.integers(0, 3), st.integers(1, 2)),
        max_size=60,
    )
)
def test_calls_at_once_are_counted_as_by_one_for_each(steps: list[tuple[str, int, int]]) -> None:
    family = ConcurrencyLimiter(3, clock=ManualClock())
    single = [ConcurrencyLimiter(3, clock=ManualClock()) for _ in range(4)]
    held: list[ConcurrencyLimiter] = []
    for what, key, cost in steps:
        if what == "take":
            held.append(family.for_key(key))
            assert held[-1].try_acquire(cost) == single[key].try_acquire(cost)
        elif what == "return":
            if 3 - single[key].statistics().available >= cost:
                family.for_key(key).release(cost)
                single[key].release(cost)
        elif what == "drop":
            held.clear()
        else:
            stir(family)
    for key in range(4):
        assert family.for_key(key).statistics().available == single[key].statistics().available


class TestEverywhere:
    def test_threads_and_tasks_of_two_loops_share_the_keys(self, clock: ManualClock) -> None:
        accounts = TokenBucket(rate=500, burst=2)
        gone: dict[int, list[float]] = {key: [] for key in range(5)}

        def thread(number: int) -> None:
            for turn in range(20):
                key = (number + turn) % 5
                accounts.for_key(key).acquire_sync()
                gone[key].append(accounts.clock.now())

        async def task(number: int) -> None:
            for turn in range(20):
                key = (number + turn) % 5
                await accounts.for_key(key).acquire()
                gone[key].append(accounts.clock.now())

        async def tasks() -> None:
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(task, number)

        with threads(
            *(partial(thread, number) for number in range(5)),
            partial(anyio.run, tasks),
            partial(anyio.run, tasks, backend="trio"),
        ):
            pass
        assert [len(times) for times in gone.values()] == [60] * 5
        assert sum(accounts.for_key(key).statistics().waiting for key in range(5)) == 0

    def test_many_threads_that_ask_for_a_key_at_once_get_one_limiter(self, accounts: TokenBucket) -> None:
        found: list[TokenBucket] = []

        def ask() -> None:
            found.extend(accounts.for_key(key) for key in range(50))

        with threads(*[ask] * 8):
            pass
        assert len(found) == 400
        assert len({id(limiter) for limiter in found}) == 50

    def test_a_thread_that_waits_for_a_key_keeps_its_line(
        self, accounts: TokenBucket, clock: ManualClock
    ) -> None:
        accounts.for_key("a").try_acquire(2)
        with threads(lambda: accounts.for_key("a").acquire_sync()):
            eventually(lambda: accounts.for_key("a").statistics().waiting == 1)
            clock.advance(0.5)
            stir(accounts)
            assert accounts.for_key("a").try_acquire() == Decision(allowed=False, retry_after=1.5)
            clock.advance(0.5)
        assert accounts.for_key("a").statistics().available == 0

    def test_a_waiter_that_is_collected_with_its_limiter_leaves_nothing(
        self, accounts: TokenBucket, users: ConcurrencyLimiter
    ) -> None:
        async def wait(limiter: Any) -> None:
            async with limiter:
                await _Forever()

        for limiter in (accounts, users):
            limiter.for_key("a").try_acquire(1)
            lost = wait(limiter.for_key("a"))
            lost.send(None)
            assert limiter.for_key("a").statistics().available == 0
            lost_in_a_circle: list[Any] = [lost]
            lost_in_a_circle.append(lost_in_a_circle)
            del lost, lost_in_a_circle
            gc.collect()
        assert accounts.for_key("a").statistics().available == 0  # it went before
        assert users.for_key("a").statistics().available == 1

    async def test_a_limiter_that_is_dropped_amid_a_decision(self, accounts: TokenBucket) -> None:
        class Key:
            """Drops the last limiter of another key whenever it is looked up."""

            def __hash__(self) -> int:
                held.clear()
                return 1

            def __eq__(self, other: object) -> bool:
                return self is other

        held = [accounts.for_key("a")]
        held[0].try_acquire(2)
        key = Key()
        assert accounts.for_key(key).try_acquire(2)
        assert held == []
        assert not accounts.for_key(key).try_acquire()
        assert not accounts.for_key("a").try_acquire()


class _Forever:
    def __await__(self) -> Any:
        yield


@needs_fork
class TestFork:
    """In the child none of the parent's calls is under way, whoever holds their limiters."""

    def test_of_a_key_that_nobody_holds(self, users: ConcurrencyLimiter) -> None:
        users.for_key("a").acquire_sync(2)
        in_child(lambda: bool(users.for_key("a").try_acquire(2)))
        assert not users.for_key("a").try_acquire()

    def test_of_a_key_that_somebody_holds(self, users: ConcurrencyLimiter) -> None:
        held = users.for_key("a")
        held.acquire_sync(2)
        in_child(lambda: bool(users.for_key("a").try_acquire(2)) and users.for_key("a") is held)
        assert not held.try_acquire()

    def test_of_a_key_that_is_held_in_the_child_and_dropped_unused(self, users: ConcurrencyLimiter) -> None:
        held = [users.for_key("a")]
        held[0].acquire_sync(2)

        def check() -> bool:
            users.for_key("b")  # now the family is at home in the child
            held.clear()
            gc.collect()
            return bool(users.for_key("a").try_acquire(2))

        in_child(check)
        assert not users.for_key("a").try_acquire()

    def test_a_change_in_the_child_settles_them_too(self, users: ConcurrencyLimiter) -> None:
        users.for_key("a").acquire_sync(2)

        def check() -> bool:
            users.change(limit=3)
            return bool(users.for_key("a").try_acquire(3))

        in_child(check)
        assert users.for_key("a").limit == 2

    def test_what_a_bucket_let_go_stays_counted(self, accounts: TokenBucket, clock: ManualClock) -> None:
        accounts.for_key("a").try_acquire(2)
        held = accounts.for_key("b")
        held.try_acquire(1)

        def check() -> bool:
            refused = not accounts.for_key("a").try_acquire() and not held.try_acquire(2)
            clock.advance(1)
            return refused and bool(accounts.for_key("a").try_acquire()) and bool(held.try_acquire(2))

        in_child(check)
        assert not accounts.for_key("a").try_acquire()


def take_two(accounts: TokenBucket) -> None:
    accounts.for_key("e").try_acquire(2)


def test_after_ctrl_c_at_any_moment_of_a_search_nothing_is_forgotten() -> None:
    strike, struck = 0, True
    while struck:
        strike += 1
        clock = ManualClock()
        accounts = TokenBucket(rate=1, burst=2, clock=clock)
        for key in "abc":
            accounts.for_key(key).try_acquire(2)
        accounts.for_key("d").pause_for(5)
        struck = CtrlC(strike).strikes(partial(take_two, accounts))
        stir(accounts)
        for key in "abcd":
            assert not accounts.for_key(key).try_acquire(), f"{key} after a strike at {strike}"
        clock.advance(1)
        accounts.for_key("e").try_acquire()
        assert not accounts.for_key("e").try_acquire(2), f"after a strike at {strike}"
        clock.advance(10)
        stir(accounts)
        if kept(accounts) > 2:  # what was struck may hold a limiter in a circle
            gc.collect()
            stir(accounts)
        assert kept(accounts) <= 2, f"after a strike at {strike}"
    assert strike > 20


async def test_the_windows_of_every_key_keep_its_bound(clock: ManualClock) -> None:
    accounts = TokenBucket(rate=2, burst=3, clock=clock)
    gone: dict[str, list[float]] = {key: [] for key in "abc"}

    async def work(key: str) -> None:
        while True:
            await accounts.for_key(key).acquire()
            gone[key].append(clock.now())
            await clock.sleep(0.1 * (1 + len(gone[key]) % 7))

    async with anyio.create_task_group() as tasks:
        for key in "abcabc":
            tasks.start_soon(work, key)
        await clock.run_for(30)
        tasks.cancel_scope.cancel()
    for times in gone.values():
        assert worst_excess(times, 2, 3) <= 0
        assert len(times) >= 0.99 * 2 * 30

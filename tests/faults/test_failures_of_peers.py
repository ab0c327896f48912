"""What went wrong in other rate limiters that share a Redis, and must not here.

Each test names who failed; it is what that library did in its version of November 2026. Two limiters of one
key stand for two processes. What needs no server is in tests/test_failures_of_peers.py. Others have their
tests beside the feature:

- pyrate-limiter is dead for good after `SCRIPT FLUSH` or a restart: test_away.py.
- limits, throttled-py and steindamm admit nothing for an hour when the server's clock was set back by one,
  and pyrate-limiter too much when a client's clock is ahead: test_clocks.py.
- aiolimiter raises when threads share it: test_processes.py.
- throttled-py leaves half of the quota unused where processes wait for it: tests/fleet/test_processes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from math import inf, isfinite, nan
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from batchkit import InvalidCost, RedisConcurrencyLimiter, RedisDistributedLimiter, TokenBucket, all_of
from batchkit._redis.names import name
from tests.faults.conftest import Make
from tests.faults.fleet import (
    KEY,
    Callers,
    ShiftedClock,
    StampedHook,
    Worker,
    eventually_async,
    excess,
    figures,
    slack,
)
from tests.helpers import eventually, threads
from tests.servers import BINARIES, Server

pytestmark = [pytest.mark.skipif(not BINARIES, reason="no server found"), pytest.mark.anyio]

HOUR = 3600
SOON = 0.3  # seconds; much less than what went wrong took, and enough for a busy machine


def two(
    make: Make, server: Server, **options: Any
) -> tuple[RedisDistributedLimiter, RedisDistributedLimiter]:
    """Limiters that share nothing but what is in Redis: of another timeout, the second one has a thread and a
    connection of its own.
    """
    return make(server.url(), **options), make(server.url(), timeout=1.5, **options)


async def saturate(*limiters: RedisDistributedLimiter, seconds: float, tasks: int = 16) -> list[float]:
    """When calls went that come again and again."""
    end = time.monotonic() + seconds
    gone: list[float] = []

    async def call(limiter: RedisDistributedLimiter) -> None:
        while time.monotonic() < end:
            await limiter.acquire()
            gone.append(time.monotonic())

    async with anyio.create_task_group() as group:
        for limiter in limiters:
            for _ in range(tasks):
                group.start_soon(call, limiter)
    return gone


async def wait_in_line(group: TaskGroup, limiter: RedisDistributedLimiter, callers: int) -> None:
    """Return when so many callers wait."""
    for _ in range(callers):
        group.start_soon(limiter.acquire)
    await eventually_async(lambda: limiter.statistics().waiting == callers)


async def goes(limiter: RedisDistributedLimiter, cost: int = 1) -> None:
    """Acquire, which is not to take long."""
    with anyio.fail_after(5):
        await limiter.acquire(cost)


def went(limiter: RedisDistributedLimiter, tries: int) -> int:
    return sum(bool(limiter.try_acquire()) for _ in range(tries))


class TestWindows:
    async def test_a_burst_that_is_back_within_half_a_second_still_limits(
        self, redis_server: Server, make: Make
    ) -> None:
        # throttled-py: its state lives for whole seconds, here 0, and every call is admitted
        gone = await saturate(*two(make, redis_server, rate=1000, burst=100), seconds=0.5)
        assert redis_server.do("PTTL", name("batchkit", KEY, None)) > 1000
        assert len(gone) > 300
        assert excess(gone, 1000, 100) < slack(1000)

    async def test_permits_come_one_by_one_all_second_long(self, valkey: Server, make: Make) -> None:
        # throttled-py: its clock is in whole seconds, so that 500 permits leave in one window of 100 ms
        gone = await saturate(*two(make, valkey, rate=500, burst=5), seconds=1.3)
        assert len(gone) > 0.8 * 500 * 1.3
        assert excess(gone, 500, 5) < 2 * slack(500)  # both processes are in one event loop

    async def test_what_is_not_full_again_is_not_forgotten(self, redis_server: Server, make: Make) -> None:
        # steindamm, redis-rate-limiters: the state expires too early, and a second burst goes
        first, later = two(make, redis_server, rate=0.1, burst=100)
        await goes(first, 100)
        redis_server.clock_offset = 900
        assert not later.try_acquire(95)
        assert later.try_acquire(85)
        assert not later.try_acquire(10)


class TestCancelled:
    @pytest.mark.parametrize("whose", ["the same process", "another process"])
    async def test_twenty_waiters_that_are_cancelled_cost_the_next_caller_nothing(
        self, whose: str, redis_server: Server, make: Make
    ) -> None:
        # steindamm, redis-rate-limiters: 4 s, since each of them keeps the permit that it was promised
        limiter, other = two(make, redis_server, rate=5, burst=1)
        begin = time.monotonic()
        await goes(limiter)
        async with anyio.create_task_group() as group:
            await wait_in_line(group, limiter, 20)
            await anyio.sleep(0.05)
            group.cancel_scope.cancel()
        await goes(limiter if whose == "the same process" else other)
        assert time.monotonic() - begin < 1 / 5 + SOON
        await eventually_async(lambda: figures(redis_server).gone == 2)

    @pytest.mark.parametrize("order", ["as they came", "in reverse", "shuffled"])
    async def test_a_hundred_waiters_that_are_cancelled_leave_no_debt(
        self, order: str, valkey: Server, make: Make
    ) -> None:
        # Go's x/time/rate: 98 permits, https://github.com/golang/go/issues/69419
        limiter, other = two(make, valkey, rate=10, burst=5)
        scopes: list[anyio.CancelScope] = []
        gone: list[float] = []

        async def call(cost: int) -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await limiter.acquire(cost)
                gone.extend([time.monotonic()] * cost)

        await call(5)
        scopes.clear()
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(call, 1 + number % 5)
            await eventually_async(lambda: limiter.statistics().waiting == 100 - len(gone[5:]))
            if order == "in reverse":
                scopes.reverse()
            elif order == "shuffled":
                random.Random(1).shuffle(scopes)
            for scope in scopes:
                scope.cancel()
        await eventually_async(lambda: figures(valkey).gone == len(gone))
        await goes(other, 5)
        assert time.monotonic() - gone[0] < len(gone) / 10 + SOON
        gone += [time.monotonic()] * 5
        assert excess(gone, 10, 5) < slack(10)
        assert not other.try_acquire()

    async def test_a_waiter_that_is_cancelled_about_when_it_may_go_loses_no_permit(
        self, valkey: Server, make: Make
    ) -> None:
        # asynciolimiter: whoever is cancelled in the tick of its grant takes the permit along
        limiter = make(valkey.url(), rate=100, burst=1)
        gone = 0

        async def call(seconds: float = inf) -> None:
            nonlocal gone
            with anyio.move_on_after(seconds):
                await limiter.acquire()
                gone += 1

        await call()
        for number in range(40):
            async with anyio.create_task_group() as group:
                group.start_soon(call, 0.005 + number * 0.00025)  # it may go 0.01 s after the one before
                group.start_soon(call)
        assert gone >= 41
        await eventually_async(lambda: figures(valkey).gone == limiter.statistics().granted == gone)

    @pytest.mark.parametrize("followed", [True, False])
    def test_a_waiter_that_is_cancelled_in_the_tick_of_its_grant_hands_it_on(
        self, followed: bool, valkey: Server, make: Make
    ) -> None:
        # asynciolimiter: the permit is lost
        limiter = make(valkey.url(), rate=10, burst=1)
        delays: list[float] = []

        def is_granted(task: asyncio.Task[None]) -> bool:
            gate = limiter.gate
            permit = gate.granted > 1 + len(delays) or gate.store.holds(1, time.monotonic())
            waits_for = getattr(task, "_fut_waiter", None)
            return permit and waits_for is not None and waits_for.done()

        async def cancel_one() -> float:
            task = asyncio.create_task(limiter.acquire())
            await asyncio.sleep(0)
            follower = asyncio.create_task(limiter.acquire()) if followed else None
            while not is_granted(task):  # noqa: ASYNC110 - which only its event loop knows
                await asyncio.sleep(0)
            task.cancel()
            begin = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            await (follower or limiter.acquire())
            return time.monotonic() - begin

        async def main() -> None:
            await limiter.acquire()
            while len(delays) < 8:
                delays.append(await asyncio.wait_for(cancel_one(), 5))

        asyncio.run(main())
        assert sorted(delays)[5] < 0.05  # half a permit's time, and the machine may be busy now and then
        eventually(lambda: figures(valkey).gone == limiter.statistics().granted == 9)

    def test_those_of_a_crowd_who_are_cancelled_in_the_tick_of_their_grant_hand_it_on(
        self, valkey: Server, make: Make
    ) -> None:
        # asynciolimiter: the permits are lost
        limiter = make(valkey.url(), rate=0.5, burst=50, lease=False)

        async def crowd(callers: int) -> None:
            await asyncio.gather(*(limiter.acquire() for _ in range(callers)))

        async def main() -> None:
            for _ in range(2):  # from then on one question is about all of a crowd
                await crowd(5)
            tasks = [asyncio.create_task(limiter.acquire()) for _ in range(30)]
            while limiter.gate.granted < 40:  # noqa: ASYNC110 - when the event loop has read the answer
                await asyncio.sleep(0)
            for task in tasks[::3]:
                assert not task.done()
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(each, asyncio.CancelledError) for each in ended] == [True, False, False] * 10
            await crowd(20)

        async def in_time() -> None:
            await asyncio.wait_for(main(), 5)

        asyncio.run(in_time())
        eventually(lambda: figures(valkey).gone == limiter.statistics().granted == 50)


class TestEventLoops:
    @pytest.mark.parametrize("second", ["asyncio", "trio"])
    @pytest.mark.parametrize("first", ["asyncio", "trio"])
    def test_a_limiter_whose_loop_ended_amid_a_wait_serves_the_next_loop(
        self, first: str, second: str, redis_server: Server, make: Make
    ) -> None:
        # asynciolimiter: hangs in a second asyncio.run
        limiter = make(redis_server.url(), rate=5, burst=1)

        async def end_amid_a_wait() -> None:
            await limiter.acquire()
            async with anyio.create_task_group() as group:
                await wait_in_line(group, limiter, 3)
                group.cancel_scope.cancel()

        async def acquire() -> None:
            await goes(limiter)

        anyio.run(end_amid_a_wait, backend=first)
        begin = time.monotonic()
        anyio.run(acquire, backend=second)
        assert time.monotonic() - begin < 1 / 5 + SOON
        eventually(lambda: figures(redis_server).gone == 2)

    def test_tasks_that_asyncio_run_cancels_as_it_ends_leave_nothing(
        self, redis_server: Server, make: Make
    ) -> None:
        limiter = make(redis_server.url(), rate=5, burst=1)
        left: set[asyncio.Task[None]] = set()

        async def leave_tasks_behind() -> None:
            await limiter.acquire()
            left.update(asyncio.create_task(limiter.acquire()) for _ in range(3))
            await asyncio.sleep(0.02)

        asyncio.run(leave_tasks_behind())
        assert limiter.statistics().waiting == 0
        begin = time.monotonic()
        anyio.run(goes, limiter)
        assert time.monotonic() - begin < 1 / 5 + SOON
        eventually(lambda: figures(redis_server).gone == 2)

    @pytest.mark.parametrize("rounds", [1, 50])
    async def test_a_loop_that_is_gone_holds_up_no_other_loop(
        self, rounds: int, valkey: Server, make: Make
    ) -> None:
        limiter = make(valkey.url(), rate=5, burst=1)
        lost: list[asyncio.Task[None]] = []

        def leave() -> None:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(limiter.acquire())
            lost.extend(loop.create_task(limiter.acquire()) for _ in range(3))
            for _ in range(rounds):  # in the first they join the line, later the answer is read
                loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        await anyio.to_thread.run_sync(leave)
        begin = time.monotonic()
        await goes(limiter)
        await goes(limiter)
        assert time.monotonic() - begin < 2 / 5 + SOON
        assert limiter.statistics().waiting == 0
        for task in lost:
            with pytest.raises(RuntimeError):
                task.get_coro().throw(RuntimeError("the loop is gone"))
        await eventually_async(lambda: figures(valkey).gone == 3)


class TestKeys:
    async def test_a_key_that_is_empty_holds_up_nobody_of_another_key(
        self, valkey: Server, make: Make
    ) -> None:
        # pyrate-limiter: https://github.com/vutran1710/PyrateLimiter/issues/301
        busy, idle = (make(valkey.url(), key, rate=2, burst=1) for key in ("busy", "idle"))
        family = make(valkey.url(), "family", rate=2, burst=1)
        empty = [busy, family, family.for_key("busy")]
        for limiter in empty:
            await goes(limiter)
        with threads(*(limiter.acquire_sync for limiter in empty)):
            async with anyio.create_task_group() as group:
                for limiter in empty:
                    group.start_soon(limiter.acquire)
                await eventually_async(lambda: all(each.statistics().waiting == 2 for each in empty))
                begin = time.monotonic()
                await goes(idle)
                await goes(family.for_key("idle"))
                family.for_key("another").acquire_sync(timeout=5)
                assert family.for_key("one more").try_acquire()
                assert time.monotonic() - begin < SOON
                assert all(each.statistics().waiting for each in empty)

    def test_keys_that_read_alike_are_different_ones(self, redis_server: Server, make: Make) -> None:
        # limits: the parts of a key are joined with a slash, so that the first two are one
        keys = ["a/b", ("a", "b"), ("a/b",), (("a",), "b"), "a:b", "", (), b"a/b", 1, "1"]
        options = {"rate": 0.01, "burst": 2}
        first, later = (make(redis_server.url(), "family", **options) for _ in range(2))
        assert [went(first.for_key(key), 3) for key in keys] == [2] * len(keys)
        assert [went(later.for_key(key), 3) for key in keys] == [0] * len(keys)
        alike = ["a", "a/b", "a:b", "{a}", "a;line", "family/a%2Fb", "batchkit:{a}"]
        assert [went(make(redis_server.url(), key, **options), 3) for key in alike] == [2] * len(alike)
        assert went(make(redis_server.url(), "a").for_key("b"), 3) == 3


class TestNumbers:
    @pytest.mark.parametrize("cost", [-1, -1000, 0, nan, inf, 0.5, True, "1", None], ids=str)
    async def test_a_cost_that_is_none_mints_and_poisons_nothing_whichever_way_it_comes(
        self, cost: Any, valkey: Server, make: Make
    ) -> None:
        # limits: a negative cost mints permits, https://github.com/alisaifee/limits/pull/362
        limiter, other = two(make, valkey, rate=0.1, burst=5)
        both = all_of(it=limiter, other=TokenBucket(rate=1, burst=5))
        ways: list[Callable[[], object]] = [
            lambda: limiter.try_acquire(cost),
            lambda: limiter.acquire_sync(cost, timeout=0),
            lambda: limiter.permit(cost).__enter__(),
            lambda: limiter.for_key("a").try_acquire(cost),
        ]
        if cost != 0:  # which leaves a limiter of a group out
            ways.append(lambda: both.try_acquire(it=cost))
        for way in ways:
            with pytest.raises(InvalidCost):
                way()
        with pytest.raises(InvalidCost):
            await limiter.acquire(cost)
        with pytest.raises(InvalidCost):
            async with limiter.permit(cost):
                pass
        assert valkey.do("DBSIZE") == 0
        await goes(limiter, 2)
        assert went(other, 5) == 3
        assert went(limiter, 5) == 0
        assert went(other.for_key("a"), 8) == 5

    @pytest.mark.parametrize("number", [nan, inf, -inf, "1", None], ids=str)
    async def test_what_is_no_number_poisons_no_key(self, number: Any, valkey: Server, make: Make) -> None:
        # limits: one call with NaN, and nobody is let go by that key ever again
        limiter, other = two(make, valkey, rate=0.1, burst=5)
        await goes(limiter)
        ways: list[Callable[[], object]] = [
            lambda: limiter.charge(number),
            lambda: limiter.drain(number),
            lambda: limiter.pause_for(number),
            lambda: limiter.permit(1).settle(number),
            lambda: limiter.acquire_sync(priority=number),
            *(partial(make, valkey.url(), **{option: number}) for option in ("rate", "burst", "horizon")),
        ]
        if number is not None:  # which leaves it as it is
            ways += [lambda: limiter.change(rate=number), lambda: limiter.change(burst=number)]
        for way in ways:
            with pytest.raises((ValueError, TypeError)):
                way()
        await goes(other, 3)
        assert other.try_acquire()
        assert not limiter.try_acquire()
        said = figures(valkey)
        assert said.gone == 5
        assert all(isfinite(each) for each in (said.owed, said.closed, said.look, said.rate))

    @pytest.mark.parametrize("rate", [0.1, 20])
    async def test_what_is_given_back_fills_a_bucket_and_no_more(
        self, rate: float, valkey: Server, make: Make
    ) -> None:
        # limits: what is negative mints permits
        limiter, other = two(make, valkey, rate=rate, burst=5)
        await goes(limiter, 5)
        begin, gone = time.monotonic(), 3
        async with anyio.create_task_group() as group:
            await wait_in_line(group, other, 3)
            await anyio.sleep(0.02)  # where permits are booked ahead, these have some by now
            limiter.charge(-1000)
            while time.monotonic() < begin + 0.3:
                gone += went(limiter, 9) + went(other, 9)
                await anyio.lowlevel.checkpoint()
        assert 5 <= gone <= 5 + rate * (time.monotonic() - begin) + 1

    @pytest.mark.parametrize("permits", [10**9, 2**63])
    async def test_a_charge_beyond_all_measure_can_be_taken_back(
        self, permits: int, redis_server: Server, make: Make
    ) -> None:
        # Redis refuses to remember a key for so long: what fails once it was written fails ever after
        limiter, other = two(make, redis_server, rate=10, burst=5)
        limiter.charge(permits)
        await eventually_async(lambda: figures(redis_server).gone == permits)
        assert not other.try_acquire()
        other.charge(-permits)
        await goes(other)
        await goes(limiter)  # which was told that the debt would be paid off in years

    @pytest.mark.parametrize("seconds", [1e9, 1e17, 1e300])
    @pytest.mark.parametrize("kind", ["a rate", "calls at once"])
    def test_a_pause_beyond_all_measure_is_a_pause(
        self, kind: str, seconds: float, redis_server: Server, make: Make
    ) -> None:
        limiter: RedisDistributedLimiter | RedisConcurrencyLimiter
        other: RedisDistributedLimiter | RedisConcurrencyLimiter
        limiter, other = two(make, redis_server)
        if kind == "calls at once":
            limiter = RedisConcurrencyLimiter(redis_server.url(), "calls", 5)
            other = RedisConcurrencyLimiter(redis_server.url(), "calls", 5, timeout=1.5)
        with contextlib.closing(limiter), contextlib.closing(other):

            def refused() -> bool:
                if allowed := other.try_acquire().allowed:
                    other.end_call(1)
                return not allowed

            with limiter, other:
                limiter.pause_for(seconds)
            eventually(refused)
            assert refused()
            assert not limiter.try_acquire()

    async def test_a_number_that_no_float_can_hold_poisons_no_limiter(
        self, redis_server: Server, make: Make
    ) -> None:
        # what cannot be said to Redis would be tried again and again, for every limiter that goes there
        limiter, other = make(redis_server.url(), "one"), make(redis_server.url(), "other")
        ways: list[Callable[[], object]] = [
            lambda: limiter.charge(10**400),
            lambda: limiter.charge(-(10**400)),
            lambda: limiter.drain(10**400),
            lambda: limiter.permit(1).settle(10**400),
            lambda: limiter.change(burst=10**400),
            lambda: make(redis_server.url(), "third", burst=10**400),
        ]
        for way in ways:
            with pytest.raises(ValueError, match="at most"):
                way()
        await goes(limiter)
        await goes(other)


class TestClocks:
    async def test_a_process_that_comes_after_the_servers_clock_was_set_back_goes_on(
        self, redis_server: Server, make: Make
    ) -> None:
        # limits, throttled-py, steindamm: nothing for an hour
        first, later = two(make, redis_server, rate=10, burst=5)
        await goes(first, 5)
        redis_server.clock_offset = -HOUR
        begin = time.monotonic()
        assert not later.try_acquire(5)
        await goes(later)
        await goes(first)
        assert time.monotonic() - begin < 1
        await eventually_async(lambda: later.try_acquire(2).allowed)

    def test_the_clock_of_a_client_steps_an_hour_ahead_in_use(
        self, colour: str, valkey: Server, make: Make, stamped: StampedHook
    ) -> None:
        # pyrate-limiter: the server believes the client's clock
        clock = ShiftedClock(0)
        limiters = [make(valkey.url(), clock=each, hooks=[stamped]) for each in (clock, ShiftedClock(0))]
        with Callers(*limiters, colour=colour) as callers:
            callers.go_on(30)
            clock.seconds += HOUR
            callers.go_on(50)
        assert not callers.errors
        assert not stamped.switches()
        # what was booked for the 50 ms to come seems to be over: it is handed back, and goes early
        assert excess(callers.gone, 100, 10) < slack(100) + 100 * 0.05 + 2


class TestCrowds:
    @pytest.mark.parametrize("waiters", [500, 2000])
    async def test_a_crowd_needs_one_or_two_connections(
        self, waiters: int, valkey: Server, make: Make
    ) -> None:
        # limits, throttled-py, pyrate-limiter: of 500 who wait with the default pool, 400 get an error
        client = valkey.client(max_connections=5, client_name="crowd")
        limiter = make(client, rate=2000, burst=100)
        observer, most = valkey.client(), 0

        async def watch() -> None:
            nonlocal most
            while True:
                clients = await anyio.to_thread.run_sync(observer.client_list)
                most = max(most, sum(each["name"] == "crowd" for each in clients))
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as watcher:
            watcher.start_soon(watch)
            async with anyio.create_task_group() as crowd:
                for _ in range(waiters):
                    crowd.start_soon(limiter.acquire)
            watcher.cancel_scope.cancel()
        assert limiter.statistics().granted == waiters
        assert 1 <= most <= 2
        await eventually_async(lambda: figures(valkey).gone == waiters)

    @pytest.mark.parametrize("where", ["in this process", "in another process"])
    async def test_a_call_of_cost_50_is_not_starved_by_a_stream_of_calls_of_cost_1(
        self, where: str, valkey: Server, make: Make
    ) -> None:
        # aiolimiter wakes the smallest amount first: https://github.com/mjpieters/aiolimiter/pull/290
        limiter = make(valkey.url(), rate=100, burst=50)
        stream: AbstractContextManager[Callers | Worker]
        if where == "in this process":
            stream = Callers(limiter, count=16)
        else:
            stream = Worker(valkey.url(), waiters=16, rate=100, burst=50)
        with stream as callers:
            await eventually_async(lambda: len(callers.gone) > 60)
            begin = time.monotonic()
            await goes(limiter, 50)
            end = time.monotonic()
            await eventually_async(lambda: callers.gone[-1] > end)
        assert end - begin < 66 / 100 + 2 * SOON  # its own permits, and those of the 16 before it
        assert excess([*callers.gone, *[end] * 50], 100, 50) < slack(100)

"""`RedisConcurrencyLimiter` on real servers: what its user sees. Two objects of one key stand for two
processes.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest

from batchkit import (
    AcquireTimeout,
    CostExceedsBurst,
    InvalidCost,
    LimitChanged,
    LimiterClosed,
    Paused,
    RedisConcurrencyLimiter,
    RedisDistributedLimiter,
    TokenBucket,
    all_of,
    limited,
)
from batchkit.testing import RecordingHook
from tests.helpers import DEADLINE, eventually, threads
from tests.servers import Cluster, Server

A_MOMENT = 5.0  # seconds; a generous deadline for what takes milliseconds
SHORT = {"lease": 0.6, "timeout": 0.3}

_keys = count()


class Make(Protocol):
    def __call__(self, limit: int = 2, **more: Any) -> RedisConcurrencyLimiter: ...


def _end(limiter: RedisConcurrencyLimiter) -> None:
    """Have its calls end: or it would go on to tell Redis of them."""
    limiter.end_call(limiter.gate.store.taken)
    limiter.close()


def maker(server: Server, stack: ExitStack) -> Make:
    key = f"slots {next(_keys)}"

    def make(limit: int = 2, **more: Any) -> RedisConcurrencyLimiter:
        limiter = RedisConcurrencyLimiter(server.url(), key, limit, name="slots", **more)
        stack.callback(_end, limiter)
        return limiter

    return make


@pytest.fixture
def make(valkey: Server) -> Iterator[Make]:
    """Makes limiters that are closed when the test is over."""
    with ExitStack() as stack:
        yield maker(valkey, stack)


@pytest.fixture
def make_on_each(redis_server: Server) -> Iterator[Make]:
    """The same, on each server."""
    with ExitStack() as stack:
        yield maker(redis_server, stack)


async def comes(limiter: RedisConcurrencyLimiter, waiting: int, asked: int = 0) -> None:
    """Return when so many of its calls wait, and so many of its questions were answered."""

    def came() -> bool:
        statistics = limiter.statistics()
        return statistics.waiting == waiting and statistics.asked >= asked and limiter.gate.under_way is None

    await anyio.to_thread.run_sync(eventually, came)


class Gauge:
    """How many calls are under way, and were at most."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class TestOnEachServer:
    @pytest.mark.anyio
    async def test_tasks_of_two_processes_share_it(self, make_on_each: Make) -> None:
        one, other = make_on_each(3), make_on_each(3)
        gauge = Gauge()

        async def call(limiter: RedisConcurrencyLimiter) -> None:
            for _ in range(5):
                async with limiter:
                    with gauge:
                        await anyio.sleep(0.005)

        async with anyio.create_task_group() as tasks:
            for limiter in (one, other) * 4:
                tasks.start_soon(call, limiter)
        assert gauge.most == 3
        assert gauge.all == 40
        assert one.statistics().granted == other.statistics().granted == 20

    def test_threads_share_it(self, make_on_each: Make) -> None:
        one, other = make_on_each(3), make_on_each(3)
        gauge = Gauge()

        def call(limiter: RedisConcurrencyLimiter) -> None:
            for _ in range(5):
                with limiter, gauge:
                    time.sleep(0.005)

        with threads(*[lambda limiter=limiter: call(limiter) for limiter in (one, other) * 4]):
            pass
        assert gauge.most == 3
        assert gauge.all == 40

    def test_what_one_gives_back_another_may_have(self, make_on_each: Make) -> None:
        one, other = make_on_each(2), make_on_each(2)
        assert one.try_acquire(2)
        assert not other.try_acquire()
        assert other.try_acquire().retry_after == float("inf")
        one.release()
        eventually(lambda: bool(other.try_acquire()))
        assert not one.try_acquire()


class TestWords:
    def test_what_makes_no_sense_is_refused(self, make: Make) -> None:
        with pytest.raises(ValueError, match="limit"):
            make(0)
        with pytest.raises(ValueError, match="not longer than the timeout"):
            make(lease=1.0, timeout=1.0)
        with pytest.raises(ValueError, match="on_unavailable"):
            make(on_unavailable="perhaps")
        limiter: Any = make()
        for wrong in (0, -1, 1.5, True):
            with pytest.raises(InvalidCost):
                limiter.try_acquire(wrong)
            with pytest.raises(InvalidCost):
                limiter.release(wrong)
        with pytest.raises(CostExceedsBurst):
            limiter.acquire_sync(3)
        with pytest.raises(ValueError, match="only 0 are out"):
            limiter.release()
        assert limiter.statistics().asked == 0

    @pytest.mark.anyio
    async def test_a_timeout_ends_a_wait(self, make: Make) -> None:
        one, other = make(1), make(1)
        await one.acquire()
        with pytest.raises(AcquireTimeout, match="a call has to end first"):
            await other.acquire(timeout=0)
        with pytest.raises(AcquireTimeout):
            await other.acquire(timeout=0.05)
        with pytest.raises(AcquireTimeout):
            await one.acquire(timeout=0.05)
        assert other.statistics().timeouts == 2
        one.release()
        await other.acquire(timeout=A_MOMENT)

    @pytest.mark.anyio
    async def test_a_permit_gives_back_what_it_took(self, make: Make) -> None:
        limiter = make(3)
        async with limiter.permit(3):
            assert not limiter.try_acquire()
        with limiter.permit(2) as permit:
            permit.settle(1)
            assert limiter.try_acquire(2)
            limiter.release(2)
        assert limiter.try_acquire(3)

        @limited(limiter, timeout=0.01)
        async def call() -> None: ...

        with pytest.raises(AcquireTimeout):
            await call()
        limiter.release(3)
        await call()

    def test_what_a_call_costs_more_is_counted(self, make: Make) -> None:
        one, other = make(3), make(3)
        one.acquire_sync()
        one.charge(4)
        eventually(lambda: one.statistics().held == 5)
        assert not other.try_acquire()
        assert other.statistics().available == -2
        one.charge(-3)
        eventually(lambda: bool(other.try_acquire()))
        assert not other.try_acquire()

    def test_statistics(self, make: Make) -> None:
        one, other = make(5), make(5)
        one.acquire_sync(2)
        other.acquire_sync()
        statistics = other.statistics()
        assert (statistics.limit, statistics.available, statistics.held) == (5, 2, 1)
        assert (statistics.granted, statistics.waiting, statistics.processes) == (1, 0, 2)
        assert not statistics.unavailable
        assert repr(one) == "RedisConcurrencyLimiter('slots', 5)"


class TestOrder:
    @pytest.mark.anyio
    async def test_a_high_priority_goes_next_in_the_whole_fleet(self, make: Make) -> None:
        one, other = make(1), make(1)
        assert other.try_acquire()  # so that each knows that it is not alone
        other.release()
        went: list[str] = []

        async def call(name: str, limiter: RedisConcurrencyLimiter, priority: int) -> None:
            await limiter.acquire(priority=priority)
            went.append(name)
            await anyio.sleep(0.02)
            limiter.release()

        await one.acquire(timeout=A_MOMENT)
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(call, f"low {number}", one, 0)
                await comes(one, number + 1)
            asked = other.statistics().asked
            tasks.start_soon(call, "high", other, 1)
            await comes(other, 1, asked + 1)
            one.release()
        assert went == ["high", "low 0", "low 1", "low 2"]

    @pytest.mark.anyio
    async def test_who_waits_elsewhere_does_not_starve(self, make: Make) -> None:
        """A busy process uses its slots again until it hears that others wait, and gives them up then."""
        busy, other = make(2), make(2)

        async def work(ended: anyio.Event) -> None:
            while not ended.is_set():
                async with busy:
                    await anyio.sleep(0.002)

        ended = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(work, ended)
            await comes(busy, 4)
            for _ in range(10):
                async with other.permit(timeout=A_MOMENT):
                    pass
            ended.set()

    @pytest.mark.anyio
    async def test_who_is_alone_asks_seldom(self, make: Make) -> None:
        limiter = make(4)

        async def work() -> None:
            for _ in range(200):
                async with limiter:
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(work)
        assert limiter.statistics().granted == 1600
        assert limiter.statistics().asked < 100

    def test_slots_that_nobody_uses_are_handed_back(self, make: Make) -> None:
        one, other = make(2), make(2)
        one.acquire_sync(2)
        one.release(2)
        eventually(lambda: one.statistics().held == 0)
        assert other.try_acquire(2)

    @pytest.mark.anyio
    async def test_ten_that_give_up_keep_nothing(self, make: Make) -> None:
        one, other = make(3), make(3)
        await one.acquire(3)
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(other.acquire)
            await comes(other, 10, 1)
            one.release(3)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        taken = other.statistics().granted
        if taken:
            other.release(taken)
        with anyio.fail_after(A_MOMENT):
            await one.acquire(3)


class TestOfTheFleet:
    @pytest.mark.anyio
    async def test_a_change_of_the_limit(self, make: Make) -> None:
        hook = RecordingHook()
        one, other = make(1), make(1, hooks=[hook])
        await one.acquire()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.acquire)
            await comes(other, 1, 1)
            one.change(limit=2, reason="a new contract")
        eventually(lambda: hook.of(LimitChanged) == [LimitChanged("slots", 2, 1, "changed by the fleet")])
        assert other.limit == one.limit == 2
        with pytest.raises(ValueError, match="limit"):
            one.change(limit=0)

    @pytest.mark.anyio
    async def test_a_pause(self, make: Make) -> None:
        hook = RecordingHook()
        one, other = make(1, hooks=[hook]), make(1)
        began = time.monotonic()
        one.pause_for(0.2)
        eventually(lambda: one.statistics().asked == 1)
        async with other:
            assert time.monotonic() - began > 0.19
        assert hook.of(Paused)

    def test_a_key_has_slots_of_its_own(self, make: Make) -> None:
        one, other = make(1), make(1)
        ann = one.for_key(("ann", 1))
        with ann:
            assert not other.for_key(("ann", 1)).try_acquire()
            with other.for_key("ann"):
                one.change(limit=2)
                assert ann.try_acquire()
            ann.release()
        with pytest.raises(TypeError):
            one.for_key(1.5)

    def test_the_calls_of_a_key_keep_their_slots_though_nobody_holds_its_limiter(self, make: Make) -> None:
        one, other = make(1, **SHORT), make(1, **SHORT)
        one.for_key("ann").acquire_sync()
        gc.collect()
        with pytest.raises(AcquireTimeout):
            other.for_key("ann").acquire_sync(timeout=3 * SHORT["lease"])
        one.for_key("ann").release()
        with other.for_key("ann").permit(timeout=A_MOMENT):
            pass

    def test_the_slots_of_a_key_are_handed_back_though_nobody_holds_its_limiter(self, make: Make) -> None:
        one, other = make(1), make(1)
        for _ in range(3):
            with one.for_key("ann"):
                pass
            gc.collect()
            with other.for_key("ann").permit(timeout=A_MOMENT):
                pass
            gc.collect()

    @pytest.mark.anyio
    async def test_it_decides_together_with_others(self, make: Make) -> None:
        slots, elsewhere = make(1), make(1)
        both = all_of(slots=slots, requests=TokenBucket(1000, 1))
        async with both.permit():
            assert not elsewhere.try_acquire()
        eventually(lambda: bool(elsewhere.try_acquire()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(both.acquire)
            await comes(slots, 1)
            elsewhere.release()
        both.release()

    @pytest.mark.anyio
    async def test_no_slot_is_kept_for_a_call_that_waits_for_something_else(self, make: Make) -> None:
        slots, elsewhere = make(1), make(1)
        both = all_of(slots=slots, requests=TokenBucket(0.001, 1))
        await both.acquire()
        both.release()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(both.acquire)
            await comes(slots, 1)
            with anyio.fail_after(A_MOMENT):
                for _ in range(3):
                    async with elsewhere:
                        pass
            tasks.cancel_scope.cancel()
        assert slots.statistics().asked < 20

    def test_a_rate_of_the_same_key_is_something_else(self, make: Make, valkey: Server) -> None:
        limiter = make(1, tag="tag")
        [key] = limiter.gate.keys
        rate = RedisDistributedLimiter(
            valkey.url(), limiter.gate.terms.key, rate=1, burst=5, tag="tag", lease=False
        )
        with limiter:
            assert rate.try_acquire(5)
            assert key.encode() in valkey.do("KEYS", "*")
        assert rate.gate.keys != limiter.gate.keys
        rate.close()

    def test_a_cluster(self, session_cluster: Cluster) -> None:
        client = session_cluster.client()
        one, other = (RedisConcurrencyLimiter(client, "slots", 1) for _ in range(2))
        with one:
            assert not other.try_acquire()
        other.acquire_sync(timeout=A_MOMENT)
        one.close()
        other.close()


class TestEnds:
    @pytest.mark.anyio
    async def test_who_waits_when_it_is_closed_is_told(self, make: Make) -> None:
        limiter = make(1)
        await limiter.acquire()
        ended: list[Exception] = []

        async def wait() -> None:
            try:
                await limiter.acquire()
            except LimiterClosed as error:
                ended.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await comes(limiter, 1)
            await limiter.aclose()
        assert len(ended) == 1
        with pytest.raises(LimiterClosed):
            limiter.try_acquire()

    def test_calls_under_way_keep_their_slots_when_it_is_closed(self, make: Make) -> None:
        one, other = make(2, **SHORT), make(2, **SHORT)
        one.acquire_sync(2)
        one.release()
        one.close()
        other.acquire_sync(timeout=A_MOMENT)
        with pytest.raises(AcquireTimeout):
            other.acquire_sync(timeout=3 * SHORT["lease"])
        one.release()
        other.acquire_sync(timeout=SHORT["lease"] / 2)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
    def test_a_fork_has_none_of_the_calls_of_its_parent(self, make: Make) -> None:
        limiter = make(2)
        limiter.acquire_sync()
        child = os.fork()
        if not child:
            code = 1
            try:
                if limiter.try_acquire() and not limiter.try_acquire():
                    limiter.release()
                    limiter.release()  # of the parent's call, which changes nothing
                    code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert limiter.statistics().held == 1

    def test_it_is_made_at_import_time_and_used_in_one_loop_after_the_other(self, valkey: Server) -> None:
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL_LOOPS, valkey.url()],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


SEVERAL_LOOPS = """
import asyncio, sys
import trio
from batchkit import RedisConcurrencyLimiter

limiter = RedisConcurrencyLimiter(sys.argv[1], "loops", 1)

async def both():
    async with limiter:
        pass
    await limiter.acquire(timeout=5)
    limiter.release()

asyncio.run(both())
trio.run(both)
asyncio.run(both())
print(limiter.statistics().granted)
"""

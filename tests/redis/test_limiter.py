"""`RedisDistributedLimiter` on real servers: what its user sees. Two objects of one key stand for two
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
from contextlib import contextmanager
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

import batchkit
from batchkit import (
    AcquireTimeout,
    AdaptiveLimiter,
    BatchedExecutor,
    ConcurrencyLimiter,
    CostExceedsBurst,
    InvalidCost,
    LimiterClosed,
    LimiterUnavailable,
    Paused,
    RateChanged,
    Reconnected,
    RedisDistributedLimiter,
    TokenBucket,
    Unavailable,
    Waited,
    all_of,
)
from batchkit.controllers import AIMD, Adjustment, Sample
from batchkit.testing import RecordingHook
from tests.helpers import DEADLINE, eventually, threads, worst_excess
from tests.proxies import TlsProxy
from tests.servers import Cluster, Server

A_MOMENT = 20.0  # seconds; a generous deadline for what takes milliseconds


@pytest.fixture
def make(valkey: Server) -> Iterator[Any]:
    """Makes limiters that are closed when the test is over."""
    with closing(valkey) as made:
        yield made


@contextmanager
def closing(server: Server) -> Iterator[Any]:
    limiters: list[RedisDistributedLimiter] = []

    def make(key: str = "quota", rate: float = 2, burst: int = 5, **more: Any) -> RedisDistributedLimiter:
        limiter = RedisDistributedLimiter(server.url(), key, rate=rate, burst=burst, **more)
        limiters.append(limiter)
        return limiter

    yield make
    for limiter in limiters:
        limiter.close()


class TestOnEachServer:
    @pytest.mark.anyio
    async def test_a_burst_goes_and_the_rest_comes_in(self, redis_server: Server) -> None:
        with closing(redis_server) as make:
            limiter = make(rate=20, burst=5)
            started = time.monotonic()
            for _ in range(9):
                await limiter.acquire()
            assert time.monotonic() - started >= 4 / 20
            assert limiter.statistics().granted == 9

    def test_two_processes_share_it(self, redis_server: Server) -> None:
        with closing(redis_server) as make:
            one, other = make(rate=0.1, burst=5), make(rate=0.1, burst=5)
            assert one.try_acquire(3)
            assert not other.try_acquire(3)
            assert other.try_acquire(2)
            assert 9 < one.try_acquire().retry_after <= 10

    def test_many_tasks_share_questions(self, redis_server: Server) -> None:
        async def many(limiter: RedisDistributedLimiter) -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(500):
                    tasks.start_soon(limiter.acquire)

        with closing(redis_server) as make:
            limiter = make(rate=1e6, burst=100_000)
            anyio.run(many, limiter)
            statistics = limiter.statistics()
            assert statistics.granted == 500
            assert statistics.asked < 50


class TestWords:
    @pytest.mark.anyio
    async def test_what_can_never_be_granted_is_refused_at_once(self, make: Any) -> None:
        limiter = make()
        for wrong in (0, -1, 1.5, True):
            with pytest.raises(InvalidCost):
                await limiter.acquire(wrong)
        with pytest.raises(CostExceedsBurst):
            limiter.try_acquire(6)
        with pytest.raises(CostExceedsBurst):
            await limiter.acquire(6)
        with pytest.raises(ValueError, match="priority"):
            await limiter.acquire(priority=1.5)
        assert limiter.statistics().asked == 0

    @pytest.mark.anyio
    async def test_a_timeout_is_known_early(self, make: Any) -> None:
        limiter = make(rate=0.01, burst=1)
        await limiter.acquire()
        with pytest.raises(AcquireTimeout) as caught:
            await limiter.acquire(timeout=30)  # not in half a minute, and not after it
        assert caught.value.retry_after == pytest.approx(100, abs=1)

    @pytest.mark.anyio
    async def test_without_patience_redis_is_asked_once(self, make: Any) -> None:
        limiter = make(rate=0.01, burst=1)
        await limiter.acquire(timeout=0)
        with pytest.raises(AcquireTimeout, match="within 0 s"):
            await limiter.acquire(timeout=0)
        with pytest.raises(AcquireTimeout):
            limiter.acquire_sync(timeout=0)
        assert limiter.statistics().waiting == 0

    def test_a_try_stands_in_nobodys_way(self, make: Any) -> None:
        one, other = make(rate=10, burst=1), make(rate=10, burst=1)
        assert one.try_acquire()
        assert not one.try_acquire()
        other.acquire_sync(timeout=A_MOMENT)

    @pytest.mark.anyio
    async def test_a_true_cost_is_settled_for_the_fleet(self, make: Any) -> None:
        one, other = make(rate=1, burst=100), make(rate=1, burst=100)
        async with one.permit(cost=10) as permit:
            permit.settle(60)
        with one.permit(cost=30) as permit:
            permit.settle(10)
        eventually(lambda: one.statistics().available == pytest.approx(30, abs=2))
        assert other.try_acquire(28)
        assert not other.try_acquire(5)

    @pytest.mark.anyio
    async def test_with_is_one_permit(self, make: Any) -> None:
        limiter = make()
        async with limiter:
            pass
        with limiter:
            pass
        assert limiter.statistics().granted == 2

    def test_the_local_line_goes_by_priority(self, make: Any) -> None:
        limiter = make(rate=10, burst=1)
        limiter.acquire_sync()
        order: list[int] = []

        def wait(priority: int) -> None:
            limiter.acquire_sync(priority=priority)
            order.append(priority)

        with threads(lambda: wait(0)):
            eventually(lambda: limiter.statistics().waiting == 1)
            with threads(lambda: wait(5)):
                pass
        assert order == [5, 0]

    def test_a_high_priority_goes_next_in_the_fleet(self, make: Any) -> None:
        bulk, urgent = make(rate=5, burst=1), make(rate=5, burst=1)
        bulk.acquire_sync()
        order: list[str] = []

        def wait(limiter: RedisDistributedLimiter, who: str, priority: int) -> None:
            limiter.acquire_sync(priority=priority)
            order.append(who)

        with threads(*(lambda: wait(bulk, "bulk", 0) for _ in range(5))):
            eventually(lambda: bulk.statistics().waiting == 5)
            with threads(lambda: wait(urgent, "urgent", 5)):
                pass
        assert order.index("urgent") <= 3, order

    def test_hooks_hear_who_waited(self, make: Any) -> None:
        hook = RecordingHook()
        limiter = make(rate=20, burst=1, hooks=[hook])
        limiter.acquire_sync()
        limiter.acquire_sync()
        assert [event.cost for event in hook.of(Waited)][-1:] == [1]

    def test_it_tells_no_secret(self, valkey: Server) -> None:
        limiter = RedisDistributedLimiter("redis://:hush@localhost:1", "quota", rate=2, burst=5)
        with pytest.raises(LimiterUnavailable) as caught:
            limiter.acquire_sync()
        assert "hush" not in repr(limiter) + str(caught.value) + repr(limiter.statistics())
        limiter.close()

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"rate": 0}, "rate"),
            ({"burst": 0}, "burst"),
            ({"on_unavailable": "panic"}, "on_unavailable"),
            ({"timeout": 0}, "timeout"),
            ({"horizon": -1}, "horizon"),
            ({"key": ""}, "key"),
            ({"tag": ""}, "tag"),
            ({"prefix": ""}, "prefix"),
        ],
    )
    def test_wrong_arguments_are_refused_at_once(self, wrong: dict[str, Any], told: str) -> None:
        with pytest.raises(ValueError, match=told):
            RedisDistributedLimiter("redis://localhost", **{"key": "quota", "rate": 2, "burst": 5, **wrong})

    def test_another_client_is_refused_with_what_to_give(self) -> None:
        with pytest.raises(TypeError, match=r"redis\.Redis"):
            RedisDistributedLimiter(object(), "quota", rate=2, burst=5)
        with pytest.raises(ValueError, match="Redis URL"):
            RedisDistributedLimiter("http://localhost", "quota", rate=2, burst=5)

    def test_a_client_is_as_good_as_a_url(self, valkey: Server) -> None:
        with valkey.client() as client:
            limiter = RedisDistributedLimiter(client, "quota", rate=2, burst=5, tag="t", prefix="other")
            assert limiter.try_acquire()
            assert client.keys() == [b"other:{t}:quota"]
            limiter.close()

    def test_hooks_hear_of_each_who_waited_in_a_crowd(self, make: Any) -> None:
        async def crowd(limiter: RedisDistributedLimiter) -> None:
            for _ in range(3):
                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(limiter.acquire)

        hook = RecordingHook()
        anyio.run(crowd, make(rate=100_000, burst=1000, lease=False, hooks=[hook]))
        assert len(hook.of(Waited)) == 60


class TestTheFleet:
    def test_a_change_counts_for_all(self, make: Any) -> None:
        hook = RecordingHook()
        one, other = make(rate=0.1, burst=5), make(rate=0.1, burst=5, hooks=[hook])
        assert other.try_acquire(5)
        one.change(rate=1000, burst=10, reason="more was paid for")
        eventually(lambda: other.try_acquire(5).allowed)
        assert (other.rate, other.burst) == (1000, 10)
        assert [event.reason for event in hook.of(RateChanged)] == ["changed by the fleet"]

    def test_the_last_to_start_configures(self, make: Any) -> None:
        old = make(rate=2, burst=5)
        assert old.try_acquire()
        new = make(rate=4, burst=8)
        assert new.try_acquire()
        assert old.try_acquire()
        assert (old.rate, old.burst) == (4, 8)

    def test_a_pause_counts_for_all(self, make: Any) -> None:
        hook = RecordingHook()
        one, other = make(hooks=[hook]), make()
        one.pause_for(0.3, reason="the server said so")
        started = time.monotonic()
        eventually(lambda: one.statistics().asked >= 1)
        other.acquire_sync(timeout=A_MOMENT)
        assert time.monotonic() - started >= 0.25
        assert [(event.seconds, event.reason) for event in hook.of(Paused)] == [(0.3, "the server said so")]

    def test_what_is_drained_is_gone_for_all(self, make: Any) -> None:
        one, other = make(rate=0.1), make(rate=0.1)
        one.drain(2)
        eventually(lambda: one.statistics().asked >= 1)
        assert not other.try_acquire(3)
        assert other.try_acquire(2)
        with pytest.raises(InvalidCost):
            one.drain(-1)

    def test_a_key_has_a_quota_of_its_own(self, make: Any) -> None:
        one, other = make(rate=0.1), make(rate=0.1)
        assert one.for_key(("ann", 1)).try_acquire(5)
        assert not other.for_key(("ann", 1)).try_acquire()
        assert other.for_key("ann").try_acquire(5)
        assert one.try_acquire(5)
        with pytest.raises(TypeError):
            one.for_key(1.5)
        with pytest.raises(TypeError):
            one.for_key("ann").for_key("bob")

    def test_a_change_reaches_the_keys_that_are_used(self, make: Any) -> None:
        limiter = make(rate=0.1)
        ann = limiter.for_key("ann")
        assert ann.try_acquire(5)
        limiter.change(rate=1000)
        ann.acquire_sync(5, timeout=A_MOMENT)
        assert ann.rate == limiter.for_key("new").rate == 1000

    def test_keys_that_are_not_held_are_forgotten(self, make: Any) -> None:
        limiter = make(rate=1000, burst=1)
        for number in range(300):
            limiter.for_key(number).acquire_sync()
        gc.collect()
        family = limiter._family
        assert family is not None

        def few() -> bool:
            limiter.for_key("another")
            return len(family) < 10

        eventually(few)

    def test_cold_start(self, make: Any) -> None:
        limiter = make(rate=10, burst=5, cold_start=True)
        assert not limiter.try_acquire()
        limiter.acquire_sync(timeout=A_MOMENT)

    @pytest.mark.anyio
    async def test_a_group_of_the_fleet_and_of_this_process(self, make: Any) -> None:
        both = all_of(
            requests=make("requests", rate=20, burst=2),
            tokens=make("tokens", rate=1000, burst=100),
            here=ConcurrencyLimiter(1),
        )
        started = time.monotonic()
        for _ in range(4):
            async with both.permit(requests=1, tokens=60) as permit:
                permit.settle(tokens=50)
        assert time.monotonic() - started >= 0.1
        assert both.limiters["requests"].statistics().granted == 4

    def test_a_group_takes_all_or_nothing(self, make: Any) -> None:
        one = make("one", rate=0.1, burst=1)
        both = all_of(one=one, here=TokenBucket(0.1, 1))
        both.acquire_sync(timeout=A_MOMENT)
        with pytest.raises(AcquireTimeout):
            both.acquire_sync(timeout=0.2)

    @pytest.mark.anyio
    async def test_the_executor_takes_it(self, make: Any) -> None:
        async def double(number: int) -> int:
            return 2 * number

        executor = BatchedExecutor(double, concurrency=4, limiter=make(rate=1000, burst=10))
        report = await executor.run(range(30))
        assert report.succeeded == 30

    def test_what_a_busy_process_leases_keeps_the_bound(self, make: Any) -> None:
        rate, burst = 20_000, 20_000
        limiters = [make(rate=rate, burst=burst) for _ in range(3)]
        gone: list[float] = []
        until = time.monotonic() + 0.6

        def work(limiter: RedisDistributedLimiter) -> None:
            while (now := time.monotonic()) < until:
                limiter.acquire_sync()
                gone.append(now)  # the moment before: what is later is less

        with threads(*(lambda limiter=limiter: work(limiter) for limiter in limiters)):
            pass
        assert worst_excess(gone, rate, burst) <= 1 + rate * 0.004
        asked = sum(limiter.statistics().asked for limiter in limiters)
        assert asked < 0.2 * len(gone)


class TestAdaptive:
    class Refused(Exception):
        status_code = 429

    def test_what_one_process_learns_slows_the_other(self, make: Any) -> None:
        one = AdaptiveLimiter(make(rate=50, burst=1), min_rate=1, max_rate=100)
        other = AdaptiveLimiter(make(rate=50, burst=1), min_rate=1, max_rate=100)
        other.acquire_sync()
        with pytest.raises(self.Refused), one.permit():
            raise self.Refused
        eventually(lambda: one.rate < 50)
        other.acquire_sync()
        assert other.rate == one.rate

    def test_a_refusal_of_before_the_cut_of_another_process_is_old_news(self, make: Any) -> None:
        one = AdaptiveLimiter(make(rate=50, burst=5), min_rate=1, max_rate=100)
        other = AdaptiveLimiter(make(rate=50, burst=5), min_rate=1, max_rate=100)
        late = other.permit()
        with late:
            with pytest.raises(self.Refused), one.permit():
                raise self.Refused
            eventually(lambda: one.rate < 50)
            rate = one.rate
            late.hear(429)  # sent before the cut
        other.acquire_sync()
        eventually(lambda: other.rate == rate)
        asked = other.statistics().asked
        other.acquire_sync()
        eventually(lambda: other.statistics().asked > asked)
        assert other.rate == one.rate == rate

    def test_a_pause_that_one_hears_is_everybodys(self, make: Any) -> None:
        class Wait(Exception):
            status_code = 429
            headers: ClassVar = {"retry-after": "7"}

        hook = RecordingHook()
        one = AdaptiveLimiter(make(rate=50, burst=5, hooks=[hook]), min_rate=1, max_rate=100)
        other = make(rate=50, burst=5)
        with pytest.raises(Wait), one.permit():
            raise Wait
        eventually(lambda: bool(hook.of(Paused)))
        assert other.try_acquire().retry_after > 5

    def test_a_controller_of_another_kind_needs_a_memory(self, make: Any) -> None:
        class Fixed:
            rate = 5.0

            def feed(self, sample: Sample) -> Adjustment | None:
                return None

        with pytest.raises(TypeError, match="memory and recall"):
            AdaptiveLimiter(make(), controller=Fixed())

    def test_one_is_enough(self, make: Any) -> None:
        limiter = make()
        AdaptiveLimiter(limiter, min_rate=1, max_rate=10)
        with pytest.raises(ValueError, match="follows"):
            AdaptiveLimiter(limiter, min_rate=1, max_rate=10)

    def test_aimd_is_shared_as_well(self, make: Any) -> None:
        controllers = [AIMD(20, min_rate=1, max_rate=100) for _ in range(2)]
        one, other = (AdaptiveLimiter(make(rate=20, burst=1), controller=each) for each in controllers)
        with pytest.raises(self.Refused), one.permit():
            raise self.Refused
        eventually(lambda: one.rate == 10)
        other.acquire_sync()
        assert other.rate == 10


class TestLife:
    def test_it_is_imported_late(self) -> None:
        script = (
            "import sys, batchkit; assert 'redis' not in sys.modules; batchkit.RedisDistributedLimiter; "
            "assert 'redis' in sys.modules"
        )
        subprocess.run([sys.executable, "-c", script], check=True)
        with pytest.raises(AttributeError, match="nonsense"):
            _ = batchkit.nonsense

    def test_it_outlives_event_loops(self, make: Any) -> None:
        limiter = make(rate=1000)
        for _ in range(3):
            anyio.run(limiter.acquire)
            anyio.run(limiter.acquire, backend="trio")
        assert limiter.statistics().granted == 6

    def test_threads_and_loops_share_it(self, make: Any) -> None:
        limiter = make(rate=2000, burst=50, lease=False)

        async def tasks() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(limiter.acquire)

        def in_a_thread() -> None:
            for _ in range(40):
                limiter.acquire_sync()

        with threads(
            in_a_thread,
            in_a_thread,
            lambda: anyio.run(tasks),
            lambda: anyio.run(tasks, backend="trio"),
        ):
            pass
        assert limiter.statistics().granted == 160

    @pytest.mark.anyio
    async def test_who_is_cancelled_costs_nobody_a_permit(self, make: Any) -> None:
        limiter = make(rate=10, burst=1)
        await limiter.acquire()
        started = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(limiter.acquire)
            await anyio.sleep(0.03)
            tasks.cancel_scope.cancel()
        await limiter.acquire()
        assert time.monotonic() - started < 0.6
        assert limiter.statistics().waiting == 0

    def test_who_waits_when_it_is_closed_is_told(self, make: Any) -> None:
        limiter = make(rate=0.01, burst=1)
        limiter.acquire_sync()

        def wait() -> None:
            with pytest.raises(LimiterClosed):
                limiter.acquire_sync()

        with threads(wait):
            eventually(lambda: limiter.statistics().waiting == 1)
            limiter.close()
        with pytest.raises(LimiterClosed):
            limiter.try_acquire()
        with pytest.raises(LimiterClosed):
            limiter.for_key("ann").acquire_sync()

    @pytest.mark.anyio
    async def test_no_thread_is_left_when_the_last_is_closed(self, valkey: Server) -> None:
        url = valkey.url(client_name="alone")
        one = RedisDistributedLimiter(url, "one", rate=2, burst=5)
        other = RedisDistributedLimiter(url, "other", rate=2, burst=5)
        await one.acquire()
        await other.acquire()
        await one.aclose()
        await other.acquire()
        await other.aclose()
        with valkey.client() as client:
            eventually(lambda: not any(each["name"] == "alone" for each in client.client_list()))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
    def test_a_fork_goes_on_on_its_own(self, make: Any) -> None:
        limiter = make(rate=0.1, burst=5)
        assert limiter.try_acquire(2)
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child, which says by its status how it went
            os._exit(0 if limiter.try_acquire(2) and not limiter.try_acquire(2) else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert not limiter.try_acquire(2)
        assert limiter.try_acquire(1)

    def test_a_script_that_was_flushed_is_said_again(self, make: Any, valkey: Server) -> None:
        limiter = make(rate=1000)
        limiter.acquire_sync()
        valkey.do("SCRIPT", "FLUSH")
        limiter.acquire_sync(timeout=A_MOMENT)

    def test_a_connection_that_was_closed_is_made_again(self, make: Any, valkey: Server) -> None:
        hook = RecordingHook()
        limiter = make(rate=1000, hooks=[hook])
        limiter.acquire_sync()
        valkey.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        limiter.acquire_sync(timeout=A_MOMENT)
        assert not hook.of(Unavailable)


class TestAway:
    """In short; `tests/faults` has the long of it."""

    def test_what_was_chosen_happens_and_is_told(self, own_server: Server) -> None:
        hooks = {policy: RecordingHook() for policy in ("raise", "deny", "allow", "local")}
        with closing(own_server) as make:
            limiters = {
                policy: make(policy, rate=20, burst=5, on_unavailable=policy, hooks=[hook])
                for policy, hook in hooks.items()
            }
            for limiter in limiters.values():
                limiter.acquire_sync()
            own_server.kill()
            with pytest.raises(LimiterUnavailable):
                limiters["raise"].acquire_sync()
            assert not limiters["deny"].try_acquire()
            with pytest.raises(AcquireTimeout):
                limiters["deny"].acquire_sync(timeout=0)
            for _ in range(50):
                limiters["allow"].acquire_sync()
            limiters["local"].acquire_sync(3)
            assert all(limiter.statistics().unavailable for limiter in limiters.values())
            own_server.start()
            for policy, hook in hooks.items():
                self.wait_for_return(hook)
                assert [event.policy for event in hook.of(Unavailable)] == [policy]
                limiters[policy].acquire_sync(timeout=A_MOMENT)
            assert [event.granted for event in hooks["allow"].of(Reconnected)] == [50]

    def wait_for_return(self, hook: RecordingHook) -> None:
        eventually(lambda: bool(hook.of(Reconnected)))

    def test_a_refusal_is_as_good_as_no_answer(self, make: Any, valkey: Server) -> None:
        limiter = make(on_unavailable="deny")
        limiter.acquire_sync()
        valkey.do("ACL", "SETUSER", "default", "-evalsha")
        try:
            eventually(lambda: not limiter.try_acquire() and limiter.statistics().unavailable)
        finally:
            valkey.do("ACL", "SETUSER", "default", "+evalsha")
        limiter.acquire_sync(timeout=A_MOMENT)

    def test_a_cluster_is_followed(self, cluster: Cluster) -> None:
        with cluster.client() as client:
            limiters = [
                RedisDistributedLimiter(client, f"quota {number}", rate=1000, burst=10) for number in range(4)
            ]
            for limiter in limiters:
                limiter.acquire_sync(timeout=A_MOMENT)
            slot = cluster.slot("batchkit:{quota%200}")
            cluster.migrate(slot, cluster.other(slot))
            for limiter in limiters:
                limiter.acquire_sync(5, timeout=A_MOMENT)
            for limiter in limiters:
                limiter.close()

    def test_answers_may_be_encrypted(self, valkey: Server) -> None:
        async def three(limiter: RedisDistributedLimiter) -> None:
            for _ in range(3):
                await limiter.acquire()

        with TlsProxy(valkey.port) as proxy:
            limiter = RedisDistributedLimiter(proxy.url(), "quota", rate=1000, burst=10)
            anyio.run(three, limiter)
            limiter.close()


def test_an_event_loop_that_comes_late_hands_back_what_it_was_handed(valkey: Server) -> None:
    async def crowd(limiter: RedisDistributedLimiter) -> None:
        async def call() -> None:
            await limiter.acquire()
            time.sleep(0.004)  # noqa: ASYNC251 - keeps those behind waiting, beyond the time of their permits

        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(call)
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(call)

    with closing(valkey) as make:
        limiter = make(rate=5000, burst=500, lease=False)
        anyio.run(crowd, limiter)
        assert limiter.statistics().granted == 80


def test_a_stalled_loop_does_not_hold_up_a_thread(valkey: Server) -> None:
    with closing(valkey) as make:
        limiter = make(rate=100, burst=1)
        blocked, done = threading.Event(), threading.Event()

        async def stall() -> None:
            await limiter.acquire()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(limiter.acquire)
                await anyio.lowlevel.checkpoint()
                blocked.set()
                done.wait(DEADLINE)  # blocks the loop

        with threads(lambda: anyio.run(stall)):
            blocked.wait(DEADLINE)
            limiter.acquire_sync(timeout=A_MOMENT)
            done.set()

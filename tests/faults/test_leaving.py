"""Callers that give up, limiters that are closed or dropped, and what must never be told."""

from __future__ import annotations

import gc
import logging
import threading
import time
from functools import partial

import anyio
import pytest
from anyio.abc import TaskGroup

from batchkit import LimiterClosed, LimiterUnavailable, RedisDistributedLimiter, Unavailable
from tests.faults.conftest import Make
from tests.faults.fleet import KEY, Callers, StampedHook, courier_threads, eventually_async, figures
from tests.helpers import eventually, threads
from tests.proxies import FaultProxy
from tests.servers import BINARIES, HOST, Server

pytestmark = [pytest.mark.skipif(not BINARIES, reason="no server found"), pytest.mark.anyio]


def start_waiting(group: TaskGroup, limiter: RedisDistributedLimiter, callers: int = 10) -> None:
    for _ in range(callers):
        group.start_soon(limiter.acquire)


# callers


async def test_callers_that_give_up_lose_no_permit(redis_server: Server, make: Make) -> None:
    limiter = make(redis_server.url(), rate=10, burst=2)
    await limiter.acquire(cost=2)
    async with anyio.create_task_group() as group:
        start_waiting(group, limiter)
        await eventually_async(lambda: limiter.statistics().waiting == 10)
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    begin = time.monotonic()
    for _ in range(3):
        await limiter.acquire()
    assert time.monotonic() - begin < 0.3 + 0.05
    await eventually_async(lambda: figures(redis_server).gone == limiter.statistics().granted)


async def test_callers_that_give_up_cost_another_process_little(redis_server: Server, make: Make) -> None:
    limiter, other = make(redis_server.url(), rate=10, burst=2), make(redis_server.url(), rate=10, burst=2)
    await limiter.acquire(cost=2)
    async with anyio.create_task_group() as group:
        start_waiting(group, limiter)
        await eventually_async(lambda: limiter.statistics().waiting == 10)
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    begin = time.monotonic()
    for _ in range(3):
        await other.acquire()
    assert time.monotonic() - begin < 0.3 + 0.3
    went = limiter.statistics().granted + 3
    await eventually_async(lambda: figures(redis_server).gone == went)


async def test_callers_that_give_up_while_redis_hangs(own_server: Server, make: Make) -> None:
    limiter = make(own_server.url(), rate=10, burst=2, on_unavailable="deny")
    await limiter.acquire(cost=2)
    own_server.pause()
    async with anyio.create_task_group() as group:
        start_waiting(group, limiter)
        await anyio.sleep(0.2)
        group.cancel_scope.cancel()
    own_server.resume()
    with anyio.fail_after(2):
        await limiter.acquire()
    await eventually_async(lambda: figures(own_server).gone == limiter.statistics().granted)


# the end of a limiter


@pytest.mark.parametrize("hangs", [False, True])
async def test_those_who_wait_when_a_limiter_is_closed(hangs: bool, own_server: Server, make: Make) -> None:
    before = courier_threads()
    limiter = make(own_server.url(), rate=0.1, burst=1, timeout=0.5)
    await limiter.acquire()
    ended: list[str] = []

    async def wait() -> None:
        try:
            await limiter.acquire()
        except LimiterClosed:
            ended.append("task")

    def wait_sync() -> None:
        with pytest.raises(LimiterClosed):
            limiter.acquire_sync()
        ended.append("thread")

    with threads(wait_sync, wait_sync):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(wait)
            await eventually_async(lambda: limiter.statistics().waiting == 4)
            if hangs:
                own_server.pause()
            begin = time.monotonic()
            await limiter.aclose()
            assert time.monotonic() - begin < 1.5
    assert sorted(ended) == ["task", "task", "thread", "thread"]
    with pytest.raises(LimiterClosed):
        await limiter.acquire()
    with pytest.raises(LimiterClosed):
        limiter.try_acquire()
    await limiter.aclose()  # twice is once
    await eventually_async(lambda: courier_threads() == before)


def test_a_closed_limiter_leaves_nothing(redis_server: Server, make: Make) -> None:
    before = courier_threads()
    sockets = redis_server.info("clients")["connected_clients"]
    limiters = [make(redis_server.url()), make(redis_server.client())]
    for limiter in limiters:
        with Callers(limiter) as callers:
            callers.go_on()
        limiter.close()
        assert courier_threads() == before
    eventually(lambda: redis_server.info("clients")["connected_clients"] == sockets)
    went = sum(limiter.statistics().granted for limiter in limiters)
    assert figures(redis_server).gone == went  # what was held was handed back first
    limiters.clear()
    gc.collect()  # a ResourceWarning would be an error


@pytest.mark.parametrize("policy", ["raise", "deny", "allow", "local"])
def test_a_limiter_that_is_closed_while_redis_is_away(
    policy: str, own_server: Server, make: Make, stamped: StampedHook
) -> None:
    before = courier_threads()
    limiter = make(own_server.url(), on_unavailable=policy, timeout=0.5, hooks=[stamped])
    limiter.acquire_sync()
    own_server.kill()
    with Callers(limiter, count=1, timeout=0.1):
        eventually(lambda: bool(stamped.of(Unavailable)))
    begin = time.monotonic()
    limiter.close()
    assert time.monotonic() - begin < 1.5
    eventually(lambda: courier_threads() == before)


@pytest.mark.parametrize("away", [False, True])
def test_a_limiter_that_is_dropped_leaves_no_thread(
    away: bool, own_server: Server, stamped: StampedHook
) -> None:
    before = courier_threads()
    url, hooks = own_server.url(), [stamped]
    limiter = RedisDistributedLimiter(url, KEY, rate=100, burst=10, on_unavailable="allow", hooks=hooks)
    limiter.acquire_sync()
    assert courier_threads() == before + 1
    if away:
        own_server.kill()
        with Callers(limiter, count=1):
            eventually(lambda: bool(stamped.of(Unavailable)))
    del limiter
    gc.collect()
    eventually(lambda: courier_threads() == before)  # after its idle time
    gc.collect()


def test_an_idle_limiter_hangs_up_and_comes_back(
    redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    before = courier_threads()
    sockets = redis_server.info("clients")["connected_clients"]
    limiter = make(redis_server.url(), hooks=[stamped])
    limiter.acquire_sync()
    eventually(lambda: courier_threads() == before)
    eventually(lambda: redis_server.info("clients")["connected_clients"] == sockets)
    with Callers(limiter) as callers:
        callers.go_on()
    assert not callers.errors
    assert not stamped.switches()


# secrets


def test_a_password_is_told_to_nobody(
    redis_server: Server, make: Make, stamped: StampedHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hunter2-secret"
    redis_server.do("ACL", "SETUSER", "limiter", "on", f">{secret}", "~*", "+@all")
    errors: list[BaseException] = []
    with FaultProxy(redis_server.port) as proxy:
        url = f"redis://limiter:{secret}@{HOST}:{proxy.port}"
        wrong = url.replace(secret, f"wrong-{secret}")
        for target in (url, wrong):
            limiter = make(target, timeout=0.2, hooks=[stamped])
            for fault in (proxy.heal, partial(proxy.cut, reset=True), proxy.refuse, proxy.blackhole):
                fault()
                for _ in range(3):
                    try:
                        limiter.acquire_sync(timeout=0.3)
                    except (LimiterUnavailable, TimeoutError) as error:
                        errors.append(error)
                    threading.Event().wait(0.05)
            proxy.heal()
        with pytest.raises(ValueError, match="schemes") as refused:
            make(f"http://limiter:{secret}@{HOST}")
        errors.append(refused.value)
        said = [repr(limiter), repr(limiter.gate), repr(limiter.gate.terms), repr(limiter.statistics())]
    assert len(errors) > 8
    while errors:
        told = errors.pop()
        said += [repr(told), str(told)]
        errors += [link for link in (told.__cause__, told.__context__) if link is not None]
    said += [repr(event) for event in stamped.events]
    said += [record.getMessage() + str(record.exc_text) for record in caplog.records]
    assert not [text for text in said if secret in text]

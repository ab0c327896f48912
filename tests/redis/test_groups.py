"""`all_of` of limiters of a fleet: with one hash tag, they are asked in one command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest

from batchkit import (
    AcquireTimeout,
    AllOf,
    ConcurrencyLimiter,
    LimiterUnavailable,
    RedisDistributedLimiter,
    TokenBucket,
    all_of,
)
from tests.faults.fleet import figures
from tests.helpers import eventually, threads, worst_excess
from tests.proxies import FaultProxy
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

A_MOMENT = 20.0  # seconds; a generous deadline for what takes milliseconds


@pytest.fixture
def made() -> Iterator[list[RedisDistributedLimiter]]:
    """Limiters that are closed when the test is over."""
    limiters: list[RedisDistributedLimiter] = []
    yield limiters
    for limiter in limiters:
        limiter.close()


@pytest.fixture
def make(made: list[RedisDistributedLimiter], valkey: Server) -> Any:
    """Makes limiters of one hash tag."""

    def make(key: str, rate: float, burst: int, target: object = None, **more: Any) -> Any:
        options: dict[str, Any] = {"tag": "service"}
        limiter = RedisDistributedLimiter(
            valkey.url() if target is None else target, key, rate=rate, burst=burst, **(options | more)
        )
        made.append(limiter)
        return limiter

    return make


def granted(group: AllOf) -> list[int]:
    return [figures.granted for figures in group.statistics().values()]


def gone(server: Server, *limiters: RedisDistributedLimiter) -> list[int]:
    """Permits that all processes let go, as Redis counted them."""
    return [figures(server, limiter.gate.terms.key, "service").gone for limiter in limiters]


# one command


def test_a_call_costs_one_command(make: Any, valkey: Server) -> None:
    both = all_of(requests=make("requests", 0.1, 2), tokens=make("tokens", 1, 100))
    both.acquire_sync(requests=1, tokens=60)
    valkey.reset_stats()
    both.acquire_sync(requests=1, tokens=40)
    commands = valkey.commands()
    assert (commands["evalsha"], commands["hmget"]) == (1, 2)


def test_a_call_that_one_of_them_refuses_takes_nothing_of_the_other(make: Any, valkey: Server) -> None:
    requests, tokens = make("requests", 0.1, 2), make("tokens", 0.1, 100)
    both = all_of(requests=requests, tokens=tokens)
    both.acquire_sync(requests=1, tokens=100)
    with pytest.raises(AcquireTimeout):
        both.acquire_sync(requests=1, tokens=50, timeout=0.2)
    assert gone(valkey, requests, tokens) == [1, 100]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_many_tasks_go_as_fast_as_the_scarcest_limiter_for_a_command_each(
    make: Any, valkey: Server, backend: str
) -> None:
    both = all_of(requests=make("requests", 40, 4), tokens=make("tokens", 2000, 400))
    stamps: list[float] = []

    async def call(tokens: int) -> None:
        await both.acquire(requests=1, tokens=tokens)
        stamps.append(time.monotonic())

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(44):
                tasks.start_soon(call, 10 + number)

    started = time.monotonic()
    anyio.run(main, backend=backend)
    assert time.monotonic() - started >= 0.95
    assert granted(both) == [44, sum(range(10, 54))]
    assert worst_excess(stamps, 40, 4) <= 1 + 40 * 0.004
    assert valkey.commands()["evalsha"] <= 2 * 44


def test_threads_go_in_order(make: Any) -> None:
    both = all_of(requests=make("requests", 50, 1), tokens=make("tokens", 1000, 100))
    both.acquire_sync(requests=1, tokens=1)
    went: list[int] = []

    def call(number: int) -> None:
        time.sleep(number * 0.005)
        both.acquire_sync(requests=1, tokens=20, timeout=A_MOMENT)
        went.append(number)

    with threads(*(partial(call, number) for number in range(8))):
        pass
    assert sorted(went) == list(range(8))
    assert all(later >= sooner - 1 for sooner, later in pairwise(went))


# those who need only one of them


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_that_waits_for_one_does_not_block_those_who_need_the_other(make: Any, backend: str) -> None:
    requests, daily = make("requests", 100, 2), make("daily", 0.001, 1)
    both = all_of(requests=requests, daily=daily)

    async def main() -> None:
        await both.acquire()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(both.acquire)  # which waits for a quarter of an hour
            await anyio.sleep(0.05)
            with anyio.fail_after(A_MOMENT):
                for _ in range(50):
                    await requests.acquire()
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert granted(both) == [51, 1]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_of_both_is_not_starved_by_streams_of_calls_of_each(make: Any, backend: str) -> None:
    one, other = make("one", 100, 10), make("other", 60, 10)
    both = all_of(one=one, other=other)
    streams = [make("one", 100, 10), make("other", 60, 10)]  # of another process

    async def stream(limiter: RedisDistributedLimiter) -> None:
        while True:
            await limiter.acquire()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for limiter in (one, other, *streams):
                for _ in range(5):
                    tasks.start_soon(stream, limiter)
            await anyio.sleep(0.2)
            for _ in range(5):
                with anyio.fail_after(A_MOMENT):
                    await both.acquire(one=8, other=6)
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


def test_two_processes_whose_groups_name_them_in_opposite_order_share_them(make: Any, valkey: Server) -> None:
    here = all_of(one=make("one", 60, 3), other=make("other", 60, 3))
    client = valkey.client()  # has a thread and a connection of its own
    there = all_of(other=make("other", 60, 3, client), one=make("one", 60, 3, client))
    went: dict[AllOf, list[float]] = {here: [], there: []}
    until = time.monotonic() + 1.5

    def work(group: AllOf) -> None:
        while time.monotonic() < until:
            group.acquire_sync(timeout=A_MOMENT)
            went[group].append(time.monotonic())

    with threads(*(partial(work, group) for group in (here, there) for _ in range(3))):
        pass
    counts = [len(stamps) for stamps in went.values()]
    assert sum(counts) >= 0.5 * 60 * 1.5
    assert min(counts) >= 0.5 * max(counts)
    assert worst_excess(sorted(went[here] + went[there]), 60, 3) <= 1 + 60 * 0.004


def test_a_higher_priority_goes_first(make: Any) -> None:
    both = all_of(requests=make("requests", 20, 1), tokens=make("tokens", 1000, 100))
    both.acquire_sync()
    went: list[int] = []

    def call(priority: int) -> None:
        both.acquire_sync(priority=priority, timeout=A_MOMENT)
        went.append(priority)

    with threads(*(partial(call, 0) for _ in range(6))):
        time.sleep(0.02)
        call(1)
    assert went.index(1) <= 3


# limiters of other kinds, and elsewhere


def test_a_group_with_limiters_that_cannot_be_asked_together(make: Any) -> None:
    mixed = all_of(
        one=make("one", 50, 5),
        other=make("other", 50, 5),
        elsewhere=make("elsewhere", 50, 5, tag="another"),
        bucket=TokenBucket(50, 5),
        here=ConcurrencyLimiter(2),
    )

    def work() -> None:
        for _ in range(5):
            with mixed.permit(timeout=A_MOMENT):
                pass

    started = time.monotonic()
    with threads(*[work] * 4):
        pass
    assert time.monotonic() - started >= 0.25
    assert [figures.granted for figures in mixed.statistics().values()][:3] == [20, 20, 20]


def test_an_account_of_many_and_what_all_of_them_share(make: Any) -> None:
    accounts, everybody = make("accounts", 0.01, 2), make("everybody", 1000, 100)
    groups = [all_of(own=accounts.for_key(number), all=everybody) for number in range(40)]

    def call(group: AllOf) -> None:
        for _ in range(2):
            group.acquire_sync(timeout=A_MOMENT)
        with pytest.raises(AcquireTimeout):
            group.acquire_sync(timeout=0.2)

    with threads(*(partial(call, group) for group in groups)):
        pass
    assert everybody.statistics().granted == 80


# tries


@pytest.mark.parametrize("tag", ["service", None])
def test_a_try_asks_once(make: Any, valkey: Server, tag: str | None) -> None:
    both = all_of(requests=make("requests", 0.1, 2, tag=tag), tokens=make("tokens", 1, 100, tag=tag))
    assert both.try_acquire(requests=1, tokens=60)
    refused = both.try_acquire(requests=1, tokens=60)
    assert not refused
    assert 15 <= refused.retry_after <= 20
    assert both.try_acquire(requests=1, tokens=40)
    with pytest.raises(AcquireTimeout):
        both.acquire_sync(timeout=0)
    assert not both.try_acquire(requests=1, tokens=40)
    assert tag is None or valkey.commands()["evalsha"] <= 10  # one loads the script, and some hand back


@pytest.mark.anyio
async def test_a_try_of_a_task(make: Any) -> None:
    both = all_of(requests=make("requests", 0.1, 2), here=TokenBucket(0.1, 3))
    await both.acquire(timeout=0)
    await both.acquire(timeout=0)
    with pytest.raises(AcquireTimeout):
        await both.acquire(timeout=0)
    assert both.limiters["here"].statistics().granted == 2


def test_a_try_that_a_limiter_of_this_process_refuses_asks_nobody(make: Any, valkey: Server) -> None:
    both = all_of(requests=make("requests", 0.1, 2), here=TokenBucket(0.1, 1))
    assert both.try_acquire()
    asked = valkey.commands()["evalsha"]
    assert not both.try_acquire()
    assert valkey.commands()["evalsha"] == asked


# trouble


@pytest.mark.parametrize(
    ("policy", "error"),
    [("raise", LimiterUnavailable), ("deny", AcquireTimeout), ("allow", None), ("local", None)],
)
def test_while_redis_is_away_the_policy_counts(
    make: Any, valkey: Server, policy: str, error: type[Exception] | None
) -> None:
    with FaultProxy(valkey.port) as proxy:
        one, other = (make(key, 50, 5, proxy.url(), on_unavailable=policy) for key in ("one", "other"))
        both = all_of(one=one, other=other)
        both.acquire_sync()
        proxy.refuse()
        proxy.cut()
        eventually(lambda: ends_well_or(error, partial(both.acquire_sync, timeout=0.2)) and one.gate.lost)
        for timeout in (0, 0.2) if policy != "local" else (0.2,):
            assert ends_well_or(error, partial(both.acquire_sync, timeout=timeout))
        proxy.heal()
        eventually(lambda: one.gate.lost is None and other.gate.lost is None)
        both.acquire_sync(timeout=A_MOMENT)


def ends_well_or(error: type[Exception] | None, call: Callable[[], object]) -> bool:
    """Make a call; true if it ends by that error, or well if there is none."""
    try:
        call()
    except (AcquireTimeout, LimiterUnavailable) as raised:
        return type(raised) is error
    return error is None


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_answer_is_asked_for_again_and_counts_once(make: Any, valkey: Server, lost: int) -> None:
    with FaultProxy(valkey.port) as proxy:
        one, other = (make(key, 0.1, 5, proxy.url(), on_unavailable="deny") for key in ("one", "other"))
        both = all_of(one=one, other=other)
        both.acquire_sync()
        proxy.drop_replies(lost, to=b"EVALSHA")
        both.acquire_sync(one=2, other=3, timeout=A_MOMENT)
        assert gone(valkey, one, other) == [3, 4]


def test_scripts_are_loaded_again(make: Any, valkey: Server) -> None:
    both = all_of(one=make("one", 50, 5), other=make("other", 50, 5))
    both.acquire_sync()
    valkey.do("SCRIPT", "FLUSH")
    both.acquire_sync(timeout=A_MOMENT)
    assert granted(both) == [2, 2]

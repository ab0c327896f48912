"""Calls that wait for an answer together and stand in no line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from math import inf
from typing import Any

import anyio
import pytest

from batchkit import RedisDistributedLimiter
from batchkit._core.bucket import Bucket
from batchkit._core.line import Line
from batchkit._core.place import Place
from batchkit._parking import ThreadParker
from batchkit._redis.crowd import Call, Crowd
from tests.servers import BINARIES, Server

A_MOMENT = 20.0  # seconds; a generous deadline for what takes milliseconds


def crowd_of(*costs: int) -> tuple[Crowd, list[Call]]:
    """A crowd that is asked for."""
    crowd = Crowd()
    calls = [Call(cost, ThreadParker(time.monotonic), since=0.0) for cost in costs]
    for call in calls:
        crowd.come(call)
    crowd.ask(100)
    return crowd, calls


class TestCrowd:
    def test_all_go_by_one_decision(self) -> None:
        crowd, calls = crowd_of(1, 2, 1)
        line = Line(Bucket(1, 4, 0.0))
        assert crowd.serve(line, 1.0, 2.0) == calls
        assert [(call.went, call.until) for call in calls] == [(1.0, 2.0)] * 3
        assert line.store.granted == 4
        assert len(crowd) == 0

    def test_the_first_go_and_nobody_passes_them(self) -> None:
        crowd, (first, second, third) = crowd_of(1, 3, 1)
        assert crowd.serve(Line(Bucket(1, 3, 0.0)), 0.0, inf) == [first]
        assert crowd.break_up() == [second, third]

    def test_nobody_goes_past_a_line_or_in_a_pause(self) -> None:
        crowd, calls = crowd_of(1, 1)
        line = Line(Bucket(1, 3, 0.0))
        place = Place(1)
        line.join(place, 0.0)
        assert crowd.serve(line, 0.0, inf) == []
        line.leave(place)
        line.pause(1.0)
        assert crowd.serve(line, 0.5, inf) == []
        assert crowd.serve(line, 1.0, inf) == calls

    def test_who_gave_up_takes_nothing(self) -> None:
        crowd, (first, second) = crowd_of(1, 1)
        first.left = True
        line = Line(Bucket(1, 1, 0.0))
        assert crowd.serve(line, 0.0, inf) == [second]

    def test_a_question_is_about_so_many_at_most(self) -> None:
        crowd, (first, second, third) = crowd_of(1, 1, 1)
        assert crowd.break_up() == [first, second, third]
        for call in (first, second, third):
            crowd.come(call)
        assert crowd.ask(2) == [first, second]
        assert crowd.grew
        assert crowd.break_up() == [first, second, third]
        assert not crowd.grew

    def test_it_is_of_one_event_loop(self) -> None:
        crowd, _ = crowd_of(1)
        assert crowd.admits(None)
        assert not crowd.admits("loop")
        crowd.break_up()
        assert crowd.admits("loop")
        assert not crowd_of(1)[0].admits("another")


@pytest.fixture
def make(valkey: Server) -> Iterator[Any]:
    made: list[RedisDistributedLimiter] = []

    def make(rate: float, burst: int, **more: Any) -> RedisDistributedLimiter:
        limiter = RedisDistributedLimiter(valkey.url(), "quota", rate=rate, burst=burst, lease=False, **more)
        made.append(limiter)
        return limiter

    yield make
    for limiter in made:
        limiter.close()


on_a_server = pytest.mark.skipif(not BINARIES, reason="no server found")


@on_a_server
@pytest.mark.anyio
async def test_a_burst_that_is_lowered_ends_who_costs_more(make: Any) -> None:
    limiter, other = make(rate=10, burst=5), make(rate=10, burst=5)
    await limiter.acquire(5)
    other.change(burst=2)
    await other.acquire()
    with pytest.raises(ValueError, match="exceeds burst"), anyio.fail_after(A_MOMENT):
        await limiter.acquire(5)


@on_a_server
def test_all_go_in_the_order_in_which_they_came(make: Any) -> None:
    limiter = make(rate=100, burst=3)
    gone: list[int] = []

    async def go(number: int) -> None:
        await limiter.acquire()
        gone.append(number)

    async def crowd() -> None:
        async with asyncio.timeout(A_MOMENT), asyncio.TaskGroup() as tasks:
            for number in range(12):
                tasks.create_task(go(number))
                await asyncio.sleep(0.001 * (number % 3))

    asyncio.run(crowd())
    assert gone == list(range(12))
    assert limiter.statistics().waiting == 0


@on_a_server
def test_who_is_cancelled_as_it_may_go_gives_its_permits_back(make: Any) -> None:
    limiter = make(rate=0.01, burst=10)
    gone: list[int] = []

    async def go(number: int, tasks: list[asyncio.Task[None]]) -> None:
        await limiter.acquire()
        gone.append(number)
        if number == 1:  # the first was asked for alone; the others go with this one, and do not know yet
            for task in tasks[2:]:
                task.cancel()

    async def crowd() -> None:
        tasks: list[asyncio.Task[None]] = []
        tasks += [asyncio.create_task(go(number, tasks)) for number in range(10)]
        await asyncio.wait(tasks)
        assert gone == [0, 1]
        statistics = limiter.statistics()
        assert (statistics.granted, statistics.waits, statistics.waiting) == (2, 2, 0)
        async with asyncio.timeout(A_MOMENT):
            for _ in range(8):
                await limiter.acquire()

    asyncio.run(crowd())


@on_a_server
def test_what_is_good_for_a_while_is_used_by_who_comes_late(make: Any) -> None:
    limiter = make(rate=100, burst=50)

    async def go() -> None:
        await limiter.acquire()
        time.sleep(0.003)  # noqa: ASYNC251 - keeps those behind waiting

    async def crowd() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(go())

    asyncio.run(crowd())
    statistics = limiter.statistics()
    assert (statistics.granted, statistics.waits) == (5, 5)

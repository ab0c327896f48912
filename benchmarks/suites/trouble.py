"""Limiters in trouble: a loop that stalls, cancelled waiters, a dear call among cheap ones, few busy tasks.

The time in each table is what a caller feels, beside what it would be with an ideal limiter.
The other columns say why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from batchkit import TokenBucket
from benchmarks.figures import over_bound
from benchmarks.frame import AsyncCase, Case, Role, Sample, Skipped, Suite, quiet
from benchmarks.peers import Peer, aiometer_runner, async_peers
from benchmarks.suites.limiters import OneTimer

# Given a rate (permits a second) and a burst: the limiter's method to acquire.
Make = Callable[[float, int], Callable[..., Awaitable[object]]]
Scenario = Callable[[int], Awaitable[Sample]]
IN_LINE = 0.02  # seconds until those who were started stand in line

STALL = 1_500  # ms; with --quick a tenth
STALL_RATE, STALL_BURST = 20, 2
AFTER_STALL = 12  # permits whose time is taken
AT_ONCE = 0.02  # seconds; less than half the time between two permits

CANCELLED = 20  # waiters; with --quick two
CANCEL_RATE = 5
ATTEMPTS = 5  # at a cancel in the tick of a grant

COST = 50  # of the dear call; with --quick 5
COST_RATE, COST_BURST = 100, 50
CHEAP_TASKS = 8
GIVE_UP = 6  # times the time that an ideal limiter takes

BUSY_TASKS = 8
BUSY_RATE, BUSY_BURST = 20_000, 100
BUSY_PERMITS = 20_000  # in one second; with --quick a tenth of both


def _cases(
    scenario: Callable[[Make, int], Awaitable[Sample]],
    ideal: Callable[[int], float],
    operations: int,
    *,
    group: str = "asyncio",
    needs_cost: bool = False,
) -> list[Case | Skipped]:
    """An ideal limiter, of which the seconds are only computed, batchkit, and all peers that can do it."""

    async def computed(operations: int) -> Sample:
        return Sample(ideal(operations))

    case = partial(_case, group=group, operations=operations)
    return [
        case("ideal", "floor", computed),
        case("batchkit", "batchkit", partial(scenario, _batchkit)),
        *(_peer_case(case, scenario, peer, needs_cost) for peer in async_peers()),
    ]


def _case(name: str, role: Role, scenario: Scenario, *, group: str, operations: int) -> AsyncCase:
    async def measure(operations: int) -> Sample:
        with quiet():
            return await scenario(operations)

    return AsyncCase(name=name, role=role, group=group, operations=operations, measure=measure)


def _peer_case(
    case: Callable[[str, Role, Scenario], Case],
    scenario: Callable[[Make, int], Awaitable[Sample]],
    peer: Peer | Skipped,
    needs_cost: bool,
) -> Case | Skipped:
    if isinstance(peer, Skipped):
        return peer
    if not peer.waits:
        return Skipped(peer.name, "it has no way to wait")
    if needs_cost and not peer.costs:
        return Skipped(peer.name, "each of its calls costs 1")
    return case(peer.name, "peer", partial(scenario, peer.make))


def _batchkit(rate: float, burst: int) -> Callable[..., Awaitable[object]]:
    return TokenBucket(rate, burst).acquire


def stalled_cases() -> list[Case | Skipped]:
    case = partial(_case, group="asyncio", operations=STALL)
    cases = _cases(_stalled, lambda _: (AFTER_STALL - STALL_BURST) / STALL_RATE, STALL)
    one_timer = partial(_stalled, lambda rate, burst: OneTimer(rate, burst).acquire)
    run = aiometer_runner()
    if isinstance(run, Skipped):
        return [*cases, case("deque and one timer", "floor", one_timer), run]

    async def run_line(tasks: int, go: Callable[[int], Awaitable[None]]) -> object:
        return await run(go, tasks, STALL_RATE)

    return [
        *cases,
        case("deque and one timer", "floor", one_timer),
        case("aiometer, no burst", "peer", partial(_stall, run_line)),
    ]


async def _stalled(make: Make, milliseconds: int) -> Sample:
    acquire = make(STALL_RATE, STALL_BURST)

    async def line(tasks: int, go: Callable[[int], Awaitable[None]]) -> None:
        async def wait_and_go(number: int) -> None:
            await acquire()
            await go(number)

        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                group.create_task(wait_and_go(number))

    return await _stall(line, milliseconds)


async def _stall(
    line: Callable[[int, Callable[[int], Awaitable[None]]], Awaitable[object]], milliseconds: int
) -> Sample:
    gone: list[float] = []

    async def go(number: int) -> None:
        gone.append(time.monotonic())

    tasks = STALL_RATE * (1 + milliseconds // 1000) + STALL_BURST + AFTER_STALL
    async with _started(line(tasks, go)):
        await asyncio.sleep(4 / STALL_RATE)
        before = len(gone)
        time.sleep(milliseconds / 1000)  # noqa: ASYNC251 - this is the stall
        woke = time.monotonic()
        while len(gone) < before + AFTER_STALL:  # noqa: ASYNC110 - an event would cost those who go
            await asyncio.sleep(IN_LINE)
    at_once = sum(1 for moment in gone[before:] if moment - woke < AT_ONCE)
    return Sample(
        gone[before + AFTER_STALL - 1] - woke,
        {"let go at once": at_once, "permits over the bound": over_bound(gone, STALL_RATE, STALL_BURST)},
    )


def cancelled_cases() -> list[Case | Skipped]:
    return [
        *_cases(_cancelled, lambda _: 1 / CANCEL_RATE - IN_LINE, CANCELLED, group="while they wait"),
        *_cases(
            _cancelled_in_the_tick, lambda _: 1 / CANCEL_RATE + IN_LINE, 1, group="in the tick of the grant"
        ),
    ]


async def _cancelled(make: Make, waiters: int) -> Sample:
    acquire = make(CANCEL_RATE, 1)
    await acquire()
    tasks = [asyncio.create_task(_await(acquire)) for _ in range(waiters)]
    await asyncio.sleep(IN_LINE)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    started = time.monotonic()
    await acquire()
    return Sample(time.monotonic() - started)


async def _cancelled_in_the_tick(make: Make, _: int) -> Sample:
    """The first of two waiters is cancelled when its grant is made, but before it runs."""
    for _ in range(ATTEMPTS):
        if (seconds := await _cancel_in_the_tick(make)) is not None:
            return Sample(seconds)
    raise AssertionError("the first waiter always goes before it is cancelled")


async def _cancel_in_the_tick(make: Make) -> float | None:
    """Seconds that the second waited; None if the first went, say because the machine was held up."""
    acquire = make(CANCEL_RATE, 1)
    await acquire()
    started = time.monotonic()
    first, second = (asyncio.create_task(_await(acquire)) for _ in range(2))
    await asyncio.sleep(IN_LINE)
    time.sleep(1 / CANCEL_RATE)  # noqa: ASYNC251 - the grant is due, and the loop has not looked yet
    await asyncio.sleep(0)  # the loop finds the timer that is due, and calls it after us
    await asyncio.sleep(0)  # we run again before the task that the timer woke
    first.cancel()
    await asyncio.wait([first, second])
    return time.monotonic() - started if first.cancelled() else None


def mixed_cases() -> list[Case | Skipped]:
    return _cases(_mixed, _ideal_mixed, COST, needs_cost=True)


def _ideal_mixed(cost: int) -> float:
    """Those who came before go first."""
    return (cost + CHEAP_TASKS) / COST_RATE


async def _mixed(make: Make, cost: int) -> Sample:
    acquire = make(COST_RATE, COST_BURST)
    cheap = 0

    async def go_on() -> None:
        nonlocal cheap
        while True:
            await acquire()
            cheap += 1

    await acquire(COST_BURST)
    async with _started(*(go_on() for _ in range(CHEAP_TASKS))):
        await asyncio.sleep(CHEAP_TASKS / COST_RATE)
        before = cheap
        started = time.monotonic()
        async with _started(acquire(cost)) as (dear,):
            await asyncio.wait([dear], timeout=GIVE_UP * _ideal_mixed(cost))
            seconds = time.monotonic() - started
            given_up = not dear.done()
    return Sample(seconds, {"cheap calls that went first": cheap - before, "given up": given_up})


def use_cases() -> list[Case | Skipped]:
    return [
        *_cases(_use, lambda permits: _seconds_at(permits, permits + BUSY_BURST), BUSY_PERMITS),
        _case(
            "deque and one timer",
            "floor",
            partial(_use, lambda rate, burst: OneTimer(rate, burst).acquire),
            group="asyncio",
            operations=BUSY_PERMITS,
        ),
    ]


async def _use(make: Make, permits: int) -> Sample:
    acquire = make(BUSY_RATE, BUSY_BURST)
    end = time.monotonic() + permits / BUSY_RATE
    gone: list[float] = []

    async def go_on() -> None:
        while (now := time.monotonic()) < end:
            gone.append(now)
            await acquire()

    async with _started(*(go_on() for _ in range(BUSY_TASKS))):
        await asyncio.sleep(permits / BUSY_RATE)
    used = gone[BUSY_TASKS:]  # the first of each task was before its first permit
    return Sample(
        _seconds_at(permits, len(used)),
        {
            "unused %": 100 * (1 - len(used) / (permits + BUSY_BURST)),
            "permits over the bound": over_bound(used, BUSY_RATE, BUSY_BURST),
        },
    )


def _seconds_at(permits: int, used: int) -> float:
    """What all permits take when so many are used in the time that the rate allows for all."""
    return permits / BUSY_RATE * permits / max(1, used)


async def _await(acquire: Callable[[], Awaitable[object]]) -> None:
    await acquire()


@asynccontextmanager
async def _started(*work: Awaitable[Any]) -> AsyncIterator[Sequence[asyncio.Future[Any]]]:
    """Tasks that run meanwhile, and are cancelled at the end."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


SUITES: Sequence[Suite] = [
    Suite(
        "limiters_stalled",
        f"a stall of {STALL} ms at {STALL_RATE}/s, burst {STALL_BURST}: {AFTER_STALL} permits after it",
        stalled_cases,
        unit="ms in all",
        rounds=3,
    ),
    Suite(
        "limiters_cancelled",
        f"{CANCELLED} waiters, or one, are cancelled at {CANCEL_RATE}/s, burst 1: the next caller's wait",
        cancelled_cases,
        unit="ms in all",
        rounds=3,
    ),
    Suite(
        "limiters_mixed",
        f"a call of cost {COST} among {CHEAP_TASKS} tasks of calls of cost 1 at {COST_RATE}/s: its wait",
        mixed_cases,
        unit="ms in all",
        rounds=3,
    ),
    Suite(
        "limiters_use",
        f"{BUSY_TASKS} tasks at {BUSY_RATE:,}/s, burst {BUSY_BURST}: time of {BUSY_PERMITS:,} permits",
        use_cases,
        unit="ms in all",
        rounds=5,
    ),
]

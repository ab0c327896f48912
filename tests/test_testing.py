"""The clock that is moved by hand, the real one, and how calls wait."""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf, nan

import anyio
import pytest

from batchkit import _parking
from batchkit._background import spawn
from batchkit._clock import MONOTONIC
from batchkit.testing import ManualClock, settle
from tests.helpers import eventually, threads

pytestmark = pytest.mark.anyio


async def test_sleepers_wake_at_their_own_times(clock: ManualClock) -> None:
    woken: list[tuple[float, int]] = []

    async def sleep(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append((clock.now(), seconds))

    async with anyio.create_task_group() as tasks:
        for seconds in (3, 1, 2, 0):
            tasks.start_soon(sleep, seconds)
        await clock.run_for(10)
    assert woken == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert clock.now() == 10


async def test_a_jump_wakes_all_late(clock: ManualClock) -> None:
    woken: list[float] = []

    async def sleep(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(clock.now())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep, 1)
        tasks.start_soon(sleep, 2)
        await settle()
        clock.advance(5)
    assert woken == [5, 5]


async def test_hours_pass_in_no_time(clock: ManualClock) -> None:
    async def work() -> str:
        for _ in range(3):
            await clock.sleep(3600)
        return "done"

    assert await clock.run(work()) == "done"
    assert clock.now() == 3 * 3600


async def test_while_nothing_waits_for_it_the_clock_stands_still(clock: ManualClock) -> None:
    assert await clock.run(anyio.to_thread.run_sync(lambda: 7)) == 7
    assert clock.now() == 0


def test_threads_sleep_until_it_is_moved(clock: ManualClock) -> None:
    woken: list[float] = []

    def sleep(seconds: float) -> None:
        clock.sleep_sync(seconds)
        woken.append(clock.now())

    with threads(partial(sleep, 1), partial(sleep, 2)):
        eventually(lambda: len(clock._alarms) == 2)
        clock.advance(1)
        eventually(lambda: woken == [1])
        clock.advance(1)
    assert woken == [1, 2]


@pytest.mark.parametrize("seconds", [-1, nan, inf])
def test_it_never_goes_back(clock: ManualClock, seconds: float) -> None:
    with pytest.raises(ValueError, match="moves ahead by a finite time"):
        clock.advance(seconds)


async def test_an_alarm_for_a_moment_that_is_over_rings_at_once(clock: ManualClock) -> None:
    clock.advance(5)
    await clock.parker().park(until=4)
    clock.parker_sync().park_sync(until=4)


async def test_an_alarm_of_one_who_was_woken_before_does_not_ring(clock: ManualClock) -> None:
    parker = clock.parker()
    parker.unpark()
    await parker.park(until=9)
    waiting = clock.parker_sync()
    waiting.unpark()
    waiting.park_sync(until=9)
    await clock.run_for(0)
    clock.advance(10)
    assert (waiting.domain, parker.domain is None) == (None, False)


class TestRealTime:
    async def test_a_parked_call_wakes_by_itself(self) -> None:
        begun = MONOTONIC.now()
        await MONOTONIC.parker().park(until=begun + 0.001)
        MONOTONIC.parker_sync().park_sync(until=begun + 0.002)
        await MONOTONIC.sleep(0)
        MONOTONIC.sleep_sync(0)
        assert MONOTONIC.now() >= begun + 0.002

    async def test_a_parked_call_is_woken_by_another_thread(self) -> None:
        parker = MONOTONIC.parker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(parker.park)
            await settle()
            with threads(parker.unpark):
                pass

    async def test_a_wake_up_before_the_wait_is_kept(self) -> None:
        parker = MONOTONIC.parker()
        with threads(parker.unpark):
            pass
        await parker.park()

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_closed_loop_says_so(self, backend: str) -> None:
        async def make() -> _parking.Parker:
            return MONOTONIC.parker()

        assert not anyio.run(make, backend=backend).unpark()

    def test_without_a_loop_there_is_nothing_to_park_in(self) -> None:
        with pytest.raises(RuntimeError):
            MONOTONIC.parker()


class TestBackground:
    async def test_a_task_is_cancelled_from_another_thread(self) -> None:
        ended = anyio.Event()
        task = spawn(partial(anyio.sleep, inf), on_end=ended.set)
        await settle()
        with threads(task.cancel):
            pass
        await ended.wait()

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_task_of_a_loop_that_is_over(self, backend: str) -> None:
        async def make() -> object:
            async def work() -> None:
                return

            return spawn(work, on_end=lambda: None).cancel

        cancel = anyio.run(make, backend=backend)
        assert callable(cancel)
        cancel()

    def test_a_task_that_was_cancelled_before_it_began_has_an_end(self) -> None:
        ends: list[str] = []

        async def main() -> None:
            spawn(partial(anyio.sleep, 0), on_end=lambda: ends.append("end")).cancel()
            await settle()

        asyncio.run(main())
        assert ends == ["end"]

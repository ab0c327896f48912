"""Clocks that are set, of Redis and of clients."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from batchkit import Unavailable
from tests.faults.conftest import Make
from tests.faults.fleet import Callers, ShiftedClock, StampedHook, check_recovery, excess, figures, slack
from tests.helpers import eventually
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

RATE, BURST = 100, 10
HOUR = 3600


def longest_gap(moments: list[float]) -> float:
    """The longest time in which nobody went."""
    return max(later - earlier for earlier, later in pairwise(sorted(moments)))


@pytest.mark.parametrize("hours", [1, -1])
def test_the_clock_of_redis_is_set_in_use(
    hours: int, colour: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiters = [make(redis_server.url(), hooks=[stamped]) for _ in range(2)]
    with Callers(*limiters, colour=colour) as callers:
        callers.go_on(50)
        redis_server.clock_offset = hours * HOUR
        callers.go_on(50)
    assert not callers.errors
    assert not stamped.switches()
    assert longest_gap(callers.gone) < 0.3
    # ahead: the bucket is full all at once; back: nothing came in
    assert excess(callers.gone, RATE, BURST) < 2 * slack(RATE) + (BURST if hours > 0 else 0)


@pytest.mark.parametrize("hours", [1, -1])
def test_the_clock_of_redis_is_set_while_nobody_calls(hours: int, redis_server: Server, make: Make) -> None:
    limiter = make(redis_server.url(), rate=10)
    limiter.acquire_sync(cost=BURST)
    eventually(lambda: limiter.statistics().held == 0)
    redis_server.clock_offset = hours * HOUR
    begin = time.monotonic()
    limiter.acquire_sync(timeout=2)
    assert time.monotonic() - begin < 0.5


def test_a_pause_survives_a_clock_that_is_set_back(redis_server: Server, make: Make) -> None:
    limiter, other = make(redis_server.url()), make(redis_server.url())
    with Callers(other) as callers:
        callers.go_on()
        limiter.pause_for(1)
        paused_at = time.monotonic()
        eventually(lambda: figures(redis_server).closed > 0)
        redis_server.clock_offset = -HOUR
        eventually(lambda: time.monotonic() > paused_at + 0.5)
        callers.go_on()
    # Redis is told at once, and the others hear of it at their next question
    during = [moment - paused_at for moment in callers.gone if 0.35 < moment - paused_at < 0.9]
    assert not during
    assert min(moment for moment in callers.gone if moment > paused_at + 0.5) < paused_at + 1.5


@pytest.mark.parametrize(
    "hours",
    [
        1,
        -1,
    ],
)
def test_redis_comes_back_with_another_clock(
    hours: int, policy: str, own_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(own_server.url(), on_unavailable=policy, hooks=[stamped])
    with Callers(limiter, timeout=1) as callers:
        callers.go_on()
        own_server.kill()
        own_server.clock_offset = hours * HOUR
        eventually(lambda: bool(stamped.of(Unavailable)))
        own_server.start()
        check_recovery(stamped, time.monotonic())
        callers.go_on()


def test_clocks_of_clients_may_show_anything(
    colour: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    shifts = [0.0, 1e6, -1e6, 12345.678]
    limiters = [
        make(redis_server.url(), clock=ShiftedClock(shift), rate=RATE, hooks=[stamped]) for shift in shifts
    ]
    with Callers(*limiters, count=4, colour=colour) as callers:
        callers.go_on(150)
    assert not callers.errors
    assert not stamped.switches()
    assert longest_gap(callers.gone) < 0.3
    assert excess(callers.gone, RATE, BURST) < slack(RATE)
    assert all(limiter.statistics().granted > 10 for limiter in limiters)
    eventually(lambda: figures(redis_server).gone == len(callers.gone))

"""A long way to Redis: 50 ms there, and 50 ms back."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import Make
from tests.faults.fleet import Callers, StampedHook, excess, figures, slack
from tests.helpers import eventually
from tests.proxies import FaultProxy
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

RATE, BURST = 100, 10


def test_saturated_callers_use_the_quota_and_no_more(
    colour: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    with FaultProxy(redis_server.port) as proxy:
        proxy.delay(0.05)
        limiter = make(proxy.url(), hooks=[stamped], horizon=0.2)
        with Callers(limiter, count=64, colour=colour) as callers:
            callers.go_on()
            begin = time.monotonic()
            callers.go_on(300)
            seconds = time.monotonic() - begin
        assert 300 / seconds > 0.8 * RATE
        assert not callers.errors
        assert not stamped.switches()
        assert excess(callers.gone, RATE, BURST) < slack(RATE)
        eventually(lambda: figures(redis_server).gone == len(callers.gone))


def test_two_processes_share_a_quota_from_afar(valkey: Server, make: Make, stamped: StampedHook) -> None:
    with FaultProxy(valkey.port) as proxy:
        proxy.delay(0.05)
        limiters = [make(proxy.url(), hooks=[stamped]), make(valkey.url(), hooks=[stamped])]
        with Callers(*limiters) as callers:
            callers.go_on(200)
        assert not callers.errors
        assert not stamped.switches()
        assert excess(callers.gone, RATE, BURST) < slack(RATE)
        eventually(lambda: figures(valkey).gone == len(callers.gone))


def test_answers_that_become_slower_than_they_were(valkey: Server, make: Make, stamped: StampedHook) -> None:
    with FaultProxy(valkey.port) as proxy:
        limiter = make(proxy.url(), hooks=[stamped], timeout=0.5)
        limiter.acquire_sync()
        proxy.delay(0.1, 0.2)
        for _ in range(5):
            limiter.acquire_sync(timeout=2)
        assert not stamped.switches()

"""Redis is away, hangs or comes back: what callers see meanwhile, and how soon all is well again."""

from __future__ import annotations

import time

import pytest

from batchkit import AcquireTimeout, LimiterUnavailable, Reconnected, Unavailable
from tests.faults.conftest import Make
from tests.faults.fleet import Callers, StampedHook, check_policy, check_recovery, excess, figures, slack
from tests.helpers import eventually
from tests.proxies import FaultProxy
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

RATE, BURST = 100, 10


@pytest.mark.parametrize("refuses", [True, False], ids=["refused", "hung up"])
def test_a_limiter_made_before_its_redis(
    policy: str, refuses: bool, make: Make, stamped: StampedHook
) -> None:
    server = Server()
    with FaultProxy(server.port) as proxy:
        if refuses:
            proxy.refuse()
        limiter = make(proxy.url(), on_unavailable=policy, timeout=0.3, hooks=[stamped])
        check_policy(limiter, policy)
        check_policy(limiter, policy)
        assert limiter.statistics().unavailable
        [lost] = stamped.of(Unavailable)
        assert (lost.name, lost.policy) == ("quota", policy)
        with server:
            proxy.heal()
            check_recovery(stamped, time.monotonic())
            limiter.acquire_sync(timeout=1)
            assert not limiter.statistics().unavailable


def test_redis_is_killed_in_use_and_comes_back_empty(
    policy: str, colour: str, own_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(own_server.url(), on_unavailable=policy, timeout=0.5, hooks=[stamped])
    with Callers(limiter, colour=colour, timeout=1) as callers:
        callers.go_on()
        own_server.kill()
        eventually(lambda: bool(stamped.of(Unavailable)))
        if policy == "raise":
            eventually(lambda: any(isinstance(error, LimiterUnavailable) for error in callers.errors))
        elif policy == "deny":
            eventually(lambda: any(isinstance(error, AcquireTimeout) for error in callers.errors))
        else:
            callers.go_on()
        own_server.start()
        check_recovery(stamped, time.monotonic())
        callers.go_on()
    assert callers.longest < 2
    if policy in ("allow", "local"):
        assert not callers.errors
        assert stamped.of(Reconnected)[0].granted >= 20 - 8


def test_scripts_are_flushed_in_use_and_nobody_notices(
    policy: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(redis_server.url(), on_unavailable=policy, hooks=[stamped])
    with Callers(limiter, timeout=1) as callers:
        for _ in range(3):
            callers.go_on()
            redis_server.do("SCRIPT", "FLUSH")
        callers.go_on()
    assert not callers.errors
    assert not stamped.of(Unavailable)
    assert excess(callers.gone, RATE, BURST) < slack(RATE)
    eventually(lambda: figures(redis_server).gone == len(callers.gone))


@pytest.mark.parametrize("cold", [True, False])
def test_what_a_redis_that_lost_its_data_lets_go(
    cold: bool, own_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(own_server.url(), cold_start=cold, rate=50, burst=40, hooks=[stamped])
    with Callers(limiter) as callers:
        callers.go_on(20)
        own_server.kill()
        eventually(lambda: bool(stamped.of(Unavailable)))
        own_server.start()
        check_recovery(stamped, time.monotonic())
        callers.go_on(60)
    over = excess(callers.gone, 50, 40)
    if cold:
        assert over < slack(50)  # the first burst is lost as well, for who starts the very first process
    else:
        assert over < 40 + slack(50)


@pytest.mark.parametrize(
    ("policy", "colour"),
    [("raise", "asyncio"), ("deny", "trio"), ("deny", "threads"), ("allow", "asyncio"), ("local", "threads")],
)
def test_redis_hangs_for_five_seconds(
    policy: str, colour: str, own_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(own_server.url(), on_unavailable=policy, timeout=0.5, hooks=[stamped])
    with Callers(limiter, colour=colour, timeout=1) as callers:
        callers.go_on()
        own_server.pause()
        time.sleep(5)
        before = len(callers.gone)
        own_server.resume()
        check_recovery(stamped, time.monotonic())
        callers.go_on()
    assert callers.longest < 1.5  # the timeout of the call, and some for a busy machine
    during = stamped.moment(Unavailable)
    if policy in ("raise", "deny"):
        assert callers.errors
        assert not [moment for moment in callers.gone[:before] if moment > during]
        # what was sent meanwhile was not answered once more
        eventually(lambda: figures(own_server).gone == len(callers.gone))
    else:
        assert not callers.errors
        assert stamped.of(Reconnected)[0].granted > 20


def test_the_network_is_parted_and_heals(
    policy: str, colour: str, valkey: Server, make: Make, stamped: StampedHook
) -> None:
    with FaultProxy(valkey.port) as proxy:
        limiter = make(proxy.url(), on_unavailable=policy, timeout=0.3, hooks=[stamped])
        with Callers(limiter, colour=colour, timeout=1) as callers:
            callers.go_on()
            proxy.blackhole()
            eventually(lambda: bool(stamped.of(Unavailable)))
            time.sleep(0.5)  # some questions are lost, too
            proxy.heal()
            check_recovery(stamped, time.monotonic())
            callers.go_on()
        assert callers.longest < 1.5
        if policy in ("raise", "deny"):
            eventually(lambda: figures(valkey).gone == len(callers.gone))
        else:
            assert not callers.errors


@pytest.mark.parametrize("reset", [True, False], ids=["RST", "FIN"])
def test_a_connection_is_cut_in_use_and_nobody_notices(
    reset: bool, policy: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    with FaultProxy(redis_server.port) as proxy:
        limiter = make(proxy.url(), on_unavailable=policy, hooks=[stamped])
        with Callers(limiter) as callers:
            for _ in range(5):
                callers.go_on(10)
                proxy.cut(reset=reset)
            callers.go_on()
        assert proxy.connections == 6
    assert not callers.errors
    assert not stamped.of(Unavailable)
    assert excess(callers.gone, RATE, BURST) < slack(RATE)
    eventually(lambda: figures(redis_server).gone == len(callers.gone))


def test_an_idle_connection_is_closed_by_redis_and_nobody_notices(
    policy: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(redis_server.url(), on_unavailable=policy, hooks=[stamped], lease=False)
    for _ in range(5):
        limiter.acquire_sync(timeout=1)
        eventually(lambda: figures(redis_server).gone == limiter.statistics().granted)
        redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert not stamped.of(Unavailable)


@pytest.mark.parametrize("times", [1, 2])
def test_a_call_whose_reply_is_lost_counts_once(
    times: int, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    with FaultProxy(redis_server.port) as proxy:
        limiter = make(proxy.url(), hooks=[stamped], lease=False)
        limiter.acquire_sync()
        proxy.drop_replies(times, to=b"EVALSHA")
        if times == 1:  # asked again at once, under the same number
            limiter.acquire_sync(timeout=1)
            assert not stamped.of(Unavailable)
        else:
            with pytest.raises(LimiterUnavailable):
                limiter.acquire_sync(timeout=1)
            check_recovery(stamped, time.monotonic())
        assert proxy.dropped == times
        # what was granted to a call that did not hear of it is handed back
        eventually(lambda: figures(redis_server).gone == limiter.statistics().granted == 3 - times)

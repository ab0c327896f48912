"""Redis is there and says no: each refusal is told to callers as Redis being away, until it is mended."""

from __future__ import annotations

import time
from typing import Final

import pytest
from redis.exceptions import BusyLoadingError

from batchkit import Reconnected, Unavailable
from tests.faults.conftest import Make
from tests.faults.fleet import (
    RECOVERY,
    Callers,
    StampedHook,
    check_policy,
    check_recovery,
    excess,
    figures,
    slack,
)
from tests.helpers import eventually, threads
from tests.servers import BINARIES, HOST, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

RATE, BURST = 100, 10
# All that a limiter needs to be allowed.
RIGHTS: Final = "~batchkit:* -@all +evalsha +script|load +time +hmget +hset +hdel +pexpire"


def reason(hook: StampedHook) -> str:
    """Why Redis is away, as the only event says."""
    eventually(lambda: bool(hook.of(Unavailable)))
    [lost] = hook.of(Unavailable)
    return lost.reason


def test_the_least_rights_are_enough(redis_server: Server, make: Make, stamped: StampedHook) -> None:
    redis_server.do("ACL", "SETUSER", "limiter", "on", ">secret", *RIGHTS.split())
    url = f"redis://limiter:secret@{HOST}:{redis_server.port}"
    limiters = [make(url, hooks=[stamped]), make(url, hooks=[stamped])]
    with Callers(*limiters) as callers:
        callers.go_on()
        redis_server.do("SCRIPT", "FLUSH")
        limiters[0].pause_for(0.01)
        limiters[0].change(rate=RATE + 1)
        limiters[0].charge(1)
        callers.go_on()
    assert not callers.errors
    assert not stamped.of(Unavailable)


@pytest.mark.parametrize("right", sorted(RIGHTS.split()[2:]))
def test_each_of_the_rights_is_needed(right: str, valkey: Server, make: Make, stamped: StampedHook) -> None:
    valkey.do("ACL", "SETUSER", "limiter", "on", ">secret", *RIGHTS.split(), f"-{right[1:]}")
    url = f"redis://limiter:secret@{HOST}:{valkey.port}"
    other = make(valkey.url())
    other.acquire_sync()
    other.change(rate=2 * RATE)  # which is remembered for an hour
    other.acquire_sync()
    other.close()
    valkey.do("SCRIPT", "FLUSH")
    valkey.clock_offset = 60.0  # and what the other one was answered is forgotten
    limiters = [make(url, on_unavailable="allow", hooks=[stamped]) for _ in range(2)]
    with Callers(*limiters):
        eventually(lambda: bool(stamped.of(Unavailable)))
    valkey.do("ACL", "SETUSER", "limiter", right)
    eventually(lambda: bool(stamped.of(Reconnected)))


@pytest.mark.parametrize("rights", ["~others:* +@all", "~batchkit:* +@all -evalsha"], ids=["keys", "command"])
def test_a_user_without_the_rights(
    rights: str, policy: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    redis_server.do("ACL", "SETUSER", "limiter", "on", ">secret", *rights.split())
    url = f"redis://limiter:secret@{HOST}:{redis_server.port}"
    limiter = make(url, on_unavailable=policy, hooks=[stamped])
    check_policy(limiter, policy)
    check_policy(limiter, policy)
    assert "NoPermissionError" in reason(stamped)
    redis_server.do("ACL", "SETUSER", "limiter", *RIGHTS.split())
    check_recovery(stamped, time.monotonic())
    limiter.acquire_sync(timeout=1)


def test_a_wrong_password(policy: str, redis_server: Server, make: Make, stamped: StampedHook) -> None:
    redis_server.do("ACL", "SETUSER", "limiter", "on", ">secret", "~*", "+@all")
    url = f"redis://limiter:wrong-secret@{HOST}:{redis_server.port}"
    limiter = make(url, on_unavailable=policy, hooks=[stamped])
    check_policy(limiter, policy)
    check_policy(limiter, policy)
    assert "AuthenticationError" in reason(stamped)
    redis_server.do("ACL", "SETUSER", "limiter", ">wrong-secret")
    check_recovery(stamped, time.monotonic())
    limiter.acquire_sync(timeout=1)


def test_a_password_that_changes_in_use(
    policy: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    redis_server.do("ACL", "SETUSER", "limiter", "on", ">secret", "~*", "+@all")
    limiter = make(
        f"redis://limiter:secret@{HOST}:{redis_server.port}", on_unavailable=policy, hooks=[stamped]
    )
    with Callers(limiter, timeout=1) as callers:
        callers.go_on()
        redis_server.do("ACL", "SETUSER", "limiter", "<secret", ">other")
        redis_server.do("CLIENT", "KILL", "USER", "limiter")
        assert "AuthenticationError" in reason(stamped)
        redis_server.do("ACL", "SETUSER", "limiter", ">secret")
        check_recovery(stamped, time.monotonic())
        callers.go_on()


def test_a_full_redis(policy: str, redis_server: Server, make: Make, stamped: StampedHook) -> None:
    limiter = make(redis_server.url(), on_unavailable=policy, hooks=[stamped])
    with Callers(limiter, timeout=1) as callers:
        callers.go_on()
        redis_server.do("CONFIG", "SET", "maxmemory", 1)  # nothing is evicted by default
        eventually(lambda: bool(stamped.of(Unavailable)))
        time.sleep(0.2)
        assert all("OOM" in lost.reason or "OutOfMemory" in lost.reason for lost in stamped.of(Unavailable))
        redis_server.do("CONFIG", "SET", "maxmemory", 0)
        mended = time.monotonic()
        # A script that removed something first may write then: so it may have been found meanwhile, too.
        eventually(lambda: isinstance(stamped.switches()[-1], Reconnected))
        assert stamped.stamps[-1] < mended + RECOVERY
        callers.go_on()
    assert callers.longest < 2
    if policy in ("raise", "deny"):
        assert excess(callers.gone, RATE, BURST) < slack(RATE)
        eventually(lambda: figures(redis_server).gone == len(callers.gone))


def test_a_master_that_became_a_replica(
    policy: str, redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    with Server(binary=redis_server.binary) as other:
        limiter = make(redis_server.url(), on_unavailable=policy, hooks=[stamped])
        with Callers(limiter, timeout=1) as callers:
            callers.go_on()
            redis_server.demote(other)
            assert "READONLY" in reason(stamped) or "ReadOnlyError" in reason(stamped)
            check_policy(limiter, policy)
            redis_server.promote()
            check_recovery(stamped, time.monotonic())
            callers.go_on()
        assert callers.longest < 2


@pytest.mark.parametrize("binary", list(BINARIES))
def test_a_redis_that_still_loads_its_data(
    binary: str, policy: str, make: Make, stamped: StampedHook
) -> None:
    slowly = ["--key-load-delay", "2000", "--rdbcompression", "no"]  # it answers once in 2 MB
    with Server(*slowly, binary=binary) as server:
        limiter = make(server.url(), on_unavailable=policy, hooks=[stamped])
        with Callers(limiter, timeout=1) as callers:
            callers.go_on()
            with server.client().pipeline(transaction=False) as pipeline:
                for number in range(500):
                    pipeline.set(f"filler {number}", "x" * 50_000)
                pipeline.execute()
            server.do("SAVE")
            server.kill()
            with threads(server.start):
                eventually(lambda: isinstance(limiter.gate.lost, BusyLoadingError))
            check_recovery(stamped, time.monotonic())
            callers.go_on()
        assert callers.longest < 2

"""Every way to Redis: URLs, clients, clusters and sentinels, and what happens when they change."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
import redis
import redis.asyncio

from batchkit import Reconnected, Unavailable, all_of
from batchkit._redis.names import name
from tests.faults.conftest import Make
from tests.faults.fleet import (
    KEY,
    RECOVERY,
    Callers,
    StampedHook,
    check_recovery,
    excess,
    figures,
    slack,
)
from tests.helpers import DEADLINE, eventually
from tests.proxies import FaultProxy, TlsProxy
from tests.servers import BINARIES, HOST, Cluster, Sentinel, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

RATE, BURST = 100, 10
SLOT = Cluster.slot(name("batchkit", KEY, None))


def check_all_is_well(callers: Callers, hook: StampedHook) -> None:
    assert not callers.errors
    assert not hook.switches()
    assert excess(callers.gone, RATE, BURST) < slack(RATE)


# addresses


def test_a_database_by_its_number(redis_server: Server, make: Make, stamped: StampedHook) -> None:
    other = make(f"redis://{HOST}:{redis_server.port}/0")
    limiter = make(f"redis://{HOST}:{redis_server.port}/3", hooks=[stamped])
    with Callers(limiter) as callers:
        callers.go_on()
    check_all_is_well(callers, stamped)
    assert redis_server.client(db=3).keys()
    assert not redis_server.client(db=0).keys()
    other.acquire_sync(cost=BURST)
    eventually(lambda: figures(redis_server).gone == BURST)


def test_a_unix_socket(redis_server: Server, make: Make, stamped: StampedHook, colour: str) -> None:
    limiter = make(f"unix://{redis_server.unix_socket}?db=1", hooks=[stamped])
    with Callers(limiter, colour=colour) as callers:
        callers.go_on()
        redis_server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        callers.go_on()
    check_all_is_well(callers, stamped)
    assert redis_server.client(db=1).keys()


def test_tls(redis_server: Server, make: Make, stamped: StampedHook, colour: str) -> None:
    with TlsProxy(redis_server.port) as proxy:
        limiter = make(proxy.url(), hooks=[stamped])
        with Callers(limiter, colour=colour) as callers:
            callers.go_on()
            proxy.cut()
            callers.go_on()
    check_all_is_well(callers, stamped)


def test_tls_with_a_certificate_that_nobody_trusts(valkey: Server, make: Make, stamped: StampedHook) -> None:
    with TlsProxy(valkey.port) as proxy, TlsProxy(valkey.port) as other:
        limiter = make(proxy.url(ssl_ca_certs=other.ca_file), on_unavailable="deny", hooks=[stamped])
        assert not limiter.try_acquire()
        eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in stamped.of(Unavailable)[0].reason)


def test_a_password_with_every_sign(make: Make, stamped: StampedHook) -> None:
    password = "p@ss:w/o%r#d?"
    with Server(password=password) as server:
        limiters = [
            make(server.url(), hooks=[stamped]),
            make(f"redis://default:{quote(password, safe='')}@{HOST}:{server.port}", hooks=[stamped]),
            make(server.client(), hooks=[stamped]),
        ]
        with Callers(*limiters) as callers:
            callers.go_on()
    check_all_is_well(callers, stamped)


# clients


def test_a_small_pool_and_two_thousand_callers(
    redis_server: Server, make: Make, stamped: StampedHook, colour: str
) -> None:
    pool = {"max_connections": 5, "decode_responses": True}
    limiter = make(redis_server.client(**pool), rate=2000, burst=100, hooks=[stamped])
    with Callers(limiter, count=2000 if colour != "threads" else 200, colour=colour) as callers:
        callers.go_on(2500)
    assert not callers.errors
    assert not stamped.switches()
    # threads that are let go together take turns of 5 ms at the interpreter until they look at their clocks
    turns = 0.03 * 2000 if colour == "threads" else 0.0
    assert excess(callers.gone, 2000, 100) < slack(2000) + turns


def test_the_pool_of_a_client_stays_its_own(redis_server: Server, make: Make) -> None:
    client = redis_server.client(max_connections=1)
    limiter = make(client)
    for _ in range(20):
        limiter.acquire_sync()
        assert client.ping()
    limiter.close()
    assert client.ping()


# clusters


def times_asked(node: Server) -> int:
    """How often a node was asked for what is only on its way there."""
    return node.commands().get("asking", 0)


def times_moved(cluster: Cluster, answer: str = "MOVED") -> int:
    """How often nodes sent a client to another one."""
    return sum(
        node.info("errorstats").get(f"errorstat_{answer}", {"count": 0})["count"] for node in cluster.nodes
    )


def test_a_slot_moves_in_use(
    policy: str, cluster: Cluster, make: Make, stamped: StampedHook, colour: str
) -> None:
    limiter = make(cluster.client(), on_unavailable=policy, hooks=[stamped])
    with Callers(limiter, colour=colour) as callers:
        callers.go_on()
        cluster.migrate(SLOT, to=cluster.other(SLOT))
        callers.go_on(40)
    assert times_moved(cluster) <= 1  # from then on the client knows
    if policy in ("raise", "deny"):
        assert excess(callers.gone, RATE, BURST) < slack(RATE)
        eventually(lambda: figures(cluster.owner(SLOT)).gone == len(callers.gone))


def test_a_slot_that_moved_before_the_first_call(cluster: Cluster, make: Make, stamped: StampedHook) -> None:
    client = cluster.client()
    cluster.migrate(SLOT, to=cluster.other(SLOT))  # the client does not know
    limiter = make(client, hooks=[stamped])
    with Callers(limiter) as callers:
        callers.go_on()
    assert times_moved(cluster) == 1
    check_all_is_well(callers, stamped)
    eventually(lambda: figures(cluster.owner(SLOT)).gone == len(callers.gone))


def test_a_slot_on_the_move_is_asked_for_where_its_key_lies(
    cluster: Cluster, make: Make, stamped: StampedHook, colour: str
) -> None:
    to = cluster.other(SLOT)
    limiter = make(cluster.client(), hooks=[stamped])
    with Callers(limiter, colour=colour) as callers:
        callers.go_on()
        cluster.begin_migration(SLOT, to)
        callers.go_on()
        assert not times_asked(to)
        cluster.hand_over_keys(SLOT)
        callers.go_on()
        assert times_asked(to)
        assert not times_moved(cluster)
        cluster.finish_migration(SLOT)
        callers.go_on()
    check_all_is_well(callers, stamped)
    eventually(lambda: figures(to).gone == len(callers.gone))


def test_a_key_that_is_new_in_a_slot_on_the_move_lies_where_that_goes(
    cluster: Cluster, make: Make, stamped: StampedHook
) -> None:
    to = cluster.other(SLOT)
    cluster.begin_migration(SLOT, to)
    limiter = make(cluster.client(), hooks=[stamped])
    with Callers(limiter) as callers:
        callers.go_on()
        assert times_asked(to)
        cluster.finish_migration(SLOT)
        callers.go_on()
    check_all_is_well(callers, stamped)
    eventually(lambda: figures(to).gone == len(callers.gone))


def test_a_group_of_limiters_is_asked_for_while_its_slot_is_on_the_move(
    cluster: Cluster, make: Make, stamped: StampedHook
) -> None:
    slot = Cluster.slot(name("batchkit", "one", "tag"))
    to = cluster.other(slot)
    client = cluster.client()
    one, other = (make(client, key, tag="tag", hooks=[stamped]) for key in ("one", "other"))
    both = all_of(one=one, other=other)
    one.acquire_sync()
    cluster.begin_migration(slot, to)  # the other one's key is new, and lies there
    for _ in range(20):
        both.acquire_sync(timeout=DEADLINE)
    assert times_moved(cluster, "TRYAGAIN")
    cluster.finish_migration(slot)
    for _ in range(20):
        both.acquire_sync(timeout=DEADLINE)
    assert not stamped.switches()
    eventually(lambda: figures(to, "one", "tag").gone == 41)
    eventually(lambda: figures(to, "other", "tag").gone == 40)


def test_a_node_of_a_cluster_dies_and_returns(make: Make, stamped: StampedHook) -> None:
    with Cluster() as cluster:
        node = cluster.owner(SLOT)
        key = next(key for key in map(str, range(100)) if cluster.owner(slot_of(key)) is not node)
        client = cluster.client()
        limiter = make(client, timeout=0.5, on_unavailable="deny", hooks=[stamped])
        other = make(client, key, timeout=0.5, hooks=[heard := StampedHook()])
        with Callers(limiter, timeout=1) as callers, Callers(other, timeout=1) as others:
            callers.go_on()
            node.kill()
            eventually(lambda: bool(stamped.of(Unavailable)))
            others.go_on()  # before the cluster takes the node for dead
            assert not heard.switches()
            node.start()  # with its slots, which it keeps in a file
            eventually(lambda: isinstance(stamped.switches()[-1], Reconnected))
            callers.go_on()
            others.go_on()
        assert callers.longest < 2


def test_a_node_of_a_cluster_hangs(policy: str, cluster: Cluster, make: Make, stamped: StampedHook) -> None:
    node = cluster.owner(SLOT)
    key = next(key for key in map(str, range(100)) if cluster.owner(slot_of(key)) is not node)
    client = cluster.client()
    limiter = make(client, timeout=0.5, on_unavailable=policy, hooks=[stamped])
    other = make(client, key, timeout=0.5, hooks=[heard := StampedHook()])
    with Callers(limiter, timeout=1) as callers, Callers(other, timeout=1) as others:
        callers.go_on()
        node.pause()
        eventually(lambda: bool(stamped.of(Unavailable)))
        time.sleep(1)
        node.resume()
        check_recovery(stamped, time.monotonic())
        callers.go_on()
        others.go_on()
    assert callers.longest < 2
    assert not others.errors
    assert not heard.switches()
    if policy in ("raise", "deny"):
        eventually(lambda: figures(node).gone == len(callers.gone))


def test_a_whole_cluster_dies_and_returns(
    make: Make, stamped: StampedHook, caplog: pytest.LogCaptureFixture
) -> None:
    with Cluster() as cluster:
        limiter = make(cluster.client(), timeout=0.5, on_unavailable="deny", hooks=[stamped])
        with Callers(limiter, timeout=1) as callers:
            callers.go_on()
            for node in cluster.nodes:
                node.kill()
            eventually(lambda: bool(stamped.of(Unavailable)))
            for node in cluster.nodes:
                node.start()
            eventually(lambda: isinstance(stamped.switches()[-1], Reconnected))
            callers.go_on()
        assert callers.longest < 2
    assert not caplog.records  # nothing of it is a fault of ours


def slot_of(key: str) -> int:
    return Cluster.slot(name("batchkit", key, None))


# sentinels


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "demoted"])
def test_a_sentinel_fails_over(
    killed: bool, policy: str, sentinel: Sentinel, make: Make, stamped: StampedHook
) -> None:
    limiter = make(sentinel.client(), on_unavailable=policy, timeout=0.5, hooks=[stamped])
    with Callers(limiter, timeout=1) as callers:
        callers.go_on()
        if killed:
            sentinel.failover()
        else:
            sentinel.manager().sentinels[0].sentinel_failover(sentinel.NAME)
            eventually(lambda: sentinel.current() is sentinel.replica)
            sentinel.master.demote(sentinel.replica)  # a sentinel does so only some seconds later
        switched = time.monotonic()
        callers.go_on()
        if stamped.of(Unavailable):
            eventually(lambda: isinstance(stamped.switches()[-1], Reconnected))
            assert stamped.stamps[stamped.events.index(stamped.switches()[-1])] < switched + RECOVERY
        before = figures(sentinel.replica).gone
        callers.go_on()
        assert figures(sentinel.replica).gone > before
    assert callers.longest < 2


def test_an_async_client_is_refused(valkey: Server, make: Make) -> None:
    with FaultProxy(valkey.port) as proxy, pytest.raises(TypeError, match="blocking client"):
        make(redis.asyncio.Redis.from_url(proxy.url()))

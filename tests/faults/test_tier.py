"""`RedisTier` while things go wrong: calls end in time, what was dropped is gone, caches are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from batchkit import Reconnected, TierUnavailable, Unavailable
from tests.faults.fleet import RECOVERY, StampedHook
from tests.helpers import eventually, threads
from tests.proxies import FaultProxy, TlsProxy
from tests.redis.test_tier import LEAST
from tests.redis.tiers import Make, Told, Words, load_through, value, values
from tests.servers import BINARIES, Cluster, Sentinel, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

TIMEOUT = 0.3


@pytest.fixture
def make_tier() -> Iterator[Make]:
    with ExitStack() as stack:
        yield Make(stack)


@pytest.fixture
def proxy(valkey: Server) -> Iterator[FaultProxy]:
    with FaultProxy(valkey.port) as proxy:
        yield proxy


def loaded(tier: Words, key: str, content: Any) -> Any:
    """What a cache gets for a key, by a load that gives this."""
    return load_through(tier, [key], lambda keys: dict.fromkeys(keys, content))[key]


def check_switches(hook: StampedHook, back_at: float) -> None:
    """It was lost once and found once, soon after Redis was there."""
    eventually(lambda: bool(hook.of(Reconnected)))
    assert len(hook.switches()) == 2
    assert hook.moment(Reconnected) < back_at + RECOVERY


# Redis is gone


def test_without_redis_each_process_loads_on_its_own(
    own_server: Server, make_tier: Make, stamped: StampedHook
) -> None:
    tier = make_tier(own_server.url(), timeout=TIMEOUT, hooks=[stamped])
    told = Told(tier)
    tier.set_many_sync({"a": value("kept", 60, "t")})
    own_server.kill()
    eventually(told.everything)
    begin = time.monotonic()
    for number in range(20):
        assert values(tier, "a") == {}
        assert loaded(tier, "a", number) == number
        tier.set_many_sync({"b": value()})
    assert time.monotonic() - begin < 2
    [lost] = stamped.of(Unavailable)
    assert (lost.name, lost.policy) == ("words", "local")
    assert tier.statistics().unavailable
    told.news.clear()
    own_server.start()
    check_switches(stamped, time.monotonic())
    assert stamped.of(Reconnected)[0].granted == tier.statistics().alone == 20
    eventually(told.everything)
    assert values(tier, "a") == {}
    assert loaded(tier, "a", "new") == "new"
    assert values(tier, "a") == {"a": "new"}
    assert not tier.statistics().unavailable


def test_without_redis_calls_are_refused_if_they_are_to_be(
    own_server: Server, make_tier: Make, stamped: StampedHook
) -> None:
    tier = make_tier(own_server.url(), timeout=TIMEOUT, on_unavailable="raise", hooks=[stamped])
    claim = tier.claim_sync(["a"])
    own_server.kill()
    calls: list[Callable[[], object]] = [
        lambda: tier.get_many_sync(["a"]),
        lambda: tier.set_many_sync({"a": value()}),
        lambda: tier.delete_sync(["a"]),
        lambda: tier.delete_tag_sync("t"),
        lambda: tier.delete_prefix_sync("p"),
        lambda: tier.claim_sync(["b"]),
        lambda: claim.keep_sync({"a": value()}),
    ]
    for call in calls:
        with pytest.raises(TierUnavailable, match="words cannot ask Redis"):
            call()
    claim.release()
    assert stamped.of(Unavailable)[0].policy == "raise"
    own_server.start()
    check_switches(stamped, time.monotonic())
    assert loaded(tier, "a", 1) == 1


def test_a_tier_can_be_made_and_used_before_redis_is_there(
    own_server: Server, make_tier: Make, stamped: StampedHook
) -> None:
    own_server.kill()
    tier = make_tier(own_server.url(), timeout=TIMEOUT, hooks=[stamped])
    assert loaded(tier, "a", 1) == 1
    own_server.start()
    check_switches(stamped, time.monotonic())
    assert loaded(tier, "a", 2) == 2
    assert values(tier, "a") == {"a": 2}


@pytest.mark.parametrize("colour", ["threads", "asyncio", "trio"])
def test_a_server_that_stands_still_holds_up_no_call_for_long(
    colour: str, own_server: Server, make_tier: Make, stamped: StampedHook
) -> None:
    tier = make_tier(own_server.url(), timeout=TIMEOUT, hooks=[stamped])
    told = Told(tier)
    tier.set_many_sync({"a": value("kept")})
    longest = 0.0

    def look() -> None:
        nonlocal longest
        begin = time.monotonic()
        assert values(tier, "a") == {}
        longest = max(longest, time.monotonic() - begin)

    async def look_often() -> None:
        nonlocal longest
        for _ in range(3):
            begin = time.monotonic()
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(tier.get_many, ["a"])
            longest = max(longest, time.monotonic() - begin)

    own_server.pause()
    if colour == "threads":
        with threads(*[look] * 8):
            pass
    else:
        anyio.run(look_often, backend=colour)
    assert longest < 4 * TIMEOUT
    eventually(told.everything)
    own_server.resume()
    check_switches(stamped, time.monotonic())
    assert values(tier, "a") == {"a": "kept"}


def test_who_waits_for_another_process_goes_on_without_redis(own_server: Server, make_tier: Make) -> None:
    one, other = make_tier(own_server.url(), timeout=TIMEOUT), make_tier(own_server.url(), timeout=TIMEOUT)
    one.claim_sync(["a"])
    claim = other.claim_sync(["a"])
    assert list(claim.others) == ["a"]
    begin = time.monotonic()
    with threads(claim.wait_sync):
        own_server.kill()
    assert time.monotonic() - begin < 5  # of the 10 s of the lease
    assert list(other.claim_sync(["a"]).mine) == ["a"]


def test_what_is_dropped_without_redis_is_told_when_it_is_back(
    proxy: FaultProxy, valkey: Server, make_tier: Make, stamped: StampedHook
) -> None:
    tier = make_tier(proxy.url(), timeout=TIMEOUT, hooks=[stamped])
    other = make_tier(valkey.url())

    def keep(keys: str) -> None:
        other.set_many_sync({key: value(key, 60, f"tag {key}") for key in keys})

    keep("abc")
    tier.get_many_sync(["a"])
    proxy.refuse()
    proxy.cut()
    tier.delete_sync(["a"])
    tier.delete_tag_sync("tag b")
    assert values(other, *"abc") == {"a": "a", "b": "b", "c": "c"}
    proxy.accept()
    check_switches(stamped, time.monotonic())
    eventually(lambda: values(other, *"abc") == {"c": "c"})
    keep("ab")
    tier.get_many_sync(["a"])
    assert values(other, *"abc") == {"a": "a", "b": "b", "c": "c"}


def test_too_much_that_is_to_be_told_becomes_one_thing(
    proxy: FaultProxy, valkey: Server, make_tier: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchkit._redis.presence._MOST_OWED", 10)
    tier, other = make_tier(proxy.url(), timeout=TIMEOUT), make_tier(valkey.url())
    other.set_many_sync({"a": value(1), "b": value(2)})
    tier.get_many_sync(["a"])
    proxy.refuse()
    proxy.cut()
    tier.delete_sync(map(str, range(20)))
    proxy.accept()
    eventually(lambda: values(other, "a", "b") == {})


# connections


def test_a_connection_that_is_cut_is_made_anew(
    proxy: FaultProxy, valkey: Server, make_tier: Make, stamped: StampedHook
) -> None:
    tier, other = make_tier(proxy.url(), hooks=[stamped]), make_tier(valkey.url())
    told = Told(tier)
    other.set_many_sync({"a": value(1)})
    for _ in range(3):
        proxy.cut()
        assert values(tier, "a") == {"a": 1}
        eventually(told.everything)
        eventually(lambda: tier.statistics().listening == "tracking")
        told.news.clear()
        other.set_many_sync({"b": value()})
        eventually(lambda: "b" in told.changed or told.everything())
    assert not stamped.of(Unavailable)


def test_a_reply_that_is_lost_costs_nothing(proxy: FaultProxy, make_tier: Make) -> None:
    tier = make_tier(proxy.url())
    Told(tier)
    for number in range(5):
        key = str(number)
        proxy.drop_replies(to=b"EVALSHA")
        claim = tier.claim_sync([key])
        assert list(claim.mine) == [key]
        proxy.drop_replies(to=b"EVALSHA")
        assert claim.keep_sync({key: value(number)}) == set()
        claim.release()
        proxy.drop_replies(to=b"EVALSHA")
        assert values(tier, key) == {key: number}
        proxy.drop_replies(to=b"EVALSHA")
        tier.delete_sync([key])
        assert values(tier, key) == {}
    assert proxy.dropped >= 20


def test_a_connection_that_died_without_a_word_is_noticed(
    proxy: FaultProxy, make_tier: Make, stamped: StampedHook
) -> None:
    tier = make_tier(proxy.url(), timeout=TIMEOUT, hooks=[stamped])
    told = Told(tier)
    proxy.blackhole()
    eventually(told.everything)  # though nobody asks anything
    told.news.clear()
    proxy.heal()
    eventually(told.everything)
    assert loaded(tier, "a", 1) == 1
    eventually(lambda: not tier.statistics().unavailable)


def test_the_connection_that_listens_is_closed_by_the_server(valkey: Server, make_tier: Make) -> None:
    tier, other = make_tier(valkey.url()), make_tier(valkey.url())
    told = Told(tier)
    valkey.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    eventually(told.everything)
    eventually(lambda: tier.statistics().listening == "tracking")
    told.news.clear()
    other.set_many_sync({"a": value()})
    eventually(lambda: "a" in told.changed or told.everything())


def test_tls(redis_server: Server, make_tier: Make, stamped: StampedHook) -> None:
    with TlsProxy(redis_server.port) as proxy:
        tier, other = make_tier(proxy.url(), hooks=[stamped]), make_tier(proxy.url(), hooks=[stamped])
        told = Told(tier)
        large = "x" * 300_000
        other.set_many_sync({str(number): value(large) for number in range(10)})
        eventually(lambda: len(told.changed) == 10)
        assert values(tier, *map(str, range(10))) == {str(number): large for number in range(10)}
        proxy.cut()
        assert len(values(tier, *map(str, range(10)))) == 10
        eventually(lambda: tier.listens and other.listens)
        tier.close()
        other.close()
    assert not stamped.switches()


# Redis says no


@pytest.mark.parametrize("right", sorted(LEAST.split()[2:]))
def test_each_of_the_rights_is_needed(
    right: str, valkey: Server, make_tier: Make, stamped: StampedHook
) -> None:
    valkey.do("SCRIPT", "FLUSH")
    rights = f"{LEAST} +hello +client|tracking +ping -{right[1:]}"
    valkey.do("ACL", "SETUSER", "tier", "on", ">secret", *rights.split())
    url = valkey.url().replace("//", "//tier:secret@")
    tier, other = make_tier(url, hooks=[stamped], lease=2.0), make_tier(url, hooks=[stamped])
    claim = tier.claim_sync(["slow"])
    other.claim_sync(["slow"]).release()
    loaded(tier, "a", 1)
    values(other, "a")
    tier.set_many_sync({"b": value(1)})
    tier.delete_sync(["b"])
    tier.delete_prefix_sync("")
    _fill_the_rules(tier)
    eventually(lambda: bool(stamped.of(Unavailable)))
    claim.release()


def _fill_the_rules(tier: Words) -> None:
    """Drop so many tags that the oldest ones are forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchkit._redis.bulletin.MOST", 2)
        for number in range(5):
            tier.delete_tag_sync(str(number))


def test_the_least_rights_are_enough(redis_server: Server, make_tier: Make, stamped: StampedHook) -> None:
    rights = f"{LEAST} resetchannels +hello +client|tracking +ping"
    if redis_server.binary == "redis-6.2":
        rights = rights.replace("+client|tracking", "+client")
    redis_server.do("ACL", "SETUSER", "tier", "on", ">secret", *rights.split())
    url = redis_server.url().replace("//", "//tier:secret@")
    tier, other = make_tier(url, hooks=[stamped], lease=1.5), make_tier(url, hooks=[stamped])
    told = Told(other)
    assert other.statistics().listening == "tracking"
    claim = tier.claim_sync(["slow"])
    loaded(tier, "a", 1)
    eventually(lambda: "a" in told.changed)
    redis_server.do("SCRIPT", "FLUSH")
    assert values(other, "a") == {"a": 1}
    tier.delete_sync(["a"])
    tier.delete_prefix_sync("")
    _fill_the_rules(tier)
    time.sleep(0.6)  # a claim is renewed
    assert claim.keep_sync({"slow": value()}) == {"slow"}  # since all was dropped
    assert not stamped.of(Unavailable)


def test_a_full_memory_refuses_new_values_and_old_ones_are_read(
    make_tier: Make, stamped: StampedHook
) -> None:
    with Server("--maxmemory-policy", "noeviction") as server:
        tier = make_tier(server.url(), hooks=[stamped])
        tier.set_many_sync({"a": value("old")})
        server.do("CONFIG", "SET", "maxmemory", 1)
        claim = tier.claim_sync(["b", "a", "c"])
        assert (list(claim.mine), list(claim.found)) == (["b", "c"], ["a"])
        claim.release()
        with pytest.raises(TierUnavailable, match="memory"):
            make_tier(server.url(), on_unavailable="raise").claim_sync(["a", "b"])
        assert loaded(tier, "b", 1) == 1
        assert values(tier, "a", "b") == {"a": "old"}
        tier.set_many_sync({"a": value("new")})
        eventually(lambda: bool(stamped.of(Unavailable)))
        assert "memory" in stamped.of(Unavailable)[0].reason
        tier.get_many_sync(["a"])
        assert not stamped.of(Reconnected)
        server.do("CONFIG", "SET", "maxmemory", 0)
        assert loaded(tier, "b", 2) == 2
        tier.set_many_sync({"a": value("new")})
        assert values(tier, "a", "b") == {"a": "new", "b": 2}
        check_switches(stamped, time.monotonic())
        tier.close()


def test_a_replica_is_not_believed(own_server: Server, make_tier: Make, stamped: StampedHook) -> None:
    tier = make_tier(own_server.url(), timeout=TIMEOUT, hooks=[stamped])
    tier.set_many_sync({"a": value("old")})
    own_server.do("REPLICAOF", "127.0.0.1", own_server.port)
    claim = tier.claim_sync(["a", "b"])
    assert (list(claim.mine), list(claim.found)) == (["a", "b"], [])
    claim.release()
    assert "read only" in stamped.of(Unavailable)[0].reason
    own_server.do("REPLICAOF", "NO", "ONE")
    claim = tier.claim_sync(["a", "b"])
    assert (list(claim.mine), list(claim.found)) == (["b"], ["a"])
    claim.release()
    check_switches(stamped, time.monotonic())


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl"])
def test_nothing_that_was_dropped_comes_back_by_eviction(policy: str, make_tier: Make) -> None:
    with Server("--maxmemory", "4mb", "--maxmemory-policy", policy) as server:
        one, other = make_tier(server.url()), make_tier(server.url())
        text = "x" * 20_000
        for round_ in range(30):
            keys = [f"{round_}:{number}" for number in range(10)]
            one.set_many_sync({key: value(f"{key} {text}", 60, "t", f"t{round_ % 3}") for key in keys})
            one.set_many_sync({f"user:{round_}": value("user")})
            for key, found in values(other, *keys).items():
                assert found.startswith(f"{key} ")
            if round_ % 3 == 0:
                one.delete_tag_sync("t")
                assert values(other, *keys) == {}
            elif round_ % 3 == 1:
                one.delete_tag_sync("t1")
                assert values(other, *keys) == {}
            else:
                one.delete_prefix_sync("user:")
            for number in range(round_ + 1):
                if round_ % 3 == 2:
                    assert values(other, f"user:{number}") == {}
        assert server.info("stats")["evicted_keys"] > 0
        one.close()
        other.close()


def test_scripts_that_were_flushed_are_loaded_again(
    redis_server: Server, make_tier: Make, stamped: StampedHook
) -> None:
    tier = make_tier(redis_server.url(), hooks=[stamped])
    for number in range(3):
        redis_server.do("SCRIPT", "FLUSH")
        assert loaded(tier, str(number), number) == number
        redis_server.do("SCRIPT", "FLUSH")
        tier.delete_tag_sync("t")
        assert values(tier, str(number)) == {str(number): number}
    assert not stamped.switches()


# failovers


def test_a_sentinel_fails_over(sentinel: Sentinel, make_tier: Make, stamped: StampedHook) -> None:
    tier = make_tier(sentinel.client(), timeout=0.5, hooks=[stamped])
    told = Told(tier)
    assert loaded(tier, "a", 1) == 1
    sentinel.failover()
    eventually(told.everything)
    eventually(lambda: loaded(tier, "b", 2) == 2 and values(tier, "b") == {"b": 2})
    assert sentinel.replica.do("EXISTS", "words:{b}")
    eventually(lambda: tier.statistics().listening == "tracking")
    told.news.clear()
    sentinel.replica.do("DEL", "words:{b}")
    eventually(lambda: "b" in told.changed or told.everything())


def test_a_node_of_a_cluster_dies_and_the_others_serve_on(make_tier: Make, stamped: StampedHook) -> None:
    with Cluster() as cluster:
        tier = make_tier(cluster.client(), timeout=0.5, hooks=[stamped])
        told = Told(tier)
        dead = cluster.owner(Cluster.slot("words:{a}"))
        rules = cluster.owner(Cluster.slot("words:rules"))
        if rules is dead:
            dead = next(node for node in cluster.nodes if node is not rules)
        keys = [str(number) for number in range(60)]
        tier.set_many_sync({key: value(key) for key in keys})
        lives = {key: key for key in keys if cluster.owner(Cluster.slot(f"words:{{{key}}}")) is not dead}
        assert 10 < len(lives) < 50
        dead.pause()
        assert values(tier, *keys) == lives
        begin = time.monotonic()
        for _ in range(10):
            assert values(tier, *keys) == lives
        assert time.monotonic() - begin < 3
        assert load_through(tier, keys, lambda missing: dict.fromkeys(missing, "own")) == {
            key: lives.get(key, "own") for key in keys
        }
        eventually(told.everything)
        dead.resume()
        eventually(lambda: isinstance(stamped.switches()[-1], Reconnected))
        eventually(lambda: values(tier, *keys) == dict(zip(keys, keys, strict=True)))
        tier.close()

"""`RedisTier` on real servers: what is kept, for whom, and for how long."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchkit import CodecFailed, DecodeFailed, RedisTier
from batchkit._redis.scripts import CLAIM, DROP, KEEP, READ
from batchkit.abc import Claim, Invalidation, Tier, TierValue
from batchkit.testing import RecordingHook
from tests.helpers import DEADLINE, eventually, threads
from tests.redis.tiers import Make, Told, Words, exchanges, load_through, value, values
from tests.servers import BINARIES, Cluster, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

ROOT = Path(__file__).parents[2]
# All that a tier needs to be allowed, but for hearing of changes.
LEAST = (
    "~words:* -@all +evalsha +script|load +get +mget +getrange +pttl +set +pexpire +del +unlink +time"
    " +zadd +zrem +zcard +zscore +zrange +zrangebyscore"
)


def tier_is_a_tier(tier: RedisTier[str], claim: Claim[str]) -> Tier[str]:
    """Checked by the type checkers."""
    return tier


# what is kept


def test_what_one_process_keeps_another_one_finds(redis_server: Server, make_tier: Make) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    kept = {"好": {"mean": "good"}, "": None, 7: [1, 2], b"\x00": 2.5, ("a", ("b", 1)): "text"}
    one.set_many_sync({key: value(kept[key], 60.0, "hsk1", "好") for key in kept})
    found = other.get_many_sync(["missing", *kept])
    assert {key: found[key].value for key in found} == kept
    assert list(found) == list(kept)
    assert all(59 < entry.ttl <= 60 and entry.tags == ("hsk1", "好") for entry in found.values())


def test_a_long_key_is_as_good_as_a_short_one(valkey: Server, make_tier: Make) -> None:
    tier = make_tier(valkey.url())
    one, other = "prompt " * 200, "prompt " * 200 + "!"
    tier.set_many_sync({one: value("one"), other: value("other")})
    assert values(tier, one, other) == {one: "one", other: "other"}
    assert all(len(key) < 260 for key in valkey.do("KEYS", "*"))


def test_none_is_a_value_and_that_there_is_none_is_another(valkey: Server, make_tier: Make) -> None:
    tier = make_tier(valkey.url())
    tier.set_many_sync({"a": value(None), "b": TierValue(None, 5.0, negative=True)})
    found = tier.get_many_sync(["a", "b"])
    assert (found["a"].value, found["a"].negative) == (None, False)
    assert (found["b"].value, found["b"].negative) == (None, True)
    assert found["b"].ttl <= 5


def test_a_value_is_gone_when_its_time_is_over(valkey: Server, make_tier: Make) -> None:
    tier = make_tier(valkey.url())
    tier.set_many_sync({"a": value(1, 0.03), "b": value(1, float("inf"))})
    assert tier.get_many_sync(["a"])["a"].ttl <= 0.03
    eventually(lambda: values(tier, "a") == {})
    assert values(tier, "b") == {"b": 1}


def test_a_value_that_may_be_used_longer_is_not_found_longer(redis_server: Server, make_tier: Make) -> None:
    tier, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    told = Told(tier)
    other.set_many_sync({"a": TierValue(1, 0.3, stale=30.0), "b": TierValue(2, 20.0, stale=30.0)})
    eventually(lambda: told.changed == {"a", "b"})
    told.news.clear()
    eventually(lambda: values(tier, "a", "b") == {"b": 2})
    assert redis_server.do("EXISTS", "words:{a}")
    assert 19 < tier.get_many_sync(["b"])["b"].ttl <= 20
    claim = tier.claim_sync(["a", "b"])
    assert 19 < claim.found["b"].ttl <= 20
    assert claim.found["b"].stale == 30
    assert list(claim.mine) == ["a"]
    assert not told.changed
    claim.keep_sync({"a": value(2)})
    assert values(other, "a") == {"a": 2}


def test_tiers_of_other_prefixes_are_apart(valkey: Server, make_tier: Make) -> None:
    one, other = make_tier(valkey.url(), "a"), make_tier(valkey.url(), "a:b")
    one.set_many_sync({"b": value(1, 60, "t"), "{b}": value(2)})
    other.set_many_sync({"key": value(3, 60, "t")})
    one.delete_prefix_sync("")
    one.delete_tag_sync("t")
    assert values(one, "b", "{b}", "key") == {}
    assert values(other, "b", "key") == {"key": 3}


def test_every_key_that_a_tier_makes_expires(valkey: Server, make_tier: Make) -> None:
    tier = make_tier(valkey.url())
    tier.set_many_sync({"a": value()})
    tier.delete_tag_sync("t")
    tier.delete_prefix_sync("p")
    claim = tier.claim_sync(["b"])
    assert len(valkey.do("KEYS", "*")) == 3
    assert all(valkey.do("PTTL", key) > 0 for key in valkey.do("KEYS", "*"))
    claim.release()


def test_a_value_that_the_codec_cannot_tell_is_an_error_that_names_the_key(
    valkey: Server, make_tier: Make
) -> None:
    tier = make_tier(valkey.url())
    with pytest.raises(CodecFailed, match=r"'bad' cannot be kept \(TypeError"):
        tier.set_many_sync({"good": value(1), "bad": value({1})})
    assert values(tier, "good") == {}
    claim = tier.claim_sync(["bad"])
    with pytest.raises(CodecFailed, match="'bad'"):
        claim.keep_sync({"bad": value({1})})
    claim.release()
    eventually(lambda: list(tier.claim_sync(["bad"]).mine) == ["bad"])


@pytest.mark.parametrize(
    "text", [b"", b"x", b"[1]", b"9000000000000 9000000000000000 0 0 m\n{", b"\x80\x04\x95p\n."]
)
def test_a_value_that_cannot_be_read_is_a_miss_and_an_event(
    text: bytes, valkey: Server, make_tier: Make, hook: RecordingHook
) -> None:
    tier = make_tier(valkey.url(), hooks=[hook], name="dictionary")
    tier.set_many_sync({"a": value(1), "b": value(2)})
    valkey.do("SET", "words:{a}", text, "PX", 60_000)
    assert values(tier, "a", "b") == {"b": 2}
    [event] = hook.of(DecodeFailed)
    assert (event.name, event.key) == ("dictionary", "a")
    assert tier.statistics().undecodable == 1
    assert load_through(tier, ["a"], lambda keys: dict.fromkeys(keys, 3)) == {"a": 3}
    assert values(tier, "a") == {"a": 3}


def test_a_codec_of_ones_own(valkey: Server, make_tier: Make) -> None:
    class Reversed:
        def encode(self, value: str, /) -> bytes:
            return value[::-1].encode()

        def decode(self, data: bytes, /) -> str:
            return data.decode()[::-1]

    tier = make_tier(valkey.url(), codec=Reversed())
    tier.set_many_sync({"a": value("abc\n")})
    assert values(tier, "a") == {"a": "abc\n"}
    assert valkey.do("GET", "words:{a}").endswith(b"\n\ncba")


@pytest.mark.parametrize("key", [float("nan"), ["a"], ("a", frozenset({1})), object()], ids=type)
def test_a_key_that_is_none_is_refused(key: Any, valkey: Server, make_tier: Make) -> None:
    tier = make_tier(valkey.url())
    calls: list[Callable[[], object]] = [
        lambda: tier.get_many_sync([key]),
        lambda: tier.claim_sync([key]),
        lambda: tier.set_many_sync({key: value()}),
        lambda: tier.delete_sync([key]),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    assert load_through(tier, ["a"], lambda keys: dict.fromkeys(keys, 1)) == {"a": 1}
    assert not tier.statistics().unavailable


def test_keys_of_other_types_are_other_keys_unless_they_are_equal(valkey: Server, make_tier: Make) -> None:
    one, other = make_tier(valkey.url()), make_tier(valkey.url())
    told = Told(other)
    kept = {1: "int", "1": "text", b"1": "bytes", 1.5: "float", "1.5": "text", None: "none", "None": "text"}
    kept |= {0: "zero", "": "empty", (1,): "tuple", "(1,)": "text", (None, 2.5): "none in a tuple"}
    one.set_many_sync({key: value(text) for key, text in kept.items()})
    assert values(other, *kept) == kept
    assert values(other, True, False, 1e300) == {True: "int", False: "zero"}
    eventually(lambda: told.changed == {*kept})
    one.delete_sync([True])
    one.delete_prefix_sync((None,))
    gone = [1, (None, 2.5)]
    assert values(other, *kept) == {key: text for key, text in kept.items() if key not in gone}
    eventually(lambda: Invalidation(prefixes=((None,),)) in told.news)


@pytest.mark.parametrize(
    "options",
    [
        {"on_unavailable": "allow"},
        {"timeout": 0},
        {"timeout": -1},
        {"lease": 1.0},
        {"lease": float("nan")},
        {"prefix": ""},
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], make_tier: Make) -> None:
    with pytest.raises(ValueError, match=r"is|are"):
        make_tier("redis://localhost", **options)


# round trips


def test_many_keys_take_one_round_trip(redis_server: Server, make_tier: Make) -> None:
    tier = make_tier(redis_server.url())
    keys = [str(number) for number in range(200)]
    tier.set_many_sync({key: value(key) for key in keys})
    with exchanges(tier) as trips:
        assert values(tier, *keys) == dict(zip(keys, keys, strict=True))
        claim = tier.claim_sync([*keys, "missing"])
        assert len(claim.found) == 200
        claim.keep_sync({"missing": value()})
        tier.set_many_sync({key: value(key) for key in keys})
        tier.delete_sync(keys)
    for script, expected in [(READ, 1), (CLAIM, 1), (KEEP, 2), (DROP, 1)]:
        assert sum(any(command[0] == script for command in trip) for trip in trips) == expected


def test_calls_that_come_together_share_a_round_trip(valkey: Server, make_tier: Make) -> None:
    tier = make_tier(valkey.url())
    tier.get_many_sync(["a"])
    begin = threading.Barrier(8)

    def look() -> None:
        begin.wait()
        for number in range(50):
            tier.get_many_sync([str(number)])

    with exchanges(tier) as trips, threads(*[look] * 8):
        pass
    reads = [command for trip in trips for command in trip if command[0] is READ]
    assert sum(len(keys) for _, keys, _ in reads) == 8 * 50
    assert len(trips) < 350

    async def look_often() -> None:
        async with anyio.create_task_group() as group:
            for number in range(500):
                group.start_soon(tier.get_many, [str(number)])

    with exchanges(tier) as trips:
        anyio.run(look_often)
    assert len(trips) < 100


# what is dropped


def test_what_one_process_drops_no_other_one_finds(redis_server: Server, make_tier: Make) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())

    def keep() -> None:
        one.set_many_sync(
            {"user:1": value(1, 60, "a", "b"), "user:2": value(2, 60, "b"), "word": value(3), 5: value(4)}
        )

    keep()
    other.delete_sync(["user:1", "never"])
    assert values(one, "user:1", "user:2", "word", 5) == {"user:2": 2, "word": 3, 5: 4}
    keep()
    other.delete_tag_sync("a")
    assert values(one, "user:1", "user:2", "word", 5) == {"user:2": 2, "word": 3, 5: 4}
    other.delete_tag_sync("b")
    assert values(one, "user:1", "user:2", "word", 5) == {"word": 3, 5: 4}
    keep()
    other.delete_prefix_sync("user:")
    assert values(one, "user:1", "user:2", "word", 5) == {"word": 3, 5: 4}
    keep()
    other.delete_prefix_sync("")
    assert values(one, "user:1", "user:2", "word", 5) == {}
    one.set_many_sync({("user", 1): value(1), ("user", 2): value(2, 60, ("a", 1))})
    other.delete_prefix_sync(("user", 1))
    assert values(one, ("user", 1), ("user", 2)) == {("user", 2): 2}
    other.delete_tag_sync(("a", 1))
    assert values(one, ("user", 1), ("user", 2)) == {}
    keep()
    assert values(other, "user:1", "user:2", "word", 5) == {"user:1": 1, "user:2": 2, "word": 3, 5: 4}


@pytest.mark.parametrize("how", ["key", "tag", "prefix", "all", "set"])
def test_what_is_dropped_while_it_is_loaded_is_not_kept(
    how: str, redis_server: Server, make_tier: Make
) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    claim = one.claim_sync(["user:1", "word"])
    assert list(claim.mine) == ["user:1", "word"]
    if how == "key":
        other.delete_sync(["user:1"])
    elif how == "tag":
        other.delete_tag_sync("t")
    elif how == "set":
        other.set_many_sync({"user:1": value("new")})
    else:
        other.delete_prefix_sync("user" if how == "prefix" else "")
    dropped = claim.keep_sync({"user:1": value("old", 60, "t"), "word": value("old")})
    gone = {"user:1"} if how != "all" else {"user:1", "word"}
    assert dropped == gone
    there: dict[str, Any] = {} if how == "all" else {"word": "old"}
    assert values(other, "user:1", "word") == ({"user:1": "new"} | there if how == "set" else there)
    assert one.statistics().dropped == len(gone)
    assert load_through(one, ["user:1"], lambda keys: dict.fromkeys(keys, "newer"))["user:1"] in (
        "newer",
        "new",
    )


def test_a_value_that_is_set_after_its_tag_was_dropped_is_there(valkey: Server, make_tier: Make) -> None:
    silent, busy = make_tier(valkey.url()), make_tier(valkey.url())
    silent.get_many_sync(["a"])
    silent._member._bulletin.rules.hear = lambda pairs: None  # type: ignore[method-assign] # it hears of nothing
    busy.delete_tag_sync("t")
    del silent._member._bulletin.rules.hear
    silent.set_many_sync({"a": value(1, 60, "t")})
    assert values(busy, "a") == {"a": 1}


@pytest.mark.parametrize("loss", ["rules", "all"])
def test_where_redis_lost_what_was_dropped_nothing_older_is_found(
    loss: str, redis_server: Server, make_tier: Make
) -> None:
    """As happens by eviction, by `FLUSHALL`, or in a failover."""
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    one.set_many_sync({"a": value(1, 60, "t"), "b": value(2)})
    one.delete_tag_sync("t")
    told = Told(other)
    if loss == "rules":
        redis_server.do("DEL", "words:rules")
    else:
        redis_server.flush()
    assert values(one, "a", "b") == {}
    eventually(told.everything)
    one.set_many_sync({"a": value(3, 60, "t")})
    assert values(one, "a") == values(other, "a") == values(make_tier(redis_server.url()), "a") == {"a": 3}


def test_a_thousand_tags_are_remembered_in_bounded_room(
    valkey: Server, make_tier: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchkit._redis.bulletin.MOST", 10)
    tier = make_tier(valkey.url())
    tier.set_many_sync({"old": value(1), "tagged": value(2, 60, "t5")})
    for number in range(25):
        tier.delete_tag_sync(f"t{number}")
    assert valkey.do("ZCARD", "words:rules") == 12
    fresh = make_tier(valkey.url())
    assert values(fresh, "old", "tagged") == {}  # older than what is remembered
    fresh.set_many_sync({"old": value(3), "tagged": value(4, 60, "t5")})
    assert values(tier, "old", "tagged") == {"old": 3, "tagged": 4}


# who loads


def test_of_all_who_claim_a_key_one_gets_it(redis_server: Server, make_tier: Make) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    first = one.claim_sync(["a", "b"])
    second = other.claim_sync(["b", "c"])
    assert (list(first.mine), list(first.others)) == (["a", "b"], [])
    assert (list(second.mine), list(second.others)) == (["c"], ["b"])
    assert first.keep_sync({"a": value(1), "b": value(2)}) == set()
    second.wait_sync()
    third = other.claim_sync(second.others)
    assert {key: found.value for key, found in third.found.items()} == {"b": 2}
    assert not third.mine
    assert not third.others
    second.release()
    eventually(lambda: list(one.claim_sync(["c"]).mine) == ["c"])


def test_who_gives_up_a_claim_lets_others_load(redis_server: Server, make_tier: Make) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    first = one.claim_sync(["a"])
    second = other.claim_sync(["a"])
    begin = time.monotonic()
    with threads(second.wait_sync):
        first.release()
    third = other.claim_sync(["a"])
    while not third.mine:
        third.wait_sync()
        third = other.claim_sync(["a"])
    assert time.monotonic() - begin < 5  # of the 10 s of the lease
    first.release()
    assert list(one.claim_sync(["a"]).others) == ["a"]


def test_who_waits_hears_of_a_key_that_is_dropped(valkey: Server, make_tier: Make) -> None:
    one, other = make_tier(valkey.url()), make_tier(valkey.url())
    one.claim_sync(["a"])
    second = other.claim_sync(["a"])
    one.delete_sync(["a"])
    second.wait_sync()
    eventually(lambda: list(other.claim_sync(["a"]).mine) == ["a"])


def test_what_holds_for_a_short_time_only_can_be_loaded_ahead(redis_server: Server, make_tier: Make) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    one.set_many_sync({"a": value("old", 10)})
    assert one.claim_sync(["a"], ahead=5).found
    ahead = one.claim_sync(["a"], ahead=15)
    assert list(ahead.mine) == ["a"]
    assert values(other, "a") == {"a": "old"}
    assert list(other.claim_sync(["a"], ahead=15).others) == ["a"]
    ahead.keep_sync({"a": value("new", 60)})
    assert other.claim_sync(["a"], ahead=15).found["a"].value == "new"


def test_after_expiry_one_process_loads_and_the_others_wait(redis_server: Server, make_tier: Make) -> None:
    tiers = [make_tier(redis_server.url()) for _ in range(6)]
    tiers[0].set_many_sync({"a": value("old", 0.05)})
    eventually(lambda: not values(tiers[0], "a"))
    loads: list[int] = []
    begin = threading.Barrier(12)

    def look(tier: Words) -> None:
        def load(keys: list[Any]) -> dict[Any, Any]:
            loads.append(1)
            time.sleep(0.1)
            return dict.fromkeys(keys, "new")

        begin.wait()
        assert load_through(tier, ["a"], load) == {"a": "new"}

    with threads(*[lambda tier=tier: look(tier) for tier in [*tiers, *tiers]]):
        pass
    assert loads == [1]


def test_a_claim_that_nobody_holds_lapses(valkey: Server, make_tier: Make) -> None:
    one, other = make_tier(valkey.url(), timeout=0.1, lease=0.3), make_tier(valkey.url())
    claim = one.claim_sync(["a"])
    second = other.claim_sync(["a"])
    assert list(second.others) == ["a"]
    del claim
    gc.collect()
    second.wait_sync()
    eventually(lambda: list(other.claim_sync(["a"]).mine) == ["a"])


def test_a_slow_load_keeps_its_claim(valkey: Server, make_tier: Make) -> None:
    one, other = make_tier(valkey.url(), timeout=0.1, lease=0.4), make_tier(valkey.url())
    claim = one.claim_sync(["a"])
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert list(other.claim_sync(["a"]).others) == ["a"]
        time.sleep(0.05)
    assert claim.keep_sync({"a": value()}) == set()


def test_nothing_is_left_of_a_call_that_was_cancelled(
    valkey: Server, make_tier: Make, anyio_backend: str
) -> None:
    tier, other = make_tier(valkey.url()), make_tier(valkey.url())

    async def main() -> None:
        for delay in [0.0, 0.0001, 0.0002, 0.0004, 0.001]:
            for _ in range(10):
                with anyio.move_on_after(delay):
                    (await tier.claim(["a"])).release()
        waits = other.claim_sync(["a"])
        assert list(waits.mine) == ["a"]
        claim = await tier.claim(["a"])
        with anyio.move_on_after(0.01):
            await claim.wait()
        claim.release()
        assert not tier._member.talks.waiting._claims
        waits.release()

    anyio.run(main, backend=anyio_backend)
    eventually(lambda: not valkey.do("KEYS", "*;claim"))


# caches that are told


def test_a_cache_is_told_of_what_others_change(redis_server: Server, make_tier: Make) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    told = Told(other)
    assert other.statistics().listening == "tracking"
    long = "long" * 100
    other.get_many_sync([long])
    one.set_many_sync({"a": value(), ("b", 1): value(), long: value()})
    eventually(lambda: told.changed == {"a", ("b", 1), long})
    told.news.clear()
    one.delete_sync(["a"])
    eventually(lambda: told.changed == {"a"})
    told.news.clear()
    redis_server.do("DEL", "words:{(b,=1,)}")  # by somebody who does not know of batchkit
    eventually(lambda: told.changed == {("b", 1)})
    told.news.clear()
    one.delete_tag_sync("t")
    eventually(lambda: Invalidation(tags=("t",)) in told.news)
    one.delete_prefix_sync("user:")
    eventually(lambda: Invalidation(prefixes=("user:",)) in told.news)
    assert not told.everything()
    one.delete_prefix_sync("")
    eventually(told.everything)
    told.news.clear()
    redis_server.flush()
    eventually(told.everything)


def test_a_cache_is_not_told_of_what_its_own_process_keeps(redis_server: Server, make_tier: Make) -> None:
    one, other = make_tier(redis_server.url()), make_tier(redis_server.url())
    told, others = Told(one), Told(other)
    for number in range(20):
        one.set_many_sync({"a": value(number)})
        load_through(one, [f"loaded {number}"], lambda keys: dict.fromkeys(keys, 1))
    eventually(lambda: others.changed == {"a", *(f"loaded {number}" for number in range(20))})
    other.set_many_sync({"end": value()})
    eventually(lambda: "end" in told.changed)
    assert told.changed == {"end"}


def test_a_cache_is_told_of_what_another_process_keeps_at_the_same_time(
    valkey: Server, make_tier: Make
) -> None:
    one, other = make_tier(valkey.url()), make_tier(valkey.url())
    told = Told(one), Told(other)
    for number in range(100):
        for each in told:
            each.news.clear()
        with threads(
            partial(one.set_many_sync, {"a": value(("one", number))}),
            partial(other.set_many_sync, {"a": value(("other", number))}),
        ):
            pass
        loser = told[0 if values(one, "a")["a"][0] == "other" else 1]
        eventually(partial(loser.was_told_of, "a"))


def test_a_cache_is_told_also_without_the_right_to_track(redis_server: Server, make_tier: Make) -> None:
    rights = f"{LEAST} resetchannels &words:* +publish +subscribe +ping"
    redis_server.do("ACL", "SETUSER", "few", "on", ">secret", *rights.split())
    url = redis_server.url().replace("//", "//few:secret@")
    one, other = make_tier(url), make_tier(url)
    told = Told(other)
    assert other.statistics().listening == "pubsub"
    one.set_many_sync({"a": value()})
    eventually(lambda: told.changed == {"a"})
    one.delete_tag_sync("t")
    eventually(lambda: Invalidation(tags=("t",)) in told.news)
    claim = one.claim_sync(["b"])
    waits = other.claim_sync(["b"])
    begin = time.monotonic()
    with threads(waits.wait_sync):
        claim.release()
    assert time.monotonic() - begin < 5
    assert not one.statistics().unavailable


def test_who_may_not_listen_looks_again(redis_server: Server, make_tier: Make) -> None:
    redis_server.do("ACL", "SETUSER", "deaf", "on", ">secret", *LEAST.split(), "resetchannels")
    url = redis_server.url().replace("//", "//deaf:secret@")
    one, other = make_tier(url), make_tier(url)
    assert load_through(one, ["a"], lambda keys: dict.fromkeys(keys, 1)) == {"a": 1}
    assert values(other, "a") == {"a": 1}
    assert other.statistics().listening == ""
    claim = one.claim_sync(["b"])
    waits = other.claim_sync(["b"])
    with threads(waits.wait_sync):
        claim.release()
    assert not one.statistics().unavailable


def test_a_callback_that_fails_harms_nobody(
    valkey: Server, make_tier: Make, caplog: pytest.LogCaptureFixture
) -> None:
    tier = make_tier(valkey.url())

    def fail(news: Invalidation) -> None:
        raise ZeroDivisionError

    tier.on_invalidate(fail)
    told = Told(tier)
    make_tier(valkey.url()).set_many_sync({"a": value()})
    eventually(lambda: told.changed == {"a"})
    assert "callback" in caplog.text


# wherever it is used


@pytest.mark.parametrize("colour", ["asyncio", "trio"])
def test_tasks_do_what_threads_do(colour: str, valkey: Server, make_tier: Make) -> None:
    one, other = make_tier(valkey.url()), make_tier(valkey.url())

    async def main() -> None:
        await one.set_many({"a": value(1, 60, "t"), "b": value(2), "c": value(3)})
        assert {key: found.value for key, found in (await other.get_many("abcd")).items()} == {
            "a": 1,
            "b": 2,
            "c": 3,
        }
        await one.delete(["b"])
        await one.delete_tag("t")
        assert list(await other.get_many("abc")) == ["c"]
        await one.delete_prefix("c")
        assert not await other.get_many("abc")
        claim = await one.claim(["x", "y"])
        waits = await other.claim(["x"])
        assert list(waits.others) == ["x"]
        async with anyio.create_task_group() as group:
            group.start_soon(waits.wait)
            assert await claim.keep({"x": value(5)}) == set()
        claim.release()
        assert (await other.claim(["x"])).found["x"].value == 5
        with anyio.fail_after(DEADLINE):
            while not (await other.claim(["y"])).mine:
                await anyio.lowlevel.checkpoint()

    anyio.run(main, backend=colour)
    valkey.flush()
    anyio.run(main, backend=colour)


def test_one_tier_serves_threads_and_event_loops_at_once(valkey: Server, make_tier: Make) -> None:
    tier, other = make_tier(valkey.url()), make_tier(valkey.url())
    loads: list[Any] = []

    def load(keys: list[Any]) -> dict[Any, Any]:
        loads.extend(keys)
        return {key: key for key in keys}

    async def load_through_async(tier: Words, keys: list[str]) -> None:
        while keys:
            claim = await tier.claim(keys)
            try:
                if claim.mine:
                    loaded = load(list(claim.mine))
                    await claim.keep({key: value(loaded[key]) for key in loaded})
                keys = list(claim.others)
                await claim.wait()
            finally:
                claim.release()

    keys = [str(number) for number in range(30)]
    works: list[Any] = []
    for each in (tier, other):
        works.append(lambda each=each: load_through(each, keys, load))
        works.append(lambda each=each: anyio.run(load_through_async, each, keys, backend="asyncio"))
        works.append(lambda each=each: anyio.run(load_through_async, each, keys[::-1], backend="trio"))
    with threads(*works):
        pass
    assert sorted(loads) == sorted(keys)


def test_a_closed_tier_leaves_no_thread_and_connects_again(valkey: Server, make_tier: Make) -> None:
    before = set(threading.enumerate())
    tier = make_tier(valkey.url())
    tier.set_many_sync({"a": value()})
    tier.close()
    eventually(lambda: not ours(before))
    assert values(tier, "a") == {"a": 1}
    anyio.run(tier.aclose)
    eventually(lambda: not ours(before))
    eventually(lambda: valkey.info("clients")["connected_clients"] == 1)


def test_a_tier_that_nobody_holds_leaves_no_thread(valkey: Server) -> None:
    before = set(threading.enumerate())
    tier: Words = RedisTier(valkey.url(), "words")
    tier.set_many_sync({"a": value()})
    assert ours(before)
    del tier
    eventually(lambda: gc.collect() >= 0 and not ours(before))


def ours(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads that listen, and were not there before."""
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.name == "batchkit-listener"
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_child_has_a_connection_of_its_own_and_its_cache_is_told(valkey: Server, make_tier: Make) -> None:
    tier = make_tier(valkey.url())
    told = Told(tier)
    tier.set_many_sync({"a": value()})
    claim = tier.claim_sync(["b"])
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            eventually(told.everything)
            claim.release()
            assert values(tier, "a", "b") == {"a": 1}
            assert list(tier.claim_sync(["b"]).others) == ["b"]
            assert list(tier.claim_sync(["c"]).mine) == ["c"]
            status = 0
        finally:
            os.write(write, str(status).encode())
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(read, 1) == b"0"
    os.close(read)
    os.close(write)
    assert claim.keep_sync({"b": value(2)}) == set()
    assert values(tier, "a", "b") == {"a": 1, "b": 2}
    assert not told.everything()


# clusters


def test_a_cluster_keeps_values_where_their_slots_are(cluster: Cluster, make_tier: Make) -> None:
    one, other = make_tier(cluster.client()), make_tier(cluster.client())
    told = Told(other)
    keys = [str(number) for number in range(50)]
    one.set_many_sync({key: value(key, 60, "even" if int(key) % 2 == 0 else "odd") for key in keys})
    eventually(lambda: told.changed == set(keys))
    assert all(len(node.do("KEYS", "words:{*")) > 5 for node in cluster.nodes)
    assert values(other, *keys) == dict(zip(keys, keys, strict=True))
    one.delete_tag_sync("odd")
    assert values(other, *keys) == {key: key for key in keys[::2]}
    one.delete_sync(keys[:10])
    assert values(other, *keys) == {key: key for key in keys[10::2]}
    claim = one.claim_sync(keys)
    assert len(claim.mine) == 30
    waits = other.claim_sync(keys)
    with threads(waits.wait_sync):
        claim.keep_sync({key: value(key) for key in claim.mine})
    assert values(other, *keys) == dict(zip(keys, keys, strict=True))


def test_a_cluster_behind_one_address_is_asked_key_by_key(make_tier: Make) -> None:
    """As a service with one shard is; to a client that is told of no cluster it is a server like others."""
    with Server("--cluster-enabled", "yes") as server:
        for start in range(0, 16384, 1024):
            server.do("CLUSTER", "ADDSLOTS", *range(start, start + 1024))
        eventually(lambda: b"cluster_state:ok" in server.do("CLUSTER", "INFO"))
        tier, other = make_tier(server.url()), make_tier(server.url())
        told = Told(other)
        keys = [str(number) for number in range(20)]
        tier.set_many_sync({key: value(key, 60, "t") for key in keys[:10]})
        eventually(lambda: told.changed == {*keys[:10]})
        claim = other.claim_sync(keys)
        assert (list(claim.found), list(claim.mine)) == (keys[:10], keys[10:])
        assert list(tier.claim_sync(keys).others) == keys[10:]
        assert claim.keep_sync({key: value(key) for key in keys[10:]}) == set()
        assert values(tier, *keys) == dict(zip(keys, keys, strict=True))
        tier.delete_sync(keys[5:])
        assert values(other, *keys) == {key: key for key in keys[:5]}
        tier.delete_tag_sync("t")
        assert values(other, *keys) == {}
        assert not tier.statistics().unavailable
        assert not other.statistics().unavailable
        tier.close()
        other.close()


def test_a_slot_that_moves_takes_its_values_along(cluster: Cluster, make_tier: Make) -> None:
    tier = make_tier(cluster.client())
    keys = [str(number) for number in range(20)]
    tier.set_many_sync({key: value(key) for key in keys})
    slot = Cluster.slot("words:{3}")
    to = cluster.other(slot)
    cluster.begin_migration(slot, to)
    cluster.hand_over_keys(slot)
    assert values(tier, *keys) == dict(zip(keys, keys, strict=True))
    cluster.finish_migration(slot)
    assert values(tier, *keys) == dict(zip(keys, keys, strict=True))
    tier.delete_sync(["3"])
    assert list(tier.claim_sync(keys).mine) == ["3"]


# processes


class Worker:
    """A process that loads one key through a tier."""

    def __init__(self, url: str, seconds: float, lease: float) -> None:
        command = [sys.executable, "-m", "tests.redis.tier_worker", url, str(seconds), str(lease)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            self.said += map(str.strip, iter(lines.readline, ""))

    def heard(self, word: str) -> list[str]:
        """What it said that begins with a word."""
        return [line for line in list(self.said) if line.startswith(word)]

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stdin
        self.process.stdin.close()


@contextmanager
def workers(count: int, url: str, *, seconds: float, lease: float) -> Iterator[list[Worker]]:
    """Processes that are about to begin."""
    made = [Worker(url, seconds, lease) for _ in range(count)]
    try:
        eventually(lambda: all(worker.heard("ready") for worker in made))
        yield made
    finally:
        for worker in made:
            worker.end()


def test_four_processes_that_ask_at_once_load_once(redis_server: Server) -> None:
    with workers(4, redis_server.url(), seconds=0.3, lease=5) as fleet:
        for worker in fleet:
            worker.go()
        eventually(lambda: all(worker.heard("got") for worker in fleet))
        assert sum(len(worker.heard("loads")) for worker in fleet) == 1
        assert len({line for worker in fleet for line in worker.heard("got")}) == 1


def test_a_process_that_is_killed_while_it_loads_holds_up_others_for_its_lease_only(valkey: Server) -> None:
    with workers(3, valkey.url(), seconds=2.0, lease=1.0) as fleet:
        for worker in fleet:
            worker.go()
        eventually(lambda: any(worker.heard("loads") for worker in fleet))
        time.sleep(0.5)
        [first] = [worker for worker in fleet if worker.heard("loads")]
        first.process.kill()
        others = [worker for worker in fleet if worker is not first]
        eventually(lambda: all(worker.heard("got") for worker in others))
        assert sum(len(worker.heard("loads")) for worker in others) == 1


# against a model


class Model:
    """What should be there: a history of all that was done."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.loading: dict[str, tuple[int, set[str], list[str]]] = {}  # by whom, tags and prefixes dropped

    def drop(self, keys: list[str], tag: str | None = None, prefix: str | None = None) -> None:
        for key in list(self.there):
            tags = self.there[key][1]
            if key in keys or tag in tags or (prefix is not None and key.startswith(prefix)):
                del self.there[key]
        for key in keys:
            self.loading.pop(key, None)
        for _, tags_dropped, prefixes in self.loading.values():
            if tag is not None:
                tags_dropped.add(tag)
            if prefix is not None:
                prefixes.append(prefix)


KEYS = ["a", "ab", "abc", "b"]
steps = st.one_of(
    st.tuples(st.just("get"), st.integers(0, 1)),
    st.tuples(st.just("set"), st.integers(0, 1), st.sampled_from(KEYS), st.sampled_from(["", "t", "u"])),
    st.tuples(st.just("delete"), st.integers(0, 1), st.sampled_from(KEYS)),
    st.tuples(st.just("tag"), st.integers(0, 1), st.sampled_from(["t", "u"])),
    st.tuples(st.just("prefix"), st.integers(0, 1), st.sampled_from(["", "a", "ab", "b", "c"])),
    st.tuples(st.just("claim"), st.integers(0, 1), st.sampled_from(KEYS)),
    st.tuples(st.just("keep"), st.sampled_from(KEYS), st.sampled_from(["", "t", "u"])),
    st.tuples(st.just("release"), st.sampled_from(KEYS)),
)


@given(history=st.lists(steps, max_size=30))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_processes_see_what_a_model_says(history: list[Any], valkey: Server) -> None:
    valkey.flush()
    tiers: list[Words] = [RedisTier(valkey.url(), "words") for _ in range(2)]
    claims: dict[str, Any] = {}
    model = Model()
    try:
        for number, (what, *rest) in enumerate(history):
            tier = tiers[rest[0]] if isinstance(rest[0], int) else tiers[0]
            key = rest[-1]
            if what == "set":
                key, tags = rest[1], tuple(filter(None, [rest[2]]))
                tier.set_many_sync({key: value(number, 60, *tags)})
                model.loading.pop(key, None)
                model.there[key] = number, tags
            elif what == "delete":
                tier.delete_sync([key])
                model.drop([key])
            elif what == "tag":
                tier.delete_tag_sync(key)
                model.drop([], tag=key)
            elif what == "prefix":
                tier.delete_prefix_sync(key)
                model.drop([], prefix=key)
            elif what == "claim":
                claim = tier.claim_sync([key])
                assert bool(claim.found) == (key in model.there)
                assert bool(claim.others) == (key not in model.there and key in model.loading)
                if claim.mine:
                    claims[key] = claim
                    model.loading[key] = number, set(), []
            elif what == "keep" and rest[0] in claims:
                key, tags = rest[0], tuple(filter(None, [rest[1]]))
                dropped = claims.pop(key).keep_sync({key: value(number, 60, *tags)})
                loading = model.loading.pop(key, None)
                kept = loading is not None and not (
                    set(tags) & loading[1] or any(map(key.startswith, loading[2]))
                )
                assert dropped == (set() if kept else {key})
                if kept:
                    model.there[key] = number, tags
            elif what == "release" and rest[0] in claims:
                claims.pop(rest[0]).release()
                for each in tiers:
                    each.get_many_sync([])  # after what was to be told
                model.loading.pop(rest[0], None)
            expected = {key: number for key, (number, _) in model.there.items()}
            assert values(tiers[0], *KEYS) == values(tiers[1], *KEYS) == expected
    finally:
        for tier in tiers:
            tier.close()

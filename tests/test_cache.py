"""`TTLCache`: values for a time, one load for all who ask, on asyncio, on trio and in threads."""

from __future__ import annotations

import ast
import contextlib
import gc
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import anyio
import pytest

from batchkit import LoadFailed, TTLCache
from batchkit.testing import ManualClock, settle
from tests.helpers import eventually, threads

pytestmark = pytest.mark.anyio


@pytest.fixture
def cache(clock: ManualClock) -> TTLCache[str, Any]:
    return TTLCache(100, ttl=5, name="words", clock=clock)


class Loader:
    """Loads when it is let, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.ended = 0
        self.gate = anyio.Event()

    async def load(self, key: str) -> str:
        self.calls.append(key)
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        return key.upper()

    async def load_many(self, keys: list[str]) -> dict[str, str]:
        self.calls.append(keys)
        await self.gate.wait()
        return {key: key.upper() for key in keys}


async def ask(
    cache: TTLCache[str, Any], loader: Loader, answers: list[object], scope: anyio.CancelScope
) -> None:
    with scope:
        answers.append(await cache.get_or_load("a", loader.load))


# what is loaded elsewhere


CHANGES: dict[str, Callable[[TTLCache[str, Any]], object]] = {
    "set": lambda cache: cache.set("a", "new"),
    "set with a time": lambda cache: cache.set("a", "new", ttl=3),
    "deleted": lambda cache: cache.delete("a"),
    "dropped with a tag": lambda cache: cache.delete_tag("tag"),
    "dropped with a prefix": lambda cache: cache.delete_prefix("a"),
    "cleared": lambda cache: cache.clear(),
    "restored": lambda cache: cache.restore(cache.snapshot()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_watch_keeps_no_value_of_a_key_of_which_something_was_said_meanwhile(
    clock: ManualClock, change: Callable[[TTLCache[str, Any]], object]
) -> None:
    cache = TTLCache[str, Any](10, ttl=5, tags=lambda key, value: ["tag"], clock=clock)
    cache.set("a", "before")
    watch = cache.watch(["a", "b"])
    before = cache.get_present("ab")
    change(cache)
    after = cache.get_present("ab")
    assert watch.keep("a", "old") is False
    assert cache.get_present("ab") == after
    assert before == {"a": "before"}
    assert cache.watch("a").keep("a", "newest") is True
    assert cache.get("a") == "newest"


def test_a_watch_keeps_what_nobody_spoke_of(clock: ManualClock) -> None:
    cache = TTLCache[str, Any](10, ttl=5, clock=clock)
    watch, other = cache.watch(["a", "b"]), cache.watch(["a"])
    cache.set("c", 1)
    cache.delete("c")
    cache.delete_prefix("c")
    cache.delete_tag("tag")  # no value of this cache has one that was not given with it
    assert watch.keep("a", 1) is True
    assert watch.keep("z", 1) is False  # it is not watched
    assert cache.get_present("abz") == {"a": 1}
    assert other.keep("a", 2) is False  # the first who brings it
    clock.advance(5)
    assert cache.get("a") is None
    assert watch.keep("b", 2) is True


def test_a_watch_that_was_let_go_leaves_nothing_behind(clock: ManualClock) -> None:
    cache = TTLCache[int, int](10, ttl=5, clock=clock)
    for number in range(1_000):
        cache.watch([number])
    gc.collect()
    assert not cache._shelf.loads.watches


def test_a_value_holds_for_its_time(cache: TTLCache[str, Any], clock: ManualClock) -> None:
    cache.set("a", 1)
    cache.set("b", 2, ttl=9)
    clock.advance(5)
    assert cache.get("a") is None
    assert cache.get("a", 7) == 7
    assert "a" not in cache
    assert cache.get("b") == 2
    assert list(cache) == ["b"]
    assert len(cache) == 1


async def test_none_is_a_value(cache: TTLCache[str, Any]) -> None:
    async def load(key: str) -> None:
        calls.append(key)

    calls: list[str] = []
    for _ in range(2):
        assert await cache.get_or_load("a", load) is None
    assert calls == ["a"]
    assert cache.get("a", 7) is None


def test_delete_clear_and_sweep(cache: TTLCache[str, Any], clock: ManualClock) -> None:
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.delete("a")
    assert not cache.delete("a")
    clock.advance(5)
    assert cache.sweep() == 1
    cache.set("c", 3)
    cache.clear()
    assert len(cache) == 0
    assert repr(cache) == "TTLCache(size=0, ttl=5, name='words')"


@pytest.mark.parametrize(("maxsize", "ttl"), [(0, 1), (True, 1), (1.5, 1), (1, 0), (1, -1), (1, True)])
def test_sizes_and_times_that_are_none(maxsize: Any, ttl: Any) -> None:
    with pytest.raises(ValueError, match=r"maxsize is a whole number|a ttl is a number"):
        TTLCache(maxsize, ttl)


@pytest.mark.parametrize(
    "wrong",
    [
        {"jitter": 1.0},
        {"jitter": True},
        {"stale": -1},
        {"stale": float("inf")},
        {"refresh_ahead": float("nan")},
        {"negative_ttl": 0},
        {"separator": ""},
    ],
)
def test_other_settings_that_are_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match="|".join(wrong)):
        TTLCache(1, 1, **wrong)


def test_the_size_is_kept(cache: TTLCache[str, Any]) -> None:
    for number in range(1000):
        cache.set(str(number), number)
    statistics = cache.statistics()
    assert (statistics.size, statistics.weight, statistics.evicted) == (100, 100, 900)
    assert len(list(cache)) == 100


class TestHowLongAValueHolds:
    def test_a_function_of_key_and_value_tells_it(self, clock: ManualClock) -> None:
        cache = TTLCache[str, float](10, ttl=lambda key, value: value, clock=clock)
        cache.set("a", 2.0)
        cache.set("b", 9.0)
        cache.set("c", 2.0, ttl=lambda key, value: 7.0)
        clock.advance(2)
        assert sorted(cache.get_present("abc")) == ["b", "c"]
        assert "ttl=by entry" in repr(cache)

    async def test_what_it_gives_no_time_is_not_kept(self, clock: ManualClock) -> None:
        async def load(key: str) -> str:
            return "loaded"

        cache = TTLCache[str, str](10, ttl=lambda key, value: 0, clock=clock)
        cache.set("a", "old", ttl=5)
        cache.set("a", "new")
        assert "a" not in cache
        cache.set("a", "old", ttl=5)
        cache.delete("a")
        assert await cache.get_or_load("a", load) == "loaded"
        assert len(cache) == 0

    async def test_a_load_may_bring_its_own(self, cache: TTLCache[str, Any], clock: ManualClock) -> None:
        async def load(key: str) -> str:
            return key

        async def load_many(keys: list[str]) -> list[str]:
            return keys

        await cache.get_or_load("a", load, ttl=9)
        await cache.get_many("b", load_many, ttl=lambda key, value: 9)
        clock.advance(8)
        assert cache.get_present("ab") == {"a": "a", "b": "b"}

    def test_it_may_be_for_ever(self, clock: ManualClock) -> None:
        cache = TTLCache[str, int](10, ttl=float("inf"), clock=clock)
        cache.set("a", 1)
        clock.advance(1e12)
        assert cache.get("a") == 1

    def test_chance_takes_some_of_it_away_and_adds_nothing(self, clock: ManualClock) -> None:
        cache = TTLCache[int, int](1000, ttl=100, jitter=0.2, clock=clock)
        for key in range(1000):
            cache.set(key, key)
        clock.advance(79.9)
        assert len(cache.get_present(range(1000))) == 1000
        clock.advance(10.1)
        assert 400 < len(cache.get_present(range(1000))) < 600
        clock.advance(10)
        assert cache.get_present(range(1000)) == {}


class TestWeights:
    def test_they_are_bounded_together(self, clock: ManualClock) -> None:
        cache = TTLCache[str, str](10, ttl=5, weigh=lambda key, value: len(value), clock=clock)
        cache.set("a", "12345")
        cache.set("b", "1234")
        cache.set("c", "12")
        statistics = cache.statistics()
        assert (statistics.size, statistics.weight, statistics.evicted) == (2, 6, 1)

    def test_what_weighs_more_than_all_is_not_kept(self, clock: ManualClock) -> None:
        cache = TTLCache[str, str](3, ttl=5, weigh=lambda key, value: len(value), clock=clock)
        cache.set("a", "123")
        cache.set("a", "1234")
        assert cache.get("a") is None
        assert cache.statistics().refused == 1

    @pytest.mark.parametrize("weight", [0, -1, 1.5, True])
    async def test_weights_that_are_none(self, weight: Any) -> None:
        async def load(key: str) -> str:
            return key

        cache = TTLCache[str, str](3, ttl=5, weigh=lambda key, value: weight)
        with pytest.raises(ValueError, match="a weight is a whole number"):
            cache.set("a", "1")
        with pytest.raises(ValueError, match="a weight is a whole number"):
            await cache.get_or_load("a", load)


class TestWhatIsDroppedTogether:
    @pytest.fixture
    def cache(self, clock: ManualClock) -> TTLCache[Any, Any]:
        return TTLCache(100, 5, tags=lambda key, value: {value}, separator=":", clock=clock)

    def test_by_tag(self, cache: TTLCache[Any, Any]) -> None:
        cache.set("a", "x", tags=["y"])
        cache.set("b", "x")
        cache.set("c", "z")
        assert cache.delete_tag("y") == 1
        assert cache.delete_tag("x") == 1
        assert cache.delete_tag("x") == 0
        assert list(cache) == ["c"]
        assert cache.statistics().deleted == 2

    @pytest.mark.parametrize(
        ("prefix", "left"),
        [
            ("deck:7:", ["deck:71", "other", 7, ("deck", 7, "x")]),
            ("deck:7", ["other", 7, ("deck", 7, "x")]),
            ("", [7, ("deck", 7, "x")]),
            (("deck", 7), ["deck:7:1", "deck:7:2:3", "deck:71", "other", 7]),
            ((), ["deck:7:1", "deck:7:2:3", "deck:71", "other", 7]),
            ("none:", ["deck:7:1", "deck:7:2:3", "deck:71", "other", 7, ("deck", 7, "x")]),
        ],
    )
    @pytest.mark.parametrize("separator", [":", None])
    def test_by_prefix(
        self, clock: ManualClock, prefix: Any, left: list[object], separator: str | None
    ) -> None:
        cache = TTLCache[Any, int](100, 5, separator=separator, clock=clock)
        for key in ("deck:7:1", "deck:7:2:3", "deck:71", "other", 7, ("deck", 7, "x")):
            cache.set(key, 1)
        assert cache.delete_prefix(prefix) == 6 - len(left)
        assert list(cache) == left

    def test_a_prefix_that_ends_with_the_separator_looks_at_its_own_keys_only(
        self, cache: TTLCache[Any, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.set("a:1", 1)
        cache.set("b:1", 1)
        monkeypatch.setattr("batchkit._core.expiry.Store.__iter__", lambda store: pytest.fail("a scan"))
        assert cache.delete_prefix("a:") == 1

    def test_a_prefix_is_no_tag(self, cache: TTLCache[Any, Any]) -> None:
        cache.set("a:1", 1)
        cache.set("b", "a:")
        assert cache.delete_tag("a:") == 1
        assert "a:1" in cache
        cache.set("b", "a:")
        assert cache.delete_prefix("a:") == 1
        assert "b" in cache


async def test_all_who_ask_share_one_load(cache: TTLCache[str, Any]) -> None:
    loader, answers = Loader(), list[object]()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask, cache, loader, answers, anyio.CancelScope())
        await settle()
        loader.gate.set()
    assert loader.calls == ["a"]
    assert answers == ["A"] * 5
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.loads, statistics.size) == (0, 5, 1, 1)
    assert cache.get("a") == "A"
    assert cache.statistics().hit_rate == 1 / 6


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_who_is_cancelled_harms_nobody(cache: TTLCache[str, Any], cancelled: int) -> None:
    """Cancelling the leader cancels the followers in cachebox, theine and cashews."""
    loader, answers = Loader(), list[object]()
    scopes = [anyio.CancelScope(), anyio.CancelScope()]
    async with anyio.create_task_group() as tasks:
        for scope in scopes:
            tasks.start_soon(ask, cache, loader, answers, scope)
            await settle()
        scopes[cancelled].cancel()
        await settle()
        loader.gate.set()
    assert answers == ["A"]
    assert loader.calls == ["a"]


async def test_when_all_are_cancelled_the_load_stops_and_the_key_is_not_poisoned(
    cache: TTLCache[str, Any],
) -> None:
    loader, answers = Loader(), list[object]()
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, cache, loader, answers, scope)
        await settle()
        scope.cancel()
        await settle()
        assert loader.ended == 1
        loader.gate.set()
        assert await cache.get_or_load("a", loader.load) == "A"
    assert loader.calls == ["a", "a"]


async def test_who_asks_while_a_load_is_being_stopped_gets_one_of_its_own(cache: TTLCache[str, Any]) -> None:
    loader, answers = Loader(), list[object]()
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, cache, loader, answers, scope)
        await settle()
        scope.cancel()
        loader.gate.set()
        tasks.start_soon(ask, cache, loader, answers, anyio.CancelScope())
    assert answers == ["A"]


@pytest.mark.parametrize("change", ["set", "delete", "tag", "its own tag", "prefix", "clear", "restore"])
@pytest.mark.parametrize("many", [False, True])
async def test_what_was_being_loaded_when_something_changed_is_not_kept(
    clock: ManualClock, change: str, many: bool
) -> None:
    tags = (lambda key, value: ["tag of value"]) if change == "its own tag" else None
    cache: TTLCache[str, Any] = TTLCache(10, 60, tags=tags, clock=clock)
    loader, answers = Loader(), list[object]()
    snapshot = TTLCache[str, Any](10, 60, clock=clock)
    snapshot.set("a", "changed")

    async def ask() -> None:
        if many:
            answers.append((await cache.get_many("ab", loader.load_many, tags=["tag"]))["a"])
        else:
            answers.append(await cache.get_or_load("a", loader.load, tags=["tag"]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await settle()
        match change:
            case "set":
                cache.set("a", "changed")
            case "delete":
                cache.delete("a")
            case "tag":
                cache.delete_tag("tag")
            case "its own tag":
                cache.delete_tag("tag of value")
            case "prefix":
                cache.delete_prefix("a")
            case "clear":
                cache.clear()
            case _:
                cache.restore(snapshot.snapshot())
        tasks.start_soon(ask)  # asks after the change, so it gets nothing that was read before
        await settle()
        assert len(loader.calls) == (1 if change in ("set", "restore") else 2)
        loader.gate.set()
    if change in ("set", "restore"):
        assert cache.get("a") == "changed"
        assert sorted(map(str, answers)) == ["A", "changed"]
    else:
        assert cache.get("a") == "A"  # by the second load
        assert answers == ["A", "A"]
    if many and change in ("set", "delete", "prefix"):
        assert cache.get("b") == "B"


async def test_the_later_load_wins_whichever_ends_first(cache: TTLCache[str, Any]) -> None:
    gates = [anyio.Event(), anyio.Event()]
    values = iter(["before the change", "after it"])

    async def load(key: str) -> str:
        value = next(values)
        await gates[0 if value == "before the change" else 1].wait()
        return value

    async def ask() -> None:
        await cache.get_or_load("a", load)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await settle()
        cache.delete("a")
        tasks.start_soon(ask)
        await settle()
        gates[1].set()
        await settle()
        assert cache.get("a") == "after it"
        gates[0].set()
    assert cache.get("a") == "after it"


async def test_an_error_reaches_its_callers_and_is_not_kept(cache: TTLCache[str, Any]) -> None:
    async def fail(key: str) -> str:
        raise ZeroDivisionError(key)

    async def succeed(key: str) -> str:
        return key

    with pytest.raises(ZeroDivisionError):
        await cache.get_or_load("a", fail)
    assert await cache.get_or_load("a", succeed) == "a"


async def test_a_load_that_asks_for_its_own_key_is_an_error_at_once(cache: TTLCache[str, Any]) -> None:
    async def load(key: str) -> str:
        return str(await cache.get_or_load(key, load))

    with pytest.raises(LoadFailed, match="words 'a' asks for words 'a'"):
        await cache.get_or_load("a", load)


async def test_only_the_missing_keys_are_loaded_and_loads_under_way_are_joined(
    cache: TTLCache[str, Any],
) -> None:
    loader, answers = Loader(), list[object]()
    cache.set("b", "here")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, cache, loader, answers, anyio.CancelScope())
        await settle()

        async def many() -> None:
            answers.append(await cache.get_many("abcc", loader.load_many))

        tasks.start_soon(many)
        await settle()
        loader.gate.set()
    assert loader.calls == ["a", ["c"]]
    assert {"a": "A", "b": "here", "c": "C"} in answers
    assert await cache.get_many("abc", loader.load_many) == {"a": "A", "b": "here", "c": "C"}
    assert len(loader.calls) == 2


async def test_a_load_of_many_that_was_stopped_is_done_again(cache: TTLCache[str, Any]) -> None:
    loader, answers = Loader(), list[object]()
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, cache, loader, answers, scope)
        await settle()
        scope.cancel()
        loader.gate.set()

        async def many() -> None:
            answers.append(await cache.get_many("a", loader.load_many))

        tasks.start_soon(many)
    assert answers == [{"a": "A"}]


async def test_keys_that_a_loader_leaves_out_or_answers_with_an_error(cache: TTLCache[str, Any]) -> None:
    async def load_many(keys: list[str]) -> dict[str, Any]:
        return {"a": 1, "c": KeyError("c")}

    assert await cache.get_many("ab", load_many) == {"a": 1}
    with pytest.raises(KeyError):
        await cache.get_many("bc", load_many)
    assert "c" not in cache


async def test_a_loader_that_answers_wrongly(cache: TTLCache[str, Any]) -> None:
    async def load_many(keys: list[str]) -> list[int]:
        return [1]

    with pytest.raises(LoadFailed, match="words: a value for each key is wanted: 1 came back for 2 keys"):
        await cache.get_many("ab", load_many)


class TestThreads:
    def test_all_threads_that_ask_share_one_load(self, cache: TTLCache[str, Any]) -> None:
        calls: list[str] = []
        answers: list[str] = []
        begun, gate = threading.Event(), threading.Event()

        def load(key: str) -> str:
            calls.append(key)
            begun.set()
            gate.wait()
            return key.upper()

        def ask_sync() -> None:
            answers.append(cache.get_or_load_sync("a", load))

        with threads(*([ask_sync] * 4)):
            begun.wait()
            eventually(lambda: cache.statistics().misses == 4)
            gate.set()
        assert calls == ["a"]
        assert answers == ["A"] * 4
        assert cache.get_or_load_sync("a", load) == "A"

    def test_a_thread_joins_the_load_of_a_loop(self, cache: TTLCache[str, Any]) -> None:
        answers: list[object] = []
        begun, gate = threading.Event(), threading.Event()

        async def main() -> None:
            async def load(key: str) -> str:
                begun.set()
                await anyio.to_thread.run_sync(gate.wait)
                return key.upper()

            answers.append(await cache.get_or_load("a", load))

        def ask_sync() -> None:
            answers.append(cache.get_or_load_sync("a", lambda key: "its own"))

        with threads(partial(anyio.run, main)):
            begun.wait()
            with threads(ask_sync):
                eventually(lambda: cache.statistics().misses == 2)
                gate.set()
        assert answers == ["A", "A"]

    def test_an_error_and_a_load_of_its_own_key(self, cache: TTLCache[str, Any]) -> None:
        def fail(key: str) -> str:
            raise ZeroDivisionError

        def ask_for_itself(key: str) -> str:
            return str(cache.get_or_load_sync(key, ask_for_itself))

        with pytest.raises(ZeroDivisionError):
            cache.get_or_load_sync("a", fail)
        with pytest.raises(LoadFailed):
            cache.get_or_load_sync("a", ask_for_itself)

    def test_only_the_missing_keys_are_loaded(self, cache: TTLCache[str, Any]) -> None:
        calls: list[list[str]] = []

        def load_many(keys: list[str]) -> dict[str, str]:
            calls.append(keys)
            return {key: key.upper() for key in keys if key != "x"}

        cache.set("b", "here")
        assert cache.get_many_sync("abbcx", load_many) == {"a": "A", "b": "here", "c": "C"}
        assert calls == [["a", "c", "x"]]
        with pytest.raises(LoadFailed, match="a value for each key is wanted"):
            cache.get_many_sync("de", lambda keys: [1])


class Source:
    """Counts how often each key was loaded; async and plain."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.calls: list[list[str]] = []
        self.fails: Exception | None = None

    def __call__(self, keys: list[str]) -> dict[str, Any]:
        self.calls.append(keys)
        if self.fails is not None:
            raise self.fails
        return {key: f"{key}{len(self.calls)}" for key in keys if key != "x"}

    async def many(self, keys: list[str]) -> dict[str, Any]:
        return self(keys)

    async def one(self, key: str) -> Any:
        return self([key])[key]


@pytest.fixture
def source(clock: ManualClock) -> Source:
    return Source(clock)


class TestStale:
    """The old value at once, and one load behind it."""

    @pytest.fixture
    def cache(self, clock: ManualClock) -> TTLCache[str, Any]:
        return TTLCache(100, ttl=5, stale=3, clock=clock)

    async def test_the_old_value_is_given_at_once_and_loaded_again_behind(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        assert await cache.get_or_load("a", source.one) == "a1"
        clock.advance(5)
        assert cache.get("a") is None  # who brings no loader gets what holds only
        assert "a" not in cache
        assert cache.get_present("a") == {}
        assert await cache.get_or_load("a", source.one) == "a1"
        await settle()
        assert await cache.get_or_load("a", source.one) == "a2"
        assert len(source.calls) == 2
        statistics = cache.statistics()
        assert (statistics.hits, statistics.stale_hits, statistics.loads) == (2, 1, 2)

    async def test_there_is_one_load_behind(self, cache: TTLCache[str, Any], clock: ManualClock) -> None:
        loader = Loader()
        cache.set("a", "old")
        clock.advance(5)
        for _ in range(5):
            assert await cache.get_or_load("a", loader.load) == "old"
        await settle()
        assert loader.calls == ["a"]
        loader.gate.set()
        await settle()
        assert cache.get("a") == "A"

    async def test_who_finds_nothing_joins_the_load_behind(
        self, cache: TTLCache[str, Any], clock: ManualClock
    ) -> None:
        loader, answers = Loader(), list[object]()
        cache.set("a", "old")
        clock.advance(5)
        assert await cache.get_or_load("a", loader.load) == "old"
        clock.advance(3)
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, cache, loader, answers, scope)
            await settle()
            scope.cancel()
            await settle()
            assert loader.ended == 0  # it is not stopped by that: it never was for this caller alone
            loader.gate.set()
            await settle()
        assert loader.calls == ["a"]
        assert cache.get("a") == "A"

    async def test_after_that_it_has_to_be_waited_for(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        cache.set("a", "old")
        clock.advance(8)
        assert await cache.get_or_load("a", source.one) == "a1"

    async def test_many_are_loaded_again_in_the_one_call_that_loads_the_missing(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        cache.set("a", "old")
        cache.set("b", "old")
        clock.advance(5)
        cache.set("c", "new")
        assert await cache.get_many("abcd", source.many) == {"a": "old", "b": "old", "c": "new", "d": "d1"}
        assert source.calls == [["d", "a", "b"]]
        assert cache.get_present("ab") == {"a": "a1", "b": "b1"}

    async def test_many_are_loaded_again_in_one_call_behind(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        cache.set("a", "old")
        cache.set("b", "old")
        clock.advance(5)
        assert await cache.get_many("ab", source.many) == {"a": "old", "b": "old"}
        await settle()
        assert source.calls == [["a", "b"]]
        assert cache.get_present("ab") == {"a": "a1", "b": "b1"}

    @pytest.mark.parametrize("with_others", [False, True])
    async def test_an_error_leaves_the_old_value_where_it_is(
        self,
        cache: TTLCache[str, Any],
        clock: ManualClock,
        caplog: pytest.LogCaptureFixture,
        with_others: bool,
    ) -> None:
        calls: list[list[str]] = []

        async def fail(keys: list[str]) -> dict[str, Any]:
            calls.append(keys)
            if with_others:
                return {key: ZeroDivisionError("no a") if key == "a" else key for key in keys}
            raise ZeroDivisionError("no a")

        keys = "ab" if with_others else "a"
        cache.set("a", "old")
        clock.advance(5)
        for _ in range(3):
            assert (await cache.get_many(keys, fail))["a"] == "old"
            await settle()
        assert len(calls) == 1  # not again at once
        clock.advance(1)
        assert (await cache.get_many(keys, fail))["a"] == "old"
        await settle()
        assert len(calls) == 2
        if not with_others:
            assert "cache: what is kept could not be loaded anew" in caplog.text
            assert cache.statistics().load_failures == 2

    async def test_a_key_that_is_no_more_is_dropped(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        cache.set("x", "old")
        cache.set("y", "old")
        clock.advance(5)
        await cache.get_many("x", source.many)
        await settle()
        source.fails = KeyError("y")
        await cache.get_or_load("y", source.one)
        await settle()
        assert len(cache) == 0

    async def test_a_change_during_the_load_behind_counts(
        self, cache: TTLCache[str, Any], clock: ManualClock
    ) -> None:
        loader = Loader()
        cache.set("a", "old")
        clock.advance(5)
        assert await cache.get_or_load("a", loader.load) == "old"
        await settle()
        cache.set("a", "new")
        loader.gate.set()
        await settle()
        assert cache.get("a") == "new"

    def test_threads(self, cache: TTLCache[str, Any], clock: ManualClock, source: Source) -> None:
        for key in "abcdefgh":
            cache.set(key, "old")
        clock.advance(5)
        for key in "abcdefgh":
            assert cache.get_or_load_sync(key, lambda key: source([key])[key]) == "old"
        eventually(lambda: len(cache.get_present("abcdefgh")) == 8)
        assert sorted(source.calls) == [[key] for key in "abcdefgh"]
        eventually(lambda: not [each for each in threading.enumerate() if each.name == "batchkit cache"])

    def test_an_error_in_a_thread_leaves_the_old_value(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        source.fails = ZeroDivisionError()
        cache.set("a", "old")
        clock.advance(5)
        for _ in range(2):
            assert cache.get_many_sync("a", source) == {"a": "old"}
            eventually(lambda: cache.statistics().load_failures == 1)
        assert len(source.calls) == 1


class TestRefreshAhead:
    @pytest.fixture
    def cache(self, clock: ManualClock) -> TTLCache[str, Any]:
        return TTLCache(100, ttl=10, refresh_ahead=2, clock=clock)

    async def test_nobody_waits_for_what_is_hot(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        async def slow(key: str) -> Any:
            await clock.sleep(1)
            return source([key])[key]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.get_or_load, "a", slow)
            await clock.run_for(1)
        for _ in range(100):
            before = clock.now()
            await cache.get_or_load("a", slow)
            assert clock.now() == before
            await clock.run_for(1)
        assert 10 <= len(source.calls) <= 13

    async def test_what_is_asked_for_once_is_not_loaded_again(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        cache.set("a", "old")
        clock.advance(9)
        assert await cache.get_or_load("a", source.one) == "old"
        await settle()
        assert source.calls == []
        assert await cache.get_or_load("a", source.one) == "old"
        await settle()
        assert source.calls == [["a"]]
        assert cache.get("a") == "a1"

    async def test_it_holds_until_its_end_for_who_brings_no_loader(
        self, cache: TTLCache[str, Any], clock: ManualClock
    ) -> None:
        cache.set("a", "old")
        clock.advance(9.9)
        assert cache.get("a") == "old"
        clock.advance(0.1)
        assert cache.get("a") is None
        assert cache.statistics().stale_hits == 0

    async def test_a_short_time_is_not_spent_with_loading(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        cache.set("a", "old", ttl=2)
        clock.advance(0.9)
        for _ in range(5):
            await cache.get_or_load("a", source.one)
        await settle()
        assert source.calls == []  # its second half has not begun
        clock.advance(0.1)
        await cache.get_or_load("a", source.one)
        await settle()
        assert source.calls == [["a"]]

    async def test_many_are_loaded_again_in_one_call(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        for key in "abc":
            cache.set(key, "old")
        for _ in range(2):
            cache.get_present("ab")
        clock.advance(9)
        assert await cache.get_many("abc", source.many) == {"a": "old", "b": "old", "c": "old"}
        await settle()
        assert source.calls == [["a", "b"]]


class TestKeysWithoutAValue:
    @pytest.fixture
    def cache(self, clock: ManualClock) -> TTLCache[str, Any]:
        return TTLCache(100, ttl=10, negative_ttl=2, clock=clock)

    async def test_that_it_is_unknown_is_kept_for_a_time_of_its_own(
        self, cache: TTLCache[str, Any], clock: ManualClock, source: Source
    ) -> None:
        for _ in range(3):
            with pytest.raises(KeyError):
                await cache.get_or_load("x", source.one)
        assert len(source.calls) == 1
        assert cache.get("x") is None
        assert "x" not in cache
        assert cache.get_present("x") == {}
        assert cache.statistics().negative_hits == 2
        assert cache.statistics().load_failures == 0
        clock.advance(2)
        with pytest.raises(KeyError):
            await cache.get_or_load("x", source.one)
        assert len(source.calls) == 2

    async def test_so_is_that_a_loader_of_many_left_it_out(
        self, cache: TTLCache[str, Any], source: Source
    ) -> None:
        for _ in range(3):
            assert await cache.get_many("ax", source.many) == {"a": "a1"}
        assert source.calls == [["a", "x"]]
        with pytest.raises(KeyError, match="x"):
            await cache.get_or_load("x", source.one)

    async def test_a_value_that_comes_counts(self, cache: TTLCache[str, Any], source: Source) -> None:
        await cache.get_many("x", source.many)
        cache.set("x", "here")
        assert await cache.get_or_load("x", source.one) == "here"
        cache.delete("x")
        with pytest.raises(KeyError):
            await cache.get_or_load("x", source.one)

    async def test_errors_of_chosen_types_are_kept(self, clock: ManualClock, source: Source) -> None:
        async def load_many(keys: list[str]) -> dict[str, Any]:
            source.calls.append(keys)
            return {key: PermissionError(key) for key in keys}

        cache = TTLCache[str, Any](
            10, 10, negative_ttl=2, negative=(PermissionError, FileNotFoundError), clock=clock
        )
        source.fails = PermissionError("not for you")
        for _ in range(3):
            with pytest.raises(PermissionError, match="not for you"):
                await cache.get_or_load("a", source.one)
            with pytest.raises(PermissionError, match="b"):
                await cache.get_many("b", load_many)
        assert source.calls == [["a"], ["b"]]
        source.fails = KeyError("a")
        clock.advance(2)
        for _ in range(2):
            with pytest.raises(KeyError):
                await cache.get_or_load("a", source.one)
        assert len(source.calls) == 4

    async def test_an_error_of_a_call_for_many_is_no_key_s_own(
        self, cache: TTLCache[str, Any], source: Source
    ) -> None:
        source.fails = KeyError("a mistake inside")
        for _ in range(2):
            with pytest.raises(KeyError, match="a mistake inside"):
                await cache.get_many("ab", source.many)
        assert len(source.calls) == 2

    async def test_an_error_that_is_kept_keeps_no_frames_alive(
        self, cache: TTLCache[str, Any], source: Source
    ) -> None:
        depths: list[int] = []
        for _ in range(3):
            with pytest.raises(KeyError, match="x") as raised:
                await cache.get_or_load("x", source.one)
            depths.append(len(raised.traceback))
        entry = cache._shelf.store.look("x", 0.0)
        assert entry is not None
        assert cast(KeyError, entry.value).__traceback__ is None
        assert depths[1] == depths[2]

    async def test_an_error_that_cannot_be_copied_is_kept_itself(self, clock: ManualClock) -> None:
        class Odd(Exception):
            def __init__(self, *, key: str) -> None:
                super().__init__(f"no {key}")

        async def load(key: str) -> str:
            calls.append(key)
            raise Odd(key=key)

        calls: list[str] = []
        cache = TTLCache[str, str](10, 10, negative_ttl=2, negative=Odd, clock=clock)
        for _ in range(3):
            with pytest.raises(Odd, match="no a"):
                await cache.get_or_load("a", load)
        assert calls == ["a"]

    async def test_unknown_keys_are_dropped_by_prefix_too(self, clock: ManualClock, source: Source) -> None:
        cache = TTLCache[str, Any](10, 10, negative_ttl=2, separator=":", clock=clock)

        async def load_many(keys: list[str]) -> dict[str, Any]:
            source.calls.append(keys)
            return {}

        for _ in range(2):
            assert await cache.get_many(["a:1"], load_many) == {}
            cache.delete_prefix("a:")
        assert len(source.calls) == 2


class TestSnapshots:
    def test_values_come_back_with_the_time_that_they_had_left(self, clock: ManualClock) -> None:
        cache = TTLCache[Any, Any](10, 10, clock=clock)
        cache.set("a", {"list": [1, None]})
        cache.set(("b", (1, 2)), "tuple", ttl=4, tags=["x", ("y", 1)])
        cache.set("for ever", 1, ttl=float("inf"))
        clock.advance(3)
        data = cache.snapshot()
        assert isinstance(data, bytes)
        other = TTLCache[Any, Any](10, 99, clock=ManualClock(1e6))
        assert other.restore(data) == 3
        assert other.get_present(cache) == {"a": {"list": [1, None]}, ("b", (1, 2)): "tuple", "for ever": 1}
        assert isinstance(other._shelf.clock, ManualClock)
        other._shelf.clock.advance(1)
        assert ("b", (1, 2)) not in other
        other._shelf.clock.advance(6)
        assert list(other.get_present(cache)) == ["for ever"]

    def test_tags_come_back_and_time_that_passed_goes_off(self, clock: ManualClock) -> None:
        cache = TTLCache[Any, Any](10, 10, separator=":", clock=clock)
        cache.set("a:1", 1, tags=[("y", 1)])
        cache.set("b", 2, ttl=3)
        other = TTLCache[Any, Any](10, 10, separator=":", clock=clock)
        assert other.restore(cache.snapshot(), elapsed=3) == 1
        clock.advance(6.9)
        assert "a:1" in other
        assert other.delete_tag(("y", 1)) == 1
        other.restore(cache.snapshot())
        assert other.delete_prefix("a:") == 1

    def test_what_does_not_hold_is_left_out(self, clock: ManualClock) -> None:
        cache = TTLCache[Any, Any](10, 5, stale=9, negative_ttl=99, clock=clock)
        cache.set("stale", 1)
        cache.get_many_sync(["unknown"], lambda keys: {})
        clock.advance(5)
        assert cache.restore(cache.snapshot()) == 0

    def test_what_is_worth_keeping_stays_so(self, clock: ManualClock) -> None:
        cache = TTLCache[int, int](10, 10, clock=clock)
        for key in range(5):
            cache.set(key, key)
            cache.get(key)
        for key in range(100, 106):
            cache.set(key, key)
        other = TTLCache[int, int](10, 10, clock=clock)
        other.restore(cache.snapshot())
        for key in range(200, 250):
            other.set(key, key)
        assert len(other.get_present(range(5))) == 5

    def test_any_codec_will_do(self, clock: ManualClock) -> None:
        class Words:
            def encode(self, value: Any, /) -> bytes:
                return repr(value).encode()

            def decode(self, data: bytes, /) -> Any:
                return ast.literal_eval(data.decode())

        cache = TTLCache[Any, Any](10, 10, clock=clock)
        cache.set("a", {1, 2})
        other = TTLCache[Any, Any](10, 10, clock=clock)
        other.restore(cache.snapshot(Words()), Words())
        assert other.get("a") == {1, 2}

    @pytest.mark.parametrize("data", [b"[]", b'{"version": 2, "entries": []}', b"{}", b"no JSON"])
    def test_data_that_are_no_snapshot(self, cache: TTLCache[str, Any], data: bytes) -> None:
        with pytest.raises(ValueError, match=r"snapshot|Expecting value"):
            cache.restore(data)


class TestSweeping:
    async def test_a_task_sweeps_from_time_to_time(
        self, cache: TTLCache[str, Any], clock: ManualClock
    ) -> None:
        async with cache.sweeping(every=60):
            for round_ in range(3):
                cache.set("a", 1)
                await clock.run_for(59)
                assert len(cache) == 1
                await clock.run_for(1)
                assert (len(cache), cache.statistics().expired) == (0, round_ + 1)
        cache.set("a", 1)
        await clock.run_for(100)
        assert len(cache) == 1

    def test_so_does_a_thread(self, cache: TTLCache[str, Any], clock: ManualClock) -> None:
        sweeping = cache.sweeping(every=60)
        with sweeping:
            for _ in range(3):
                cache.set("a", 1)
                clock.advance(60)
                eventually(lambda: len(cache) == 0)
            with pytest.raises(RuntimeError, match="run already"), sweeping:
                pass
        with sweeping:
            assert any(each.name == "batchkit sweep" for each in threading.enumerate())
        assert not any(each.name == "batchkit sweep" for each in threading.enumerate())

    async def test_it_lets_others_go_on_between_parts(self, clock: ManualClock) -> None:
        cache = TTLCache[int, int](10_000, 5, clock=clock)
        for key in range(10_000):
            cache.set(key, key)
        clock.advance(5)
        sizes: list[int] = []

        async with cache.sweeping(every=60):
            await settle()
            clock.advance(60)
            while len(cache):
                sizes.append(len(cache))
                await anyio.lowlevel.checkpoint()
        assert len(set(sizes)) > 5

    def test_a_time_that_is_none(self, cache: TTLCache[str, Any]) -> None:
        with pytest.raises(ValueError, match="every is a number"):
            cache.sweeping(every=0)


class TestStatistics:
    async def test_the_time_that_loads_take(self, cache: TTLCache[str, Any], clock: ManualClock) -> None:
        async def load(key: str) -> str:
            await clock.sleep(2 if key == "a" else 4)
            if key == "c":
                raise ZeroDivisionError
            return key

        async def ask(key: str) -> None:
            with contextlib.suppress(ZeroDivisionError):
                await cache.get_or_load(key, load)

        async with anyio.create_task_group() as tasks:
            for key in "abc":
                tasks.start_soon(ask, key)
            await clock.run_for(5)
        statistics = cache.statistics()
        assert (statistics.loads, statistics.load_calls, statistics.load_failures) == (2, 3, 1)
        assert statistics.load_seconds == 10
        assert statistics.load_latency == 10 / 3

    def test_before_anything(self, cache: TTLCache[str, Any]) -> None:
        assert cache.statistics().hit_rate == cache.statistics().load_latency == 0.0

    def test_each_cause_for_which_an_entry_goes(self, clock: ManualClock) -> None:
        cache = TTLCache[int, int](5, 5, weigh=lambda key, value: value, clock=clock)
        cache.set(1, 1)
        cache.delete(1)
        cache.set(2, 2)
        cache.set(3, 4)
        cache.set(4, 6)
        clock.advance(5)
        cache.sweep()
        statistics = cache.statistics()
        assert (statistics.deleted, statistics.evicted, statistics.expired, statistics.refused) == (1,) * 4

"""`TTLCache`: values for a time, one load for all who ask, on asyncio, on trio and in threads."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

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

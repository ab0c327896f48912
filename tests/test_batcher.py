"""`Batcher`: many loads become one call."""

from __future__ import annotations

from math import inf
from typing import Any

import anyio
import pytest

from batchkit import Batcher, CallFinished, CallStarted, LoadFailed, TokenBucket, TTLCache
from batchkit.testing import ManualClock, RecordingHook, settle

pytestmark = pytest.mark.anyio


class Loader:
    """Remembers what it was asked for; knows every key but x, and fails for e."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.calls: list[list[str]] = []

    async def load_many(self, keys: list[str]) -> dict[str, Any]:
        self.calls.append(keys)
        await self.clock.sleep(1)
        known: dict[str, Any] = {key: key.upper() for key in keys if key != "x"}
        return known | ({"e": ZeroDivisionError("e")} if "e" in keys else {})


@pytest.fixture
def loader(clock: ManualClock) -> Loader:
    return Loader(clock)


async def test_loads_at_about_the_same_time_become_one_call(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_wait=0.005, clock=clock)
    answers: dict[str, str] = {}

    async def load(key: str) -> None:
        answers[key] = await lookup.load(key)

    async with anyio.create_task_group() as tasks:
        for key in "aba":
            tasks.start_soon(load, key)
        await clock.run_for(0.004)
        tasks.start_soon(load, "c")
        await clock.run_for(0.5)
        tasks.start_soon(load, "a")  # on its way: not asked for again
        await clock.run_for(1)
    assert sorted(map(sorted, loader.calls)) == [["a", "b", "c"]]
    assert answers == {"a": "A", "b": "B", "c": "C"}


async def test_a_full_batch_does_not_wait(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_batch_size=2, max_wait=60, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lookup.load_many, "abc")
        await settle()
        assert loader.calls == [["a", "b"]]
        await clock.run_for(62)
    assert loader.calls == [["a", "b"], ["c"]]


async def test_keys_are_asked_for_once_and_answered_in_order(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    assert list((await clock.run(lookup.load_many("bab"))).items()) == [("b", "B"), ("a", "A")]
    assert loader.calls == [["b", "a"]]
    assert await lookup.load_many([]) == {}


async def test_a_missing_key_is_an_error_for_its_callers_only(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    answers: list[str] = []

    async def load(key: str) -> None:
        answers.append(await lookup.load(key))

    async def load_missing() -> None:
        with pytest.raises(KeyError, match="x"):
            await lookup.load("x")

    async def load_bad() -> None:
        with pytest.raises(ZeroDivisionError):
            await lookup.load("e")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load, "a")
        tasks.start_soon(load_missing)
        tasks.start_soon(load_bad)
        await clock.run_for(2)
    assert answers == ["A"]
    assert len(loader.calls) == 1


async def test_a_default_for_missing_keys(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str | None] = Batcher(loader.load_many, default=None, clock=clock)
    assert await clock.run(lookup.load_many("ax")) == {"a": "A", "x": None}


async def test_a_cache_keeps_values_but_no_errors(loader: Loader, clock: ManualClock) -> None:
    cache: TTLCache[str, str] = TTLCache(10, ttl=60, clock=clock)
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache=cache, clock=clock)
    assert await clock.run(lookup.load_many("ab")) == {"a": "A", "b": "B"}
    with pytest.raises(ZeroDivisionError):
        await clock.run(lookup.load_many("abe"))
    assert loader.calls == [["a", "b"], ["e"]]
    assert "e" not in cache
    clock.advance(60)
    await clock.run(lookup.load("a"))
    assert loader.calls[2:] == [["a"]]


async def test_a_cancelled_caller_harms_nobody(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    answers: list[str] = []
    scope = anyio.CancelScope()

    async def load(key: str, scope: anyio.CancelScope) -> None:
        with scope:
            answers.append(await lookup.load(key))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load, "a", scope)
        await settle()
        tasks.start_soon(load, "b", anyio.CancelScope())
        await settle()
        scope.cancel()
        await clock.run_for(2)
    assert answers == ["B"]
    assert loader.calls == [["a", "b"]]


async def test_when_all_callers_are_cancelled_the_call_stops(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    with anyio.move_on_after(0):
        await lookup.load("a")
    await clock.run_for(2)
    assert loader.calls == []
    assert await clock.run(lookup.load("a")) == "A"


async def test_who_asks_while_a_call_is_being_stopped_gets_another(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    scope = anyio.CancelScope()
    answers: list[str] = []

    async def load(scope: anyio.CancelScope) -> None:
        with scope:
            answers.append(await lookup.load("a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load, scope)
        await settle()
        scope.cancel()
        tasks.start_soon(load, anyio.CancelScope())
        await clock.run_for(2)
    assert answers == ["A"]


async def test_a_loader_that_asks_for_its_own_key(clock: ManualClock) -> None:
    async def load_many(keys: list[str]) -> dict[str, str]:
        return await lookup.load_many(keys)

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    with pytest.raises(LoadFailed, match="wait for itself"):
        await clock.run(lookup.load("a"))


@pytest.mark.parametrize("answer", [[1, 2], None])
async def test_a_loader_that_answers_wrongly(clock: ManualClock, answer: Any) -> None:
    async def load_many(keys: list[str]) -> Any:
        return answer

    lookup: Batcher[str, str] = Batcher(load_many, name="words", clock=clock)
    with pytest.raises(LoadFailed, match="words: a "):
        await clock.run(lookup.load("a"))


async def test_a_failed_call_fails_for_all_its_callers_and_is_not_kept(clock: ManualClock) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        if len(calls) == 1:
            raise ZeroDivisionError
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    with pytest.raises(ZeroDivisionError):
        await clock.run(lookup.load("a"))
    assert await clock.run(lookup.load("a")) == "a"


async def test_calls_go_through_the_limiter_and_are_events(
    loader: Loader, clock: ManualClock, hook: RecordingHook
) -> None:
    bucket = TokenBucket(rate=1, burst=5, clock=clock)
    lookup: Batcher[str, str] = Batcher(
        loader.load_many, max_wait=0, limiter=bucket, cost=len, name="words", hooks=[hook], clock=clock
    )
    await clock.run(lookup.load_many("abc"))
    assert bucket.statistics().granted == 3
    assert hook.events == [CallStarted("words", 3), CallFinished("words", 3, 1.0, None)]
    assert repr(lookup) == "Batcher(max_batch_size=50, max_wait=0, name='words')"


@pytest.mark.parametrize(
    "wrong", [{"max_batch_size": 0}, {"max_batch_size": True}, {"max_wait": -1}, {"max_wait": inf}]
)
def test_sizes_and_waits_that_are_none(loader: Loader, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"max_batch_size is a whole|max_wait is a number"):
        Batcher(loader.load_many, **wrong)


def test_a_loader_that_is_not_async() -> None:
    with pytest.raises(TypeError, match="no async function"):
        Batcher(dict.fromkeys)  # type: ignore[arg-type]  # the wrong type is the point

"""`Batcher` against brute force and against a simple model of the world."""

from __future__ import annotations

from itertools import combinations
from math import ceil, inf, log2
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchkit import Batcher
from batchkit.testing import ManualClock, settle


async def load_nothing(keys: list[str]) -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": 0},
        {"max_batch_size": True},
        {"max_wait": -1},
        {"max_wait": inf},
        {"max_in_flight": 0},
        {"max_prefetch": 1.5},
        {"patience": -1},
    ],
    ids=str,
)
def test_sizes_and_waits_that_are_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} is a (whole )?number"):
        Batcher(load_nothing, **wrong)


def test_a_loader_that_is_none() -> None:
    with pytest.raises(TypeError, match="no function"):
        Batcher({"a": "A"})  # type: ignore[arg-type]  # the wrong type is the point


def test_a_load_needs_an_event_loop() -> None:
    load = Batcher[str, str](load_nothing).load("a")
    with pytest.raises(RuntimeError, match="no running event loop"):
        load.send(None)


class Poison:
    """Fails if a bad key is among the keys."""

    def __init__(self, bad: frozenset[int]) -> None:
        self.bad = bad
        self.calls = 0

    def load_many(self, keys: list[int]) -> list[int]:
        self.calls += 1
        if self.bad.intersection(keys):
            raise ValueError
        return keys


def poisons() -> list[tuple[int, frozenset[int]]]:
    """All sets of bad keys up to 9 keys; up to 14, those of up to 2 bad or 2 good ones."""
    found: list[tuple[int, frozenset[int]]] = []
    for size in range(1, 15):
        keys = range(size)
        counts = [count for count in range(size + 1) if size < 10 or count < 3 or count > size - 3]
        found += [(size, frozenset(bad)) for count in counts for bad in combinations(keys, count)]
    return found


def test_bad_keys_cost_no_more_calls_than_they_may_and_good_ones_have_their_values() -> None:
    for size, bad in poisons():
        poison = Poison(bad)
        answers = Batcher[int, int](poison.load_many).load_many_sync(range(size), return_exceptions=True)
        assert {key for key, answer in answers.items() if isinstance(answer, ValueError)} == bad
        assert all(answers[key] == key for key in {*range(size)} - bad)
        assert poison.calls <= 1 + 2 * len(bad) * ceil(log2(size))


actions = st.lists(
    st.one_of(
        st.tuples(st.just("load"), st.integers(0, 9)),
        st.tuples(st.just("user"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("clear"), st.integers(0, 9)),
        st.tuples(st.just("change"), st.integers(0, 9)),
        st.tuples(st.just("prefetch"), st.integers(0, 9)),
        st.tuples(st.just("pass"), st.integers(1, 20)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=60, deadline=None)
@given(actions, st.booleans())
def test_whatever_happens_everybody_has_a_value_that_was_true_while_he_waited(
    backend: str, actions: list[tuple[str, int]], cached: bool
) -> None:
    anyio.run(_play, actions, cached, backend=backend)


async def _play(actions: list[tuple[str, int]], cached: bool) -> None:
    clock = ManualClock()
    truth = dict.fromkeys(range(10), 0)
    under_way: dict[int, int] = {}
    calls = 0

    async def load_many(keys: list[int]) -> list[Any]:
        nonlocal calls
        calls += 1
        assert 1 <= len(keys) == len({*keys}) <= 3
        assert calls <= 2
        for key in keys:
            under_way[key] = under_way.get(key, 0) + 1
        try:
            values = [truth[key] for key in keys]
            await clock.sleep(1)
            if 9 in keys:
                raise ValueError
            return values
        finally:
            calls -= 1
            for key in keys:
                under_way[key] -= 1

    cache: dict[int, int] | None = {} if cached else None
    batcher: Batcher[int, int] = Batcher(
        load_many, max_batch_size=3, max_wait=0.5, max_in_flight=2, cache=cache, clock=clock
    )
    scopes: list[anyio.CancelScope] = []
    waiting = 0

    async def load(key: int, scope: anyio.CancelScope, priority: int) -> None:
        nonlocal waiting
        since = truth[key] if cache is None or key not in cache else cache[key]
        waiting += 1
        try:
            with scope:
                value = await batcher.load(key, priority=priority)
                assert key != 9
                assert since <= value <= truth[key]
        except ValueError:
            assert key == 9
        finally:
            waiting -= 1

    async with anyio.create_task_group() as tasks:
        for action, number in actions:
            match action:
                case "load" | "user":
                    scopes.append(anyio.CancelScope())
                    tasks.start_soon(load, number, scopes[-1], int(action == "user"))
                case "cancel" if scopes:
                    scopes.pop(number % len(scopes)).cancel()
                case "clear":
                    batcher.clear(number)
                case "change":
                    truth[number] += 1
                    batcher.clear(number)
                    await settle()
                case "prefetch" if cached:
                    batcher.prefetch([number, (number + 1) % 10])
                case "pass":
                    await clock.run_for(number / 8)
                case _:
                    pass
        await clock.run_for(100)
        assert waiting == 0
    keys, rooms = batcher._loading._keys, batcher._loading._rooms
    assert not keys.places
    assert not keys.under_way
    assert (keys.gathering.waiting, keys.gathering.under_way) == (0, 0)
    assert not any(room.gatherer or room.came for room in rooms.by_loop.values())
    assert not any(under_way.values())
    if cache is not None:
        assert all(truth[key] == value for key, value in cache.items())

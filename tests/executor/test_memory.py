"""However long the input is, what is alive of it at any moment is bounded by the window."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from batchkit import BatchedExecutor, Retry, SQLiteCheckpoint, TokenBucket

pytestmark = pytest.mark.anyio

ITEMS = 1_000
WINDOW = 20
CONCURRENCY = 5
BATCH = 4
MOST = WINDOW + CONCURRENCY + 3  # each worker, the reader and the input may still have a name for one
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limiter": {"limiter": TokenBucket(1e9, 10**9)},
    "retry": {"retry": Retry(attempts=2, backoff=lambda _: 0.0)},
    "key": {"key": lambda item: item.key()},
    "priority": {"priority": lambda item: item.number % 3},
    "hooks": {"hooks": [lambda _: None]},
}


class Tally:
    """Counts the items that are alive, and the most that were at once."""

    def __init__(self) -> None:
        self.alive = 0
        self.most = 0


class Item:
    """Tells its tally of its birth and its death."""

    def __init__(self, number: int, tally: Tally) -> None:
        self.number = number
        self._tally = tally
        self.calls = 0
        tally.alive += 1
        tally.most = max(tally.most, tally.alive)

    def __del__(self) -> None:
        self._tally.alive -= 1

    def key(self) -> int:
        return self.number

    def called(self) -> int:
        """Every seventh one fails at first, or for good."""
        self.calls += 1
        if self.number % 7 == 0 and self.calls == 1:
            raise ConnectionError("down")
        return self.number


async def one(item: Item) -> int:
    await anyio.lowlevel.checkpoint()
    return item.called()


async def many(items: list[Item]) -> list[int]:
    await anyio.lowlevel.checkpoint()
    return [item.number for item in items]


def source(tally: Tally) -> Iterator[Item]:
    for number in range(ITEMS):
        yield Item(number, tally)


async def async_source(tally: Tally) -> AsyncIterator[Item]:
    for number in range(ITEMS):
        await anyio.lowlevel.checkpoint()
        yield Item(number, tally)


async def count(outcomes: AsyncIterator[object]) -> int:
    seen = 0
    async for _ in outcomes:
        seen += 1
    return seen


def settled(tally: Tally) -> int:
    """How many items are alive after all."""
    gc.collect()
    return tally.alive


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_a_long_input(way: str, asynchronous: bool, ordered: bool) -> None:
    tally = Tally()
    executor = BatchedExecutor(one, concurrency=CONCURRENCY, **WAYS[way])
    items = async_source(tally) if asynchronous else source(tally)
    async with executor.map(items, ordered=ordered, window=WINDOW) as outcomes:
        assert await count(outcomes) == ITEMS
    del outcomes, items
    assert 1 < tally.most <= MOST
    assert settled(tally) == 0


async def test_a_long_input_in_batches() -> None:
    tally = Tally()
    executor = BatchedExecutor[Item, int].of_batches(many, batch_size=BATCH, concurrency=CONCURRENCY)
    async with executor.map(source(tally), window=WINDOW) as outcomes:
        assert await count(outcomes) == ITEMS
    del outcomes
    assert CONCURRENCY * BATCH <= tally.most <= WINDOW + 2 * BATCH
    assert settled(tally) == 0


async def test_a_long_input_with_a_checkpoint(tmp_path: Path) -> None:
    tally = Tally()
    checkpoint = SQLiteCheckpoint(tmp_path / "journal.db", version="1")
    executor = BatchedExecutor(one, concurrency=CONCURRENCY, checkpoint=checkpoint, key=Item.key)
    async with executor.map(source(tally), window=WINDOW) as outcomes:
        assert await count(outcomes) == ITEMS
    del outcomes
    assert 1 < tally.most <= MOST
    assert settled(tally) == 0


async def test_a_reader_that_stops_reading_stops_the_input() -> None:
    tally = Tally()
    executor = BatchedExecutor(one, concurrency=CONCURRENCY)
    async with executor.map(source(tally), window=WINDOW) as outcomes:
        await anext(outcomes)
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert WINDOW <= tally.alive <= WINDOW + 3


def test_a_long_input_in_threads_with_a_checkpoint(tmp_path: Path) -> None:
    tally = Tally()
    checkpoint = SQLiteCheckpoint(tmp_path / "journal.db", version="1")
    executor = BatchedExecutor(Item.called, concurrency=CONCURRENCY, checkpoint=checkpoint, key=Item.key)
    with executor.map_sync(source(tally), window=WINDOW) as outcomes:
        assert sum(1 for _ in outcomes) == ITEMS
    del outcomes
    assert 1 < tally.most <= MOST
    assert settled(tally) == 0


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_long_input_in_threads(way: str, ordered: bool) -> None:
    tally = Tally()
    executor = BatchedExecutor(Item.called, concurrency=CONCURRENCY, **WAYS[way])
    with executor.map_sync(source(tally), ordered=ordered, window=WINDOW) as outcomes:
        assert sum(1 for _ in outcomes) == ITEMS
    del outcomes
    assert 1 < tally.most <= MOST
    assert settled(tally) == 0

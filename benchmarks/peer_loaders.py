"""The loaders of other libraries that make one call of many loads, each as its README has it.

A peer that is not installed is a `Skipped` case.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.frame import Skipped

LoadMany = Callable[[list[int]], Awaitable[list[int]]]


@dataclass(frozen=True)
class Loads:
    """A loader that was made.

    Attributes:
        load: awaited for the value of a key.
        load_many: awaited for those of many; None where the library has no such method.
    """

    load: Callable[[int], Awaitable[int]]
    load_many: Callable[[Sequence[int]], Awaitable[object]] | None


@dataclass(frozen=True)
class Loader:
    """A loader of another library.

    Attributes:
        name: its name.
        make: given a function that loads many, how many at most, and whether values are kept, gives the
            loader for as long as a block lasts.
        keeps: whether it can keep the values.
        slow: whether it takes so long that a tenth of the loads is enough.
    """

    name: str
    make: Callable[[LoadMany, int, bool], Any]
    keeps: bool = True
    slow: bool = False


def loaders() -> list[Loader | Skipped]:
    """Those that are installed; all of them on asyncio."""
    finders: Mapping[str, Callable[[], Loader]] = {
        "aiodataloader": _aiodataloader,
        "strawberry": _strawberry,
        "batched": _batched,
        "async-batcher": _async_batcher,
    }
    found: list[Loader | Skipped] = []
    for name, find in finders.items():
        try:
            found.append(find())
        except ImportError as error:
            found.append(Skipped(name, str(error)))
    return found


def _aiodataloader() -> Loader:
    from aiodataloader import DataLoader

    @asynccontextmanager
    async def make(load_many: LoadMany, size: int, keeps: bool) -> AsyncIterator[Loads]:
        loader: Any = DataLoader(load_many, max_batch_size=size, cache=keeps)  # type: ignore[arg-type]  # a coroutine is
        yield Loads(loader.load, loader.load_many)

    return Loader("aiodataloader", make)


def _strawberry() -> Loader:
    from strawberry.dataloader import DataLoader

    @asynccontextmanager
    async def make(load_many: LoadMany, size: int, keeps: bool) -> AsyncIterator[Loads]:
        loader: Any = DataLoader(load_many, max_batch_size=size, cache=keeps)
        yield Loads(loader.load, loader.load_many)

    return Loader("strawberry", make)


def _batched() -> Loader:
    from batched import aio

    dynamically: Any = aio.dynamically

    @asynccontextmanager
    async def make(load_many: LoadMany, size: int, keeps: bool) -> AsyncIterator[Loads]:
        loader: Any = dynamically(load_many, batch_size=size)
        try:
            yield Loads(loader, lambda keys: loader([*keys]))
        finally:
            loader.__del__()  # it has no other way to end its task

    return Loader("batched", make, keeps=False, slow=True)


def _async_batcher() -> Loader:
    from async_batcher import batcher

    base: Any = batcher.AsyncBatcher

    @asynccontextmanager
    async def make(load_many: LoadMany, size: int, keeps: bool) -> AsyncIterator[Loads]:
        async def process_batch(self: object, batch: list[int]) -> list[int]:
            return await load_many(batch)

        kind: Any = type("Batcher", (base,), {"process_batch": process_batch})
        loader = kind(max_batch_size=size, concurrency=10)
        try:
            yield Loads(loader.process, None)
        finally:
            await loader.stop(force=True)

    return Loader("async-batcher", make, keeps=False, slow=True)


async def gathered(load: Callable[[int], Awaitable[int]], keys: Iterable[int]) -> list[int]:
    """What those without a method for many keys are left with."""
    return await asyncio.gather(*map(load, keys))

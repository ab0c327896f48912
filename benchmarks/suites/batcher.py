"""What a load costs that is gathered with others, beside a bare await and the loaders of other libraries.

Each timing loads keys of which there is a tenth as many as loads, in one of three shapes: all at once, in
waves of tasks, and by workers that load one key after the other. Where a loader can keep values it does, in a
dictionary. The function that loads returns at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any

import anyio

from batchkit import Batcher
from benchmarks.frame import AsyncCase, Backend, Case, Role, Sample, Skipped, Suite, backends, quiet
from benchmarks.peer_loaders import Loader, Loads, gathered, loaders

LOADS = 50_000
LOADS_IN_WAVES = 10_000
LOADS_KEPT_NOT = 10_000  # where each of them waits
LOADS_OF_SLOW = 2_000
SIZE = 100  # keys in a call at most
WAVE = 1_000  # tasks
WORKERS = 100
LONE = 200
STREAM, APART = 20, 0.0005  # loads, and seconds between two of them, into calls that take ten times as long

Shape = Callable[[Loads, list[int]], Awaitable[object]]
Open = Callable[
    [Callable[[list[int]], Awaitable[list[int]]], bool], Any
]  # a loader as an async context manager


def cases() -> list[Case | Skipped]:
    here, missing = backends()
    found: list[Case | Skipped] = []
    peers = loaders()
    for backend in here:
        for shape in SHAPES:
            found += _cases(backend, shape, SHAPES[shape], peers if backend == "asyncio" else [])
    return [*found, *missing, *(peer for peer in peers if isinstance(peer, Skipped))]


def _cases(backend: Backend, name: str, shape: Shape, peers: Sequence[Loader | Skipped]) -> list[Case]:
    make = partial(_case, f"{backend}, {name}", backend, shape)
    found: list[Case] = [make("a bare await", "floor", _bare)]
    if shape is by_workers:
        waits = _future if backend == "asyncio" else _event
        found.append(make("a wake-up each", "floor", waits, keeps=False))
    found.append(make("batchkit", "batchkit", _batchkit))
    found.append(make("batchkit, keeps nothing", "batchkit", _batchkit, keeps=False))
    for peer in peers:
        if isinstance(peer, Loader) and (shape is not one_by_one or not peer.slow):
            found.append(make(peer.name, "peer", partial(_peer, peer), keeps=peer.keeps, slow=peer.slow))
            if peer.keeps:
                found.append(make(f"{peer.name}, keeps nothing", "peer", partial(_peer, peer), keeps=False))
    return found


def _case(
    group: str,
    backend: Backend,
    shape: Shape,
    name: str,
    role: Role,
    open_loader: Open,
    *,
    keeps: bool = True,
    slow: bool = False,
) -> AsyncCase:
    loads = LONE if shape is one_by_one else LOADS_IN_WAVES if shape is in_waves else LOADS
    most = LOADS_OF_SLOW if slow else LOADS if keeps else LOADS_KEPT_NOT
    measure = partial(_measure, open_loader, shape, keeps)
    return AsyncCase(
        name=name, role=role, group=group, backend=backend, operations=min(loads, most), measure=measure
    )


async def _measure(open_loader: Open, shape: Shape, keeps: bool, operations: int) -> Sample:
    chance = random.Random(1)
    keys = [chance.randrange(max(1, operations // 10)) for _ in range(operations)]
    calls = 0

    async def load_many(wanted: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        return wanted

    async with open_loader(load_many, keeps) as loads:
        with quiet():
            started = perf_counter()
            await shape(loads, keys)
            seconds = perf_counter() - started
    return Sample(seconds, {"calls": float(calls)})


# the shapes


async def all_at_once(loads: Loads, keys: list[int]) -> None:
    await (gathered(loads.load, keys) if loads.load_many is None else loads.load_many(keys))


async def in_waves(loads: Loads, keys: list[int]) -> None:
    on_asyncio = asyncio._get_running_loop() is not None
    for start in range(0, len(keys), WAVE):
        wave = keys[start : start + WAVE]
        if on_asyncio:  # a task group of anyio would take most of the time
            await asyncio.gather(*(_await(loads, key) for key in wave))
            continue
        async with anyio.create_task_group() as tasks:
            for key in wave:
                tasks.start_soon(_await, loads, key)


async def by_workers(loads: Loads, keys: list[int]) -> None:
    shared = iter(keys)

    async def work() -> None:
        for key in shared:
            await loads.load(key)

    async with anyio.create_task_group() as workers:
        for _ in range(WORKERS):
            workers.start_soon(work)


async def one_by_one(loads: Loads, keys: list[int]) -> None:
    for number in range(len(keys)):  # none of them is known
        await loads.load(number)


async def _await(loads: Loads, key: int) -> None:
    await loads.load(key)


SHAPES: dict[str, Shape] = {
    "all at once": all_at_once,
    "in waves": in_waves,
    "by workers": by_workers,
    "one after the other": one_by_one,
}


# the loaders


@asynccontextmanager
async def _bare(load_many: Any, keeps: bool) -> AsyncIterator[Loads]:
    async def load(key: int) -> int:
        return key

    async def load_all(keys: Sequence[int]) -> dict[int, int]:
        return {key: await load(key) for key in keys}

    yield Loads(load, load_all)


@asynccontextmanager
async def _future(load_many: Any, keeps: bool) -> AsyncIterator[Loads]:
    """The least that waiting costs: a future for each load, and all of them set in the next turn."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[int]] = []

    def ring() -> None:
        futures = [*waiting]
        waiting.clear()
        for future in futures:
            future.set_result(0)

    async def load(key: int) -> int:
        if not waiting:
            loop.call_soon(ring)
        future: asyncio.Future[int] = loop.create_future()
        waiting.append(future)
        return await future

    yield Loads(load, None)


@asynccontextmanager
async def _event(load_many: Any, keeps: bool) -> AsyncIterator[Loads]:
    """The same on trio."""
    import trio

    token = trio.lowlevel.current_trio_token()
    waiting: list[trio.Event] = []

    def ring() -> None:
        events = [*waiting]
        waiting.clear()
        for event in events:
            event.set()

    async def load(key: int) -> int:
        if not waiting:
            token.run_sync_soon(ring)
        event = trio.Event()
        waiting.append(event)
        await event.wait()
        return 0

    yield Loads(load, None)


@asynccontextmanager
async def _batchkit(load_many: Any, keeps: bool) -> AsyncIterator[Loads]:
    batcher: Batcher[int, int] = Batcher(load_many, max_batch_size=SIZE, cache={} if keeps else None)
    yield Loads(batcher.load, batcher.load_many)


@asynccontextmanager
async def _peer(peer: Loader, load_many: Any, keeps: bool) -> AsyncIterator[Loads]:
    async with peer.make(load_many, SIZE, keeps) as loads:
        yield loads


# how many calls


def stream_cases() -> list[Case | Skipped]:
    found: list[Case | Skipped] = [
        _stream("one call for each", "floor", _each),
        _stream("batchkit", "batchkit", _batchkit),
    ]
    peers = loaders()
    found += [_stream(peer.name, "peer", partial(_peer, peer)) for peer in peers if isinstance(peer, Loader)]
    return [*found, *(peer for peer in peers if isinstance(peer, Skipped))]


def _stream(name: str, role: Role, open_loader: Open) -> Case:
    return AsyncCase(
        name=name,
        role=role,
        group="asyncio",
        operations=STREAM,
        measure=partial(_measure_stream, open_loader),
    )


@asynccontextmanager
async def _each(load_many: Any, keeps: bool) -> AsyncIterator[Loads]:
    async def load(key: int) -> int:
        values: list[int] = await load_many([key])
        return values[0]

    yield Loads(load, None)


async def _measure_stream(open_loader: Open, operations: int) -> Sample:
    calls = under_way = most = 0

    async def load_many(wanted: list[int]) -> list[int]:
        nonlocal calls, under_way, most
        calls += 1
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(10 * APART)
        under_way -= 1
        return wanted

    async with open_loader(load_many, False) as loads:
        started = perf_counter()
        async with anyio.create_task_group() as tasks:
            for key in range(operations):
                tasks.start_soon(_await, loads, key)
                await anyio.sleep(APART)
        seconds = perf_counter() - started
    return Sample(seconds, {"calls": float(calls), "calls at once": float(most)})


SUITES: Sequence[Suite] = [
    Suite(
        "batcher",
        f"one load, ns; up to {SIZE} keys a call, a tenth of the loads is distinct",
        cases,
        rounds=5,
    ),
    Suite(
        "batcher_calls", f"calls for {STREAM} loads, {APART * 1e3:g} ms apart", stream_cases, unit="ms in all"
    ),
]

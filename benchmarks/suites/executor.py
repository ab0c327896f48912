"""What the executor costs an item, beside plain workers that pull from an iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial

import anyio

from batchkit import BatchedExecutor, TokenBucket
from benchmarks.frame import AsyncCase, Backend, Case, Role, Skipped, Suite, backends, time_run

ITEMS = 5_000
WORKERS = 10
BATCH = 10

Function = Callable[[int], Awaitable[int]]


async def at_once(item: int) -> int:
    """The call that shows nothing but the executor itself."""
    return item


async def yields_on_asyncio(item: int) -> int:
    """A call that lets the other workers go on, as every real one does."""
    await asyncio.sleep(0)
    return item


async def yields_on_trio(item: int) -> int:
    import trio

    await trio.lowlevel.checkpoint()
    return item


async def batch_at_once(items: list[int]) -> list[int]:
    return items


YIELDING: dict[Backend, Function] = {"asyncio": yields_on_asyncio, "trio": yields_on_trio}


def cases() -> list[Case | Skipped]:
    here, missing = backends()
    found: list[Case | Skipped] = []
    for backend in here:
        found += _list_cases(f"{backend}, a call that returns at once", backend, at_once)
        found += _list_cases(f"{backend}, a call that yields", backend, YIELDING[backend])
        found += _async_input_cases(f"{backend}, async input", backend)
    return [*found, *missing]


def _list_cases(group: str, backend: Backend, function: Function) -> list[Case | Skipped]:
    case = partial(_case, group, backend)
    executor = BatchedExecutor(function, concurrency=WORKERS)
    limited = BatchedExecutor(function, concurrency=WORKERS, limiter=TokenBucket(1e9, 10**9))
    ordered = partial(executor.map, ordered=True)
    found: list[Case | Skipped] = [
        case("workers", "floor", lambda items: pull(function, range(items))),
        case("batchkit run", "batchkit", lambda items: run(executor, range(items))),
        case("batchkit map", "batchkit", lambda items: read(executor.map(range(items)))),
        case("batchkit run, with a limiter", "batchkit", lambda items: run(limited, range(items))),
        case("batchkit map, ordered", "batchkit", lambda items: read(ordered(range(items)))),
    ]
    if function is not at_once:
        found += [case("gather and a semaphore", "peer", lambda items: gather(function, range(items)))]
        found += _aiometer_cases(case, function)
        if backend == "asyncio":
            found += _aiostream_cases(case, function)
    if function is at_once:
        batches = BatchedExecutor[int, int].of_batches(batch_at_once, batch_size=BATCH, concurrency=WORKERS)
        found.append(case(f"batchkit run, {BATCH} a call", "batchkit", lambda n: run(batches, range(n))))
    return found


def _aiometer_cases(case: Callable[..., AsyncCase], function: Function) -> list[Case | Skipped]:
    try:
        import aiometer
    except ImportError as error:
        return [Skipped("aiometer", str(error))]

    async def amap(items: int) -> int:
        count = 0
        async with aiometer.amap(function, range(items), max_at_once=WORKERS) as results:
            async for _ in results:
                count += 1
        return count

    return [case("aiometer.amap", "peer", amap)]


def _aiostream_cases(case: Callable[..., AsyncCase], function: Function) -> list[Case | Skipped]:
    try:
        from aiostream import Stream, stream
    except ImportError as error:
        return [Skipped("aiostream", str(error))]

    async def call(item: int, *_: int) -> int:
        return await function(item)

    async def mapped(items: int, *, ordered: bool) -> int:
        count = 0
        source: Stream[int] = stream.iterate(range(items))
        values: Stream[int] = stream.map(source, call, ordered=ordered, task_limit=WORKERS)
        async with values.stream() as results:
            async for _ in results:
                count += 1
        return count

    return [
        case("aiostream.map", "peer", partial(mapped, ordered=False)),
        case("aiostream.map, ordered", "peer", partial(mapped, ordered=True)),
    ]


def _async_input_cases(group: str, backend: Backend) -> list[Case]:
    case = partial(_case, group, backend)
    executor = BatchedExecutor(at_once, concurrency=WORKERS)
    return [
        case("async for and await", "floor", lambda items: one_by_one(at_once, count_async(items))),
        case("batchkit map", "batchkit", lambda items: read(executor.map(count_async(items)))),
    ]


def _case(
    group: str, backend: Backend, name: str, role: Role, start: Callable[[int], Awaitable[int]]
) -> AsyncCase:
    def make(items: int) -> Callable[[], Awaitable[tuple[int, int]]]:
        async def work() -> tuple[int, int]:
            return items, await start(items)

        return work

    measure = time_run(make, _judge)
    return AsyncCase(name=name, role=role, group=group, backend=backend, operations=ITEMS, measure=measure)


def _judge(counts: tuple[int, int]) -> dict[str, float]:
    items, outcomes = counts
    if outcomes != items:
        raise AssertionError(f"{outcomes} good outcomes of {items} items")
    return {}


async def pull(function: Function, items: Iterable[int]) -> int:
    """Workers that share an iterator: no outcomes, no errors, no reader."""
    results: list[int] = []
    shared = iter(items)

    async def work() -> None:
        for item in shared:
            results.append(await function(item))  # noqa: PERF401 - the workers take turns at one list

    async with anyio.create_task_group() as workers:
        for _ in range(WORKERS):
            workers.start_soon(work)
    return len(results)


async def gather(function: Function, items: Iterable[int]) -> int:
    """A task for each item, as many of them at work as the semaphore lets in."""
    semaphore = anyio.Semaphore(WORKERS)
    results: list[int] = []

    async def work(item: int) -> None:
        async with semaphore:
            results.append(await function(item))

    async with anyio.create_task_group() as tasks:
        for item in items:
            tasks.start_soon(work, item)
    return len(results)


async def one_by_one(function: Function, items: AsyncIterator[int]) -> int:
    """No workers at all: an async generator has one reader at a time."""
    return len([await function(item) async for item in items])


async def run(executor: BatchedExecutor[int, int], items: Iterable[int]) -> int:
    return (await executor.run(items)).succeeded


async def read(stream: AsyncIterator[object]) -> int:
    count = 0
    async for _ in stream:
        count += 1
    return count


async def count_async(items: int) -> AsyncIterator[int]:
    for item in range(items):
        yield item


SUITES: Sequence[Suite] = [Suite("executor", f"one item, us; {WORKERS} calls at once", cases, unit="us")]

"""Whether memory stays flat on a long input: growth of the resident set, in a process of its own.

`python -P -m benchmarks.suites.memory executor async 1000000` prints one measurement as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

from batchkit import BatchedExecutor
from benchmarks.frame import Case, Role, Sample, Skipped, Suite, SyncCase

ROOT = Path(__file__).resolve().parents[2]

ITEMS = 1_000_000
WARM_UP = 20_000  # items until the allocator and the interpreter's caches have what they want
LOOK_EVERY = 5_000  # items between two looks at the memory

MB = 1e6  # bytes


def cases() -> list[Case | Skipped]:
    if sys.platform == "win32":
        return [Skipped("all cases", "Windows has no module `resource`")]
    return [
        *(_case("async input", name, role, way, "async") for name, role, way in WAYS),
        *(_case("sync input", name, role, way, "sync") for name, role, way in WAYS),
    ]


WAYS: Sequence[tuple[str, Role, str]] = [
    ("a plain loop", "floor", "loop"),
    ("batchkit map", "batchkit", "executor"),
]


def _case(group: str, name: str, role: Role, way: str, source: str) -> SyncCase:
    measure = partial(_in_fresh_process, way, source)
    return SyncCase(name=name, role=role, group=group, operations=ITEMS, measure=measure)


def _in_fresh_process(way: str, source: str, items: int) -> Sample:
    command = [sys.executable, "-P", "-m", "benchmarks.suites.memory", way, source, str(items)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    measured = json.loads(done.stdout)
    return Sample(measured["seconds"], {"growth MB": measured["growth"] / MB})


async def measure(way: str, source: str, items: int) -> dict[str, float]:
    """What `items` items take after a warm-up: `seconds`, and `growth` in bytes up to the highest look.

    The input has no end, and the garbage collector runs as ever.
    """
    stream = _outcomes(way, endless() if source == "async" else count())
    await _read(stream, WARM_UP)
    before = highest = resident()
    started = perf_counter()
    for _ in range(0, items, LOOK_EVERY):
        await _read(stream, LOOK_EVERY)
        highest = max(highest, resident())
    return {"seconds": perf_counter() - started, "growth": highest - before}


def _outcomes(way: str, items: AsyncIterable[int] | Iterable[int]) -> AsyncIterator[object]:
    if way == "executor":
        return BatchedExecutor(_nothing).map(items)
    return _one_by_one(items)


async def _one_by_one(items: AsyncIterable[int] | Iterable[int]) -> AsyncIterator[object]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield await _nothing(item)
    else:
        for item in items:
            yield await _nothing(item)


async def _nothing(item: int) -> int:
    return item


async def _read(stream: AsyncIterator[object], items: int) -> None:
    for _ in range(items):
        await anext(stream)


async def endless() -> AsyncIterator[int]:
    for number in count():
        yield number


def resident() -> int:
    """Bytes of memory that this process holds now; where there is no /proc, the most that it ever held.

    On Linux that maximum would not do: a process inherits it from the one that started it.
    """
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return _most_ever_resident()
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _most_ever_resident() -> int:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


SUITES: Sequence[Suite] = [
    Suite(
        "memory",
        f"{ITEMS:,} items (--quick: a tenth) of an endless input, in a fresh process; us an item",
        cases,
        unit="us",
        rounds=1,
    )
]

if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))))

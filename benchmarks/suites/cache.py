"""What a cache costs in time and memory, whether it ever stops its caller, and how often it has the value."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

from batchkit import TTLCache
from batchkit.testing import ManualClock
from benchmarks import traces
from benchmarks.cache_peers import KEY, TTL, AsyncSubject, Subject, async_subjects, sync_subjects
from benchmarks.frame import AsyncCase, Case, Sample, Skipped, Suite, SyncCase, quiet, time_awaits
from benchmarks.suites.memory import resident

ROOT = Path(__file__).resolve().parents[2]

ENTRIES = 100_000
OPERATIONS = 50_000
MILLION = 1_000_000

Get = Callable[[Any], Any]
Set = Callable[[Any, Any], Any]
Work = Callable[[Get, Set, Sequence[str]], None]


def sync_cases() -> list[Case | Skipped]:
    subjects = [each if isinstance(each, Skipped) else _Filled(each) for each in sync_subjects()]
    return [
        *(_timed("a hit, always the same key", subject, hit_one) for subject in subjects),
        *(_timed("a hit, any key", subject, hit_any) for subject in subjects),
        *(_timed("a miss", subject, miss) for subject in subjects),
        *(_timed("a new value, one leaves", subject, new) for subject in subjects),
        *(_timed("another value", subject, update) for subject in subjects),
    ]


class _Filled:
    """Makes full caches. To fill one takes several times as long as to measure it, so one is kept for those
    that leave in it what there is.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._kept: tuple[Get, Set] | None = None

    def kept(self) -> tuple[Get, Set]:
        """The `get` and `set` of the one that is kept."""
        self._kept = self._kept or self.new()
        return self._kept

    def new(self) -> tuple[Get, Set]:
        """The `get` and `set` of one in which nothing was asked for so far."""
        get, put = self.subject.make(ENTRIES, TTL)
        for number in range(ENTRIES):
            put(f"key {number}", number)
        return get, put


def _timed(group: str, filled: _Filled | Skipped, work: Work) -> Case | Skipped:
    if isinstance(filled, Skipped):
        return filled

    def measure(operations: int) -> Sample:
        get, put = filled.new() if work is new else filled.kept()
        keys = [f"key {random.Random(7).randrange(ENTRIES)}"] * operations
        if work is not hit_one:
            chance = random.Random(1)
            keys = [f"key {chance.randrange(ENTRIES)}" for _ in range(operations)]
        if work in (miss, new):
            keys = [f"new {number}" for number in range(operations)]
        with quiet():
            started = thread_time()  # of one thread, that is never idle: without what other processes took
            work(get, put, keys)
            return Sample(thread_time() - started)

    subject = filled.subject
    return SyncCase(name=subject.name, role=subject.role, group=group, operations=OPERATIONS, measure=measure)


def hit_one(get: Get, put: Set, keys: Sequence[str]) -> None:
    for key in keys:
        get(key)


def hit_any(get: Get, put: Set, keys: Sequence[str]) -> None:
    for key in keys:
        get(key)


def miss(get: Get, put: Set, keys: Sequence[str]) -> None:
    for key in keys:
        get(key)


def new(get: Get, put: Set, keys: Sequence[str]) -> None:
    for key in keys:
        put(key, key)


def update(get: Get, put: Set, keys: Sequence[str]) -> None:
    for key in keys:
        put(key, key)


def async_cases() -> list[Case | Skipped]:
    return [_awaited(subject) for subject in async_subjects()]


def _awaited(subject: AsyncSubject | Skipped) -> Case | Skipped:
    if isinstance(subject, Skipped):
        return subject

    async def measure(operations: int) -> Sample:
        ask = subject.make(_load)
        if await ask() != KEY:
            raise AssertionError(f"{subject.name} gave a wrong value")
        await ask()
        return await time_awaits(lambda: ask)(operations)

    return AsyncCase(name=subject.name, role=subject.role, group="a hit", operations=50_000, measure=measure)


async def _load(key: str) -> str:
    return key


def expiry_cases() -> list[Case | Skipped]:
    group = "new values, as long as it takes to drop all old ones"
    found: list[Case | Skipped] = [
        SyncCase(name="a dict", role="floor", group=group, operations=MILLION, measure=_put_into_a_dict),
        SyncCase(name="batchkit", role="batchkit", group=group, operations=MILLION, measure=_expire_ours),
    ]
    try:
        import cachetools  # noqa: F401

        found.append(
            SyncCase(
                name="cachetools TTLCache",
                role="peer",
                group=group,
                operations=MILLION,
                measure=_expire_cachetools,
            )
        )
    except ImportError as error:
        found.append(Skipped("cachetools", str(error)))
    return found


def _put_into_a_dict(entries: int) -> Sample:
    cache: dict[int, int] = {}
    return _longest(lambda number: cache.__setitem__(number, number), entries)


def _expire_ours(entries: int) -> Sample:
    clock = ManualClock()
    cache = TTLCache[int, int](entries, TTL, clock=clock)
    for number in range(entries):
        cache.set(number, number)
    clock.advance(TTL)
    sample = _longest(lambda number: cache.set(-number, number), entries)
    if cache.statistics().expired != entries:
        raise AssertionError("some old entries are still there")
    return sample


def _expire_cachetools(entries: int) -> Sample:
    from cachetools import TTLCache as Cachetools

    clock = ManualClock()
    cache: Cachetools[int, int] = Cachetools(entries, TTL, timer=clock.now)
    for number in range(entries):
        cache[number] = number
    clock.advance(TTL)
    return _longest(lambda number: cache.__setitem__(-number, number), entries)


def _longest(put: Callable[[int], object], operations: int) -> Sample:
    """The time of all calls, and that of the one that took longest, without what other processes took."""
    longest = 0.0
    with quiet():
        started = perf_counter()
        before = thread_time()
        for number in range(1, operations + 1):
            put(number)
            now = thread_time()
            if now - before > longest:
                longest = now - before
            before = now
        return Sample(perf_counter() - started, {"longest call ms": 1e3 * longest})


def memory_cases() -> list[Case | Skipped]:
    if sys.platform == "win32":
        return [Skipped("all cases", "Windows has no module `resource`")]
    found: list[Case | Skipped] = []
    for number, subject in enumerate(sync_subjects()):
        if isinstance(subject, Skipped):
            found.append(subject)
            continue
        for group, rounds in (("filled", 1), ("filled three times over", 3)):
            measure = partial(_in_fresh_process, number, rounds)
            found.append(
                SyncCase(
                    name=subject.name, role=subject.role, group=group, operations=MILLION, measure=measure
                )
            )
    return found


def _in_fresh_process(subject: int, rounds: int, entries: int) -> Sample:
    command = [sys.executable, "-P", "-m", "benchmarks.suites.cache", str(subject), str(rounds), str(entries)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    measured = json.loads(done.stdout)
    return Sample(measured["seconds"], {"bytes an entry": measured["growth"] / entries})


def fill(subject: int, rounds: int, entries: int) -> dict[str, float]:
    """What a cache takes beside its keys and values, which are there before it."""
    chosen = sync_subjects()[subject]
    assert isinstance(chosen, Subject)
    keys = list(range(1000, 1000 + rounds * entries))
    _, put = chosen.make(entries, TTL)
    before = resident()
    started = perf_counter()
    for key in keys:
        put(key, key)
    return {"seconds": perf_counter() - started, "growth": resident() - before}


def ratio_cases() -> list[Case | Skipped]:
    found: list[Case | Skipped] = []
    policies: list[tuple[str, Any, Callable[[Sequence[int], int], int]]] = [
        ("the best possible", "floor", traces.hits_of_the_best),
        ("batchkit (S3-FIFO)", "batchkit", _hits_of_ours),
        ("LRU", "peer", traces.hits_of_lru),
        ("FIFO", "peer", traces.hits_of_fifo),
    ]
    try:
        import theine  # noqa: F401

        policies.append(("theine (W-TinyLFU)", "peer", _hits_of_theine))
    except ImportError as error:
        found.append(Skipped("theine", str(error)))
    for trace in traces.TRACES:
        for name, role, hits in policies:
            found.append(
                SyncCase(
                    name=name,
                    role=role,
                    group=trace.name,
                    operations=traces.REQUESTS,
                    measure=partial(_hit_ratio, trace, hits),
                )
            )
    return found


def _hit_ratio(trace: traces.Trace, hits: Callable[[Sequence[int], int], int], requests: int) -> Sample:
    keys = trace.requests(requests)
    started = perf_counter()
    found = hits(keys, trace.capacity)
    return Sample(perf_counter() - started, typical={"hits %": 100 * found / requests})


def _hits_of_ours(requests: Sequence[int], capacity: int) -> int:
    cache = TTLCache[int, int](capacity, TTL)
    for key in requests:
        if cache.get(key) is None:
            cache.set(key, key + 1)
    return cache.statistics().hits


def _hits_of_theine(requests: Sequence[int], capacity: int) -> int:
    from theine import Cache

    cache: Any = Cache(capacity)
    hits = 0
    for key in requests:
        if cache.get(key)[1]:
            hits += 1
        else:
            cache.set(key, key + 1)
    return hits


SUITES: Sequence[Suite] = [
    Suite("cache_sync", f"one operation on a cache of {ENTRIES:,} entries", sync_cases, rounds=5),
    Suite("cache_async", "one hit, awaited", async_cases),
    Suite(
        "cache_expiry",
        f"{MILLION:,} entries (--quick: a tenth) expire together: a set, and the longest of all",
        expiry_cases,
        rounds=3,
    ),
    Suite(
        "cache_memory",
        f"{MILLION:,} entries (--quick: a tenth), in a fresh process: bytes beside keys and values; ns a set",
        memory_cases,
        rounds=1,
    ),
    Suite(
        "cache_hit_ratio",
        f"{traces.REQUESTS:,} requests (--quick: a tenth) of each of six traces: hits; us a request",
        ratio_cases,
        unit="us",
        rounds=1,
    ),
]

if __name__ == "__main__":
    print(json.dumps(fill(*map(int, sys.argv[1:4]))))

"""A cache in the hands of many threads and event loops at the same time, and of forks."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from math import inf
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from batchkit import TTLCache
from batchkit.testing import ManualClock
from tests.helpers import eventually, threads

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    "more", [{}, {"stale": 1, "refresh_ahead": 1, "negative_ttl": 1, "separator": ":", "jitter": 0.5}]
)
def test_threads_that_do_all_there_is_leave_it_whole(more: dict[str, Any]) -> None:
    """Two threads break cachetools.TTLCache for good within seconds."""
    clock = ManualClock()
    cache = TTLCache[str, str](50, ttl=5, clock=clock, **more)
    keys = [f"{number % 7}:{number}" for number in range(100)]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(1_000):
            key = chance.choice(keys)
            match chance.randrange(20):
                case 0:
                    cache.delete(key)
                case 1:
                    cache.delete_prefix(key[:2])
                case 2:
                    cache.delete_tag(key[0])
                case 3:
                    clock.advance(0.1)
                case 4:
                    cache.sweep()
                case 5:
                    cache.restore(cache.snapshot())
                case 6 | 7 | 8 | 9:
                    cache.set(key, key, tags=[key[0]])
                case 10 | 11:
                    asked = chance.sample(keys, 5)
                    found = cache.get_many_sync(asked, lambda asked: {each: each for each in asked})
                    assert found == {each: each for each in asked}
                case 12 | 13:
                    assert cache.get_or_load_sync(key, str) == key
                case _:
                    assert cache.get(key, key) == key

    with threads(*(partial(work, seed) for seed in range(4))):
        pass
    eventually(lambda: not cache._shelf.loads.by_key)
    store = cache._shelf.store
    assert len(cache) == len(list(cache)) == store.weight <= 50
    queued = [entry.key for entry, _ in store.in_order()]
    assert sorted(map(str, queued)) == sorted(cache)
    for key in keys:
        cache.set(key, key)
    assert len(cache) in (49, 50)


def test_a_value_is_never_given_beyond_its_time_nor_another_one_s() -> None:
    """What takes no lock sees an entry that is set, removed and set again amid its look."""
    clock = ManualClock()
    cache = TTLCache[str, tuple[str, int]](100, ttl=1.0, clock=clock)
    latest: dict[tuple[str, int], float] = {}  # when they have expired for certain, once that is known
    stop = threading.Event()

    def write(key: str) -> None:
        for number in count():
            if stop.is_set():
                return
            cache.set(key, (key, number))
            latest[key, number] = clock.now() + 1.0
            if number % 2:
                cache.delete(key)

    def advance() -> None:
        while not stop.is_set():
            clock.advance(0.4)

    def read() -> None:
        try:
            for key in "ab" * 2_000:
                before = clock.now()
                found = cache.get(key)
                assert found is None or (found[0] == key and latest.get(found, inf) > before)
        finally:
            stop.set()

    with threads(partial(write, "a"), partial(write, "b"), advance, read):
        pass


@pytest.mark.parametrize("many", [False, True])
async def test_a_value_that_is_set_amid_a_look_is_not_mistaken_for_the_old_one(many: bool) -> None:
    """The other thread acts just when the reader has the old value and looks at the clock."""

    class Clock(ManualClock):
        change: Callable[[], object] | None = None

        def now(self) -> float:
            change, self.change = self.change, None
            if change is not None:
                change()
            return super().now()

    async def load(key: str) -> str:
        return "loaded"

    clock = Clock()
    cache = TTLCache[str, str](10, ttl=5, clock=clock)
    cache.set("a", "old")
    clock.advance(5)
    clock.change = partial(cache.set, "a", "new")
    found = await cache.get_or_load("a", load) if many else cache.get("a")
    assert found == "new"


def test_loops_and_threads_load_each_key_once() -> None:
    cache = TTLCache[int, int](10_000, ttl=60)
    calls: Counter[int] = Counter()
    lock = threading.Lock()
    keys = range(300)

    def load_many(asked: list[int]) -> list[int]:
        with lock:
            calls.update(asked)
        return [-key for key in asked]

    async def load_many_async(asked: list[int]) -> list[int]:
        await anyio.lowlevel.checkpoint()
        return load_many(asked)

    def in_a_thread(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(200):
            asked = chance.sample(keys, 10)
            assert cache.get_many_sync(asked, load_many) == {key: -key for key in asked}

    async def in_a_loop(seed: int) -> None:
        chance = random.Random(seed)

        async def ask() -> None:
            for _ in range(40):
                asked = chance.sample(keys, 10)
                assert await cache.get_many(asked, load_many_async) == {key: -key for key in asked}

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)

    with threads(
        partial(in_a_thread, 1),
        partial(in_a_thread, 2),
        lambda: anyio.run(in_a_loop, 3),
        lambda: anyio.run(in_a_loop, 4, backend="trio"),
    ):
        pass
    assert calls == Counter(keys)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
class TestAForkedChild:
    def exit_code(self, work: Any) -> int:
        child = os.fork()
        if child == 0:
            sys.settrace(None)  # a tracer may want a lock that a thread of the parent had
            try:
                os._exit(0 if work() else 1)
            except BaseException:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def test_has_the_values_and_a_lock_of_its_own(self) -> None:
        cache = TTLCache[str, int](10, ttl=60)
        cache.set("a", 1)

        def work() -> bool:
            cache.set("b", 2)
            return list(cache) == ["b"] and cache.get("b") == 2

        held, over = threading.Event(), threading.Event()

        def change() -> None:
            with cache._shelf.lock:
                held.set()
                over.wait(20)

        with threads(change):  # a thread of the parent is amid a change, so that nothing is sure
            assert held.wait(20)
            assert self.exit_code(work) == 0
            over.set()
        assert self.exit_code(partial(cache.delete, "a")) == 0
        assert cache.get("a") == 1

    def test_does_not_wait_for_loads_of_its_parent(self) -> None:
        cache = TTLCache[str, str](10, ttl=60)
        gate, begun = threading.Event(), threading.Event()

        def load(key: str) -> str:
            begun.set()
            gate.wait(20)
            return key

        with threads(partial(cache.get_or_load_sync, "a", load)):
            assert begun.wait(20)
            assert self.exit_code(lambda: cache.get_or_load_sync("a", str.upper) == "A") == 0
            gate.set()

    def test_loads_behind_an_answer(self) -> None:
        clock = ManualClock()
        cache = TTLCache[str, str](10, ttl=5, stale=5, clock=clock)
        gate = threading.Event()

        def load(key: str) -> str:
            gate.wait(20)
            return key

        def work() -> bool:
            assert cache.get_or_load_sync("a", str.upper) == "old"
            eventually(lambda: cache.get("a") == "A")
            return True

        for key in "abcdef":
            cache.set(key, "old")
        clock.advance(5)
        for key in "bcdef":  # all threads of the parent are at work
            cache.get_or_load_sync(key, load)
        assert self.exit_code(work) == 0
        gate.set()
        eventually(lambda: not cache._shelf.loads.by_key)


class _Nosy:
    """A tag that runs something whenever it is looked up."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.look = look

    def __hash__(self) -> int:
        self.look()
        return 1


def test_a_key_that_has_a_value_is_never_missed_while_another_takes_its_place() -> None:
    cache = TTLCache[str, str](100, 60.0)
    seen: list[str | None] = []
    cache.set("a", "old", tags=[_Nosy(lambda: seen.append(cache.get("a")))])
    seen.clear()
    cache.set("a", "new")
    cache.set("a", "newest", tags=["tag"])
    assert seen
    assert set(seen) <= {"old", "new"}
    assert cache.get("a") == "newest"
    assert cache.statistics().misses == 1  # when there was nothing yet


def test_what_the_end_of_a_value_calls_finds_the_cache_whole() -> None:
    cache = TTLCache[str, object](2, 60.0)
    found: list[object] = []

    class Value:
        def __del__(self) -> None:
            found.append(cache.get("a"))
            cache.set("a", "last")

    cache.set("a", Value(), tags=["tag"])
    cache.set("a", "next", tags=["tag"])
    assert found == ["next"]
    assert cache.get("a") == "last"
    for number in range(10):
        cache.set(f"other {number}", number)
    assert len(cache) <= 2
    assert cache.statistics().weight == len(cache)

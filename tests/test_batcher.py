"""`Batcher`: many loads become one call. What threads do is in `test_batcher_threads.py`."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Self

import anyio
import pytest

from batchkit import (
    Batcher,
    BatchSplit,
    CallCancelled,
    CallFinished,
    CallStarted,
    LimiterClosed,
    LoadFailed,
    PrefetchFailed,
    TokenBucket,
    TTLCache,
)
from batchkit.retries import Retry
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.helpers import DEADLINE

pytestmark = pytest.mark.anyio


class Throttled(Exception):
    """What a client library makes of a 429."""

    status_code = 429


class Loader:
    """Takes a second for each call, and remembers what it was asked for, and when; knows every key but x, and
    fails for e.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.calls: list[list[str]] = []
        self.starts: list[float] = []
        self.under_way = 0
        self.most_under_way = 0
        self.stopped = 0

    async def load_many(self, keys: list[str]) -> dict[str, Any]:
        self.calls.append(keys)
        self.starts.append(self.clock.now())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.clock.sleep(1)
        except BaseException:
            self.stopped += 1
            raise
        finally:
            self.under_way -= 1
        known: dict[str, Any] = {key: key.upper() for key in keys if key != "x"}
        return known | ({"e": ZeroDivisionError("e")} if "e" in keys else {})


@pytest.fixture
def loader(clock: ManualClock) -> Loader:
    return Loader(clock)


@pytest.fixture(autouse=True)
async def no_orphans(anyio_backend: str) -> AsyncIterator[None]:
    """When a test is over, no task of a batcher is left."""
    yield
    await settle()
    if anyio_backend == "asyncio":
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
        assert not [name for name in names if name.startswith("Gatherers.")]
    else:
        import trio

        root = trio.lowlevel.current_root_task()
        assert root is not None
        nurseries = [*root.child_nurseries]
        names = []
        while nurseries:
            for task in nurseries.pop().child_tasks:
                names.append(task.name)
                nurseries += task.child_nurseries
        assert not [name for name in names if "_spawn_on_trio" in name]


class Callers:
    """Tasks that load, each with what became of it."""

    def __init__(self) -> None:
        self.tasks = anyio.create_task_group()
        self.answers: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        await self.tasks.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.tasks.__aexit__(*error)

    def load(self, batcher: Batcher[str, Any], *keys: str, **options: Any) -> anyio.CancelScope:
        scope = anyio.CancelScope()

        async def load() -> None:
            with scope:
                for key in keys:
                    try:
                        self.answers[key] = await batcher.load(key, **options)
                    except Exception as error:
                        self.answers[key] = type(error)

        self.tasks.start_soon(load)
        return scope


# when a batch leaves


async def test_a_lone_load_waits_for_nobody(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_wait=60, clock=clock)
    assert await clock.run(lookup.load("a")) == "A"
    assert await clock.run(lookup.load("b")) == "B"
    assert loader.starts == [0.0, 1.0]


async def test_loads_of_tasks_that_are_ready_become_one_call(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_wait=60, clock=clock)
    async with Callers() as callers:
        for key in "abac":
            callers.load(lookup, key)
        await clock.run_for(0.5)
        callers.load(lookup, "a")  # on its way: not asked for again
        await clock.run_for(1)
    assert sorted(map(sorted, loader.calls)) == [["a", "b", "c"]]
    assert loader.starts == [0.0]
    assert callers.answers == {"a": "A", "b": "B", "c": "C"}


async def test_tasks_that_take_a_few_turns_before_they_load_are_waited_for(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_wait=60, clock=clock)

    async def resolve(key: str, turns: int) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        await lookup.load(key)

    async with anyio.create_task_group() as tasks:
        for turns, key in enumerate("abcd"):
            tasks.start_soon(resolve, key, turns)
        await clock.run_for(2)
    assert sorted(map(sorted, loader.calls)) == [["a", "b", "c", "d"]]


async def test_while_a_call_is_under_way_keys_wait_for_others(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_wait=0.4, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "a")
        await clock.run_for(0.125)
        callers.load(lookup, "b")  # alone: a quarter of max_wait
        await clock.run_for(0.125)
        for key in "cdefghi":  # one comes after the other: max_wait
            callers.load(lookup, key)
            await clock.run_for(0.0625)
        await clock.run_for(3)
    assert loader.calls[:2] == [["a"], ["b"]]
    assert loader.starts[:3] == pytest.approx([0.0, 0.225, 0.65])
    assert loader.calls[2] == [*"cdefghi"]


async def test_keys_wait_no_longer_when_the_last_call_is_over(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_wait=60, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "a", "d")
        await clock.run_for(0.5)
        callers.load(lookup, "b")
        callers.load(lookup, "c")
        await clock.run_for(5)
    assert loader.starts == [0.0, 1.0]
    assert sorted(loader.calls[1]) == ["b", "c", "d"]  # whoever had its answer by that call joins, too


async def test_a_full_batch_does_not_wait(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_batch_size=2, max_wait=60, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lookup.load_many, "abcdf")
        await settle()
        assert loader.calls == [["a", "b"], ["c", "d"]]
        await clock.run_for(3)
    assert loader.starts == [0.0, 0.0, 1.0]


async def test_without_a_wait_a_key_leaves_with_those_that_are_there(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_wait=0, clock=clock)
    async with Callers() as callers:
        for key in "abcd":
            callers.load(lookup, key)
            await clock.run_for(0.125)
        await clock.run_for(3)
    assert loader.starts == [0.0, 0.125, 0.25, 0.375]


async def test_a_load_makes_the_calls_larger_and_not_more(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(
        loader.load_many, max_batch_size=50, max_wait=0, max_in_flight=2, clock=clock
    )
    async with Callers() as callers:
        for number in range(100):
            callers.load(lookup, f"key {number}")
            await clock.run_for(0.0625)
        await clock.run_for(5)
    assert loader.most_under_way == 2
    assert len(loader.calls) < 20
    assert sum(map(len, loader.calls)) == len(callers.answers) == 100


async def test_an_eager_task_does_not_leave_without_the_others(
    anyio_backend: str, loader: Loader, clock: ManualClock
) -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if anyio_backend != "asyncio" or factory is None:
        pytest.skip("tasks of asyncio may be eager from Python 3.12 on")
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
        loads = asyncio.gather(*(lookup.load(key) for key in "abc"))
        await clock.run_for(2)
        assert await loads == ["A", "B", "C"]
        assert loader.calls == [["a", "b", "c"]]
    finally:
        loop.set_task_factory(None)


# what the callers get


async def test_keys_are_asked_for_once_and_answered_in_order(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    assert list((await clock.run(lookup.load_many("bab"))).items()) == [("b", "B"), ("a", "A")]
    assert loader.calls == [["b", "a"]]
    assert await lookup.load_many([]) == {}


async def test_a_missing_or_bad_key_is_an_error_for_its_callers_only(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    async with Callers() as callers:
        for key in "axe":
            callers.load(lookup, key)
        await clock.run_for(2)
    assert callers.answers == {"a": "A", "x": KeyError, "e": ZeroDivisionError}
    assert len(loader.calls) == 1


async def test_the_first_key_that_fails_is_raised_or_all_errors_stand_as_values(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_batch_size=1, clock=clock)
    with pytest.raises(KeyError, match="x"):
        await clock.run(lookup.load_many("axeb"))
    answers = await clock.run(lookup.load_many("axeb", return_exceptions=True))
    assert list(answers) == [*"axeb"]
    assert (answers["a"], answers["b"]) == ("A", "B")
    assert isinstance(answers["x"], KeyError)
    assert isinstance(answers["e"], ZeroDivisionError)


async def test_a_default_for_missing_keys(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str | None] = Batcher(loader.load_many, default=None, clock=clock)
    assert await clock.run(lookup.load_many("ax")) == {"a": "A", "x": None}
    assert await clock.run(lookup.load("x")) is None


async def test_an_error_that_many_get_shows_each_where_it_came_from(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    depths: list[int] = []

    async def load() -> None:
        try:
            await lookup.load("e")
        except ZeroDivisionError as error:
            depth, traceback = 0, error.__traceback__
            while traceback is not None:
                depth, traceback = depth + 1, traceback.tb_next
            depths.append(depth)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(load)
        await clock.run_for(2)
    assert len(depths) == 20
    assert max(depths) <= 4


# caches


@pytest.mark.parametrize("kind", ["cache", "dictionary", "mapping"])
async def test_a_cache_keeps_values_but_no_errors(kind: str, loader: Loader, clock: ManualClock) -> None:
    class Mapping(dict[str, str]):
        """Not a plain dictionary: it is asked under the lock only."""

    cache: Any = {"cache": TTLCache(10, ttl=60, clock=clock), "dictionary": {}, "mapping": Mapping()}[kind]
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache=cache, clock=clock)
    assert await clock.run(lookup.load_many("ab")) == {"a": "A", "b": "B"}
    with pytest.raises(ZeroDivisionError):
        await clock.run(lookup.load_many("abe"))
    with pytest.raises(KeyError):
        await clock.run(lookup.load_many("abx"))
    assert await lookup.load("a") == "A"
    assert loader.calls == [["a", "b"], ["e"], ["x"]]
    assert "e" not in cache
    if kind == "cache":
        clock.advance(60)
        await clock.run(lookup.load("a"))
        assert loader.calls[3:] == [["a"]]


async def test_none_is_a_value_like_any_other(clock: ManualClock) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[None]:
        calls.append(keys)
        return [None] * len(keys)

    lookup: Batcher[str, None] = Batcher(load_many, cache={}, clock=clock)
    for _ in range(2):
        assert await clock.run(lookup.load_many("ab")) == {"a": None, "b": None}
        assert await clock.run(lookup.load_many("a")) == {"a": None}
    assert len(calls) == 1


async def test_a_value_that_the_cache_fails_to_keep_reaches_its_callers(
    loader: Loader, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(TTLCache[str, str]):
        def set(self, key: str, value: str, *rest: Any, **more: Any) -> None:
            raise OSError("no space left")

    lookup: Batcher[str, str] = Batcher(loader.load_many, cache=Full(10, ttl=60), name="words", clock=clock)
    assert await clock.run(lookup.load("a")) == "A"
    assert "words: the cache failed to keep a value" in caplog.text


async def test_a_value_that_is_primed_is_not_loaded(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache={}, clock=clock)
    lookup.prime("a", "primed")
    assert await clock.run(lookup.load_many("ab")) == {"a": "primed", "b": "B"}
    lookup.prime("b", "again")
    assert await lookup.load("b") == "again"
    assert loader.calls == [["b"]]


async def test_whoever_waits_for_a_key_that_is_primed_has_it_at_once(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache={}, max_in_flight=1, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "a")
        callers.load(lookup, "b")
        await settle()
        callers.load(lookup, "c")
        await settle()
        lookup.prime("a", "primed")  # under way, with b
        lookup.prime("c", "primed")  # gathers
        await settle()
        assert callers.answers == {"a": "primed", "c": "primed"}
        await clock.run_for(2)
    assert callers.answers == {"a": "primed", "b": "B", "c": "primed"}
    assert len(loader.calls) == 1
    assert await lookup.load("a") == "primed"  # what the call brought came too late


async def test_a_call_all_of_whose_keys_are_primed_is_stopped(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache={}, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "a")
        await settle()
        lookup.prime("a", "primed")
        await settle()
        assert loader.stopped == 1
    assert callers.answers == {"a": "primed"}


@pytest.mark.parametrize("all_of_them", [False, True])
async def test_what_is_cleared_is_loaded_again(all_of_them: bool, loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache={}, clock=clock)
    await clock.run(lookup.load_many("ab"))
    if all_of_them:
        lookup.clear_all()
    else:
        lookup.clear("a")
        lookup.clear("never known")
    await clock.run(lookup.load_many("ab"))
    assert loader.calls[1] == (["a", "b"] if all_of_them else ["a"])


async def test_a_value_that_was_on_its_way_when_its_key_was_cleared_is_not_kept(clock: ManualClock) -> None:
    values = iter(["old", "new"])

    async def load_many(keys: list[str]) -> list[str]:
        value = next(values)
        await clock.sleep(1)
        return [value] * len(keys)

    lookup: Batcher[str, str] = Batcher(load_many, cache={}, clock=clock)
    answers: list[str] = []

    async def load() -> None:
        answers.append(await lookup.load("a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load)
        await clock.run_for(0.5)
        lookup.clear("a")
        tasks.start_soon(load)
        await clock.run_for(3)
    assert sorted(answers) == ["new", "old"]
    assert await lookup.load("a") == "new"


async def test_a_value_that_was_dropped_from_its_cache_while_it_was_loaded_is_not_kept(
    loader: Loader, clock: ManualClock
) -> None:
    cache = TTLCache[str, str](10, ttl=60, clock=clock)
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache=cache, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lookup.load_many, "abcd")
        await clock.run_for(0.5)
        cache.delete("a")  # not by way of the batcher
        cache.delete_prefix("b")
        cache.set("c", "newer")
        await clock.run_for(1)
    assert cache.get_present("abcd") == {"c": "newer", "d": "D"}


async def test_what_needs_a_cache_says_so(loader: Loader) -> None:
    class Bare:
        def get_present(self, keys: Any) -> dict[str, str]:
            return {}

        def set(self, key: str, value: str) -> None: ...

    lookup: Batcher[str, str] = Batcher(loader.load_many, name="words")
    lookup.clear("a")
    lookup.clear_all()
    with pytest.raises(ValueError, match="words: prime needs a cache"):
        lookup.prime("a", "A")
    with pytest.raises(ValueError, match="words: prefetch needs a cache"):
        lookup.prefetch("a")
    bare: Batcher[str, str] = Batcher(loader.load_many, cache=Bare(), name="words")
    with pytest.raises(TypeError, match="words: Bare has no delete"):
        bare.clear("a")
    with pytest.raises(TypeError, match="words: Bare has no clear"):
        bare.clear_all()
    with pytest.raises(TypeError, match="errors are not kept: KeyError"):
        bare.prime("a", KeyError("a"))  # type: ignore[arg-type]  # the wrong type is the point


# prefetch


async def test_what_is_prefetched_is_there_when_it_is_asked_for(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache={}, clock=clock)
    lookup.prime("a", "A")
    assert lookup.prefetch("abcb") == 2
    await clock.run_for(0.5)
    loaded = lookup.load_many("bd")  # b is on its way
    assert await clock.run(loaded) == {"b": "B", "d": "D"}
    assert await lookup.load("c") == "C"
    assert loader.calls == [["b", "c"], ["d"]]


async def test_what_is_prefetched_leaves_after_what_somebody_waits_for(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(
        loader.load_many, cache={}, max_batch_size=2, max_in_flight=1, clock=clock
    )
    async with Callers() as callers:
        callers.load(lookup, "a")
        await settle()
        assert lookup.prefetch("bcd") == 3
        await settle()
        callers.load(lookup, "e")
        callers.load(lookup, "d")  # somebody waits for it now
        await clock.run_for(9)
    assert sorted(loader.calls[1]) == ["d", "e"]
    assert loader.calls[2:] == [["b", "c"]]


async def test_no_more_than_a_bound_is_prefetched_at_a_time(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache={}, max_prefetch=3, clock=clock)
    assert lookup.prefetch("ab") == 2
    assert lookup.prefetch("abcd") == 1
    assert lookup.prefetch("abcd") == 0
    await clock.run_for(9)
    assert lookup.prefetch("abcdfghi") == 3
    await clock.run_for(9)


async def test_an_error_of_a_prefetch_is_an_event_and_whoever_asks_later_has_the_key_loaded(
    clock: ManualClock, hook: RecordingHook
) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[Any]:
        calls.append(keys)
        return [ZeroDivisionError(), "B"] if len(calls) == 1 else keys

    lookup: Batcher[str, str] = Batcher(load_many, cache={}, name="words", hooks=[hook], clock=clock)
    assert lookup.prefetch("ab") == 2
    await settle()
    (failed,) = hook.of(PrefetchFailed)
    assert (failed.name, failed.key, type(failed.error)) == ("words", "a", ZeroDivisionError)
    assert await clock.run(lookup.load_many("ab")) == {"a": "a", "b": "B"}
    assert calls == [["a", "b"], ["a"]]


async def test_an_error_of_a_prefetch_without_hooks_is_logged(
    loader: Loader, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, cache={}, name="words", clock=clock)
    lookup.prefetch("aex")
    await clock.run_for(2)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "words: 2 keys could not be prefetched: KeyError, ZeroDivisionError"


async def test_a_loader_may_prefetch_what_it_is_loading(clock: ManualClock) -> None:
    async def load_many(keys: list[str]) -> list[str]:
        lookup.prefetch([*keys, "z"])
        await clock.sleep(1)
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, cache={}, clock=clock)
    assert await clock.run(lookup.load("a")) == "a"
    assert await clock.run(lookup.load("z")) == "z"


# cancellation


async def test_a_cancelled_caller_harms_nobody(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    async with Callers() as callers:
        leader = callers.load(lookup, "a")
        follower = callers.load(lookup, "a")
        other = callers.load(lookup, "b")
        await settle()
        leader.cancel()
        other.cancel()
        await clock.run_for(0.5)
        assert loader.under_way == 1
        follower.cancel()
        await settle()
        assert (loader.under_way, loader.stopped) == (0, 1)
        follower = callers.load(lookup, "a")
        await settle()
        callers.load(lookup, "a")
        await settle()
        follower.cancel()
        await clock.run_for(2)
    assert callers.answers == {"a": "A"}
    assert [sorted(call) for call in loader.calls] == [["a", "b"], ["a"]]


async def test_a_key_whose_callers_are_gone_before_its_call_is_not_loaded(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_in_flight=1, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "a")
        await settle()
        gone = callers.load(lookup, "b")
        callers.load(lookup, "c")
        await settle()
        gone.cancel()
        await clock.run_for(3)
    assert loader.calls == [["a"], ["c"]]


async def test_when_all_callers_are_cancelled_nothing_is_called(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    async with Callers() as callers:
        scope = callers.load(lookup, "a")
        await anyio.lowlevel.checkpoint()  # it has asked, and its call has not begun
        scope.cancel()
        await clock.run_for(2)
    assert loader.calls == []
    assert loader.under_way == 0
    assert await clock.run(lookup.load("a")) == "A"


async def test_who_asks_while_a_call_is_being_stopped_gets_another(
    loader: Loader, clock: ManualClock
) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=clock)
    async with Callers() as callers:
        scope = callers.load(lookup, "a")
        await settle()
        scope.cancel()
        callers.load(lookup, "a")
        await clock.run_for(2)
    assert callers.answers == {"a": "A"}


async def test_the_place_of_a_call_that_was_stopped_is_free(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_in_flight=1, max_batch_size=1, clock=clock)
    async with Callers() as callers:
        scope = callers.load(lookup, "a")
        await settle()
        callers.load(lookup, "b")
        await settle()
        scope.cancel()
        await clock.run_for(2)
    assert callers.answers == {"b": "B"}
    assert loader.starts == [0.0, 0.0]


async def test_a_loader_that_is_cancelled_from_inside_fails(clock: ManualClock, anyio_backend: str) -> None:
    if anyio_backend == "trio":
        pytest.skip("on trio only a cancel scope of its own can cancel a loader, and then it returns")

    async def load_many(keys: list[str]) -> list[str]:
        raise asyncio.CancelledError

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    with pytest.raises(CallCancelled):
        await clock.run(lookup.load("a"))


async def test_a_load_leaves_nothing_behind(loader: Loader, clock: ManualClock) -> None:
    class Value:
        pass

    async def load_many(keys: list[str]) -> list[Value]:
        return [Value() for _ in keys]

    lookup: Batcher[str, Value] = Batcher(load_many, clock=clock)
    await clock.run(lookup.load_many("abc"))
    await settle()
    gc.collect()
    assert not [held for held in gc.get_objects() if isinstance(held, Value)]


# errors, and which key they are of


async def test_a_call_that_fails_is_split_until_the_bad_key_stands_alone(
    clock: ManualClock, hook: RecordingHook
) -> None:
    calls: list[str] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append("".join(keys))
        await clock.sleep(1)
        if "c" in keys:
            raise ZeroDivisionError
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, hooks=[hook], clock=clock)
    answers = await clock.run(lookup.load_many("abcdefgh", return_exceptions=True))
    assert calls == ["abcdefgh", "abcd", "ab", "cd", "c", "d", "efgh"]
    assert isinstance(answers.pop("c"), ZeroDivisionError)
    assert answers == {key: key for key in "abdefgh"}
    assert [event.size for event in hook.of(BatchSplit)] == [8, 4, 2]


async def test_good_keys_have_their_answers_while_the_bad_one_is_looked_for(clock: ManualClock) -> None:
    async def load_many(keys: list[str]) -> list[str]:
        await clock.sleep(1)
        if "d" in keys:
            raise ZeroDivisionError
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    async with Callers() as callers:
        for key in "abcd":
            callers.load(lookup, key)
        await clock.run_for(2)
        assert len(callers.answers) in (0, 2)  # on trio, d may be in the first half
        await clock.run_for(9)
    assert callers.answers == {"a": "a", "b": "b", "c": "c", "d": ZeroDivisionError}


async def test_parts_that_nobody_wants_any_more_are_not_called(clock: ManualClock) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(sorted(keys))
        await clock.sleep(1)
        if len(keys) > 1:
            raise ZeroDivisionError
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    async with Callers() as callers:
        scopes = {key: callers.load(lookup, key) for key in "ab"}
        await clock.run_for(0.5)
        scopes["b"].cancel()
        await clock.run_for(5)
    assert callers.answers == {"a": "a"}
    assert calls == [["a", "b"], ["a"]]


@pytest.mark.parametrize(
    "error",
    [Throttled(), LoadFailed("made up"), LimiterClosed("closed")],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_that_is_no_fault_of_a_key_is_that_of_all(
    clock: ManualClock, error: Exception
) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        raise error

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    answers = await clock.run(lookup.load_many("abcd", return_exceptions=True))
    assert [*answers.values()] == [error] * 4
    assert calls == [[*"abcd"]]


async def test_splitting_can_be_switched_off(clock: ManualClock) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        raise ZeroDivisionError

    lookup: Batcher[str, str] = Batcher(load_many, split=False, clock=clock)
    with pytest.raises(ZeroDivisionError):
        await clock.run(lookup.load_many("abcd"))
    assert calls == [[*"abcd"]]


@pytest.mark.parametrize("answer", [[1, 2], None, "a"])
async def test_a_loader_that_answers_wrongly(clock: ManualClock, answer: Any) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> Any:
        calls.append(keys)
        return answer

    lookup: Batcher[str, str] = Batcher(load_many, name="words", clock=clock)
    with pytest.raises(LoadFailed, match="words: a "):
        await clock.run(lookup.load_many("abc"))
    assert len(calls) == 1


async def test_an_answer_that_breaks_when_it_is_looked_at_is_an_error_of_all(clock: ManualClock) -> None:
    class Broken(dict[str, str]):
        def __contains__(self, key: object) -> bool:
            raise ZeroDivisionError

    async def load_many(keys: list[str]) -> Broken:
        return Broken()

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    answers = await clock.run(lookup.load_many("ab", return_exceptions=True))
    assert [type(answer) for answer in answers.values()] == [ZeroDivisionError] * 2


async def test_a_failed_call_is_not_kept(clock: ManualClock) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        if len(calls) == 1:
            raise ZeroDivisionError
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, cache={}, clock=clock)
    with pytest.raises(ZeroDivisionError):
        await clock.run(lookup.load("a"))
    assert await clock.run(lookup.load("a")) == "a"


async def test_a_call_is_made_again_as_the_retry_policy_says_before_it_is_split(clock: ManualClock) -> None:
    starts: list[tuple[float, int]] = []

    async def load_many(keys: list[str]) -> list[str]:
        starts.append((clock.now(), len(keys)))
        if len(starts) < 3:
            raise ConnectionError
        return keys

    bucket = TokenBucket(rate=100, burst=10, clock=clock)
    retry = Retry(attempts=3, backoff=lambda attempt: 10.0 * attempt)
    lookup: Batcher[str, str] = Batcher(load_many, retry=retry, limiter=bucket, clock=clock)
    assert await clock.run(lookup.load_many("ab")) == {"a": "a", "b": "b"}
    assert starts == [(0.0, 2), (10.0, 2), (30.0, 2)]
    assert bucket.statistics().granted == 3


# loaders that load


async def test_a_loader_that_asks_for_its_own_key(clock: ManualClock) -> None:
    async def load_many(keys: list[str]) -> dict[str, str]:
        return await lookup.load_many(keys)

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    with pytest.raises(LoadFailed, match="wait for itself"):
        await clock.run(lookup.load("a"))
    with pytest.raises(LoadFailed, match="wait for itself"):
        await clock.run(lookup.load_many("abc"))


async def test_a_loader_may_ask_for_other_keys_even_if_no_call_is_free(clock: ManualClock) -> None:
    """A tree: each key needs its parent."""

    async def load_many(keys: list[str]) -> list[str]:
        await clock.sleep(1)
        parents = await lookup.load_many({key[:-1] for key in keys if len(key) > 1})
        return [f"{parents.get(key[:-1], '')}/{key[-1]}" for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many, max_in_flight=1, max_wait=60, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "abcd")
        await settle()
        callers.load(lookup, "xyz")  # waits for the call to end, and holds up nobody
        await clock.run_for(99)
    assert callers.answers == {"abcd": "/a/b/c/d", "xyz": "/x/y/z"}


async def test_a_key_that_waits_for_a_call_is_let_go_when_that_very_call_asks_for_it(
    clock: ManualClock,
) -> None:
    async def load_many(keys: list[str]) -> list[str]:
        await clock.sleep(1)
        return [await lookup.load("b") if key == "a" else key for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many, max_in_flight=1, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "a")
        await settle()
        callers.load(lookup, "b")
        await clock.run_for(5)
    assert callers.answers == {"a": "b", "b": "b"}


async def test_loads_that_wait_for_each_other_in_a_circle_fail(clock: ManualClock) -> None:
    needs = {"a": "b", "b": "c", "c": "a"}

    async def load_many(keys: list[str]) -> list[str]:
        await clock.sleep(1)
        return [await other.load(needs[key]) for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many, max_batch_size=1, clock=clock)
    other: Batcher[str, str] = Batcher(lambda_many(lambda key: lookup.load(key)), clock=clock)
    with pytest.raises(LoadFailed, match="wait for itself"):
        await clock.run(lookup.load("a"))
    async with Callers() as callers:
        for key in "abc":  # no call began within another one
            callers.load(lookup, key)
        await clock.run_for(9)
    assert callers.answers == dict.fromkeys("abc", LoadFailed)


def lambda_many(load: Callable[[str], Awaitable[str]]) -> Callable[[list[str]], Awaitable[list[str]]]:
    async def load_many(keys: list[str]) -> list[str]:
        return [await load(key) for key in keys]

    return load_many


async def test_a_loader_that_gave_up_waiting_for_a_key_does_not_wait_for_it(clock: ManualClock) -> None:
    """The call of a asks for b and gives up; that of b then asks for a, which is no circle any more."""

    async def load_many(keys: list[str]) -> list[str]:
        if keys == ["a"]:
            with anyio.CancelScope() as scope:
                callers.tasks.start_soon(cancel_later, scope)
                await lookup.load("b")
            await clock.sleep(5)
            return ["A"]
        await clock.sleep(2)
        return [await lookup.load("a")]

    async def cancel_later(scope: anyio.CancelScope) -> None:
        await clock.sleep(1)
        scope.cancel()

    lookup: Batcher[str, str] = Batcher(load_many, max_batch_size=1, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "a")
        await settle()
        callers.load(lookup, "b")
        await clock.run_for(20)
    assert callers.answers == {"a": "A", "b": "A"}


# priority


async def test_a_user_goes_before_the_bulk_that_gathers(loader: Loader, clock: ManualClock) -> None:
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_batch_size=3, max_in_flight=1, clock=clock)
    async with Callers() as callers:
        callers.load(lookup, "0")
        await settle()
        callers.tasks.start_soon(lookup.load_many, "abcdfg")
        await settle()
        callers.load(lookup, "u", priority=1)
        callers.load(lookup, "f", priority=1)  # the bulk wants it, too
        await clock.run_for(9)
    assert sorted(loader.calls[1][:2]) == ["f", "u"]
    assert loader.calls[1][2] == "a"
    assert loader.calls[2:] == [["b", "c", "d"], ["g"]]


async def test_a_call_has_the_highest_priority_of_its_keys_before_the_limiter(
    loader: Loader, clock: ManualClock
) -> None:
    asked: list[int] = []

    class Bucket(TokenBucket):
        def permit(self, *arguments: Any, **options: Any) -> Any:
            asked.append(options["priority"])
            return super().permit(*arguments, **options)

    bucket = Bucket(rate=1, burst=9, clock=clock)
    lookup: Batcher[str, str] = Batcher(loader.load_many, limiter=bucket, priority=2, clock=clock)
    await clock.run(lookup.load("a"))
    async with Callers() as callers:
        callers.load(lookup, "b", priority=-1)
        callers.load(lookup, "c", priority=5)
        await clock.run_for(2)
    assert asked == [2, 5]


# what it is made of


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
    assert repr(lookup) == "Batcher(max_batch_size=50, max_wait=0, max_in_flight=10, name='words')"


async def test_a_call_in_a_thread_cannot_be_stopped_and_is_joined_by_whoever_asks_for_its_keys(
    clock: ManualClock,
) -> None:
    gate = threading.Event()
    calls: list[list[str]] = []

    def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        gate.wait(DEADLINE)
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    async with Callers() as callers:
        scope = callers.load(lookup, "a")
        while not calls:  # noqa: ASYNC110 - in a thread
            await anyio.sleep(0.001)
        scope.cancel()
        await settle()
        callers.load(lookup, "a")
        await settle()
        gate.set()
    assert callers.answers == {"a": "a"}
    assert calls == [["a"]]


async def test_a_plain_loader_runs_in_a_thread_and_sees_the_context(clock: ManualClock) -> None:
    user: ContextVar[str] = ContextVar("user")
    seen: list[tuple[bool, str]] = []

    def load_many(keys: list[str]) -> list[str]:
        seen.append((threading.current_thread() is threading.main_thread(), user.get()))
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, clock=clock)
    user.set("me")
    assert await clock.run(lookup.load("a")) == "a"
    assert seen == [(False, "me")]

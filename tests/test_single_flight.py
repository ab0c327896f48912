"""A load belongs to nobody: what becomes of those who wait when somebody is cancelled, a loader fails or asks
for itself, or an event loop goes away; on asyncio, on trio and in threads, and between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from batchkit import LoadFailed, TTLCache
from batchkit._flight import Abandoned, Flight
from batchkit.testing import ManualClock, settle
from tests.helpers import eventually, threads

pytestmark = pytest.mark.anyio

Words = TTLCache[str, Any]


@pytest.fixture
def cache(clock: ManualClock) -> Words:
    return TTLCache(100, ttl=5, name="words", clock=clock)


class Loader:
    """Loads when it is let; remembers what it was asked for, and how its calls ended."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ends: list[str] = []
        self.gate = anyio.Event()

    async def load(self, key: str) -> str:
        self.calls.append(key)
        try:
            await self.gate.wait()
        except BaseException:
            self.ends.append("stopped")
            raise
        self.ends.append("done")
        return key.upper()


class Callers:
    """Tasks that ask for the same key."""

    def __init__(self, cache: Words, load: Callable[[str], Any], count: int) -> None:
        self.scopes = [anyio.CancelScope() for _ in range(count)]
        self.answers: list[object] = []
        self._cache = cache
        self._load = load

    async def ask(self, number: int) -> None:
        with self.scopes[number]:
            try:
                self.answers.append(await self._cache.get_or_load("a", self._load))
            except Exception as error:
                self.answers.append(error)


@pytest.mark.parametrize("cancelled", [[0], [1], [2], [0, 1], [0, 2], [1, 2]])
async def test_whoever_is_cancelled_the_others_get_the_value(cache: Words, cancelled: list[int]) -> None:
    loader = Loader()
    callers = Callers(cache, loader.load, 3)
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(callers.ask, number)
            await settle()
        for number in cancelled:
            callers.scopes[number].cancel()
        await settle()
        assert loader.ends == []
        loader.gate.set()
    assert callers.answers == ["A"] * (3 - len(cancelled))
    assert loader.calls == ["a"]


async def test_when_all_are_cancelled_the_load_is_stopped_and_the_next_one_loads_anew(cache: Words) -> None:
    loader = Loader()
    callers = Callers(cache, loader.load, 4)
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(callers.ask, number)
        await settle()
        for scope in callers.scopes[:3]:
            scope.cancel()
        await settle()
        assert loader.ends == ["stopped"]
        assert not cache._shelf.loads.by_key
        loader.gate.set()
        tasks.start_soon(callers.ask, 3)
    assert callers.answers == ["A"]
    assert loader.calls == ["a", "a"]


async def test_no_task_is_left_behind(cache: Words, anyio_backend: str) -> None:
    def tasks_now() -> int:
        if anyio_backend == "asyncio":
            return len(asyncio.all_tasks())
        import trio

        return trio.lowlevel.current_statistics().tasks_living

    async def fail(key: str) -> str:
        raise ZeroDivisionError

    before = tasks_now()
    await test_whoever_is_cancelled_the_others_get_the_value(cache, [0, 1])
    cache.clear()
    await test_when_all_are_cancelled_the_load_is_stopped_and_the_next_one_loads_anew(cache)
    cache.clear()
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_load("a", fail)
    await settle()
    assert tasks_now() == before


async def test_the_error_of_a_loader_reaches_all_and_is_not_kept(cache: Words) -> None:
    gate = anyio.Event()
    error = ZeroDivisionError("no a")

    async def load(key: str) -> str:
        await gate.wait()
        raise error

    callers = Callers(cache, load, 3)
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(callers.ask, number)
        await settle()
        gate.set()
    assert callers.answers == [error] * 3
    assert await cache.get_or_load("a", Loader.load.__get__(open_loader())) == "A"


def open_loader() -> Loader:
    loader = Loader()
    loader.gate.set()
    return loader


class Circle:
    """A loader by which keys ask for other keys."""

    def __init__(self, cache: Words, asks: dict[str, str]) -> None:
        self.cache = cache
        self.asks = asks

    async def load(self, key: str) -> str:
        await anyio.lowlevel.checkpoint()
        asked = self.asks.get(key)
        return key if asked is None else key + str(await self.cache.get_or_load(asked, self.load))

    def load_sync(self, key: str) -> str:
        asked = self.asks.get(key)
        return key if asked is None else key + str(self.cache.get_or_load_sync(asked, self.load_sync))


@pytest.mark.parametrize("asks", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
async def test_a_load_that_would_wait_for_itself_is_an_error_at_once(
    cache: Words, asks: dict[str, str]
) -> None:
    circle = Circle(cache, asks)
    with pytest.raises(LoadFailed, match="it would wait for itself for ever"):
        await cache.get_or_load("a", circle.load)
    with pytest.raises(LoadFailed, match="it would wait for itself for ever"):
        cache.get_or_load_sync("a", circle.load_sync)
    assert not cache._shelf.loads.by_key


async def test_loads_that_others_began_may_not_wait_for_each_other_either(cache: Words) -> None:
    answers: list[object] = []
    begun = [anyio.Event(), anyio.Event()]

    async def load(key: str) -> str:
        begun["ab".index(key)].set()
        for each in begun:
            await each.wait()
        return key + str(await cache.get_or_load("b" if key == "a" else "a", load))

    async def ask(key: str) -> None:
        try:
            answers.append(await cache.get_or_load(key, load))
        except LoadFailed as error:
            answers.append(str(error))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "a")
            tasks.start_soon(ask, "b")
    assert len(answers) == 2
    assert all("it would wait for itself" in str(answer) for answer in answers)


async def test_a_load_may_ask_for_other_keys(cache: Words) -> None:
    circle = Circle(cache, {"a": "b", "b": "c"})
    assert await cache.get_or_load("a", circle.load) == "abc"
    cache.clear()
    assert cache.get_or_load_sync("a", circle.load_sync) == "abc"


async def test_a_task_that_outlives_its_load_may_ask_for_its_key(cache: Words) -> None:
    answers: list[object] = []

    async def later(key: str) -> None:
        cache.clear()
        answers.append(await cache.get_or_load(key, partial(load, again=False)))

    async def load(key: str, again: bool = True) -> str:
        if again:
            tasks.start_soon(later, key)
        return key

    async with anyio.create_task_group() as tasks:
        assert await cache.get_or_load("a", load) == "a"
    assert answers == ["a"]


@pytest.mark.parametrize("follower", ["asyncio", "trio", "thread"])
@pytest.mark.parametrize("leader", ["asyncio", "trio", "thread"])
class TestBetweenLoopsAndThreads:
    def test_one_load_for_both(self, leader: str, follower: str) -> None:
        cache: Words = TTLCache(10, 60)
        gate, begun = threading.Event(), threading.Event()
        calls: list[str] = []
        answers: list[object] = []

        def load_sync(key: str) -> str:
            calls.append(key)
            begun.set()
            assert gate.wait(20)
            return key.upper()

        async def load(key: str) -> str:
            return await anyio.to_thread.run_sync(load_sync, key)

        def ask(colour: str) -> None:
            if colour == "thread":
                answers.append(cache.get_or_load_sync("a", load_sync))
            else:
                answers.append(anyio.run(cache.get_or_load, "a", load, backend=colour))

        with threads(partial(ask, leader)):
            assert begun.wait(20)
            with threads(partial(ask, follower)):
                eventually(lambda: cache.statistics().misses == 2)
                gate.set()
        assert (calls, answers) == (["a"], ["A", "A"])

    def test_when_the_leader_s_world_ends_the_follower_loads_for_itself(
        self, leader: str, follower: str
    ) -> None:
        """An event loop ends with all its tasks, the load included; a thread by Ctrl-C."""
        cache: Words = TTLCache(10, 60)
        leave, begun = threading.Event(), threading.Event()
        answers: list[object] = []

        class Ends(BaseException):
            pass

        def load_and_end(key: str) -> str:
            begun.set()
            assert leave.wait(20)
            raise Ends

        async def main() -> None:
            async def load(key: str) -> str:
                begun.set()
                await anyio.sleep_forever()
                return key

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cache.get_or_load, "a", load)
                await anyio.to_thread.run_sync(leave.wait)
                tasks.cancel_scope.cancel()

        def lead() -> None:
            if leader == "thread":
                with pytest.raises(Ends):
                    cache.get_or_load_sync("a", load_and_end)
            else:
                anyio.run(main, backend=leader)

        async def load_own(key: str) -> str:
            return "its own"

        def follow() -> None:
            if follower == "thread":
                answers.append(cache.get_or_load_sync("a", lambda key: "its own"))
            else:
                answers.append(anyio.run(cache.get_or_load, "a", load_own, backend=follower))

        with threads(lead):
            assert begun.wait(20)
            with threads(follow):
                eventually(lambda: cache.statistics().misses == 2)
                leave.set()
        assert answers == ["its own"]
        assert cache.get("a") == "its own"


@contextlib.contextmanager
def loop_amid_a_load(cache: Words) -> Iterator[asyncio.AbstractEventLoop]:
    """One that stands still while it loads "a". asyncio.run ends the tasks of its loop; who closes a loop
    otherwise leaves them as they are.
    """

    async def hang(key: str) -> str:
        await asyncio.Event().wait()
        return key

    async def leave() -> set[asyncio.Task[Any]]:
        asking = asyncio.create_task(cache.get_or_load("a", hang))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return {asking, *asyncio.all_tasks()}

    loop = asyncio.new_event_loop()
    pending = loop.run_until_complete(leave())
    yield loop
    while pending:
        pending.pop()._log_destroy_pending = False  # type: ignore[attr-defined]
    gc.collect()


@pytest.mark.parametrize("follower", ["asyncio", "trio", "thread"])
def test_a_loop_that_is_closed_amid_a_load_is_noticed(follower: str) -> None:
    clock = ManualClock()
    cache: Words = TTLCache(10, 60, clock=clock)
    answers: list[object] = []

    async def load(key: str) -> str:
        return "its own"

    def ask() -> None:
        if follower == "thread":
            answers.append(cache.get_or_load_sync("a", lambda key: "its own"))
        else:
            answers.append(anyio.run(cache.get_or_load, "a", load, backend=follower))

    with loop_amid_a_load(cache) as loop, threads(ask):
        eventually(lambda: cache.statistics().misses == 2)
        loop.close()
        for _ in range(2):  # who waits looks each second
            clock.advance(1)
    assert answers == ["its own"]


def test_who_comes_after_a_loop_was_closed_amid_a_load_loads_anew() -> None:
    cache: Words = TTLCache(10, 60)
    with loop_amid_a_load(cache) as loop:
        loop.close()
        assert cache.get_or_load_sync("a", lambda key: "its own") == "its own"


async def test_to_block_the_loop_that_loads_is_an_error(cache: Words) -> None:
    loader = Loader()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache.get_or_load, "a", loader.load)
        await settle()
        with pytest.raises(LoadFailed, match="words 'a' is being loaded by the event loop of this thread"):
            cache.get_or_load_sync("a", lambda key: "its own")
        loader.gate.set()


class TestThreads:
    def test_the_error_of_a_loader_reaches_all_and_is_not_kept(self, cache: Words) -> None:
        gate = threading.Event()
        errors: list[Exception] = []

        def fail(key: str) -> str:
            assert gate.wait(20)
            raise ZeroDivisionError("no a")

        def ask() -> None:
            try:
                cache.get_or_load_sync("a", fail)
            except ZeroDivisionError as error:
                errors.append(error)

        with threads(ask, ask, ask):
            eventually(lambda: cache.statistics().misses == 3)
            gate.set()
        assert len(errors) == 3
        assert len(set(map(id, errors))) == 1
        assert cache.get_or_load_sync("a", str.upper) == "A"

    def test_loads_that_wait_for_each_other_end(self, cache: Words) -> None:
        barrier = threading.Barrier(2)
        errors: list[str] = []

        def load(key: str) -> str:
            barrier.wait(20)
            return key + str(cache.get_or_load_sync("b" if key == "a" else "a", load))

        def ask(key: str) -> None:
            try:
                cache.get_or_load_sync(key, load)
            except LoadFailed as error:
                errors.append(str(error))

        with threads(partial(ask, "a"), partial(ask, "b")):
            pass
        assert len(errors) == 2

    def test_a_thread_that_is_struck_while_it_waits_harms_nobody(
        self, cache: Words, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As by Ctrl-C."""
        gate, begun = threading.Event(), threading.Event()
        answers: list[object] = []

        def load(key: str) -> str:
            begun.set()
            assert gate.wait(20)
            return key.upper()

        def strike(*_: object) -> None:
            raise KeyboardInterrupt

        with threads(lambda: answers.append(cache.get_or_load_sync("a", load))):
            assert begun.wait(20)
            with monkeypatch.context() as patch:
                patch.setattr("batchkit.testing._ManualSyncParker.park_sync", strike)
                with pytest.raises(KeyboardInterrupt):
                    cache.get_or_load_sync("a", load)
            gate.set()
        assert answers == ["A"]


def test_what_a_flight_says_when_it_was_abandoned(clock: ManualClock) -> None:
    ended: list[Flight[str]] = []
    flight = Flight[str]("words", clock, ended.append)
    flight.abandon()
    with pytest.raises(Abandoned, match="words"):
        flight.join_sync()
    assert ended == [flight]

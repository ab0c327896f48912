"""`Batcher` in threads, and between event loops."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

import anyio
import pytest
import trio

from batchkit import Batcher, BatchSplit, LoadFailed, PrefetchFailed, TokenBucket
from batchkit._background import is_open
from batchkit._batching.waiters import listed
from batchkit.retries import Retry
from batchkit.testing import ManualClock, RecordingHook
from tests.helpers import DEADLINE, eventually, threads

BACKENDS = ["asyncio", "trio"]


class Gated:
    """A plain loader whose first call waits at a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[list[str]] = []

    def load_many(self, keys: list[str]) -> list[str]:
        self.calls.append(keys)
        if len(self.calls) == 1:
            assert self.gate.wait(DEADLINE)
        return [key.upper() for key in keys]


async def happened(event: threading.Event) -> None:
    await anyio.to_thread.run_sync(event.wait, DEADLINE, abandon_on_cancel=True)


def waiting(batcher: Batcher[str, Any]) -> int:
    return batcher._loading._keys.gathering.waiting


def callers(batcher: Batcher[str, Any], key: str) -> int:
    """How many wait for a key, in whatever loop."""
    keys, rooms = batcher._loading._keys, batcher._loading._rooms
    place = keys.places.get(key)
    there = 0 if place is None or key not in place.waiting else len(listed(place.waiting[key]))
    return there + sum(len(listed(room.came[key])) for room in rooms.by_loop.values() if key in room.came)


def nothing_is_left(batcher: Batcher[Any, Any]) -> bool:
    loading = batcher._loading
    keys, gathering = loading._keys, loading._keys.gathering
    # what was begun in an event loop that was about to end is forgotten by whoever comes next
    rooms = [room for loop, room in loading._rooms.by_loop.items() if is_open(loop)]
    gatherers = [room for room in [*rooms, loading._rooms.of_threads] if room.gatherer is not None]
    came = [room for room in rooms if room.came]
    held: list[Any] = [keys.places, keys.under_way, gatherers, came, loading._gatherers._threads]
    return not (gathering.waiting or gathering.under_way or any(held))


def test_a_lone_load_is_made_by_its_own_thread_at_once() -> None:
    callers: list[threading.Thread] = []

    def load_many(keys: list[str]) -> dict[str, str]:
        callers.append(threading.current_thread())
        return {key: key.upper() for key in keys if key != "x"}

    lookup: Batcher[str, str] = Batcher(load_many, max_wait=60)
    assert lookup.load_sync("a") == "A"
    assert lookup.load_many_sync("bab") == {"b": "B", "a": "A"}
    with pytest.raises(KeyError, match="x"):
        lookup.load_sync("x")
    assert callers == [threading.current_thread()] * 3
    assert nothing_is_left(lookup)


def test_threads_gather_while_a_call_is_under_way() -> None:
    loader = Gated()
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_in_flight=1)
    answers: dict[str, str] = {}

    def load(key: str) -> None:
        answers[key] = lookup.load_sync(key)

    with threads(lambda: load("a")):
        eventually(lambda: len(loader.calls) == 1)
        with threads(*[lambda key=key: load(key) for key in "bbcd"]):
            eventually(lambda: waiting(lookup) == 3)
            loader.gate.set()
    assert answers == {key: key.upper() for key in "abcd"}
    assert sorted(map(len, loader.calls)) == [1, 3]
    assert nothing_is_left(lookup)


def test_keys_beyond_one_call_are_shared_by_the_threads_that_wait() -> None:
    both = threading.Barrier(2, timeout=DEADLINE)

    def load_many(keys: list[int]) -> list[int]:
        both.wait()  # so two calls are under way at a time
        return keys

    lookup: Batcher[int, int] = Batcher(load_many, max_batch_size=2, max_in_flight=2)
    with threads(lambda: lookup.load_many_sync(range(8)), lambda: lookup.load_many_sync(range(8))):
        pass
    assert nothing_is_left(lookup)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tasks_and_threads_gather_together(backend: str) -> None:
    loader = Gated()
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_in_flight=1)
    answers: dict[str, str] = {}

    async def tasks() -> None:
        async with anyio.create_task_group() as group:
            for key in "abc":
                group.start_soon(load, key)

    async def load(key: str) -> None:
        answers[key] = await lookup.load(key)

    def load_sync(key: str) -> None:
        answers[key] = lookup.load_sync(key)

    with threads(lambda: load_sync("x")):
        eventually(lambda: len(loader.calls) == 1)
        with threads(
            lambda: anyio.run(tasks, backend=backend), lambda: load_sync("y"), lambda: load_sync("c")
        ):
            eventually(lambda: waiting(lookup) == 4)
            loader.gate.set()
    assert answers == {key: key.upper() for key in "abcxy"}
    assert sorted(map(sorted, loader.calls)) == [["a", "b", "c", "y"], ["x"]]
    assert nothing_is_left(lookup)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_async_loader_is_run_by_an_event_loop_that_uses_the_batcher(backend: str) -> None:
    ran_in: set[threading.Thread] = set()

    async def load_many(keys: list[str]) -> list[str]:
        ran_in.add(threading.current_thread())
        return [key.upper() for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many, name="words")

    async def main() -> None:
        assert await lookup.load("a") == "A"
        assert await anyio.to_thread.run_sync(lookup.load_sync, "b") == "B"
        assert await anyio.to_thread.run_sync(lookup.load_many_sync, "cd") == {"c": "C", "d": "D"}

    with pytest.raises(RuntimeError, match="words: the loader is async, and no event loop"):
        lookup.load_sync("a")
    for _ in range(3):
        anyio.run(main, backend=backend)
        with pytest.raises(RuntimeError, match="words: the loader is async, and no event loop"):
            lookup.load_sync("a")
    assert ran_in == {threading.current_thread()}
    assert nothing_is_left(lookup)
    assert len(lookup._loading._rooms.by_loop) == 1  # those that are closed are forgotten


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("plain", [False, True])
def test_a_load_that_would_block_its_own_event_loop_is_refused(backend: str, plain: bool) -> None:
    async def load_many(keys: list[str]) -> list[str]:
        return keys

    def load_many_sync(keys: list[str]) -> list[str]:
        return keys

    async def main() -> None:
        lookup: Batcher[str, str] = Batcher(load_many_sync if plain else load_many)
        with pytest.raises(RuntimeError, match="would block the event loop"):
            lookup.load_sync("a")

    anyio.run(main, backend=backend)


# those who go


def test_when_a_thread_is_struck_amid_a_call_another_one_makes_it() -> None:
    loader = Gated()

    def load_many(keys: list[str]) -> list[str]:
        answer = loader.load_many(keys)
        if len(loader.calls) == 1:
            raise KeyboardInterrupt
        return answer

    lookup: Batcher[str, str] = Batcher(load_many, cache={})
    answers: list[str] = []

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            lookup.load_sync("a")

    with threads(lead):
        eventually(lambda: len(loader.calls) == 1)
        with threads(*[lambda: answers.append(lookup.load_sync("a"))] * 3):
            eventually(lambda: callers(lookup, "a") == 4)
            loader.gate.set()
    assert answers == ["A"] * 3
    assert loader.calls == [["a"]] * 2
    assert nothing_is_left(lookup)


class StruckClock(ManualClock):
    """Strikes the thread of that name when it waits."""

    def parker_sync(self) -> Any:
        parker = super().parker_sync()
        if threading.current_thread().name != "struck":
            return parker
        return StruckParker(parker)


class StruckParker:
    domain = None

    def __init__(self, parker: Any) -> None:
        self._parker = parker

    def unpark(self) -> bool:
        return bool(self._parker.unpark())

    def park_sync(self, until: float = inf) -> None:
        self._parker.park_sync(until)
        raise KeyboardInterrupt


@pytest.mark.parametrize("followers", ["one", "only"])
def test_a_thread_that_is_struck_as_it_is_to_make_a_call_leaves_it_to_another(followers: str) -> None:
    loader = Gated()
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_in_flight=1, clock=StruckClock())
    answers: list[str] = []

    def struck() -> None:
        threading.current_thread().name = "struck"
        with pytest.raises(KeyboardInterrupt):
            lookup.load_sync("b")

    with threads(lambda: answers.append(lookup.load_sync("a"))):
        eventually(lambda: len(loader.calls) == 1)
        with threads(struck):
            eventually(lambda: waiting(lookup) == 1)
            if followers == "one":
                with threads(lambda: answers.append(lookup.load_sync("b"))):
                    eventually(lambda: callers(lookup, "b") == 2)
                    loader.gate.set()
            loader.gate.set()
    assert answers == (["A", "B"] if followers == "one" else ["A"])
    assert [call for call in loader.calls if call != ["a"]] == ([["b"]] if followers == "one" else [])
    assert nothing_is_left(lookup)


def test_a_thread_that_is_struck_as_it_waits_for_the_call_of_another_harms_nobody() -> None:
    loader = Gated()
    lookup: Batcher[str, str] = Batcher(loader.load_many, clock=StruckClock())
    answers: list[str] = []

    def struck() -> None:
        threading.current_thread().name = "struck"
        with pytest.raises(KeyboardInterrupt):
            lookup.load_sync("a")

    with threads(lambda: answers.append(lookup.load_sync("a"))):
        eventually(lambda: len(loader.calls) == 1)
        with threads(struck, struck, lambda: answers.append(lookup.load_sync("a"))):
            eventually(lambda: callers(lookup, "a") == 4)
            loader.gate.set()
    assert answers == ["A", "A"]
    assert loader.calls == [["a"]]
    assert nothing_is_left(lookup)


def test_when_all_threads_that_wait_are_struck_nothing_is_left_and_the_next_one_loads() -> None:
    loader = Gated()

    def load_many(keys: list[str]) -> list[str]:
        answer = loader.load_many(keys)
        if len(loader.calls) == 1:
            raise KeyboardInterrupt
        return answer

    lookup: Batcher[str, str] = Batcher(load_many, clock=StruckClock())

    def struck() -> None:
        threading.current_thread().name = "struck"
        with pytest.raises(KeyboardInterrupt):
            lookup.load_sync("a")

    with threads(struck):
        eventually(lambda: len(loader.calls) == 1)
        with threads(struck, struck):
            eventually(lambda: callers(lookup, "a") == 3)
            loader.gate.set()
    assert loader.calls == [["a"]]
    assert nothing_is_left(lookup)
    assert lookup.load_sync("a") == "A"


def test_threads_get_the_error_of_their_key_only() -> None:
    hook = RecordingHook()

    def load_many(keys: list[str]) -> list[str]:
        if "b" in keys:
            raise ZeroDivisionError
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, hooks=[hook])
    answers = lookup.load_many_sync("abcd", return_exceptions=True)
    assert isinstance(answers.pop("b"), ZeroDivisionError)
    assert answers == {key: key for key in "acd"}
    assert len(hook.of(BatchSplit)) == 2
    with pytest.raises(ZeroDivisionError):
        lookup.load_sync("b")


def test_a_call_in_a_thread_is_made_again_as_the_retry_policy_says() -> None:
    calls: list[list[str]] = []

    def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        if len(calls) < 3:
            raise ConnectionError
        return keys

    bucket = TokenBucket(rate=1e6, burst=10)
    lookup: Batcher[str, str] = Batcher(load_many, retry=Retry(backoff=lambda _: 0.0), limiter=bucket)
    assert lookup.load_sync("a") == "a"
    assert bucket.statistics().granted == len(calls) == 3


def test_a_plain_loader_that_asks_for_keys() -> None:
    def load_many(keys: list[str]) -> list[str]:
        return [lookup.load_sync(key if key == "own" else key[:-1]) + key if key else "" for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many, max_in_flight=1)
    assert lookup.load_sync("abc") == "aababc"
    with pytest.raises(LoadFailed, match="wait for itself"):
        lookup.load_sync("own")
    assert nothing_is_left(lookup)


def test_an_answer_that_breaks_when_it_is_looked_at_is_an_error_in_threads_too() -> None:
    class Broken(dict[str, str]):
        def __contains__(self, key: object) -> bool:
            raise ZeroDivisionError

    lookup: Batcher[str, str] = Batcher(lambda keys: Broken())
    with pytest.raises(ZeroDivisionError):
        lookup.load_sync("a")
    assert nothing_is_left(lookup)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_the_child_of_a_fork_begins_with_nothing_under_way() -> None:
    loader = Gated()
    lookup: Batcher[str, str] = Batcher(loader.load_many, max_in_flight=1)

    with threads(lambda: lookup.load_sync("a")):
        eventually(lambda: len(loader.calls) == 1)
        with lookup._loading._keys.lock:  # held by a thread that the child does not have
            child = os.fork()
            if child == 0:
                os._exit(0 if lookup.load_many_sync("ab") == {"a": "A", "b": "B"} else 1)
        loader.gate.set()
    assert os.waitpid(child, 0)[1] == 0
    assert nothing_is_left(lookup)


# prefetch


def test_a_thread_prefetches_in_another_thread() -> None:
    cache: dict[str, str] = {}
    ran_in: set[threading.Thread] = set()

    def load_many(keys: list[str]) -> list[str]:
        ran_in.add(threading.current_thread())
        return [key.upper() for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many, cache=cache)
    assert lookup.prefetch("ab") == 2
    eventually(lambda: len(cache) == 2)
    assert threading.current_thread() not in ran_in
    assert lookup.load_sync("a") == "A"
    assert lookup.prefetch("ab") == 0
    eventually(lambda: not lookup._prefetching._under_way)


def test_a_prefetch_that_nobody_can_run_says_so() -> None:
    hook = RecordingHook()

    async def load_many(keys: list[str]) -> list[str]:
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, cache={}, hooks=[hook])
    assert lookup.prefetch("ab") == 2
    eventually(lambda: len(hook.of(PrefetchFailed)) == 2)
    assert {type(event.error) for event in hook.of(PrefetchFailed)} == {RuntimeError}


# event loops


class Loop:
    """An event loop in a thread of its own, that stays for as long as it is asked to."""

    def __init__(self, backend: str, work: Callable[[], Any]) -> None:
        self.leave = threading.Event()
        self.answers: list[Any] = []
        self._work = work
        self._thread = threading.Thread(target=anyio.run, args=(self._main,), kwargs={"backend": backend})
        self._thread.start()

    async def _main(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._answer)
            await happened(self.leave)
            tasks.cancel_scope.cancel()

    async def _answer(self) -> None:
        self.answers.append(await self._work())

    def end(self) -> None:
        self.leave.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("second", [*BACKENDS, "thread"])
@pytest.mark.parametrize("first", BACKENDS)
def test_a_key_that_another_event_loop_has_on_its_way_is_not_asked_for_again(first: str, second: str) -> None:
    gate = threading.Event()
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        await happened(gate)
        return [key.upper() for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many)
    one = Loop(first, lambda: lookup.load("a"))
    eventually(lambda: len(calls) == 1)
    answers: list[str] = []
    other = None if second == "thread" else Loop(second, lambda: lookup.load("a"))
    work = [lambda: answers.append(lookup.load_sync("a"))] if other is None else []
    with threads(*work):
        eventually(lambda: callers(lookup, "a") == 2)
        gate.set()
        eventually(lambda: len(one.answers) == 1 and len(answers if other is None else other.answers) == 1)
    one.end()
    if other is not None:
        answers = other.answers
        other.end()
    assert one.answers == answers == ["A"]
    assert calls == [["a"]]
    assert nothing_is_left(lookup)


@pytest.mark.parametrize("second", [*BACKENDS, "thread"])
@pytest.mark.parametrize("first", BACKENDS)
@pytest.mark.parametrize("gathers", [False, True])
def test_when_an_event_loop_ends_under_a_load_those_elsewhere_have_it_made_again(
    first: str, second: str, gathers: bool
) -> None:
    """Whether their key was part of its call, or waited for that call to end."""
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        if len(calls) == 1:
            await anyio.sleep_forever()
        return [key.upper() for key in keys]

    lookup: Batcher[str, str] = Batcher(load_many, max_in_flight=1)
    one = Loop(first, lambda: lookup.load("a"))
    eventually(lambda: len(calls) == 1)
    key = "b" if gathers else "a"

    async def load() -> str:
        return await lookup.load(key)

    async def load_in_thread() -> str:
        return await anyio.to_thread.run_sync(lookup.load_sync, key)

    other = Loop("asyncio" if second == "thread" else second, load_in_thread if second == "thread" else load)
    eventually(lambda: callers(lookup, key) == (1 if gathers else 2))
    there = None
    if second == "thread":  # an event loop that may run the call: it knows the batcher by then
        there = Loop(first, lambda: lookup.load("z"))
        eventually(lambda: callers(lookup, "z") == 1)
    one.end()
    eventually(lambda: bool(other.answers))
    other.end()
    if there is not None:
        there.end()
    assert other.answers == [key.upper()]
    assert one.answers == []
    assert nothing_is_left(lookup)


@pytest.mark.parametrize("plain", [False, True])
def test_trio_as_a_guest_of_an_event_loop_of_asyncio_gathers_with_that_loop(plain: bool) -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        await anyio.sleep(0.01)
        return [key.upper() for key in keys]

    def load_plain(keys: list[str]) -> list[str]:
        calls.append(keys)
        return [key.upper() for key in keys]

    lookup: Batcher[str, str] = Batcher(load_plain if plain else load_many)

    async def guest() -> list[str]:
        values = [await lookup.load("a"), await lookup.load("b")]
        with trio.move_on_after(0):
            await lookup.load("c")
        return [*values, *(await lookup.load_many("de")).values()]

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        assert await lookup.load("z") == "Z"
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        for _ in range(20):
            assert await lookup.load("z") == "Z"
        assert (await done).unwrap() == [*"ABDE"]

    asyncio.run(host())
    assert nothing_is_left(lookup)


@pytest.mark.filterwarnings(
    "ignore:coroutine .*was never awaited:RuntimeWarning"
)  # the event loop ended first
def test_a_thread_whose_event_loop_ended_under_its_load_is_told() -> None:
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        await anyio.sleep_forever()
        return keys

    lookup: Batcher[str, str] = Batcher(load_many)
    one = Loop("asyncio", lambda: lookup.load("a"))
    eventually(lambda: len(calls) == 1)

    def load() -> None:
        with pytest.raises(RuntimeError, match="no event loop"):
            lookup.load_sync("a")

    with threads(load):
        eventually(lambda: callers(lookup, "a") == 2)
        one.end()
    assert nothing_is_left(lookup)


@pytest.mark.parametrize("gathers", [False, True])
def test_a_thread_whose_event_loop_stands_still_is_told(gathers: bool) -> None:
    """It was stopped, and nobody cancelled its tasks: whether or not the key was asked for by then."""
    calls: list[list[str]] = []

    async def load_many(keys: list[str]) -> list[str]:
        calls.append(keys)
        await anyio.sleep(3600)
        return keys

    lookup: Batcher[str, str] = Batcher(load_many, max_in_flight=1)
    loop = asyncio.new_event_loop()
    stop = threading.Event()

    async def main() -> asyncio.Task[str]:
        task = asyncio.ensure_future(lookup.load("a"))
        await happened(stop)
        return task

    def load() -> None:
        with pytest.raises(RuntimeError, match="no event loop"):
            lookup.load_sync("b" if gathers else "a")

    tasks: list[asyncio.Task[str]] = []
    with threads(lambda: tasks.append(loop.run_until_complete(main()))):
        eventually(lambda: len(calls) == 1)
        with threads(load):
            eventually(lambda: callers(lookup, "b" if gathers else "a") == (1 if gathers else 2))
            stop.set()
    tasks[0].cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_default_executor())
    for task in asyncio.all_tasks(loop):
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert nothing_is_left(lookup)


def test_a_loader_of_one_event_loop_waits_for_itself_by_way_of_another() -> None:
    """Two batchers, each of which needs the other: in a circle through two event loops and a thread."""

    async def load_many(keys: list[str]) -> list[str]:
        return [await anyio.to_thread.run_sync(other.load_sync, key) for key in keys]

    def load_other(keys: list[str]) -> list[str]:
        async def load() -> dict[str, str]:
            return await lookup.load_many(keys)

        return [*asyncio.run(load()).values()]

    lookup: Batcher[str, str] = Batcher(load_many)
    other: Batcher[str, str] = Batcher(load_other)
    with pytest.raises(LoadFailed, match="wait for itself"):
        trio.run(lookup.load, "a")
    assert nothing_is_left(lookup)
    assert nothing_is_left(other)


# all at once


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_threads_and_event_loops_hammer_it(plain: bool, cached: bool) -> None:
    under_way: Counter[int] = Counter()
    most = 0
    wrong: list[str] = []
    lock = threading.Lock()

    def begin(keys: list[int]) -> None:
        nonlocal most
        with lock:
            under_way.update(keys)
            most = max(most, len(calls := [*keys]))
            if max(under_way.values()) > 1:
                wrong.append(f"{keys} twice at a time")
            if len({*calls}) != len(calls) or not 1 <= len(calls) <= 5:
                wrong.append(f"{keys} in one call")

    def end(keys: list[int]) -> list[Any]:
        with lock:
            under_way.subtract(keys)
        if 13 in keys:
            raise ValueError
        return [key * 2 for key in keys]

    def load_plain(keys: list[int]) -> list[Any]:
        begin(keys)
        return end(keys)

    async def load_async(keys: list[int]) -> list[Any]:
        begin(keys)
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            with lock:
                under_way.subtract(keys)
            raise
        return end(keys)

    lookup: Batcher[int, int] = Batcher(
        load_plain if plain else load_async,
        max_batch_size=5,
        max_wait=0.001,
        max_in_flight=3,
        cache={} if cached else None,
    )
    stay = threading.Event()

    def check(key: int, answer: int | None) -> None:
        if answer != (None if key == 13 else key * 2):
            wrong.append(f"{key}: {answer}")

    async def load(chance: random.Random, patience: float) -> None:
        for _ in range(60):
            key = chance.randrange(20)
            try:
                with anyio.move_on_after(patience):
                    check(key, await lookup.load(key))
            except ValueError:
                check(key, None)

    async def main(seed: int) -> None:
        await lookup.load(seed)
        ready.release()
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                # a call that is being stopped may overlap with its successor: then none is stopped
                patience = 0.0005 if plain and number % 3 == 0 else DEADLINE
                tasks.start_soon(load, random.Random(10 * seed + number), patience)
        await happened(stay)  # the threads need an event loop to the last

    def load_sync(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            keys = {chance.randrange(20) for _ in range(3)}
            for key, answer in lookup.load_many_sync(keys, return_exceptions=True).items():
                check(key, None if isinstance(answer, ValueError) else answer)  # type: ignore[arg-type]

    ready = threading.Semaphore(0)
    with threads(
        lambda: anyio.run(main, 1, backend="asyncio"),
        lambda: anyio.run(main, 2, backend="trio"),
        lambda: anyio.run(main, 3, backend="asyncio"),
    ):
        try:
            for _ in range(3):
                assert ready.acquire(timeout=DEADLINE)
            with threads(*[lambda seed=seed: load_sync(seed) for seed in range(100, 106)]):
                pass
        finally:
            stay.set()
    assert wrong == []
    assert most > 1
    assert nothing_is_left(lookup)

"""`TTLCache` before a `RedisTier`: each process has its own, and they know of each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest

from batchkit import CodecFailed, RedisTier, TierUnavailable, TTLCache, cached
from tests.helpers import eventually, threads
from tests.servers import BINARIES, Server

pytestmark = [pytest.mark.skipif(not BINARIES, reason="no server found"), pytest.mark.anyio]

Words: TypeAlias = TTLCache[Any, Any]


class Process:
    """A cache as one process has it, with a loader that counts."""

    def __init__(self, tier: RedisTier[Any], **options: Any) -> None:
        self.cache: Words = TTLCache(100, options.pop("ttl", 60), tier=tier, **options)
        self.calls: list[list[Any]] = []

    def load_many(self, keys: list[Any]) -> dict[Any, Any]:
        self.calls.append(keys)
        return {key: f"{key} {len(self.calls)}" for key in keys if key != "x"}

    async def load_many_async(self, keys: list[Any]) -> dict[Any, Any]:
        return self.load_many(keys)

    def ask(self, *keys: Any, **options: Any) -> dict[Any, Any]:
        return self.cache.get_many_sync(keys, self.load_many, **options)

    async def ask_async(self, *keys: Any) -> dict[Any, Any]:
        return await self.cache.get_many(keys, self.load_many_async)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def processes(stack: ExitStack, server: Server, count: int = 2, **options: Any) -> list[Process]:
    found: list[Process] = []
    for _ in range(count):
        tier = RedisTier[Any](server.url(), "words")
        stack.callback(tier.close)
        found.append(Process(tier, **options))
    return found


def test_what_one_process_loaded_another_one_finds(redis_server: Server, stack: ExitStack) -> None:
    one, other = processes(stack, redis_server)
    assert one.ask("a", "b") == {"a": "a 1", "b": "b 1"}
    assert other.ask("b", "c") == {"b": "b 1", "c": "c 1"}
    assert other.calls == [["c"]]
    assert other.ask("a", "b", "c") == {"a": "a 1", "b": "b 1", "c": "c 1"}
    statistics = other.cache.statistics()
    assert statistics.tier_hits >= 2  # more often where it is told to forget, as its connection comes up
    assert (statistics.loads, statistics.load_calls) == (1, 1)


def test_what_a_process_loads_it_has_without_asking_again(redis_server: Server, stack: ExitStack) -> None:
    (one,) = processes(stack, redis_server, 1)
    one.ask("first")  # from now on it hears of changes
    eventually(lambda: one.cache._tiered is not None and one.cache._tiered.tier.listens)  # type: ignore[attr-defined]
    one.ask("a", "b")
    one.cache.set("c", 1)
    one.cache.catch_up_sync()
    threading.Event().wait(0.2)  # time to hear of what it changed itself
    assert sorted(one.cache.get_present("abc")) == ["a", "b", "c"]


async def test_so_it_is_in_tasks(redis_server: Server, stack: ExitStack) -> None:
    one, other = processes(stack, redis_server)
    assert await one.ask_async("a", "x") == {"a": "a 1"}
    assert await other.ask_async("a", "b") == {"a": "a 1", "b": "b 1"}
    assert other.calls == [["b"]]
    other.cache.delete("a")
    await other.cache.catch_up()
    assert await one.ask_async("b") == {"b": "b 1"}


async def test_who_brings_no_loader_finds_what_this_process_has(
    redis_server: Server, stack: ExitStack
) -> None:
    async def load_nothing(keys: list[Any]) -> dict[Any, Any]:
        return {}

    one, other = processes(stack, redis_server)
    one.ask("a", "b")
    assert other.cache.get("a") is None
    assert other.cache.get_present("ab") == {}
    assert "a" not in other.cache
    # to look into the tier, too, bring one that knows nothing
    assert other.cache.get_many_sync("ac", lambda missing: {}) == {"a": "a 1"}
    assert await other.cache.get_many("bc", load_nothing) == {"b": "b 1"}
    assert other.ask("c") == {"c": "c 1"}  # that was not kept as its answer


def test_of_all_processes_one_loads(redis_server: Server, stack: ExitStack) -> None:
    gate = threading.Event()
    found = processes(stack, redis_server, 4)
    answers: list[object] = []

    def load_one(process: Process, key: str) -> str:
        process.calls.append([key])
        assert gate.wait(20)
        return "A"

    def ask(process: Process) -> None:
        answers.append(process.cache.get_or_load_sync("a", partial(load_one, process)))

    with threads(*(partial(ask, process) for process in found)):
        eventually(lambda: sum(len(process.calls) for process in found) == 1)
        eventually(lambda: all(process.cache.statistics().misses for process in found))
        gate.set()
    assert answers == ["A"] * 4
    assert sum(len(process.calls) for process in found) == 1


@pytest.mark.parametrize("change", ["set", "delete", "tag", "prefix", "clear"])
def test_a_change_in_one_process_counts_in_all(redis_server: Server, stack: ExitStack, change: str) -> None:
    one, other = processes(stack, redis_server, separator=":")
    one.ask("a:1", tags=["t"])
    assert other.ask("a:1") == {"a:1": "a:1 1"}
    match change:
        case "set":
            one.cache.set("a:1", "changed")
        case "delete":
            one.cache.delete("a:1")
        case "tag":
            one.cache.delete_tag("t")
        case "prefix":
            one.cache.delete_prefix("a:")
        case _:
            one.cache.clear()
    # who asks here after the change gets nothing that was before it
    assert one.ask("a:1") == {"a:1": "changed" if change == "set" else "a:1 2"}
    one.cache.catch_up_sync()
    eventually(lambda: other.ask("a:1") == one.ask("a:1"))
    assert len(one.calls) + len(other.calls) == (1 if change == "set" else 2)


def test_that_a_key_has_no_value_is_known_to_all(redis_server: Server, stack: ExitStack) -> None:
    one, other = processes(stack, redis_server, negative_ttl=30)

    def unknown(key: str) -> str:
        raise KeyError(key)

    with pytest.raises(KeyError):
        one.cache.get_or_load_sync("y", unknown)
    assert other.ask("y") == {}
    assert one.ask("x") == {}
    assert other.ask("x") == {}
    assert other.calls == []


def test_an_old_value_is_loaded_again_by_one(redis_server: Server, stack: ExitStack) -> None:
    one, other = processes(stack, redis_server, ttl=0.2, stale=20)
    one.ask("a")
    other.ask("a")
    eventually(lambda: one.cache.get("a") is None and other.cache.get("a") is None)
    assert one.ask("a", ttl=60) == {"a": "a 1"}
    eventually(lambda: one.ask("a", ttl=60) == {"a": "a 2"})
    eventually(lambda: other.ask("a") == {"a": "a 2"})
    assert (one.calls, other.calls) == ([["a"], ["a"]], [])


def test_what_is_dropped_while_it_is_loaded_elsewhere_is_not_kept(
    redis_server: Server, stack: ExitStack
) -> None:
    one, other = processes(stack, redis_server)
    gate, begun = threading.Event(), threading.Event()

    def slow(key: str) -> str:
        begun.set()
        assert gate.wait(20)
        return "old"

    with threads(partial(one.cache.get_or_load_sync, "a", slow)):
        assert begun.wait(20)
        other.cache.delete("a")
        other.cache.catch_up_sync()
        gate.set()
    assert one.cache.get("a") is None
    assert other.ask("a") == {"a": "a 1"}


def test_the_error_of_a_loader_lets_others_load(redis_server: Server, stack: ExitStack) -> None:
    one, other = processes(stack, redis_server)

    def fail(key: str) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one.cache.get_or_load_sync("a", fail)
    assert other.ask("a") == {"a": "a 1"}


async def test_who_is_cancelled_lets_others_load(redis_server: Server, stack: ExitStack) -> None:
    one, other = processes(stack, redis_server)
    begun = anyio.Event()

    async def hang(key: str) -> str:
        begun.set()
        await anyio.sleep_forever()
        return key

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.cache.get_or_load, "a", hang)
        await begun.wait()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(5):
        assert await other.ask_async("a") == {"a": "a 1"}


def test_without_redis_each_process_loads_for_itself(stack: ExitStack) -> None:
    tier = RedisTier[Any]("redis://127.0.0.1:1", "words", timeout=0.2)
    stack.callback(tier.close)
    process = Process(tier)
    assert process.ask("a") == {"a": "a 1"}
    assert process.ask("a") == {"a": "a 1"}
    process.cache.delete("a")
    assert process.ask("a") == {"a": "a 2"}


def test_or_it_is_told(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    tier = RedisTier[Any]("redis://127.0.0.1:1", "words", timeout=0.2, on_unavailable="raise")
    stack.callback(tier.close)
    process = Process(tier)
    with pytest.raises(TierUnavailable):
        process.ask("a")
    process.cache.delete("a")
    eventually(lambda: "the tier could not be told of a change" in caplog.text)


def test_a_value_that_the_codec_cannot_tell_is_the_error_of_who_loads_it(
    redis_server: Server, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    tier = RedisTier[Any](redis_server.url(), "words")
    other = RedisTier[Any](redis_server.url(), "words")
    stack.callback(tier.close)
    stack.callback(other.close)
    here, there = Words(100, ttl=60, tier=tier), Words(100, ttl=60, tier=other)
    with pytest.raises(CodecFailed, match="the value of 'a'"):
        here.get_or_load_sync("a", lambda key: {key})
    assert there.get_or_load_sync("a", lambda key: [key]) == ["a"]  # nobody has to wait for a lease
    for _ in range(20):
        here.set("b", {1})
        here.set("c", [2])
        assert here.get_or_load_sync("d", lambda key: key) == "d"
        here.delete("d")
    assert here.get("b") == {1}
    eventually(lambda: there.get_or_load_sync("c", lambda key: "loaded") == [2])
    eventually(lambda: caplog.text.count("the tier could not be told of a change") == 20)


def test_a_cache_that_is_gone_is_not_told(redis_server: Server, stack: ExitStack) -> None:
    import gc

    tier = RedisTier[Any](redis_server.url(), "words")
    stack.callback(tier.close)
    process = Process(tier)
    process.ask("a")
    hear: Any = tier._audience._callbacks[0]
    del process
    gc.collect()
    from batchkit.abc import Invalidation

    hear(Invalidation(everything=True))


def test_arguments_of_any_plain_type_make_a_key(redis_server: Server, stack: ExitStack) -> None:
    calls: list[str] = []

    def function() -> Any:
        tier = RedisTier[Any](redis_server.url(), "words")
        stack.callback(tier.close)

        @cached(TTLCache[Any, Any](100, ttl=60, tier=tier))
        def mean(word: str, language: str | None = None, weight: float = 0.5, *, short: bool = False) -> str:
            calls.append(word)
            return f"{word} {language} {weight} {short}"

        return mean

    one, other = function(), function()
    assert one("a") == other("a", None, 0.5, short=False) == "a None 0.5 False"
    assert one("a", short=True) == other("a", short=True) == "a None 0.5 True"
    assert calls == ["a", "a"]
    one.invalidate("a")
    one.cache.catch_up_sync()
    eventually(lambda: other("a") == "a None 0.5 False" and len(calls) == 3)

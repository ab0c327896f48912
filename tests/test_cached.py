"""`cached`: functions and methods whose values are kept."""

from __future__ import annotations

import functools
import gc
import inspect
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from batchkit import TokenBucket, TTLCache, cached, limited
from batchkit.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def cache(clock: ManualClock) -> TTLCache[Any, Any]:
    return TTLCache(100, ttl=5, clock=clock)


async def test_an_async_function_is_called_once_for_the_same_arguments(cache: TTLCache[Any, Any]) -> None:
    calls: list[object] = []

    @cached(cache)
    async def add(a: int, b: int = 2, *, c: int = 3) -> int:
        """Adds."""
        calls.append((a, b, c))
        await anyio.lowlevel.checkpoint()
        return a + b + c

    assert await add(1) == await add(1, 2) == await add(a=1, c=3) == await add(b=2, a=1) == 6
    assert await add(1, c=4) == 7
    assert calls == [(1, 2, 3), (1, 2, 4)]
    assert (add.__name__, add.__doc__, add.cache) == ("add", "Adds.", cache)
    assert inspect.iscoroutinefunction(type(add).__call__)
    assert "add at" in repr(add)


async def test_calls_at_the_same_time_share_one(cache: TTLCache[Any, Any]) -> None:
    calls: list[int] = []

    @cached(cache)
    async def double(number: int) -> int:
        calls.append(number)
        await anyio.lowlevel.checkpoint()
        return 2 * number

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(double, 1)
    assert calls == [1]


def test_a_plain_function(cache: TTLCache[Any, Any], clock: ManualClock) -> None:
    calls: list[int] = []

    @cached(cache, ttl=9)
    def double(number: int, /) -> int:
        calls.append(number)
        return 2 * number

    assert double(1) == double(1) == 2
    clock.advance(8)
    assert double(1) == 2
    assert calls == [1]
    clock.advance(1)
    double(1)
    assert calls == [1, 1]


def test_what_is_kept_can_be_dropped(cache: TTLCache[Any, Any]) -> None:
    calls: list[int] = []

    @cached(cache, tags=lambda number, even=False: ["even"] if even else [])
    def double(number: int, even: bool = False) -> int:
        calls.append(number)
        return 2 * number

    double(1)
    assert double.invalidate(number=1)
    assert not double.invalidate(1)
    double(1)
    double(2, even=True)
    assert calls == [1, 1, 2]
    assert double.key(1) in cache
    assert cache.delete_tag("even") == 1


def test_a_key_of_one_s_own(cache: TTLCache[Any, Any]) -> None:
    @cached(cache, key=lambda words, loud=False: tuple(words))
    def join(words: list[str], loud: bool = False) -> str:
        return "".join(words)

    assert join(["a", "b"]) == "ab"
    assert cache.get(("a", "b")) == "ab"
    assert join(["a", "b"], loud=True) == "ab"


def test_arguments_that_cannot_be_a_key(cache: TTLCache[Any, Any]) -> None:
    @cached(cache)
    def join(words: list[str]) -> str:
        return "".join(words)

    with pytest.raises(TypeError, match=r"join cannot be a key .*list.*: give it one by key="):
        join(["a"])
    with pytest.raises(TypeError, match="missing a required argument"):
        join()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_functions_may_share_a_cache(cache: TTLCache[Any, Any]) -> None:
    @cached(cache)
    def one(*numbers: int, **named: int) -> str:
        return f"one {numbers} {named}"

    @cached(cache)
    def other(*numbers: int, **named: int) -> str:
        return f"other {numbers} {named}"

    assert one(1, a=2) == "one (1,) {'a': 2}"
    assert other(1, a=2) == "other (1,) {'a': 2}"
    assert one() != one(0)
    assert one(a=1) != one(b=1)
    assert one(a=1, b=2) is one(b=2, a=1)
    pair: Any = ("a", 1)
    assert one(pair) != one(a=1)


class Dictionary:
    def __init__(self, cache: TTLCache[Any, Any], name: str) -> None:
        self.name = name
        self.calls: list[str] = []

    words: TTLCache[Any, Any] = TTLCache(100, ttl=300)

    @cached(words)
    async def look_up(self, word: str, *, tones: bool = True) -> str:
        self.calls.append(word)
        return f"{self.name}: {word}"

    @cached(words)
    def look_up_sync(self, word: str) -> str:
        """Looks up."""
        self.calls.append(word)
        return f"{self.name}: {word}"

    # type checkers do not know that these two take any callable
    kind: Any = classmethod(cached(words)(lambda cls, number: f"{cls.__name__} {number}"))
    double: Any = staticmethod(cached(words)(lambda number: 2 * number))


async def test_methods_keep_the_values_of_each_object_apart(cache: TTLCache[Any, Any]) -> None:
    one, other = Dictionary(cache, "one"), Dictionary(cache, "other")
    for _ in range(2):
        assert await one.look_up("好", tones=True) == await one.look_up("好") == "one: 好"
        assert await other.look_up("好") == "other: 好"
        assert one.look_up_sync("好") == "one: 好"
    assert one.calls == ["好", "好"]
    assert other.calls == ["好"]
    assert one.look_up.invalidate("好")
    assert await one.look_up("好") == "one: 好"
    assert len(one.calls) == 3
    assert Dictionary.look_up.cache is Dictionary.words
    assert one.look_up_sync.__doc__ == "Looks up."
    assert one.kind(1) == Dictionary.kind(1) == "Dictionary 1"
    assert one.double(2) == Dictionary.double(2) == 4


async def test_a_kept_value_keeps_no_object_alive(cache: TTLCache[Any, Any]) -> None:
    dictionary = Dictionary(cache, "one")
    await dictionary.look_up("好")
    dictionary.look_up_sync("好")
    gone = weakref.ref(dictionary)
    del dictionary
    gc.collect()
    assert gone() is None


def test_an_object_that_cannot_be_referred_to_weakly(cache: TTLCache[Any, Any]) -> None:
    class Slotted:
        __slots__ = ()

        @cached(cache)
        def double(self, number: int) -> int:
            return 2 * number

    one = Slotted()
    assert one.double(1) == one.double(1) == 2
    assert cache.statistics().loads == 1


async def test_it_goes_with_limited_and_partial(cache: TTLCache[Any, Any], clock: ManualClock) -> None:
    bucket = TokenBucket(rate=1, burst=5, clock=clock)

    @cached(cache)
    @limited(bucket)
    async def double(number: int) -> int:
        return 2 * number

    @limited(bucket)
    @cached(cache)
    async def triple(number: int) -> int:
        return 3 * number

    half = cached(cache)(functools.partial(lambda number, by: number / by, by=2))
    assert [await double(1), await double(1)] == [2, 2]
    assert bucket.statistics().granted == 1
    assert [await triple(1), await triple(1)] == [3, 3]
    assert bucket.statistics().granted == 3
    assert half(4) == half(4) == 2


def test_what_cannot_be_kept(cache: TTLCache[Any, Any]) -> None:
    def count() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="is a generator: what it gives can be used once only"):
        cached(cache)(count)
    with pytest.raises(TypeError, match="staticmethod belongs above cached"):
        cached(cache)(staticmethod(count))
    with pytest.raises(TypeError, match=r"cached needs a cache, not a function: @cached\(TTLCache"):
        cached(count)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def typed(dictionary: Dictionary) -> None:
    """Never called: mypy and pyright look at it."""

    @cached(TTLCache[Any, Any](1, 1))
    async def double(number: int) -> int:
        return 2 * number

    async def use() -> None:
        number: int = await double(1)
        word: str = await dictionary.look_up("a", tones=False)
        print(number, word)
        await double("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await dictionary.look_up(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    found: str = dictionary.look_up_sync("a")
    dictionary.look_up_sync(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    double.invalidate("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(found, use)

"""The caches of other libraries, each made in the way that serves its figures best. One that is not there is
a `Skipped` case.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

from batchkit import TTLCache, cached
from benchmarks.frame import Role, Skipped

TTL = 3600.0  # seconds
KEY = "key"


@dataclass(frozen=True)
class Subject:
    """A cache.

    Attributes:
        name, role: as of a case.
        make: given how many entries it may keep, and for how many seconds, makes one and returns its `get`
            and its `set`.
    """

    name: str
    role: Role
    make: Callable[[int, float], tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]]


class PlainDict:
    """The least that a cache does: a dict with (value, expiry), from which leaves what came first."""

    def __init__(self, maxsize: int, ttl: float) -> None:
        self._entries: dict[Hashable, tuple[Any, float]] = {}
        self._order: deque[Hashable] = deque()
        self._maxsize = maxsize
        self._ttl = ttl

    def get(self, key: Hashable, default: Any = None) -> Any:
        entry = self._entries.get(key)
        if entry is not None and entry[1] > monotonic():
            return entry[0]
        return default

    def set(self, key: Hashable, value: Any) -> None:
        if key not in self._entries:
            if len(self._entries) >= self._maxsize:
                del self._entries[self._order.popleft()]
            self._order.append(key)
        self._entries[key] = value, monotonic() + self._ttl


def sync_subjects() -> list[Subject | Skipped]:
    """Those with plain methods."""
    return [
        Subject("a dict with (value, expiry)", "floor", _plain_dict),
        Subject("batchkit", "batchkit", _batchkit),
        *_found({"cachetools": _cachetools, "cachebox": _cachebox, "theine": _theine}),
    ]


def _plain_dict(maxsize: int, ttl: float) -> Any:
    cache = PlainDict(maxsize, ttl)
    return cache.get, cache.set


def _batchkit(maxsize: int, ttl: float) -> Any:
    cache = TTLCache[Any, Any](maxsize, ttl)
    return cache.get, cache.set


def _cachetools() -> Subject:
    from cachetools import TTLCache as Cachetools

    def make(maxsize: int, ttl: float) -> Any:
        cache: Cachetools[Any, Any] = Cachetools(maxsize, ttl)
        return cache.get, cache.__setitem__

    return Subject("cachetools TTLCache", "peer", make)


def _cachebox() -> Subject:
    from cachebox import TTLCache as Cachebox

    def make(maxsize: int, ttl: float) -> Any:
        cache: Any = Cachebox(maxsize, ttl)
        return cache.get, cache.insert

    return Subject("cachebox TTLCache (Rust)", "peer", make)


def _theine() -> Subject:
    from theine import Cache

    def make(maxsize: int, ttl: float) -> Any:
        cache: Any = Cache(maxsize)
        life = timedelta(seconds=ttl)

        def get(key: Any) -> Any:
            value, found = cache.get(key)
            return value if found else None

        return get, lambda key, value: cache.set(key, value, life)

    return Subject("theine (Rust inside)", "peer", make)


Load = Callable[[str], Coroutine[Any, Any, str]]


@dataclass(frozen=True)
class AsyncSubject:
    """A cache that is awaited.

    Attributes:
        name, role: as of a case.
        make: given an async function of a key, makes what is awaited for its value for `KEY`.
    """

    name: str
    role: Role
    make: Callable[[Load], Callable[[], Awaitable[Any]]]


def async_subjects() -> list[AsyncSubject | Skipped]:
    """Those that are awaited, on asyncio."""
    return [
        AsyncSubject("await of an empty coroutine", "floor", lambda load: partial(load, KEY)),
        AsyncSubject("batchkit get_or_load", "batchkit", partial(_get_or_load, 10_000)),
        AsyncSubject(
            "batchkit get_or_load, room for a million", "batchkit", partial(_get_or_load, 1_000_000)
        ),
        AsyncSubject("batchkit cached", "batchkit", _cached),
        *_found(
            {"async-lru": _async_lru, "theine": _theine_async, "cashews": _cashews, "aiocache": _aiocache}
        ),
    ]


def _get_or_load(maxsize: int, load: Load) -> Callable[[], Awaitable[str]]:
    return partial(TTLCache[str, str](maxsize, TTL).get_or_load, KEY, load)


def _cached(load: Load) -> Callable[[], Awaitable[str]]:
    return partial(cached(TTLCache[Any, Any](10_000, TTL))(load), KEY)


def _async_lru() -> AsyncSubject:
    from async_lru import alru_cache

    return AsyncSubject(
        "async-lru", "peer", lambda load: partial(alru_cache(maxsize=10_000, ttl=TTL)(load), KEY)
    )


def _theine_async() -> AsyncSubject:
    from theine import Memoize

    def make(load: Load) -> Callable[[], Awaitable[Any]]:
        return partial(Memoize(10_000, timedelta(seconds=TTL))(load), KEY)

    return AsyncSubject("theine Memoize", "peer", make)


def _cashews() -> AsyncSubject:
    from cashews import Cache

    def make(load: Load) -> Callable[[], Awaitable[Any]]:
        cache: Any = Cache()
        cache.setup("mem://", size=10_000)
        return partial(cache(ttl=TTL)(load), KEY)

    return AsyncSubject("cashews", "peer", make)


def _aiocache() -> AsyncSubject:
    from aiocache import cached as aiocached  # type: ignore[import-untyped]

    return AsyncSubject("aiocache", "peer", lambda load: partial(aiocached(ttl=TTL)(load), KEY))


def _found(finders: dict[str, Callable[[], Any]]) -> list[Any]:
    found: list[Any] = []
    for name, find in finders.items():
        try:
            found.append(find())
        except ImportError as error:
            found.append(Skipped(name, str(error)))
    return found

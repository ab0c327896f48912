"""What keeps the values of loads in a cache, whether or not that can be watched meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from batchkit.abc import Cache, Watch, Watchable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Unwatched(Generic[K, V]):
    """A `Watch` on a cache that cannot be watched: it keeps whatever is loaded."""

    def __init__(self, cache: Cache[K, V]) -> None:
        self._cache = cache

    def keep(self, key: K, value: V) -> bool:
        """Keep a value."""
        self._cache.set(key, value)
        return True


def watcher(cache: Cache[K, V]) -> Callable[[Iterable[K]], Watch]:
    """What gives a watch on some keys of a cache."""
    if isinstance(cache, Watchable):
        return cache.watch
    unwatched = Unwatched(cache)
    return lambda keys: unwatched

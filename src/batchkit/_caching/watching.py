"""Loads that are made elsewhere: their values are kept, unless something else was said meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

from batchkit._caching.shelf import Shelf

K = TypeVar("K", bound=Hashable)


class Watch(Generic[K]):
    """A `batchkit.abc.Watch` on a `TTLCache`, which knows of it for as long as somebody has it.

    Attributes:
        keys: those of which nothing else was said so far.
        tags: what their values will have at least: nothing.
    """

    def __init__(self, keys: Iterable[K], shelf: Shelf[K], put: Callable[[K, Any], None]) -> None:
        self.keys = set(keys)
        self.tags: frozenset[Hashable] = frozenset()
        self._shelf = shelf
        self._put = put
        with shelf.lock:
            shelf.loads.watch(self)

    def keep(self, key: K, value: Any) -> bool:
        """Keep the value of a key, unless something else was said about it."""
        with self._shelf.lock:
            if key not in self.keys:
                return False
            self._put(key, value)
            return True

"""The loads of a cache that are under way: who loads what, who joins, and whose values are still wanted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field

from batchkit._flight import Flight

K = TypeVar("K", bound=Hashable)


@define(eq=False)
class Load(Generic[K]):
    """A call of a loader.

    Attributes:
        name: of the cache, for errors.
        missing: keys that callers wait for.
        due: keys that have a value, which is loaded anew.
        tags: those that the values will have at least.
        flight: the call itself; it gives values by key.
    """

    name: str
    missing: Sequence[K]
    due: Sequence[K]
    tags: frozenset[Hashable]
    flight: Flight[dict[K, Any]] = field(init=False)

    @property
    def keys(self) -> list[K]:
        """All that it loads."""
        return [*self.missing, *self.due]

    @property
    def behind(self) -> bool:
        """Whether nobody waits for it."""
        return not self.missing

    def __str__(self) -> str:
        first, *others = self.keys
        return f"{self.name} {first!r}" + (f" and {len(others)} more" if others else "")


class Tagged(Protocol):
    """What brings values."""

    @property
    def tags(self) -> frozenset[Hashable]:
        """Those that the values will have at least."""
        ...


class Watching(Tagged, Protocol[K]):
    """Somebody who loads keys elsewhere.

    Attributes:
        keys: those whose values may be kept.
    """

    keys: set[K]


class Loads(Generic[K]):
    """Loads by the keys that they are for; in the hands of one thread at a time.

    A load has a key until it ends, or until something else was said about the key meanwhile: then what it
    loads is too old to be kept, and who asks from now on does not join it.

    Attributes:
        by_key: the loads.
        watches: those who load elsewhere, as long as they are there.
    """

    def __init__(self) -> None:
        self.by_key: dict[K, Load[K]] = {}
        self.watches: set[weakref.ref[Watching[K]]] = set()

    def of(self, key: K) -> Load[K] | None:
        """The load under way that a caller for a key can join."""
        load = self.by_key.get(key)
        return None if load is None or load.flight.lost else load

    def add(self, load: Load[K]) -> None:
        """From now on this one loads its keys."""
        self.by_key.update(dict.fromkeys(load.keys, load))

    def has(self, load: Load[K], key: K) -> bool:
        """Whether what it loads for a key may be kept."""
        return self.by_key.get(key) is load

    def end(self, load: Load[K]) -> None:
        """It is over."""
        for key in load.keys:
            if self.by_key.get(key) is load:
                del self.by_key[key]

    def watch(self, watching: Watching[K]) -> None:
        """Somebody loads keys elsewhere from now on."""
        self.watches.add(weakref.ref(watching, self.watches.discard))

    def outdate(self, key: K) -> None:
        """What is being loaded for a key is too old."""
        self.by_key.pop(key, None)
        for watching in self._watching():
            watching.keys.discard(key)

    def outdate_where(self, is_old: Callable[[K, Tagged], bool]) -> None:
        """What is being loaded for some keys is too old; takes as long as keys are being loaded."""
        for key in [key for key, load in self.by_key.items() if is_old(key, load)]:
            del self.by_key[key]
        for watching in self._watching():
            watching.keys.difference_update([key for key in watching.keys if is_old(key, watching)])

    def _watching(self) -> list[Watching[K]]:
        if not self.watches:
            return []
        return [watching for there in list(self.watches) if (watching := there()) is not None]

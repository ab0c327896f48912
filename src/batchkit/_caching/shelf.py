"""What a cache holds, and the lock before it: what has one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar, cast

from batchkit._caching.loads import Loads
from batchkit._caching.snapshots import Kept
from batchkit._core.entries import Entry
from batchkit._core.expiry import Store
from batchkit._core.tags import Prefix, own_tags, starts_with
from batchkit._core.terms import Terms
from batchkit._forks import FORKS
from batchkit._values import CacheStatistics
from batchkit.abc import Clock, Invalidation

K = TypeVar("K", bound=Hashable)

_SWEPT_AT_ONCE: Final = 500  # entries of each queue, with the lock in hand


class Shelf(Generic[K]):
    """Entries, and the loads that will bring more.

    Attributes:
        terms: on which entries are kept.
        clock: what they go by.
        store: the entries.
        loads: those under way.
        lock: before all of them.
        hits, stale_hits, negative_hits, misses, load_calls, load_failures, load_seconds, tier_hits: see
            `CacheStatistics`.
        loaded: its `loads`.
    """

    def __init__(self, maxsize: int, terms: Terms, clock: Clock) -> None:
        self.terms = terms
        self.clock = clock
        self.now: Callable[[], float] = clock.now
        self.store = Store(maxsize, weighted=terms.weigh is not None)
        self.loads: Loads[K] = Loads()
        self.hits = 0
        self.stale_hits = 0
        self.negative_hits = 0
        self.misses = 0
        self.loaded = 0
        self.load_calls = 0
        self.load_failures = 0
        self.load_seconds = 0.0
        self.tier_hits = 0
        self.lock = threading.RLock()
        FORKS.tell(self)

    def forked(self) -> None:
        """The parent's threads are not here: neither to free its lock, nor to end its loads. What one of them
        was about to change may be half changed.
        """
        if not self.lock.acquire(blocking=False):
            self.store.clear()
        self.lock = threading.RLock()
        self.loads = Loads()

    def find(self, key: K, now: float) -> Entry | None:
        """The entry of a key, if it is of any use to somebody with a loader; with the lock in hand."""
        entry = self.store.find(key, now)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        if entry.negative:
            self.negative_hits += 1
        elif entry.stale(now):
            self.stale_hits += 1
        return entry

    def present(self, keys: Iterable[K]) -> dict[K, Any]:
        """The values that hold, of these keys, in their order."""
        found: dict[K, Any] = {}
        with self.lock:
            now = self.now()
            for key in keys:
                entry = self.store.find(key, now)
                if entry is None or not _holds(entry, now):
                    self.misses += 1
                else:
                    self.hits += 1
                    found[key] = entry.value
        return found

    def has(self, key: K) -> bool:
        """Whether there is a value that holds, which is not counted."""
        with self.lock:
            now = self.now()
            entry = self.store.look(key, now)
            return entry is not None and _holds(entry, now)

    def put(self, key: K, entry: Entry | None, now: float) -> None:
        """Keep an entry, or, if there is none, nothing for the key."""
        with self.lock:
            self.loads.outdate(key)
            if entry is None:
                self.store.remove(key, now)
            else:
                self.store.put(entry, now)

    def remove(self, key: K) -> bool:
        """Drop an entry; false if there was none."""
        with self.lock:
            self.loads.outdate(key)
            return self.store.remove(key, self.now())

    def remove_tagged(self, tag: Hashable) -> int:
        """Drop all entries that have a tag; returns how many."""
        with self.lock:
            any_may = self.terms.tags is not None
            self.loads.outdate_where(lambda _, load: any_may or tag in load.tags)
            return self._remove_all(self.store.tagged(tag))

    def remove_prefixed(self, prefix: str | tuple[Hashable, ...]) -> int:
        """Drop the entries of all keys that start so; returns how many."""
        with self.lock:
            self.loads.outdate_where(lambda key, _: starts_with(key, prefix))
            separator = self.terms.separator
            if isinstance(prefix, str) and separator is not None and prefix.endswith(separator):
                return self._remove_all(self.store.tagged(Prefix(prefix)))
            return self._remove_all([key for key in self.store if starts_with(key, prefix)])

    def clear(self) -> None:
        """Drop all entries."""
        with self.lock:
            self.loads.outdate_where(lambda key, load: True)
            self.store.clear()

    def keys(self) -> list[K]:
        """The keys of all entries."""
        with self.lock:
            return cast("list[K]", list(self.store))

    def holding(self) -> list[Kept]:
        """All values that hold, the ones that are worth keeping first."""
        with self.lock:
            now = self.now()
            return [
                Kept(entry.key, entry.value, entry.expires - now, main, own_tags(entry))
                for entry, main in self.store.in_order()
                if _holds(entry, now)
            ]

    def restore(self, values: Iterable[Kept], elapsed: float) -> None:
        """Keep values for as long as they hold."""
        now = self.now()
        for each in values:
            entry = self.terms.entry_for(each.key, each.value, now, each.seconds - elapsed, each.tags)
            with self.lock:
                self.loads.outdate(cast(K, each.key))
                self.store.put(entry, now, main=each.main)

    def hear(self, news: Invalidation) -> None:
        """Drop what a tier says must be kept no longer."""
        if news.everything:
            self.clear()
        for key in news.keys:
            self.remove(cast(K, key))
        for tag in news.tags:
            self.remove_tagged(tag)
        for prefix in news.prefixes:
            self.remove_prefixed(prefix)

    def sweep_in_parts(self) -> Iterator[int]:
        """Look at every entry, a part with each step, so that others are not held up for long; gives how many
        were dropped.
        """
        for _ in range(0, self.store.longest_queue, _SWEPT_AT_ONCE):
            with self.lock:
                before = self.store.expired
                self.store.tidy(self.now(), _SWEPT_AT_ONCE)
                dropped = self.store.expired - before
            yield dropped

    def statistics(self, more_hits: int, more_misses: int) -> CacheStatistics:
        """What it did so far, with hits and misses that were counted elsewhere."""
        with self.lock:
            return CacheStatistics(
                size=len(self.store),
                weight=self.store.weight,
                hits=self.hits + more_hits,
                stale_hits=self.stale_hits,
                negative_hits=self.negative_hits,
                misses=self.misses + more_misses,
                loads=self.loaded,
                load_calls=self.load_calls,
                load_failures=self.load_failures,
                load_seconds=self.load_seconds,
                tier_hits=self.tier_hits,
                evicted=self.store.evicted,
                expired=self.store.expired,
                deleted=self.store.removed,
                refused=self.store.refused,
            )

    def _remove_all(self, keys: Iterable[Hashable]) -> int:
        now = self.now()
        return sum([self.store.remove(key, now) for key in keys])


def _holds(entry: Entry, now: float) -> bool:
    return not (entry.negative or entry.stale(now))

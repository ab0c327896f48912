"""`TTLCache`: values for a time, one load for all who ask."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast, overload

from batchkit._caching.asking import Asking, all_picked, picked
from batchkit._caching.loading import Loading, Wish, tier_value
from batchkit._caching.shelf import Shelf
from batchkit._caching.snapshots import dump, parse
from batchkit._caching.sweeping import Sweeping
from batchkit._caching.tiered import Tiered
from batchkit._caching.watching import Watch
from batchkit._clock import MONOTONIC
from batchkit._core.expiry import MOST_HITS
from batchkit._core.terms import Tags, Terms, Ttl, checked_period, checked_ttl
from batchkit._numbers import checked_seconds
from batchkit._values import CacheStatistics
from batchkit.abc import Clock, Codec, LoadMany, Tier
from batchkit.codecs import JSON

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


NOTHING: Final[Any] = object()


class TTLCache(Generic[K, V]):
    """Keeps up to `maxsize` values, each for `ttl` seconds; what is asked for again stays longest (S3-FIFO).

    May be shared by threads and event loops. None is a value like any other. Errors are not kept, unless
    asked.

    Args:
        maxsize: entries at most; with `weigh`, their weight at most.
        ttl: seconds for which a value holds, or a function of key and value that tells them; what it gives 0
            seconds is not kept.
        weigh: what an entry takes of `maxsize`, a whole number, as a function of key and value. What weighs
            more than `maxsize` is not kept.
        jitter: the part of its time to live, 0.0 to 1.0, that chance takes away from each value at most, so
            that what was set together does not expire together.
        stale: seconds after its end for which a value is still given at once to those who bring a loader,
            while it is loaded again behind it.
        refresh_ahead: seconds before its end from which a value that is asked for again and again is loaded
            anew, so that nobody waits for it; at most half of its time.
        negative_ttl: seconds for which it is kept that a key has no value: that the loader of many leaves it
            out, or an error of a type in `negative`. None keeps no such thing.
        negative: errors that say that a key has no value.
        tags: what an entry can be dropped by, with others; a function of key and value.
        separator: ends the parts of keys that are texts, such as ":" in "deck:7:card:1". With it,
            `delete_prefix("deck:7:")` has to look at these keys only.
        tier: what several processes share behind their caches, such as a `RedisTier`: asked before anything
            is loaded, told of all that changes here, and tells what changed elsewhere.
        name: what it is called in errors.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a number that is none.
    """

    def __init__(
        self,
        maxsize: int,
        ttl: Ttl,
        *,
        weigh: Callable[[K, V], int] | None = None,
        jitter: float = 0.0,
        stale: float = 0.0,
        refresh_ahead: float = 0.0,
        negative_ttl: float | None = None,
        negative: type[Exception] | tuple[type[Exception], ...] = KeyError,
        tags: Callable[[K, V], Tags] | None = None,
        separator: str | None = None,
        tier: Tier[K] | None = None,
        name: str = "cache",
        clock: Clock = MONOTONIC,
    ) -> None:
        if maxsize.__class__ is not int or maxsize < 1:
            raise ValueError(f"maxsize is a whole number of entries, 1 or more, not {maxsize!r}")
        if isinstance(jitter, bool) or not 0 <= jitter < 1:
            raise ValueError(f"jitter is a part of the ttl, 0.0 to below 1.0, not {jitter!r}")
        if separator == "":
            raise ValueError("a separator is a text that is not empty")
        self.name = name
        self.ttl = checked_ttl(ttl)
        terms = Terms(
            ttl=self.ttl,
            chance=random.Random().random,
            jitter=jitter,
            stale=checked_seconds("stale", stale),
            refresh_ahead=checked_seconds("refresh_ahead", refresh_ahead),
            negative_ttl=None if negative_ttl is None else checked_period("negative_ttl", negative_ttl),
            weigh=weigh,
            tags=tags,
            separator=separator,
        )
        self._shelf: Shelf[K] = Shelf(maxsize, terms, clock)
        self._tiered = None if tier is None else Tiered(name, tier, self._shelf)
        loading = Loading(name, self._shelf, negative, self._tiered)
        self._asking = Asking(name, self._shelf, loading)
        store = self._shelf.store
        self._front = store.front
        self._beyond_front = store.beyond_front
        self._keep = store.set
        self._constant = terms.constant if tier is None else None
        self._now = clock.now
        self._hits = 0  # those that took no lock; and so for misses
        self._misses = 0

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: object = None) -> object:
        """The value of a key, or the default. Never waits: a tier is not asked."""
        entry = self._front.get(key) or self._beyond_front(key)
        if entry is None:
            self._misses += 1
            return default
        value = entry.value
        if entry.fresh > self._now() and entry.value is value:
            if entry.hits < MOST_HITS:
                entry.hits += 1
            self._hits += 1
            return value
        return self._shelf.present((key,)).get(key, default)

    def get_present(self, keys: Iterable[K]) -> dict[K, V]:
        """Those of the keys that are there, with their values, in the order of the keys. Never waits: a tier
        is not asked.
        """
        return self._shelf.present(keys)

    def set(self, key: K, value: V, ttl: Ttl | None = None, *, tags: Tags = ()) -> None:
        """Keep a value, for `ttl` seconds instead of the cache's own if given, and with these tags, too."""
        constant = self._constant
        if ttl is not None or tags or constant is None:
            self._put(key, value, None if ttl is None else checked_ttl(ttl), tags)
            return
        shelf = self._shelf
        lock = shelf.lock
        now = self._now()
        try:  # as `with lock` does, in a third of its time
            lock.acquire()
            loads = shelf.loads
            if loads.by_key or loads.watches:
                loads.outdate(key)
            self._keep(key, value, now + constant, now)
        except BaseException:
            with suppress(RuntimeError):  # Ctrl-C, before it was acquired
                lock.release()
            raise
        lock.release()

    def watch(self, keys: Iterable[K]) -> Watch[K]:
        """Watch keys whose values are about to be loaded by other means than `get_or_load` and its kin.

        Its `keep(key, value)` keeps a value as `set` does, and returns True; unless the key was set, deleted,
        or dropped with a tag, a prefix or all others since: then what was loaded may be old.

        Args:
            keys: the keys. What it keeps for others is nothing.
        """
        return Watch(keys, self._shelf, self.set)

    def delete(self, key: K) -> bool:
        """Drop a value; false if there was none. What is being loaded for the key is not kept."""
        there = self._shelf.remove(key)
        if self._tiered is not None:
            self._tiered.tell(partial(self._tiered.tier.delete_sync, [key]))
        return there

    def delete_tag(self, tag: Hashable) -> int:
        """Drop all values that have a tag; returns how many. What is being loaded, and may have it, is not
        kept.
        """
        dropped = self._shelf.remove_tagged(tag)
        if self._tiered is not None:
            self._tiered.tell(partial(self._tiered.tier.delete_tag_sync, tag))
        return dropped

    def delete_prefix(self, prefix: str | tuple[Hashable, ...]) -> int:
        """Drop the values of all keys that start so; returns how many. What is being loaded for such a key
        is not kept.

        It looks at all keys there are, unless the prefix ends with the cache's `separator`.

        Args:
            prefix: the beginning of keys that are texts, or of keys that are tuples.
        """
        dropped = self._shelf.remove_prefixed(prefix)
        if self._tiered is not None:
            self._tiered.tell(partial(self._tiered.tier.delete_prefix_sync, prefix))
        return dropped

    def clear(self) -> None:
        """Drop all values. What is being loaded is not kept."""
        self._shelf.clear()
        if self._tiered is not None:
            self._tiered.tell(partial(self._tiered.tier.delete_prefix_sync, ""))

    async def catch_up(self) -> None:
        """Return when the tier behind the cache was told of all that was changed here so far. It is told soon
        without this, too.

        Raises:
            TierUnavailable: it cannot be told, and that was to be raised.
        """
        if self._tiered is not None:
            await self._tiered.catch_up()

    def catch_up_sync(self) -> None:
        """The blocking twin of `catch_up`."""
        if self._tiered is not None:
            self._tiered.catch_up_sync()

    def sweep(self) -> int:
        """Drop all expired values at once; returns how many. They are dropped little by little without it,
        too.
        """
        return sum(self._shelf.sweep_in_parts())

    def sweeping(self, every: float) -> Sweeping:
        """Sweep from time to time, in a task (`async with`) or in a thread (`with`), until the block ends:
        for a cache that nobody changes for long.

        Args:
            every: seconds from one sweep to the next.

        Raises:
            ValueError: that is no number above 0.
        """
        return Sweeping(checked_period("every", every), self._shelf.sweep_in_parts, self._shelf.clock)

    async def get_or_load(
        self, key: K, load: Callable[[K], Awaitable[V]], ttl: Ttl | None = None, *, tags: Tags = ()
    ) -> V:
        """The value of a key, from the cache or from `load(key)`. All who ask meanwhile share that one load.

        Args:
            key: the key.
            load: awaited for the value; runs on its own, so that a caller that is cancelled harms nobody
                else.
            ttl: seconds for which the value is kept, instead of the cache's own.
            tags: by which it can be dropped, besides the cache's own.

        Raises:
            Exception: what `load` raised, as it is; it is not kept, but for those that are `negative`.
            KeyError: the key is known to have no value.
            LoadFailed: `load` asks for its own key.
        """
        # what `get` does, once more: a call would take a third longer, and so would cells for a closure
        try:
            entry = self._front[key]
        except KeyError:
            pass  # the look at all of them comes with the lock
        else:
            value: V = entry.value
            if entry.fresh > self._now() and entry.value is value:
                if entry.hits < MOST_HITS:
                    entry.hits += 1
                self._hits += 1
                return value
        wish = Wish[K](partial(_load_one, load), ttl, tags, single=True)
        return cast(V, picked(key, await self._asking.ask([key], wish)))

    def get_or_load_sync(
        self, key: K, load: Callable[[K], V], ttl: Ttl | None = None, *, tags: Tags = ()
    ) -> V:
        """The blocking twin of `get_or_load`: `load` runs in the thread of the first who asks, and in a
        thread of its own if nobody has to wait.
        """
        value: V = self.fresh(key)
        if value is not NOTHING:
            return value
        wish = Wish[K](partial(_load_one_sync, load), ttl, tags, single=True)
        return cast(V, picked(key, self._asking.ask_sync([key], wish)))

    async def get_many(
        self, keys: Iterable[K], load_many: LoadMany[K], ttl: Ttl | None = None, *, tags: Tags = ()
    ) -> dict[K, V]:
        """The values of many keys; `load_many` is awaited once, for the keys only that are neither here
        nor on their way.

        Args:
            keys: the keys.
            load_many: gets a list of distinct keys; returns a mapping, or a sequence with a value for each
                key. A key that it does not know is left out of a mapping; an exception as a value is that
                key's error.
            ttl: seconds for which the values are kept, instead of the cache's own.
            tags: by which they can be dropped, besides the cache's own.

        Returns:
            Those that exist, in the order of the keys.

        Raises:
            LoadFailed: `load_many` answered wrongly.
            Exception: what `load_many` raised, or returned as the value of a key.
        """
        wanted = list(dict.fromkeys(keys))
        values = await self._asking.ask(wanted, Wish(load_many, ttl, tags, single=False))
        return all_picked(wanted, values)

    def get_many_sync(
        self,
        keys: Iterable[K],
        load_many: Callable[[list[K]], object],
        ttl: Ttl | None = None,
        *,
        tags: Tags = (),
    ) -> dict[K, V]:
        """The blocking twin of `get_many`."""
        wanted = list(dict.fromkeys(keys))
        values = self._asking.ask_sync(wanted, Wish(load_many, ttl, tags, single=False))
        return all_picked(wanted, values)

    def snapshot(self, codec: Codec = JSON) -> bytes:
        """What there is, as bytes: keys and values, for how long they hold, their tags. What is stale, and
        what says that there is no value, is left out.

        Args:
            codec: turns it into bytes. `JSON` knows keys that are texts, numbers or tuples of those, and
                values that are made of texts, numbers, lists and dicts.
        """
        return dump(self._shelf.holding(), codec)

    def restore(self, data: bytes, codec: Codec = JSON, *, elapsed: float = 0.0) -> int:
        """Take in what a snapshot has; returns how many of its values still hold.

        Args:
            data: the snapshot.
            codec: the one that it was made with.
            elapsed: seconds since it was made, which go off the time to live of all.

        Raises:
            ValueError: the data are no snapshot.
        """
        kept = [each for each in parse(data, codec) if each.seconds > elapsed]
        self._shelf.restore(kept, elapsed)
        return len(kept)

    def statistics(self) -> CacheStatistics:
        """What it did so far."""
        return self._shelf.statistics(more_hits=self._hits, more_misses=self._misses)

    def _put(self, key: K, value: V, ttl: Ttl | None, tags: Tags) -> None:
        now = self._now()
        entry = self._shelf.terms.entry(key, value, now, ttl, tags)
        kept = None if entry is None else tier_value(entry, now)
        self._shelf.put(key, entry, now)
        if self._tiered is not None and kept is not None:
            self._tiered.tell(partial(self._tiered.tier.set_many_sync, {key: kept}))
        elif self._tiered is not None:
            self._tiered.tell(partial(self._tiered.tier.delete_sync, [key]))

    def fresh(self, key: K) -> Any:
        """The value of a key that can be had at once and without a lock, or `NOTHING`; for `cached`."""
        entry = self._front.get(key) or self._beyond_front(key)
        if entry is not None:
            value = entry.value
            if entry.fresh > self._now() and entry.value is value:
                if entry.hits < MOST_HITS:
                    entry.hits += 1
                self._hits += 1
                return value
        return NOTHING

    def __len__(self) -> int:
        return len(self._shelf.store)

    def __contains__(self, key: K) -> bool:
        return self._shelf.has(key)

    def __iter__(self) -> Iterator[K]:
        return iter(self._shelf.keys())

    def __repr__(self) -> str:
        ttl = "by entry" if callable(self.ttl) else f"{self.ttl:g}"
        return f"TTLCache(size={len(self)}, ttl={ttl}, name={self.name!r})"


async def _load_one(load: Callable[[K], Awaitable[V]], keys: list[K]) -> dict[K, V]:
    return {key: await load(key) for key in keys}


def _load_one_sync(load: Callable[[K], V], keys: list[K]) -> dict[K, V]:
    return {key: load(key) for key in keys}

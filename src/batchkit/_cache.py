"""`TTLCache`: values for a time, one load for all who ask."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar, cast, overload

from batchkit._clock import MONOTONIC
from batchkit._core.batching import values_by_key
from batchkit._core.expiry import Store
from batchkit._flight import Abandoned, Flight
from batchkit._values import CacheStatistics
from batchkit.abc import Clock, LoadMany
from batchkit.exceptions import LoadFailed

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class TTLCache(Generic[K, V]):
    """Keeps up to `maxsize` values, each for `ttl` seconds; what is asked for again stays longest (S3-FIFO).

    May be shared by threads and event loops. None is a value like any other; errors are not kept.

    Args:
        maxsize: entries at most.
        ttl: seconds for which a value holds.
        name: what it is called in errors.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a maxsize or a ttl that is none.
    """

    def __init__(self, maxsize: int, ttl: float, *, name: str = "cache", clock: Clock = MONOTONIC) -> None:
        if maxsize.__class__ is not int or maxsize < 1:
            raise ValueError(f"maxsize is a whole number of entries, 1 or more, not {maxsize!r}")
        self.name = name
        self.ttl = _checked_ttl(ttl)
        self._clock = clock
        self._lock = threading.Lock()
        self._store = Store(maxsize)
        self._flights: dict[K, Flight[dict[K, Any]]] = {}
        self._hits = 0
        self._misses = 0
        self._loads = 0

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: object = None) -> object:
        """The value of a key, or the default."""
        with self._lock:
            entry = self._store.find(key, self._clock.now())
            if entry is None:
                self._misses += 1
                return default
            self._hits += 1
            return entry.value

    def get_present(self, keys: Iterable[K]) -> dict[K, V]:
        """Those of the keys that are there, with their values, in the order of the keys."""
        with self._lock:
            return self._find(keys)

    def set(self, key: K, value: V, ttl: float | None = None) -> None:
        """Keep a value, for `ttl` seconds instead of the cache's own if given."""
        seconds = self.ttl if ttl is None else _checked_ttl(ttl)
        with self._lock:
            now = self._clock.now()
            self._store.put(key, value, now + seconds, now)

    def delete(self, key: K) -> bool:
        """Drop a value; false if there was none."""
        with self._lock:
            return self._store.remove(key)

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._store.clear()

    def sweep(self) -> int:
        """Drop all expired values at once; returns how many. They are dropped little by little without it,
        too.
        """
        with self._lock:
            return self._store.sweep(self._clock.now())

    async def get_or_load(self, key: K, load: Callable[[K], Awaitable[V]], ttl: float | None = None) -> V:
        """The value of a key, from the cache or from `load(key)`. All who ask meanwhile share that one load.

        Args:
            key: the key.
            load: awaited for the value; runs on its own, so that a caller that is cancelled harms nobody
                else.
            ttl: seconds for which the value is kept, instead of the cache's own.

        Raises:
            Exception: what `load` raised, as it is; it is not kept.
            LoadFailed: `load` asks for its own key.
        """

        async def load_one() -> dict[K, Any]:
            return self._kept({key: await load(key)}, ttl)

        while True:
            values, flights, mine = self._look_up([key])
            if key in values:
                return cast(V, values[key])
            if mine:
                flights[key].launch(load_one)
            try:
                return cast(V, (await flights[key].join())[key])
            except Abandoned:
                continue

    def get_or_load_sync(self, key: K, load: Callable[[K], V], ttl: float | None = None) -> V:
        """The blocking twin of `get_or_load`: `load` runs in the thread of the first who asks."""
        while True:
            values, flights, mine = self._look_up([key])
            if key in values:
                return cast(V, values[key])
            flight = flights[key]
            try:
                if not mine:
                    return cast(V, flight.join_sync()[key])
                return cast(V, flight.fly_sync(lambda: self._kept({key: load(key)}, ttl))[key])
            except Abandoned:
                continue

    async def get_many(
        self, keys: Iterable[K], load_many: LoadMany[K], ttl: float | None = None
    ) -> dict[K, V]:
        """The values of many keys; `load_many` is awaited once, for the keys only that are neither here
        nor on their way.

        Args:
            keys: the keys.
            load_many: gets a list of distinct keys; returns a mapping, or a sequence with a value for each
                key. A key that it does not know is left out of a mapping; an exception as a value is that
                key's error.
            ttl: seconds for which the values are kept, instead of the cache's own.

        Returns:
            Those that exist, in the order of the keys.

        Raises:
            LoadFailed: `load_many` answered wrongly.
            Exception: what `load_many` raised, or returned as the value of a key.
        """
        wanted = list(dict.fromkeys(keys))
        values, flights, mine = self._look_up(wanted)
        if mine:

            async def load_mine() -> dict[K, Any]:
                try:
                    return self._kept(values_by_key(await load_many(mine), mine), ttl)
                except ValueError as error:
                    raise LoadFailed(f"{self.name}: {error}") from error

            flights[mine[0]].launch(load_mine)
        for flight in dict.fromkeys(flights.values()):
            try:
                values.update(await flight.join())
            except Abandoned:
                lost = [key for key in wanted if flights.get(key) is flight]
                values.update(await self.get_many(lost, load_many, ttl))
        for key in wanted:
            if isinstance(values.get(key), Exception):
                raise values[key]
        return {key: values[key] for key in wanted if key in values}

    def statistics(self) -> CacheStatistics:
        """What it did so far."""
        with self._lock:
            return CacheStatistics(
                size=len(self._store),
                hits=self._hits,
                misses=self._misses,
                loads=self._loads,
                evicted=self._store.evicted,
                expired=self._store.expired,
            )

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, key: K) -> bool:
        with self._lock:
            return self._store.find(key, self._clock.now()) is not None

    def __iter__(self) -> Iterator[K]:
        with self._lock:
            return cast(Iterator[K], iter(self._store))

    def __repr__(self) -> str:
        return f"TTLCache(size={len(self)}, ttl={self.ttl:g}, name={self.name!r})"

    def _find(self, keys: Iterable[K]) -> dict[K, V]:
        present: dict[K, V] = {}
        now = self._clock.now()
        for key in keys:
            if (entry := self._store.find(key, now)) is None:
                self._misses += 1
            else:
                self._hits += 1
                present[key] = entry.value
        return present

    def _look_up(self, keys: list[K]) -> tuple[dict[K, Any], dict[K, Flight[dict[K, Any]]], list[K]]:
        """The values that are here, the flights of the others, and the keys for which the caller has to
        launch theirs.

        A key is found in one of the two, since a load keeps its value before it ends: so nothing is asked
            for twice.
        """
        with self._lock:
            values = cast(dict[K, Any], self._find(keys))
            missing = [key for key in keys if key not in values]
            if not missing:
                return values, {}, []
            new: Flight[dict[K, Any]] = Flight(
                f"{self.name} {missing[0]!r}", self._clock, partial(self._forget, missing)
            )
            flights = {key: self._flights.setdefault(key, new) for key in missing}
        return values, flights, [key for key in missing if flights[key] is new]

    def _kept(self, values: dict[K, Any], ttl: float | None) -> dict[K, Any]:
        with self._lock:
            self._loads += len(values)
        for key, value in values.items():
            if not isinstance(value, Exception):
                self.set(key, value, ttl)
        return values

    def _forget(self, keys: list[K], flight: Flight[dict[K, Any]]) -> None:
        with self._lock:
            for key in keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]


def _checked_ttl(ttl: float) -> float:
    if isinstance(ttl, bool) or not ttl > 0:
        raise ValueError(f"a ttl is a number of seconds above 0, not {ttl!r}")
    return float(ttl)

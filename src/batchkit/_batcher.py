"""`Batcher`: load one key, many become one call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from enum import Enum, auto
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar, cast

from attrs import define

from batchkit._clock import MONOTONIC
from batchkit._core.batching import Gathering, values_by_key
from batchkit._dispatch import Cost, Dispatch, checked_async
from batchkit._events import Hook
from batchkit._flight import Abandoned, Flight
from batchkit._parking import Parker
from batchkit.abc import Cache, Clock, Limiter, LoadMany
from batchkit.exceptions import LoadFailed

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Missing(Enum):
    MISSING = auto()


class Batcher(Generic[K, V]):
    """Gathers the keys that callers ask for at about the same time into one call of `load_many`.

    A key that is on its way already is not asked for again; a caller that is cancelled harms nobody. May be
    shared by event loops: each gathers batches of its own, and joins what another has on its way.

    Args:
        load_many: gets a list of distinct keys; returns a mapping, or a sequence with a value for each
            key. A key that it does not know is left out of a mapping; an exception as a value is that
            key's error.
        max_batch_size: keys in one call at most.
        max_wait: seconds that the first key of a batch waits for others to join it.
        cache: keeps the values; without one, each is forgotten when its callers have it.
        default: the value of keys that `load_many` leaves out; without one, they are a `KeyError` for
            their callers.
        limiter: lets each call go, at `cost` permits (a number, or a function of the keys) and `priority`.
        name: what it is called in events and errors.
        hooks: called with each event: `CallStarted`, `CallFinished`.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a size or a wait that is none.
        TypeError: the function is not async.
    """

    def __init__(
        self,
        load_many: LoadMany[K],
        *,
        max_batch_size: int = 50,
        max_wait: float = 0.005,
        cache: Cache[K, V] | None = None,
        default: V | _Missing = _Missing.MISSING,
        limiter: Limiter | None = None,
        cost: Callable[[list[K]], Cost] | Cost = 1,
        priority: int = 0,
        name: str = "batcher",
        hooks: Iterable[Hook] = (),
        clock: Clock = MONOTONIC,
    ) -> None:
        if max_batch_size.__class__ is not int or max_batch_size < 1:
            raise ValueError(f"max_batch_size is a whole number of keys, 1 or more, not {max_batch_size!r}")
        if isinstance(max_wait, bool) or not 0 <= max_wait < inf:
            raise ValueError(f"max_wait is a number of seconds, 0 or more, not {max_wait!r}")
        self.name = name
        self._max_batch_size = max_batch_size
        self._max_wait = max_wait
        self._cache = cache
        self._default = default
        self._clock = clock
        self._dispatch = Dispatch(
            checked_async(load_many),
            name=name,
            clock=clock,
            limiter=limiter,
            cost=cost,
            priority=priority,
            hooks=hooks,
        )
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Batch[K]] = {}  # by event loop
        self._under_way: dict[K, _Batch[K]] = {}  # gathering or loading

    async def load(self, key: K) -> V:
        """The value of a key.

        Raises:
            KeyError: `load_many` does not know the key, and there is no default.
            LoadFailed: `load_many` answered wrongly, or asks for a key that it is loading.
            Exception: what `load_many` raised, or returned as the value of this key.
        """
        return (await self.load_many([key]))[key]

    async def load_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of many keys, in the order of the keys; each distinct key once.

        Raises:
            KeyError: as `load` does, for the first key that fails.
            LoadFailed: likewise.
            Exception: likewise.
        """
        wanted = list(dict.fromkeys(keys))
        values, batches = self._look_up(wanted)
        for batch in dict.fromkeys(batches.values()):
            try:
                values.update(await batch.flight.join())
            except Abandoned:
                values.update(await self.load_many(key for key in wanted if batches.get(key) is batch))
        return {key: self._picked(key, values) for key in wanted}

    def __repr__(self) -> str:
        return (
            f"Batcher(max_batch_size={self._max_batch_size}, max_wait={self._max_wait:g}, name={self.name!r})"
        )

    def _look_up(self, keys: list[K]) -> tuple[dict[K, Any], dict[K, _Batch[K]]]:
        """The values that the cache has, and the batches that the other keys are in.

        Under one lock, since a batch keeps its values before it ends: so a key is found in one of the two.
        """
        with self._lock:
            values: dict[K, Any] = {} if self._cache is None else {**self._cache.get_present(keys)}
            missing = [key for key in keys if key not in values]
            return values, {key: self._under_way.get(key) or self._enlist(key) for key in missing}

    def _enlist(self, key: K) -> _Batch[K]:
        parker = self._clock.parker()
        batch = self._open.get(parker.domain)
        if batch is None:
            batch = self._open[parker.domain] = self._new_batch(parker)
        batch.gathering.add(key, self._clock.now())
        self._under_way[key] = batch
        if batch.gathering.full:
            self._close(batch)
            batch.parker.unpark()
        return batch

    def _new_batch(self, parker: Parker) -> _Batch[K]:
        gathering = Gathering[K](self._max_batch_size, self._max_wait)
        batch = _Batch(gathering, parker, Flight(self.name, self._clock, lambda _: self._forget(batch)))
        batch.flight.launch(partial(self._gather_and_load, batch))
        return batch

    def _close(self, batch: _Batch[K]) -> None:
        if self._open.get(batch.parker.domain) is batch:
            del self._open[batch.parker.domain]

    async def _gather_and_load(self, batch: _Batch[K]) -> dict[K, Any]:
        gathering = batch.gathering
        while not gathering.full and self._clock.now() < gathering.due:
            await batch.parker.park(gathering.due)
        with self._lock:
            self._close(batch)
        keys = gathering.keys
        answer = await self._dispatch.call(list(keys), len(keys))
        try:
            values = values_by_key(answer, keys)
        except ValueError as error:
            raise LoadFailed(f"{self.name}: {error}") from error
        self._keep(values)
        return values

    def _keep(self, values: dict[K, Any]) -> None:
        if self._cache is not None:
            for key, value in values.items():
                if not isinstance(value, Exception):
                    self._cache.set(key, value)

    def _forget(self, batch: _Batch[K]) -> None:
        with self._lock:
            self._close(batch)
            for key in batch.gathering.keys:
                if self._under_way.get(key) is batch:
                    del self._under_way[key]

    def _picked(self, key: K, values: dict[K, Any]) -> V:
        value = values.get(key, self._default)
        if value is _Missing.MISSING:
            raise KeyError(key)
        if isinstance(value, Exception):
            raise value
        return cast(V, value)


@define(eq=False)
class _Batch(Generic[K]):
    """Keys that are gathered, or on their way.

    Attributes:
        gathering: the keys.
        parker: what its task waits with while it gathers.
        flight: its call.
    """

    gathering: Gathering[K]
    parker: Parker
    flight: Flight[dict[K, Any]]

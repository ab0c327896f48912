"""Callers that bring a loader: what they find, what they wait for, and what is loaded for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define, field

from batchkit._background import Backstage
from batchkit._caching.loading import UNKNOWN, Loading, Values, Wish, copied
from batchkit._caching.loads import Load
from batchkit._caching.shelf import Shelf
from batchkit._flight import Abandoned, Flight

K = TypeVar("K", bound=Hashable)


@define
class _Found(Generic[K]):
    """What there is for the keys of a caller.

    Attributes:
        values: those that are there.
        joined: loads under way, by the missing keys that they are for.
        load: what the caller has to start.
    """

    values: Values[K] = field(factory=dict)
    joined: dict[K, Load[K]] = field(factory=dict)
    load: Load[K] | None = None

    def by_load(self) -> list[tuple[Load[K], list[K]]]:
        """The loads to be joined, each with the keys that it is joined for."""
        keys: dict[Load[K], list[K]] = {}
        for key, load in self.joined.items():
            keys.setdefault(load, []).append(key)
        return list(keys.items())


class Asking(Generic[K]):
    """Asks a shelf, and has loaded what is not there.

    Args:
        name: of the cache, for errors.
        shelf: where values are kept.
        loading: what runs a load.
    """

    def __init__(self, name: str, shelf: Shelf[K], loading: Loading[K]) -> None:
        self._name = name
        self._shelf = shelf
        self._loading = loading
        self._backstage = Backstage(f"batchkit {name}")

    async def ask(self, keys: list[K], wish: Wish[K]) -> Values[K]:
        """The values of distinct keys."""
        found = self._look_up(keys, wish)
        if found.load is not None:
            found.load.flight.launch(partial(self._loading.load, found.load, wish))
        for load, wanted in found.by_load():
            try:
                values = await load.flight.join()
            except Abandoned:
                values = await self.ask(wanted, wish)
            found.values.update((key, values[key]) for key in wanted)
        return found.values

    def ask_sync(self, keys: list[K], wish: Wish[K]) -> Values[K]:
        """The blocking twin of `ask`."""
        found = self._look_up(keys, wish)
        if found.load is not None:
            self._start(found.load, partial(self._loading.load_sync, found.load, wish))
        for load, wanted in found.by_load():
            try:
                values = load.flight.join_sync()
            except Abandoned:
                values = self.ask_sync(wanted, wish)
            found.values.update((key, values[key]) for key in wanted)
        return found.values

    def _start(self, load: Load[K], work: Callable[[], Values[K]]) -> None:
        if not load.behind:
            load.flight.fly_sync(work)
            return
        try:
            self._backstage.do(partial(load.flight.fly_alone, work))
        except RuntimeError:  # the interpreter ends
            load.flight.abandon()

    def _look_up(self, keys: list[K], wish: Wish[K]) -> _Found[K]:
        """What there is, and what the caller has to load.

        A key is found in one of the two, since a load keeps its value before it ends: so nothing is asked
        for twice.
        """
        shelf = self._shelf
        found: _Found[K] = _Found()
        missing: list[K] = []
        due: list[K] = []
        with shelf.lock:
            now = shelf.now()
            for key in keys:
                entry = shelf.find(key, now)
                if entry is None:
                    missing.append(key)
                    continue
                found.values[key] = copied(entry.value) if entry.negative else entry.value
                if entry.wants_reload(now) and shelf.loads.of(key) is None:
                    due.append(key)
            found.joined = {key: load for key in missing if (load := shelf.loads.of(key)) is not None}
            mine = [key for key in missing if key not in found.joined]
            if mine or due:
                found.load = self._new_load(mine, due, wish)
                found.joined.update(dict.fromkeys(mine, found.load))
        return found

    def _new_load(self, missing: list[K], due: list[K], wish: Wish[K]) -> Load[K]:
        load = Load(self._name, missing, due, frozenset(wish.tags))
        load.flight = Flight(load, self._shelf.clock, partial(self._end, load), unattended=not missing)
        self._shelf.loads.add(load)
        return load

    def _end(self, load: Load[K], flight: object) -> None:
        with self._shelf.lock:
            self._shelf.loads.end(load)


def picked(key: K, values: Values[K]) -> Any:
    """The value of a key.

    Raises:
        KeyError: it has none.
        Exception: its error.
    """
    value = values[key]
    if value is UNKNOWN:
        raise KeyError(key)
    if isinstance(value, Exception):
        raise value
    return value


def all_picked(keys: list[K], values: Values[K]) -> dict[K, Any]:
    """The values of those keys that have one, in the order of the keys.

    Raises:
        Exception: the error of the first key that has one.
    """
    return {key: picked(key, values) for key in keys if values[key] is not UNKNOWN}

"""Callers that bring a loader: what they find, what they wait for, and what is loaded for them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable
from enum import Enum, auto
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from attrs import define, field

from batchkit._background import Backstage
from batchkit._core.batching import values_by_key
from batchkit._core.expiry import Entry
from batchkit._core.terms import Tags, Ttl
from batchkit._flight import Abandoned, Flight
from batchkit._loads import Load
from batchkit._shelf import Shelf
from batchkit.exceptions import LoadFailed

K = TypeVar("K", bound=Hashable)

_log = logging.getLogger("batchkit")

_RETRY_AFTER: Final = 1.0  # seconds after which a reload that failed is tried again at the earliest


class _Value(Enum):
    """In the place of a value: the loader does not know the key."""

    UNKNOWN = auto()


UNKNOWN: Final = _Value.UNKNOWN
Values: TypeAlias = dict[K, Any]  # errors, and UNKNOWN, among them


def is_error(value: object) -> bool:
    """Whether a key has no value, but this."""
    return value is UNKNOWN or isinstance(value, Exception)


@define
class Wish(Generic[K]):
    """What a caller brings.

    Attributes:
        load_many: what loads; async or plain, as the caller is.
        ttl: of what is loaded, instead of the cache's own.
        tags: of what is loaded.
        single: whether it is for one key, so that its error is that key's.
    """

    load_many: Callable[[list[K]], Any]
    ttl: Ttl | None
    tags: Tags
    single: bool


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
    """Asks a shelf, and loads what is not there.

    Args:
        name: of the cache, for errors.
        shelf: where values are kept.
        negative: errors that say that a key has no value.
    """

    def __init__(
        self, name: str, shelf: Shelf[K], negative: type[Exception] | tuple[type[Exception], ...]
    ) -> None:
        self._name = name
        self._shelf = shelf
        self._negative = negative
        self._backstage = Backstage(f"batchkit {name}")

    async def ask(self, keys: list[K], wish: Wish[K]) -> Values[K]:
        """The values of distinct keys."""
        found = self._look_up(keys, wish)
        if found.load is not None:
            found.load.flight.launch(partial(self._load, found.load, wish))
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
            self._start(found.load, partial(self._load_sync, found.load, wish))
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
        with shelf.alone():
            now = shelf.now()
            for key in keys:
                entry = shelf.find(key, now)
                if entry is None:
                    missing.append(key)
                    continue
                found.values[key] = _copied(entry.value) if entry.negative else entry.value
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

    async def _load(self, load: Load[K], wish: Wish[K]) -> Values[K]:
        started = self._shelf.now()
        try:
            return self._kept(load, wish, await wish.load_many(load.keys), started)
        except Exception as error:
            self._note_failure(load, wish, error, started)
            raise

    def _load_sync(self, load: Load[K], wish: Wish[K]) -> Values[K]:
        started = self._shelf.now()
        try:
            return self._kept(load, wish, wish.load_many(load.keys), started)
        except Exception as error:
            self._note_failure(load, wish, error, started)
            raise

    def _kept(self, load: Load[K], wish: Wish[K], answer: object, started: float) -> Values[K]:
        keys = load.keys
        try:
            values: Values[K] = {**dict.fromkeys(keys, UNKNOWN), **values_by_key(answer, keys)}
        except ValueError as error:
            raise LoadFailed(f"{self._name}: {error}") from error
        now = self._shelf.now()
        entries = [self._entry(key, value, wish, now) for key, value in values.items()]
        with self._shelf.alone():
            self._shelf.load_calls += 1
            self._shelf.load_seconds += now - started
            for (key, value), entry in zip(values.items(), entries, strict=True):
                self._shelf.loaded += not is_error(value)
                self._put(load, key, value, entry, now)
        return values

    def _entry(self, key: K, value: Any, wish: Wish[K], now: float) -> Entry | None:
        """What is kept of an answer for a key."""
        if value is UNKNOWN:
            return self._shelf.terms.negative(key, value, now)
        if isinstance(value, self._negative):
            return self._shelf.terms.negative(key, _copied(value), now)
        if isinstance(value, Exception):
            return None
        return self._shelf.terms.entry(key, value, now, wish.ttl, wish.tags)

    def _put(self, load: Load[K], key: K, value: Any, entry: Entry | None, now: float) -> None:
        """Keep an answer, if it is still wanted. An error leaves an old value in its place for as long as it
        has; that there is none, or none to be kept, does not.
        """
        store = self._shelf.store
        if not self._shelf.loads.has(load, key):
            return
        if entry is not None:
            store.put(entry, now)
        elif isinstance(value, Exception) and not isinstance(value, self._negative):
            store.postpone(key, now, _RETRY_AFTER)
        else:
            store.remove(key, now)

    def _note_failure(self, load: Load[K], wish: Wish[K], error: Exception, started: float) -> None:
        now = self._shelf.now()
        negative = wish.single and isinstance(error, self._negative)
        with self._shelf.alone():
            self._shelf.load_calls += 1
            self._shelf.load_failures += not negative
            self._shelf.load_seconds += now - started
            for key in load.keys:
                if negative:
                    self._put(load, key, error, self._entry(key, error, wish, now), now)
                elif self._shelf.loads.has(load, key):
                    self._shelf.store.postpone(key, now, _RETRY_AFTER)
        if load.behind and not negative:
            _log.warning("%s: what is kept could not be loaded anew", self._name, exc_info=error)

    def _end(self, load: Load[K], flight: object) -> None:
        with self._shelf.alone():
            self._shelf.loads.end(load)


def _copied(answer: Any) -> Any:
    """An error for one more caller: to raise it keeps that caller's frames alive, and no others."""
    try:
        copied = copy.copy(answer)
    except Exception:  # it cannot be made from its own arguments
        return answer.with_traceback(None)
    return copied if type(copied) is type(answer) else answer.with_traceback(None)


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

"""A load of a cache: the loader is called, the tier behind the cache is asked before and told after it, and
what comes of it is kept.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable, Iterable
from enum import Enum, auto
from math import inf
from typing import Any, Final, Generic, TypeAlias, TypeVar

from attrs import define

from batchkit._caching.loads import Load
from batchkit._caching.shelf import Shelf
from batchkit._caching.tiered import Tiered
from batchkit._core.batching import values_by_key
from batchkit._core.entries import Entry
from batchkit._core.tags import own_tags
from batchkit._core.terms import Tags, Ttl
from batchkit.abc import Claim, TierValue
from batchkit.exceptions import LoadFailed

K = TypeVar("K", bound=Hashable)

_log = logging.getLogger("batchkit")

_RETRY_AFTER: Final = 1.0  # seconds after which a reload that failed is tried again at the earliest


class _Value(Enum):
    """In the place of a value: the loader does not know the key."""

    UNKNOWN = auto()


UNKNOWN: Final = _Value.UNKNOWN
Values: TypeAlias = dict[K, Any]  # errors, and UNKNOWN, among them


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
class _Answer:
    """What there is for a key.

    Attributes:
        value: the value, UNKNOWN, or an error.
        entry: what is kept of it, if anything is.
        loaded: whether it is the loader's, and not the tier's.
    """

    value: Any
    entry: Entry | None
    loaded: bool = True


_Answers: TypeAlias = dict[K, _Answer]


class Loading(Generic[K]):
    """Runs loads.

    Args:
        name: of the cache, for errors.
        shelf: where values are kept.
        negative: errors that say that a key has no value.
        tiered: the tier behind the cache, if there is one.
    """

    def __init__(
        self,
        name: str,
        shelf: Shelf[K],
        negative: type[Exception] | tuple[type[Exception], ...],
        tiered: Tiered[K] | None,
    ) -> None:
        self._name = name
        self._shelf = shelf
        self._negative = negative
        self._tiered = tiered

    async def load(self, load: Load[K], wish: Wish[K]) -> Values[K]:
        """Load what there is to load, and keep it."""
        started = self._shelf.now()
        try:
            if self._tiered is None:
                answers = await self._call(load.keys, wish)
            else:
                answers = await self._through_tier(self._tiered, load, wish)
        except Exception as error:
            self._note_failure(load, error, started)
            raise
        return self._kept(load, answers, started)

    def load_sync(self, load: Load[K], wish: Wish[K]) -> Values[K]:
        """The blocking twin of `load`."""
        started = self._shelf.now()
        try:
            if self._tiered is None:
                answers = self._call_sync(load.keys, wish)
            else:
                answers = self._through_tier_sync(self._tiered, load, wish)
        except Exception as error:
            self._note_failure(load, error, started)
            raise
        return self._kept(load, answers, started)

    async def _call(self, keys: list[K], wish: Wish[K]) -> _Answers[K]:
        try:
            answer = await wish.load_many(keys)
        except self._negative as error:
            answer = self._as_answer(error, keys, wish)
        return self._answers(answer, keys, wish)

    def _call_sync(self, keys: list[K], wish: Wish[K]) -> _Answers[K]:
        try:
            answer = wish.load_many(keys)
        except self._negative as error:
            answer = self._as_answer(error, keys, wish)
        return self._answers(answer, keys, wish)

    async def _through_tier(self, tiered: Tiered[K], load: Load[K], wish: Wish[K]) -> _Answers[K]:
        """Find what others loaded, load what this process is to load, wait for what others are loading."""
        answers: _Answers[K] = {}
        left = load.keys
        await tiered.settle()
        while left:
            claim = await tiered.tier.claim(left, ahead=self._shelf.terms.refresh_ahead if load.due else 0.0)
            try:
                answers.update(self._found(claim))
                if claim.mine:
                    loaded = await self._call(list(claim.mine), wish)
                    answers.update(_less(loaded, await claim.keep(self._tier_values(loaded))))
                left = list(claim.others)
                if left:
                    await claim.wait()
            finally:
                claim.release()
        return answers

    def _through_tier_sync(self, tiered: Tiered[K], load: Load[K], wish: Wish[K]) -> _Answers[K]:
        answers: _Answers[K] = {}
        left = load.keys
        tiered.settle_sync()
        while left:
            claim = tiered.tier.claim_sync(left, ahead=self._shelf.terms.refresh_ahead if load.due else 0.0)
            try:
                answers.update(self._found(claim))
                if claim.mine:
                    loaded = self._call_sync(list(claim.mine), wish)
                    answers.update(_less(loaded, claim.keep_sync(self._tier_values(loaded))))
                left = list(claim.others)
                if left:
                    claim.wait_sync()
            finally:
                claim.release()
        return answers

    def _as_answer(self, error: Exception, keys: list[K], wish: Wish[K]) -> object:
        """What a loader of one key says by an error that means that there is no value."""
        if not wish.single:
            raise error
        return {keys[0]: error}

    def _answers(self, answer: object, keys: list[K], wish: Wish[K]) -> _Answers[K]:
        try:
            values: Values[K] = {**dict.fromkeys(keys, UNKNOWN), **values_by_key(answer, keys)}
        except ValueError as error:
            raise LoadFailed(f"{self._name}: {error}") from error
        now = self._shelf.now()
        return {key: _Answer(value, self._entry(key, value, wish, now)) for key, value in values.items()}

    def _entry(self, key: K, value: Any, wish: Wish[K], now: float) -> Entry | None:
        """What is kept of an answer for a key."""
        if value is UNKNOWN:
            return self._shelf.terms.negative(key, value, now)
        if isinstance(value, self._negative):
            return self._shelf.terms.negative(key, copied(value), now)
        if isinstance(value, Exception):
            return None
        return self._shelf.terms.entry(key, value, now, wish.ttl, wish.tags)

    def _found(self, claim: Claim[K]) -> _Answers[K]:
        """What the tier has, for as long as it holds there."""
        terms, now = self._shelf.terms, self._shelf.now()
        return {
            key: _Answer(UNKNOWN, terms.negative_for(key, UNKNOWN, now, each.ttl), loaded=False)
            if each.negative
            else _Answer(each.value, terms.entry_for(key, each.value, now, each.ttl, each.tags), loaded=False)
            for key, each in claim.found.items()
        }

    def _tier_values(self, answers: _Answers[K]) -> dict[K, TierValue]:
        now = self._shelf.now()
        return {
            key: tier_value(answer.entry, now) for key, answer in answers.items() if answer.entry is not None
        }

    def _kept(self, load: Load[K], answers: _Answers[K], started: float) -> Values[K]:
        shelf = self._shelf
        with shelf.lock:
            now = shelf.now()
            shelf.load_calls += any(answer.loaded for answer in answers.values())
            shelf.load_seconds += now - started
            for key, answer in answers.items():
                shelf.tier_hits += not answer.loaded
                shelf.loaded += answer.loaded and not is_error(answer.value)
                if shelf.loads.has(load, key):
                    self._put(key, answer, now)
        return {key: answer.value for key, answer in answers.items()}

    def _put(self, key: K, answer: _Answer, now: float) -> None:
        """Keep an answer. An error leaves an old value in its place for as long as it has; that there is
        none, or none to be kept, does not.
        """
        store = self._shelf.store
        if answer.entry is not None:
            store.put(answer.entry, now)
        elif isinstance(answer.value, Exception) and not isinstance(answer.value, self._negative):
            store.postpone(key, now, _RETRY_AFTER)
        else:
            store.remove(key, now)

    def _note_failure(self, load: Load[K], error: Exception, started: float) -> None:
        shelf = self._shelf
        with shelf.lock:
            now = shelf.now()
            shelf.load_calls += 1
            shelf.load_failures += 1
            shelf.load_seconds += now - started
            for key in load.keys:
                if shelf.loads.has(load, key):
                    shelf.store.postpone(key, now, _RETRY_AFTER)
        if load.behind:
            _log.warning("%s: what is kept could not be loaded anew", self._name, exc_info=error)


def tier_value(entry: Entry, now: float) -> TierValue:
    """An entry as a tier keeps it."""
    expires = entry.expires
    if entry.negative:
        return TierValue(None, expires - now, negative=True)
    stale = entry.gone - expires if expires < inf else 0.0
    return TierValue(entry.value, expires - now, tags=own_tags(entry), stale=stale)


def is_error(value: object) -> bool:
    """Whether a key has no value, but this."""
    return value is UNKNOWN or isinstance(value, Exception)


def copied(answer: Any) -> Any:
    """An error for one more caller: to raise it keeps that caller's frames alive, and no others."""
    try:
        another = copy.copy(answer)
    except Exception:  # it cannot be made from its own arguments
        return answer.with_traceback(None)
    return another if type(another) is type(answer) else answer.with_traceback(None)


def _less(answers: _Answers[K], dropped: Iterable[K]) -> _Answers[K]:
    """Answers, of which those that were dropped meanwhile are not kept."""
    for key in dropped:
        answers[key].entry = None
    return answers

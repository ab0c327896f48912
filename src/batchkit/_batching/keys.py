"""Which keys are on their way, and who wants them.

A key that is on its way is here once: it gathers, or it is part of a call. Its value is in the cache before
it leaves, under the same lock. So nothing is asked for twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

from batchkit._batching.loads import LOST, Call, NoValue
from batchkit._batching.memo import Memo
from batchkit._batching.waiters import Given, Waiter, Waiting, join, leave, listed
from batchkit._core.gathering import Cohort, Gathering
from batchkit._watching import watcher
from batchkit.abc import Cache

K = TypeVar("K", bound=Hashable)

_UNUSUAL = (NoValue, Exception)

_log = logging.getLogger("batchkit")


class Keys(Generic[K]):
    """The keys of one batcher. Whoever calls a method holds the lock; what it returns as given is to be given
    to those who wait when the lock is free.

    Args:
        gathering: those that wait for their batch.
        cache: keeps the values, if there is one.
        name: the batcher's.

    Attributes:
        lock: before all of them.
        places: where each key is that is on its way. Whether one is here may be asked without the lock.
        under_way: the calls that have keys.
    """

    def __init__(self, gathering: Gathering[K], cache: Cache[K, Any] | None, name: str) -> None:
        self.lock = threading.Lock()
        self.gathering = gathering
        self.places: dict[K, Cohort[K]] = {}
        self.under_way: set[Call[K]] = set()
        self._cache = cache
        self._memo = cache.values if isinstance(cache, Memo) else None
        self._watch = None if cache is None else watcher(cache)
        self._name = name

    def start_anew(self) -> None:
        """In the child of a fork: whoever held the lock, or was to bring a value, is in the parent."""
        self.lock = threading.Lock()
        self.places.clear()
        self.under_way.clear()
        self.gathering.clear()

    def admit(
        self, came: dict[K, Waiting], priority: float, now: float, home: Hashable
    ) -> list[tuple[K, Waiting, Any]]:
        """Keys are wanted, by those who wait with each; returns what is known already.

        Args:
            came: the keys; it is not to be used by others any more.
            priority: theirs.
            now: the moment.
            home: the event loop of those who wait; None for threads.
        """
        known = self._known(came)
        given = [(key, came.pop(key), value) for key, value in known.items()] if known else []
        if not self.places.keys().isdisjoint(came.keys()):
            for key in [key for key in came if key in self.places]:
                self.join(key, came.pop(key), priority, home)
        for some in self.gathering.portions(came):
            cohort = Cohort(some, priority, now, home)
            self.places.update(dict.fromkeys(some, cohort))
            self.gathering.add(cohort)
        return given

    def join(self, key: K, waiting: Waiting, priority: float, home: Hashable) -> None:
        """Others want a key that is on its way."""
        cohort = self.places[key]
        join(cohort.waiting, key, waiting)
        if home is not cohort.home:
            cohort.home = None
        if cohort.call is None and priority > cohort.priority:
            self.places[key] = self.gathering.promote(cohort, key, priority)

    def leave(self, keys: Iterable[K], waiter: Waiter) -> list[Call[K]]:
        """Somebody does not want some keys any more; returns the calls that are to be stopped."""
        left: dict[Cohort[K], None] = {}
        for key in keys:
            for cohort in self._cohorts_of(key):
                if leave(cohort.waiting, key, waiter):
                    cohort.intact = False
                    left[cohort] = None
                    if not cohort.waiting[key] and cohort.call is None:
                        self.gathering.discard(cohort, key)
                        self._forget(key, cohort)
        return [cohort.call for cohort in left if self._is_to_be_stopped(cohort)]

    def calls_of(self, keys: Iterable[K], waiter: Waiter) -> list[Call[K]]:
        """The calls under way that bring some of these keys to somebody. May be asked without the lock."""
        return [call for call in list(self.under_way) if any(call.brings(key, waiter) for key in keys)]

    def has_keys_of(self, home: Hashable) -> bool:
        """Whether a task of an event loop wants a key that waits, or a thread does, for which anybody may
        load it.
        """
        return any(
            waiter.get_loop() in (home, None)
            for cohort in self.gathering.all_waiting()
            for waiter in chain.from_iterable(map(listed, cohort.waiting.values()))
        )

    def take(self, call: Call[K]) -> None:
        """A call takes the keys of the next batch."""
        call.batch = batch = self.gathering.take()
        batch.call = call
        batch.intact = True
        self.under_way.add(call)
        if batch.is_new:
            self.places.update(dict.fromkeys(batch.waiting, batch))
        if self._watch is not None and self._memo is None:
            call.watch = self._watch(batch.waiting)

    def still_wanted(self, batch: Cohort[K], part: Sequence[K]) -> Sequence[K]:
        """Those of a part that somebody wants, where some have left; the others are dropped."""
        waiting = batch.waiting
        for key in part:
            if key in waiting and not waiting[key]:
                del waiting[key]
                self._forget(key, batch)
        return [key for key in part if key in waiting]

    def land(self, batch: Cohort[K], part: Sequence[K], answers: Sequence[Any]) -> Given:
        """The answers of a part of a call are here."""
        kinds = set(map(type, answers))
        if not batch.intact or any(issubclass(kind, _UNUSUAL) for kind in kinds):
            return self._land_one_by_one(batch, part, answers)
        places, memo = self.places, self._memo
        if len(places) == len(part):  # no others are on their way: ten times as fast
            places.clear()
        else:
            for key in part:
                del places[key]
        if memo is not None:
            memo.update(zip(part, answers, strict=True))
        elif self._cache is not None:
            for key, answer in zip(part, answers, strict=True):
                self._keep_loaded(batch.call, key, answer)
        return zip(part, batch.remove(part), answers, strict=True)

    def _land_one_by_one(self, batch: Cohort[K], part: Sequence[K], answers: Sequence[Any]) -> Given:
        given: list[tuple[K, Waiting, Any]] = []
        for key, answer in zip(part, answers, strict=True):
            there = batch.waiting.pop(key, None)
            if there is None:  # it was primed
                continue
            if self.places.get(key) is batch:  # or it is old, or nobody wants it
                del self.places[key]
                if not isinstance(answer, _UNUSUAL):
                    self._keep_loaded(batch.call, key, answer)
            given.append((key, there, NoValue(answer) if isinstance(answer, Exception) else answer))
        return given

    def end(self, call: Call[K]) -> Given:
        """A call is over; what it did not bring is lost."""
        self.under_way.discard(call)
        batch, call.batch = call.batch, None  # circles would wait for the garbage collector
        if batch is None:
            return []
        self.gathering.come_back()
        batch.call = None
        waiting, batch.waiting = batch.waiting, {}
        for key in waiting:
            self._forget(key, batch)
        return [(key, there, LOST) for key, there in waiting.items()]

    def lose(self, keys: Iterable[K] | None = None) -> Given:
        """Nobody brings these of the keys that wait, or all of them."""
        lost: list[tuple[K, Waiting, Any]] = []
        for key in [*self.places] if keys is None else keys:
            cohort = self.places.get(key)
            if cohort is not None and cohort.call is None:
                lost.append((key, cohort.waiting[key], LOST))
                self.gathering.discard(cohort, key)
                del self.places[key]
        return lost

    def prime(self, key: K, value: Any) -> tuple[Given, Call[K] | None]:
        """A value is known; returns a call that nobody wants any more by that, too."""
        given: list[tuple[K, Waiting, Any]] = []
        call: Call[K] | None = None
        cohort = self.places.pop(key, None)
        if cohort is not None:
            cohort.intact = False
            given.append((key, cohort.waiting[key], value))
            if cohort.call is None:
                self.gathering.discard(cohort, key)
            else:
                del cohort.waiting[key]
                call = None if any(cohort.waiting.values()) else cohort.call
        if self._cache is not None:
            self._keep(self._cache.set, key, value)
        return given, call

    def outdate(self, keys: Iterable[K] | None) -> None:
        """What is on its way for some keys, or for all, is old: who waits for it has it, and nobody else."""
        for key in [*self.places] if keys is None else keys:
            cohort = self.places.get(key)
            if cohort is not None and cohort.call is not None:  # what was not asked for yet will be new
                cohort.intact = False
                del self.places[key]

    def _known(self, came: dict[K, Waiting]) -> dict[K, Any]:
        memo = self._memo
        if memo is None:
            return {} if self._cache is None else self._cache.get_present(came)
        if memo.keys().isdisjoint(came.keys()):
            return {}
        return {key: memo[key] for key in came if key in memo}

    def _cohorts_of(self, key: K) -> Iterator[Cohort[K]]:
        """All that have a key: besides the one that has it now, those to whom it is old."""
        if (cohort := self.places.get(key)) is not None:
            yield cohort
        for call in self.under_way:
            if call.batch is not None and call.batch is not cohort:
                yield call.batch

    def _is_to_be_stopped(self, cohort: Cohort[K]) -> bool:
        """Whether nobody wants any key of a call that can be stopped; whoever asks now needs another one."""
        if cohort.call is None or not cohort.call.stoppable or any(cohort.waiting.values()):
            return False
        for key in cohort.waiting:
            self._forget(key, cohort)
        return True

    def _forget(self, key: K, cohort: Cohort[K]) -> None:
        if self.places.get(key) is cohort:
            del self.places[key]

    def _keep_loaded(self, call: Call[K], key: K, value: Any) -> None:
        if self._memo is not None:
            self._memo[key] = value
        elif call.watch is not None:
            self._keep(call.watch.keep, key, value)

    def _keep(self, keep: Callable[[K, Any], object], key: K, value: Any) -> None:
        try:
            keep(key, value)
        except Exception:  # the value is there all the same
            _log.exception("%s: the cache failed to keep a value", self._name)

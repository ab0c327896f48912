"""Which keys are on their way, and who wants them.

A key that is on its way is here once: it gathers, or it is part of a call. Its value is in the cache before
it leaves, under the same lock. So nothing is asked for twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from batchkit._batching.loads import LOST, PENDING, Call, Failure, Load, NoValue
from batchkit._batching.memo import Memo
from batchkit._batching.waiters import Waiter
from batchkit._core.gathering import Gathering
from batchkit._watching import watcher
from batchkit.abc import Cache

K = TypeVar("K", bound=Hashable)

_UNUSUAL = (NoValue, Exception)

_log = logging.getLogger("batchkit")


class Keys(Generic[K]):
    """The keys of one batcher. Whoever calls a method holds the lock.

    Args:
        gathering: those that wait for their batch.
        cache: keeps the values, if there is one.
        now: what time it is.
        name: the batcher's.
    """

    def __init__(
        self,
        gathering: Gathering[Load[K]],
        cache: Cache[K, Any] | None,
        now: Callable[[], float],
        name: str,
    ) -> None:
        self.lock = threading.Lock()
        self.gathering = gathering
        self._came = gathering.came
        self._cache = cache
        self._memo = cache.values if isinstance(cache, Memo) else None
        self._watch = None if cache is None else watcher(cache)
        self._now = now
        self._name = name
        self._loads: dict[K, Load[K]] = {}

    def start_anew(self) -> None:
        """In the child of a fork: whoever held the lock, or was to bring a value, is in the parent."""
        self.lock = threading.Lock()
        self._loads.clear()
        self.gathering.clear()

    def due(self) -> float:
        """The moment at which the next batch leaves; infinite if there is none that could."""
        return self.gathering.due(self._now())

    def want(self, key: K, priority: float, home: Hashable, ringing: Waiter) -> Load[K]:
        """Somebody wants a key, and waits with `ringing` for it; if its value is known, it has landed."""
        load = self._loads.get(key)
        if load is not None:
            load.waiters.append(ringing)
            return self._join(load, priority)
        load = Load(key, priority, self._now(), home, [ringing])
        if self._memo is not None:
            if key in self._memo:
                return load.known(self._memo[key])
        elif self._cache is not None and (known := self._cache.get_present((key,))):
            return load.known(known[key])
        self._loads[key] = load
        self._came.append(load)
        return load

    def want_all(
        self, keys: Sequence[K], priority: float, home: Hashable
    ) -> tuple[dict[K, Any], list[Load[K]]]:
        """Somebody wants distinct keys; returns the values that are known, and the loads of the others."""
        known = {} if self._cache is None else self._cache.get_present(keys)
        now = self._now()
        missing = [key for key in keys if key not in known] if known else keys
        return known, [
            self._add(Load(key, priority, now, home, [])) if load is None else self._join(load, priority)
            for key in missing
            for load in (self._loads.get(key),)
        ]

    def leave(self, load: Load[K]) -> Call[K] | None:
        """Somebody does not want a key any more; returns its call if that is to be stopped."""
        load.callers -= 1
        load.home = None
        if load.callers or load.answer is not PENDING:
            return None
        call = load.call
        if call is None:
            self.gathering.discard(load)
            self._forget(load)
            return None
        call.wanted -= 1
        if call.wanted or not call.stoppable:
            return None
        for each in call.loads:
            self._forget(each)
        return call

    def has_keys_of(self, home: Hashable) -> bool:
        """Whether a task of an event loop wants a key that waits, or one waits that anybody may load."""
        return any(load.home is home or load.home is None for load in self.gathering.all_waiting())

    def take(self, call: Call[K]) -> None:
        """A call takes the keys of the next batch."""
        call.loads = self.gathering.take()
        call.wanted = len(call.loads)
        for load in call.loads:
            load.call = call
        if self._watch is not None:
            call.watch = self._watch([load.key for load in call.loads])

    def still_wanted(self, call: Call[K], part: Sequence[Load[K]]) -> Sequence[Load[K]]:
        """Those of a part that somebody wants; the others are dropped."""
        if call.wanted == len(call.loads):
            return part
        for load in part:
            if not load.callers:
                self._forget(load)
        return [load for load in part if load.callers and load.answer is PENDING]

    def land(self, call: Call[K], part: Iterable[Load[K]], answers: Iterable[Any]) -> None:
        """The answers of a part of a call are here."""
        loads, memo, watch = self._loads, self._memo, call.watch
        for load, answer in zip(part, answers, strict=False):
            if load.answer is not PENDING:
                continue
            if load.callers:
                call.wanted -= 1
            load.answer = answer
            if loads.get(load.key) is not load:  # it is old, or nobody wants it
                keeper = None
            else:
                keeper = watch
                del loads[load.key]
            if isinstance(answer, _UNUSUAL):
                if isinstance(answer, Exception):
                    load.answer = Failure(answer)
            elif keeper is not None:
                if memo is not None:
                    memo[load.key] = answer
                else:
                    self._keep(keeper.keep, load.key, answer)

    def lose(self, loads: Iterable[Load[K]]) -> list[Load[K]]:
        """Nobody brings these; returns those whose callers have to be told."""
        lost = [load for load in loads if load.answer is PENDING]
        for load in lost:
            load.answer = LOST
            self._forget(load)
            if load.gathers:
                self.gathering.discard(load)
        return lost

    def prime(self, key: K, value: Any) -> Load[K] | None:
        """A value is known; returns a load that has landed by that."""
        load = self._loads.pop(key, None)
        if load is not None:
            load.answer = value
            if load.call is None:
                self.gathering.discard(load)
            else:
                load.call.wanted -= load.callers > 0
        if self._cache is not None:
            self._keep(self._cache.set, key, value)
        return load

    def outdate(self, keys: Iterable[K] | None) -> None:
        """What is on its way for some keys, or for all, is old: who waits for it has it, and nobody else."""
        for key in [*self._loads] if keys is None else keys:
            load = self._loads.get(key)
            if load is not None and not load.gathers:  # what has not been asked for yet will be new
                del self._loads[key]

    def _join(self, load: Load[K], priority: float) -> Load[K]:
        if load.gathers:
            if priority > load.priority:
                self.gathering.promote(load, priority)
        elif not load.callers and load.call is not None:
            load.call.wanted += 1
        load.callers += 1
        return load

    def _add(self, load: Load[K]) -> Load[K]:
        self._loads[load.key] = load
        self._came.append(load)
        return load

    def _forget(self, load: Load[K]) -> None:
        if self._loads.get(load.key) is load:
            del self._loads[load.key]

    def _keep(self, keep: Callable[[K, Any], object], key: K, value: Any) -> None:
        try:
            keep(key, value)
        except Exception:  # the value is there all the same
            _log.exception("%s: the cache failed to keep a value", self._name)

"""How the call of a batch is made: again if it failed, apart if a key may be bad; who gets which answer."""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from attrs import frozen

from batchkit._batching.keys import Keys
from batchkit._batching.loads import CALL, MISSING, Call, NoValue
from batchkit._batching.waiters import give_in
from batchkit._core.batching import halves, values_of
from batchkit._core.gathering import PRESSING, Cohort
from batchkit._dispatch import AnyDispatch, Attempt
from batchkit._events import BatchSplit, Hook, emit
from batchkit.abc import Clock
from batchkit.exceptions import LimiterClosed, LimiterUnavailable, LoadFailed
from batchkit.feedback import Verdict, classify
from batchkit.retries import Retry

K = TypeVar("K", bound=Hashable)


@frozen
class Rules:
    """What a batcher says of its calls.

    Attributes:
        dispatch: makes them in event loops.
        dispatch_sync: makes them in threads; None where the loader is async.
        limited: whether a limiter lets them go.
        retry: when one that failed is made again.
        split: whether a batch whose call fails is split.
        priority: of keys for which no other one is given.
        name, hooks, clock: the batcher's.
    """

    dispatch: AnyDispatch
    dispatch_sync: AnyDispatch | None
    limited: bool
    retry: Retry | None
    split: bool
    priority: int
    name: str
    hooks: tuple[Hook, ...]
    clock: Clock


class Calls(Generic[K]):
    """Makes calls.

    Args:
        rules: what they are like.
        keys: those of the batcher.
    """

    def __init__(self, rules: Rules, keys: Keys[K]) -> None:
        self._rules = rules
        self._keys = keys
        self._is_straight = rules.retry is None and rules.dispatch.plain

    async def make(self, call: Call[K]) -> None:
        """Make the call of a batch; where it fails, those of its halves, until each bad key stands alone."""
        if (batch := call.batch) is not None:
            CALL.set(call)
            try:
                parts: list[Sequence[K]] = [list(batch.waiting)]
                while parts:
                    if part := self._still_wanted(batch, parts.pop()):
                        attempt = await self._attempt([*part], batch)
                        parts += self._land(call, batch, part, attempt)
            except Exception as error:  # an answer that breaks when it is looked at
                self._give_all(call, batch, error)
        call.done = True

    def make_sync(self, call: Call[K], dispatch: AnyDispatch) -> None:
        """The blocking twin of `make`."""
        if (batch := call.batch) is not None:
            token = CALL.set(call)
            try:
                parts: list[Sequence[K]] = [list(batch.waiting)]
                while parts:
                    if part := self._still_wanted(batch, parts.pop()):
                        attempt = self._attempt_sync([*part], batch, dispatch)
                        parts += self._land(call, batch, part, attempt)
            except Exception as error:
                self._give_all(call, batch, error)
            finally:
                CALL.reset(token)
        call.done = True

    def _attempt(self, keys: list[K], batch: Cohort[K]) -> Awaitable[Attempt[Any]]:
        """Call for keys, again and again as the retry policy says."""
        if self._is_straight:
            return self._rules.dispatch.straight(keys)
        return self._attempts(keys, self._priority(batch))

    async def _attempts(self, keys: list[K], priority: int | None) -> Attempt[Any]:
        """The same, where something is on the way of a call."""
        began, number = self._rules.clock.now(), 1
        attempt = await self._rules.dispatch.attempt(keys, len(keys), priority=priority)
        while (delay := self._delay(attempt, number, began)) is not None:
            await self._rules.clock.sleep(delay)
            number += 1
            attempt = await self._rules.dispatch.attempt(keys, len(keys), priority=priority)
        return attempt

    def _attempt_sync(self, keys: list[K], batch: Cohort[K], dispatch: AnyDispatch) -> Attempt[Any]:
        """The blocking twin of `_attempts`."""
        began, number, priority = self._rules.clock.now(), 1, self._priority(batch)
        attempt = dispatch.attempt_sync(keys, len(keys), priority=priority)
        while (delay := self._delay(attempt, number, began)) is not None:
            self._rules.clock.sleep_sync(delay)
            number += 1
            attempt = dispatch.attempt_sync(keys, len(keys), priority=priority)
        return attempt

    def _delay(self, attempt: Attempt[Any], number: int, began: float) -> float | None:
        """Seconds until a call is made again, or None if it is not."""
        retry = self._rules.retry
        if retry is None:
            return None
        if attempt.error is None:
            retry.succeeded()
            return None
        return retry.delay(attempt.error, number, self._rules.clock.now() - began)

    def _still_wanted(self, batch: Cohort[K], part: Sequence[K]) -> Sequence[K]:
        if batch.intact:  # who leaves just now leaves as if the call had been made already
            return part
        with self._keys.lock:
            return self._keys.still_wanted(batch, part)

    def _priority(self, batch: Cohort[K]) -> int | None:
        """That of a call before its limiter: the highest of its keys; None if a call waits for one."""
        if not self._rules.limited or batch.priority == PRESSING:
            return None
        return int(batch.priority)

    def _land(
        self, call: Call[K], batch: Cohort[K], part: Sequence[K], attempt: Attempt[Any]
    ) -> list[Sequence[K]]:
        """Give the keys of a part what came of its call; returns the parts that are to be tried apart."""
        answers, error = self._answers(part, attempt)
        if error is None:
            self._give(call, batch, part, answers)
        elif len(part) > 1 and self._may_split(error):
            emit(self._rules.hooks, BatchSplit(self._rules.name, len(part), error))
            return [*reversed(halves(part))]
        else:
            self._give(call, batch, part, [NoValue(error)] * len(part))
        return []

    def _give(self, call: Call[K], batch: Cohort[K], part: Sequence[K], answers: Sequence[Any]) -> None:
        with self._keys.lock:
            given = self._keys.land(batch, part, answers)
            home = batch.home
        give_in(call.room.domain, given, home)

    def _give_all(self, call: Call[K], batch: Cohort[K], error: Exception) -> None:
        left = list(batch.waiting)
        self._give(call, batch, left, [NoValue(error)] * len(left))

    def _answers(self, part: Sequence[K], attempt: Attempt[Any]) -> tuple[Sequence[Any], Exception | None]:
        if attempt.error is not None:
            return (), attempt.error
        try:
            return values_of(attempt.value, part, MISSING), None
        except ValueError as wrong:
            error = LoadFailed(f"{self._rules.name}: {wrong}")
            error.__cause__ = wrong
            return (), error

    def _may_split(self, error: Exception) -> bool:
        """Whether one bad key may be what failed: not if the server refuses calls whatever they ask for, or
        if the loader answers wrongly.
        """
        if not self._rules.split or isinstance(error, (LoadFailed, LimiterUnavailable, LimiterClosed)):
            return False
        feedback = classify(error)
        return feedback is None or feedback.verdict is not Verdict.THROTTLED

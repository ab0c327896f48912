"""Frozen events, and how they reach the hooks.

A hook is one callable that takes an event. It is called where the thing happens, so it should be quick; an
error in a hook is logged and harms no work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from typing import TypeAlias

from attrs import frozen

from batchkit._values import AnyOutcome, AnyReport

_log = logging.getLogger("batchkit")


@frozen
class Event:
    """Something that happened.

    Attributes:
        name: the name of the limiter, executor, batcher or cache that it happened to.
    """

    name: str


@frozen
class Waited(Event):
    """A call went after it had to wait for a limiter.

    Attributes:
        cost: permits.
        seconds: how long it waited.
    """

    cost: int
    seconds: float


@frozen
class RateChanged(Event):
    """A limiter goes on at another rate or burst.

    Attributes:
        rate, burst: the new ones, in permits/s and permits.
        rate_before, burst_before: the old ones.
        reason: why, in words, if whoever changed it said so.
    """

    rate: float
    burst: int
    rate_before: float
    burst_before: int
    reason: str = ""


@frozen
class LimitChanged(Event):
    """A limiter of calls at once goes on with another limit.

    Attributes:
        limit: the new one, in permits.
        limit_before: the old one.
        reason: why, in words, if whoever changed it said so.
    """

    limit: int
    limit_before: int
    reason: str = ""


@frozen
class Paused(Event):
    """A limiter lets nobody go for a while.

    Attributes:
        seconds: for how long, from now on.
        reason: why, in words, if whoever asked for it said so.
    """

    seconds: float
    reason: str = ""


@frozen
class Unavailable(Event):
    """A limiter or a tier cannot ask Redis, and goes on without it as it was told to.

    Attributes:
        policy: how: "raise", "deny", "allow" or "local".
        reason: what went wrong, in words.
    """

    policy: str
    reason: str


@frozen
class Reconnected(Event):
    """A limiter or a tier can ask Redis again.

    Attributes:
        seconds: how long it could not.
        granted: permits that it let go meanwhile on its own; keys that a tier had loaded.
    """

    seconds: float
    granted: int


@frozen
class CircuitChanged(Event):
    """A circuit breaker opened, closed, or lets a probe go.

    Attributes:
        state: "open", "closed" or "half-open".
        state_before: the old one.
        reason: type and words of the error that opened it, as far as it was told.
    """

    state: str
    state_before: str
    reason: str = ""


@frozen
class DecodeFailed(Event):
    """What lies in a tier under a key cannot be read; it counts as not there.

    Attributes:
        key: which.
        error: why.
    """

    key: Hashable
    error: Exception


@frozen
class RunStarted(Event):
    """An executor began a run.

    Attributes:
        total: number of items, or None where the input does not tell.
    """

    total: int | None


@frozen
class CallStarted(Event):
    """A call is about to be made: its permits are there.

    Attributes:
        size: items, or keys, of the call.
    """

    size: int


@frozen
class CallFinished(Event):
    """A call came back.

    Attributes:
        size: items, or keys, of the call.
        seconds: how long the call took, without waiting for permits.
        error: what it raised, or None.
    """

    size: int
    seconds: float
    error: BaseException | None

    @property
    def ok(self) -> bool:
        """Whether the call returned."""
        return self.error is None


@frozen
class BatchSplit(Event):
    """A batch failed and goes on as two halves.

    Attributes:
        size: items of the failed batch.
        error: why it failed.
    """

    size: int
    error: Exception


@frozen
class PrefetchFailed(Event):
    """A key that was prefetched has no value. Whoever asks for it later has it loaded again.

    Attributes:
        key: the key.
        error: what its load raised.
    """

    key: Hashable
    error: Exception


@frozen
class ItemRetried(Event):
    """A call failed and is made again: told for each of its items.

    Attributes:
        index: the item's number in the input.
        attempt: the one that failed, from 1.
        delay: seconds until the next one.
        error: why it failed.
    """

    index: int
    attempt: int
    delay: float
    error: Exception


@frozen
class Throttled(Event):
    """A call was refused for coming too fast.

    Attributes:
        retry_after: seconds that the server asked to wait, if it did.
    """

    retry_after: float | None


@frozen
class ItemFinished(Event):
    """An item has its outcome."""

    outcome: AnyOutcome


@frozen
class RunFinished(Event):
    """A run is over: all items have their outcomes, or it was stopped before.

    Attributes:
        report: its figures. It holds no outcomes: each was in an `ItemFinished`.
    """

    report: AnyReport


Hook: TypeAlias = Callable[[Event], object]


def emit(hooks: Iterable[Hook], event: Event) -> None:
    """Hand an event to each hook."""
    for hook in hooks:
        try:
            hook(event)
        except Exception:
            _log.exception("a hook failed on %s", type(event).__name__)

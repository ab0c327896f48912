"""`ConcurrencyLimiter`: how many calls are under way at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import TypeVar

from batchkit._clock import MONOTONIC
from batchkit._core.slots import Slots
from batchkit._events import Hook, LimitChanged, emit
from batchkit._gate import Gate
from batchkit._local import LocalLimiter
from batchkit._numbers import checked_burst, checked_charge
from batchkit._values import ConcurrencyStatistics
from batchkit.abc import Clock

H = TypeVar("H", bound=Slots)


class SlotLimiter(LocalLimiter[H]):
    """The words of a limiter of calls at once, whose permits come back when a call ends."""

    @property
    def limit(self) -> int:
        """Permits that may be out at once."""
        return self.gate.store.burst

    def release(self, cost: int = 1) -> None:
        """Give the permits of a call back: it has ended.

        Raises:
            InvalidCost: the cost is no whole number above zero.
            ValueError: so many are not out.
        """
        if cost.__class__ is not int or cost < 1:
            raise self.gate.refusal(cost)
        self.end_call(cost)

    def end_call(self, cost: int) -> None:
        """A call that took so many permits is over."""
        if checked_charge(cost):
            self.gate.note(partial(self._release, permits=cost))

    def charge(self, permits: int) -> None:
        """Count `permits` more as out, above the limit if need be; below zero, give some back.

        Raises:
            InvalidCost: no whole number.
            ValueError: so many are not out.
        """
        if checked_charge(permits) < 0:
            self.end_call(-permits)
        elif permits:
            self.gate.note(partial(self._charge, permits=permits))

    def _release(self, now: float, permits: int) -> None:
        if not self.gate.store.give_back(permits):
            raise ValueError(
                f"{permits} permits given back to {self.name}, but only {self.gate.store.taken} are out"
            )
        self.gate.waiters.look(now)

    def _charge(self, now: float, permits: int) -> None:
        self.gate.store.charge(permits, now)


class ConcurrencyLimiter(SlotLimiter[Slots]):
    """Lets at most `limit` calls be under way at once, first come first served within a priority.

    A call takes its permits when it goes and gives them back when it ends: use `permit`, or the limiter
    itself, as a context manager, or call `release` for each `acquire` or granted `try_acquire`.

    One object may be shared by threads and by event loops of asyncio and trio, like a `TokenBucket`. After a
    fork, a process has none of its parent's calls under way.

    Args:
        limit: permits that may be out at once, a positive whole number.
        name: what it is called in events and errors.
        hooks: called with each event: `Waited`, `LimitChanged`, `Paused`.
        patience: seconds of waiting that outweigh one step of priority, so that low priorities move, too.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a limit or a patience that is none.

    Example:
        ```python
        speech = ConcurrencyLimiter(3)
        async with speech:
            await speak("好")
        ```
    """

    def __init__(
        self,
        limit: int,
        *,
        name: str = "limiter",
        hooks: Iterable[Hook] = (),
        patience: float = 10.0,
        clock: Clock = MONOTONIC,
    ) -> None:
        slots = Slots(checked_burst(limit, "a limit"))
        super().__init__(Gate(slots, name=name, hooks=hooks, patience=patience, clock=clock))

    def change(self, *, limit: int, reason: str = "") -> None:
        """Go on with another limit; those who wait are told at once, and calls under way are not stopped.

        A waiting call whose cost exceeds the new limit ends with `CostExceedsBurst`.

        Args:
            limit: permits that may be out at once.
            reason: why, in words, for the event.

        Raises:
            ValueError: a limit that is none.
        """
        before = self.limit
        for limiter in self._change(0.0, checked_burst(limit, "a limit")):
            limiter.change(limit=limit, reason=reason)
        emit(self.gate.hooks, LimitChanged(self.name, limit, before, reason))

    def statistics(self) -> ConcurrencyStatistics:
        """What it did so far."""
        return self.gate.alone(self._statistics)

    def __repr__(self) -> str:
        return f"ConcurrencyLimiter({self.limit}, name={self.name!r})"

    def _new_store(self, now: float, key: Hashable) -> Slots:
        return Slots(self.limit)

    def _statistics(self, now: float) -> ConcurrencyStatistics:
        slots, gate = self.gate.store, self.gate
        return ConcurrencyStatistics(
            limit=slots.burst,
            available=slots.burst - slots.taken - gate.line.reserved,
            waiting=len(gate.waiters),
            granted=slots.granted,
            waits=gate.waits,
            waited=gate.waited,
            timeouts=gate.timeouts,
        )

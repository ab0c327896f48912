"""The words that all local limiters share: acquire, try, permit, pause."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, Generic, Self, TypeVar

from batchkit._core.store import Store
from batchkit._family import Family
from batchkit._gate import Gate
from batchkit._numbers import check_wish
from batchkit._parking import wait_at, wait_at_sync
from batchkit._values import Decision
from batchkit.abc import Clock
from batchkit.exceptions import InvalidCost

S = TypeVar("S", bound=Store)


class LocalLimiter(ABC, Generic[S]):
    """A limiter of this process.

    Attributes:
        name: what it is called in events and errors.
        gate: its line and its lock, for what is built on it.
    """

    def __init__(self, gate: Gate[S]) -> None:
        self._stand_at(gate)

    def _stand_at(self, gate: Gate[S]) -> None:
        self.name = gate.name
        self.gate = gate
        self._family: Family[S, Self] | None = None
        self._is_of_a_key = False
        self._now = gate.clock.now
        self._table = gate.table

    @property
    def clock(self) -> Clock:
        """What it goes by."""
        return self.gate.clock

    def try_acquire(self, cost: int = 1) -> Decision:
        """Go now, or not at all; never waits, and never overtakes those who wait.

        Returns:
            A true decision, or a false one with `retry_after` (seconds; infinite if nobody can say).

        Raises:
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
        """
        if cost.__class__ is not int or cost < 1:
            raise self.gate.refusal(cost)
        return self.gate.attempt(cost)

    async def acquire(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go. Where nothing is to be waited for, it does not yield to the event
        loop.

        Args:
            cost: permits.
            priority: higher goes first.
            timeout: seconds to wait at most; 0 tries. None waits as long as it takes.

        Raises:
            AcquireTimeout: as soon as it is certain that the permits do not come in within the timeout.
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
            ValueError: a priority that is no whole number, a timeout that is none.
        """
        await self.go(cost, priority=priority, timeout=timeout)

    def acquire_sync(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """The blocking twin of `acquire`, for threads."""
        self.go_sync(cost, priority=priority, timeout=timeout)

    async def go(self, cost: int, *, priority: int, timeout: float | None) -> bool:
        """Acquire, and say whether the caller had to wait for permits."""
        check_wish(priority, timeout)
        if self.try_acquire(cost).allowed:
            return False
        gate = self.gate
        parker = gate.clock.parker()
        await wait_at(gate.place(cost, priority, timeout, parker), parker, gate.come, gate.abandon)
        return True

    def go_sync(self, cost: int, *, priority: int, timeout: float | None) -> bool:
        """The blocking twin of `go`."""
        check_wish(priority, timeout)
        if self.try_acquire(cost).allowed:
            return False
        gate = self.gate
        parker = gate.clock.parker_sync()
        wait_at_sync(gate.place(cost, priority, timeout, parker), parker, gate.come, gate.abandon)
        return True

    def permit(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> LocalPermit:
        """An acquire as a context manager, `async with` or `with`, for a call whose true cost is known
        afterwards.

        Example:
            ```python
            async with bucket.permit(cost=1200) as permit:
                reply = await call()
                permit.settle(reply.usage.total_tokens)
            ```
        """
        return LocalPermit(self, cost, priority, timeout)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self.end_call(1)

    def __enter__(self) -> None:
        self.acquire_sync()

    def __exit__(self, *exc_info: object) -> None:
        self.end_call(1)

    @abstractmethod
    def charge(self, permits: int) -> None:
        """Count `permits` more as taken, or, below zero, give some back."""

    @abstractmethod
    def end_call(self, cost: int) -> None:
        """A call that took so many permits is over."""

    @abstractmethod
    def statistics(self) -> Any:
        """What it did so far."""

    @abstractmethod
    def _new_store(self, now: float, key: Hashable) -> S:
        """A full store of the same size."""

    def for_key(self, key: Hashable) -> Self:
        """The limiter of a key, such as an account: one of its own for each, of the same size as this one.

        Whoever asks for the same key gets the same limiter, as long as somebody holds it or there is
        anything to remember: permits that have not come in again, calls under way, a pause. The rest is
        forgotten, which loses nothing but statistics. A change of this limiter changes those of its keys; a
        call of one takes nothing from this one (`all_of` joins the two, where it should).

        Raises:
            TypeError: this is the limiter of a key itself, or a key that cannot be hashed.
        """
        if self._is_of_a_key:
            raise TypeError("the limiter of a key has no keys: take a tuple as the key")
        family = self._family
        held = None if family is None else family.held(key)
        return self.gate.alone(self._find, key) if held is None else held

    def _of_keys(self) -> list[Self]:
        """The limiters of keys that somebody holds."""
        return self.gate.alone(lambda now: [] if self._family is None else self._family.members())

    def _find(self, now: float, key: Hashable) -> Self:
        if self._family is None:
            self._family = Family(self._new_store, self._around)
        return self._family.find(now, key)

    def _around(self, store: S) -> Self:
        limiter = object.__new__(type(self))
        limiter._stand_at(self.gate.beside(store))
        limiter._is_of_a_key = True
        return limiter

    def _change(self, rate: float, burst: int) -> list[Self]:
        """Go on at another rate and burst; returned are the limiters of keys that are to do so, too."""
        return self.gate.alone(self._change_all, rate, burst)

    def _change_all(self, now: float, rate: float, burst: int) -> list[Self]:
        self.gate.change(now, rate, burst)
        return [] if self._family is None else self._family.change(now, rate, burst)

    def pause_for(self, seconds: float, *, reason: str = "") -> None:
        """Let nobody go for so long, say because the server asked for it; a longer pause that is under way is
        not cut short. The permits of a bucket come in all the same, up to the burst.

        Raises:
            ValueError: no finite number of seconds.
        """
        self.gate.pause(seconds, reason)


class LocalPermit:
    """The permits of one call, as a context manager of both colours.

    Attributes:
        cost: permits that it took; after `settle`, what the call really cost.
    """

    __slots__ = ("_limiter", "_priority", "_timeout", "cost")

    def __init__(self, limiter: LocalLimiter[Any], cost: int, priority: int, timeout: float | None) -> None:
        self._limiter = limiter
        self.cost = cost
        self._priority = priority
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        await self._limiter.acquire(self.cost, priority=self._priority, timeout=self._timeout)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._limiter.end_call(self.cost)

    def __enter__(self) -> Self:
        self._limiter.acquire_sync(self.cost, priority=self._priority, timeout=self._timeout)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._limiter.end_call(self.cost)

    def settle(self, actual: int) -> None:
        """Say what the call really cost, in permits: more is charged, as a debt if need be; less is given
        back.

        Raises:
            InvalidCost: not a whole number, or below zero.
        """
        self.cost = settled(self._limiter.charge, self.cost, actual)

    def hear(self, answer: object) -> None:
        """Nothing: only an adaptive limiter listens."""


def settled(charge: Callable[[int], None], cost: int, actual: int) -> int:
    """Charge what a call cost beyond what it took, and return what it cost."""
    if actual.__class__ is not int or actual < 0:
        raise InvalidCost(f"a true cost is a whole number of permits, 0 or more, not {actual!r}")
    charge(actual - cost)
    return actual

"""The protocols that the parts of batchkit know each other by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from batchkit._core.controller import Sample, SharedController
from batchkit._events import Event, Hook
from batchkit._parking import Parker, SyncParker
from batchkit._values import Decision

__all__ = [
    "Adjustable",
    "Cache",
    "Clock",
    "Event",
    "Hook",
    "Limiter",
    "Parker",
    "Permit",
    "Shared",
    "SyncParker",
]

K = TypeVar("K")
V = TypeVar("V")


class Clock(Protocol):
    """What time it is, and how to wait. `batchkit.testing.ManualClock` is the one for tests."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait in a task."""
        ...

    def sleep_sync(self, seconds: float) -> None:
        """Wait in a thread."""
        ...

    def parker(self) -> Parker:
        """What a task waits with when others may wake it."""
        ...

    def parker_sync(self) -> SyncParker:
        """What a thread waits with when others may wake it."""
        ...


class Permit(AbstractAsyncContextManager["Permit"], AbstractContextManager["Permit"], Protocol):
    """Permission for one call, held by `async with` or `with`."""

    cost: Any

    def settle(self, actual: Any, /) -> None:
        """Say what the call really cost, in permits: the difference is charged or given back."""
        ...

    def hear(self, answer: object) -> None:
        """Say how the call ended: an answer with its status code and headers, a status code, or an error."""
        ...


@runtime_checkable
class Limiter(Protocol):
    """Lets callers go, each at its time. A cost is a whole number of permits; a group of limiters takes a
    mapping, too.
    """

    async def acquire(self, cost: Any = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go."""
        ...

    def acquire_sync(self, cost: Any = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go; blocks the thread."""
        ...

    def try_acquire(self, cost: Any = 1) -> Decision:
        """Go now, or not at all."""
        ...

    def permit(self, cost: Any = 1, *, priority: int = 0, timeout: float | None = None) -> Permit:
        """The same as a context manager, for calls whose true cost is known afterwards."""
        ...


class Adjustable(Limiter, Protocol):
    """A limiter whose rate can be changed in use, such as a `TokenBucket`; for an `AdaptiveLimiter`."""

    @property
    def rate(self) -> float:
        """Permits a second."""
        ...

    @property
    def clock(self) -> Clock:
        """What it goes by."""
        ...

    def change(self, *, rate: float, reason: str) -> None:
        """Go on at another rate."""
        ...

    def pause_for(self, seconds: float, *, reason: str) -> None:
        """Let nobody go for so long."""
        ...

    def drain(self, remaining: int) -> None:
        """Lose the permits that are there but for so many."""
        ...

    def charge(self, permits: int) -> None:
        """Count `permits` more as taken, or, below zero, give some back."""
        ...

    def statistics(self) -> Any:
        """What it did so far."""
        ...


@runtime_checkable
class Shared(Protocol):
    """A limiter of a whole fleet, whose rate a controller decides on for all processes."""

    def share(self, controller: SharedController) -> None:
        """Have the fleet's rate follow a controller."""
        ...

    def report(self, sample: Sample) -> None:
        """Tell the controller what became of a call."""
        ...


class Cache(Protocol[K, V]):
    """Keeps values by key for a time."""

    def get_present(self, keys: Iterable[K]) -> dict[K, V]:
        """Those of the keys that are there, with their values."""
        ...

    def set(self, key: K, value: V) -> None:
        """Keep a value."""
        ...


LoadMany = Callable[[list[K]], Awaitable[Mapping[K, Any] | Iterable[Any]]]

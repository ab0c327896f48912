"""The protocols that the parts of batchkit know each other by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from batchkit._events import Event, Hook
from batchkit._parking import Parker, SyncParker
from batchkit._values import Decision

__all__ = ["Cache", "Clock", "Event", "Hook", "Limiter", "Permit"]

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

    cost: int

    def settle(self, actual: int) -> None:
        """Say what the call really cost, in permits: the difference is charged or given back."""
        ...


@runtime_checkable
class Limiter(Protocol):
    """Lets callers go, each at its time."""

    async def acquire(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go."""
        ...

    def acquire_sync(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go; blocks the thread."""
        ...

    def try_acquire(self, cost: int = 1) -> Decision:
        """Go now, or not at all."""
        ...

    def permit(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> Permit:
        """The same as a context manager, for calls whose true cost is known afterwards."""
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

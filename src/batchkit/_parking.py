"""How one call waits, on asyncio, on trio or in a thread, and is woken from anywhere.

A parker belongs to the call that made it. `unpark` may be called by any thread and any loop; a wake-up
that comes before the owner parks is kept, and several count as one. `park` may also return for no reason:
the owner looks at the state it waits for and parks again.

`unpark` answers whether the wake-up could be delivered: a closed event loop never comes back, so that what
was meant for its waiter can be handed on.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Hashable, Iterable
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    import trio

Now = Callable[[], float]
P = TypeVar("P")


class Parker(Protocol):
    """What an async call waits with."""

    @property
    def domain(self) -> Hashable:
        """The event loop that the owner runs in."""
        ...

    def unpark(self) -> bool:
        """Wake the owner; false if its loop is closed."""
        ...

    async def park(self, until: float = inf) -> None:
        """Wait to be woken, at most until that moment of the clock."""
        ...


class SyncParker(Protocol):
    """What a call in a plain thread waits with; the blocking twin of `Parker`."""

    @property
    def domain(self) -> Hashable:
        """None: all threads together count as one place."""
        ...

    def unpark(self) -> bool:
        """Wake the owner."""
        ...

    def park_sync(self, until: float = inf) -> None:
        """Wait to be woken, at most until that moment of the clock."""
        ...


class _Absent:
    """Nobody waits here yet."""

    domain: Hashable = "absent"

    def unpark(self) -> bool:
        return True  # who comes later looks for itself


ABSENT: Final = _Absent()


def parker(now: Now) -> Parker:
    """A parker for the running event loop.

    Raises:
        RuntimeError: no event loop of asyncio or trio is running.
    """
    if in_trio():
        return TrioParker(now)
    return AsyncioParker(now)


def in_trio() -> bool:
    """Whether the caller is a task of trio. Nobody who runs on trio has not imported it, so neither do we."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of asyncio that runs in this thread, if there is one."""
    return asyncio._get_running_loop()


class ThreadParker:
    """Waits by blocking its thread, at a lock that is free when its owner is to be awake."""

    __slots__ = ("_lock", "_now")
    domain: Hashable = None

    def __init__(self, now: Now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._lock.acquire()

    def unpark(self) -> bool:
        try:
            self._lock.release()
        except RuntimeError:  # it is free
            return True
        return True

    def park_sync(self, until: float = inf) -> None:
        seconds = min(until - self._now(), threading.TIMEOUT_MAX)
        self._lock.acquire(timeout=max(0.0, seconds))


class AsyncioParker:
    """Waits on a future of its event loop, with the loop's own timer."""

    __slots__ = ("_future", "_in_turn", "_now", "_woken", "domain")

    def __init__(self, now: Now) -> None:
        self._now = now
        self.domain = asyncio.get_running_loop()
        self._woken = False
        self._in_turn = False
        self._future: asyncio.Future[None] | None = None

    def unpark(self) -> bool:
        if asyncio._get_running_loop() is not self.domain:
            try:
                self.domain.call_soon_threadsafe(self.wake)
            except RuntimeError:  # the loop is closed
                return False
        else:
            self._in_turn = self._woken or self._future is None
            self.wake()
        return True

    async def park(self, until: float = inf) -> None:
        if not self._woken:
            self._future = self.domain.create_future()
            timer = None if until == inf else self.domain.call_later(until - self._now(), self.wake)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        self._woken = False
        if self._in_turn:  # it was awake when it was woken: those that were woken before it come first
            self._in_turn = False
            await asyncio.sleep(0)

    def wake(self) -> None:
        """Wake the owner, from its own loop."""
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def unpark_all(parkers: Iterable[Parker | SyncParker]) -> list[Parker | SyncParker]:
    """Wake many, which costs one wake-up for each event loop; those returned are in closed ones."""
    here = asyncio._get_running_loop()
    apart: dict[asyncio.AbstractEventLoop, list[AsyncioParker]] = {}
    closed: list[Parker | SyncParker] = []
    for parker in parkers:
        if isinstance(parker, AsyncioParker) and parker.domain is not here:
            apart.setdefault(parker.domain, []).append(parker)
        elif not parker.unpark():
            closed.append(parker)
    for loop, theirs in apart.items():
        try:
            loop.call_soon_threadsafe(_wake_all, theirs)
        except RuntimeError:  # the loop is closed
            closed += theirs
    return closed


def _wake_all(parkers: list[AsyncioParker]) -> None:
    for parker in parkers:
        parker.wake()


class TrioParker:
    """Waits on an event of its trio run, with a cancel scope as the timer."""

    __slots__ = ("_event", "_now", "_trio", "domain")

    def __init__(self, now: Now) -> None:
        import trio

        self._trio = trio
        self._now = now
        self.domain: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def unpark(self) -> bool:
        if self._trio.lowlevel.in_trio_run() and self._trio.lowlevel.current_trio_token() is self.domain:
            self._event.set()
            return True
        try:
            self.domain.run_sync_soon(self._wake)
        except self._trio.RunFinishedError:
            return False
        return True

    async def park(self, until: float = inf) -> None:
        with self._trio.CancelScope(deadline=self._trio.current_time() + (until - self._now())):
            await self._event.wait()
        self._event = self._trio.Event()

    def _wake(self) -> None:
        self._event.set()


async def wait_at(
    place: P, parker: Parker, come: Callable[[P], float | None], abandon: Callable[[P], object]
) -> None:
    """Wait until `come` says by None that the owner of a place may go; on any exception, give it up."""
    try:
        until = come(place)
        while until is not None:
            await parker.park(until)
            until = come(place)
    except BaseException:
        try:
            abandon(place)
        except BaseException:  # Ctrl-C, just now: twice is once
            abandon(place)
            raise
        raise


def wait_at_sync(
    place: P, parker: SyncParker, come: Callable[[P], float | None], abandon: Callable[[P], object]
) -> None:
    """The blocking twin of `wait_at`."""
    try:
        until = come(place)
        while until is not None:
            parker.park_sync(until)
            until = come(place)
    except BaseException:
        try:
            abandon(place)
        except BaseException:  # Ctrl-C, just now: twice is once
            abandon(place)
            raise
        raise

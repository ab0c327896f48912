"""A load that many callers wait for, and that belongs to none of them.

It runs on its own; its callers only wait. So a caller that is cancelled harms nobody, whoever came first;
when the last one is gone, the load is stopped.

A load that asks for what it is loading would wait for itself. It may do so by way of others, too: then the
loads wait for each other in a circle. So a load knows which others it waits for, and whoever would close a
circle gets an error at once.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from math import inf
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from batchkit._background import Cancellable, spawn
from batchkit._parking import Parker, SyncParker, in_trio, running_loop
from batchkit.abc import Clock
from batchkit.exceptions import LoadFailed

T = TypeVar("T")

_LOOK: Final = 1.0  # seconds after which those in other loops look whether the load's loop was closed


class Abandoned(Exception):
    """The load was stopped from outside (its event loop ended): whoever still wants the value has to load
    it again.
    """


class Flight(Generic[T]):
    """One load under way.

    Args:
        what: what it loads, for errors.
        clock: where its callers get what they wait with.
        on_end: called when it is over, just before its callers are woken.
        unattended: whether it goes on when nobody waits for it.
    """

    __slots__ = (
        "_callers",
        "_clock",
        "_error",
        "_lock",
        "_on_end",
        "_result",
        "_task",
        "_traceback",
        "_unattended",
        "_waits_for",
        "_what",
        "landed",
    )

    def __init__(
        self,
        what: object,
        clock: Clock,
        on_end: Callable[[Flight[T]], None],
        *,
        unattended: bool = False,
    ) -> None:
        self.landed = False
        self._what = what
        self._clock = clock
        self._on_end = on_end
        self._unattended = unattended
        self._lock = threading.Lock()
        self._callers: set[Parker | SyncParker] = set()
        self._waits_for: list[Flight[Any]] = []
        self._result: T
        self._error: Exception | None = Abandoned(what)
        self._traceback: TracebackType | None = None
        self._task: Cancellable | None = None

    @property
    def lost(self) -> bool:
        """Whether it never lands, since its event loop was closed amid it."""
        return self._task is not None and self._task.lost and not self.landed

    def launch(self, load: Callable[[], Awaitable[T]]) -> None:
        """Start the load in the running event loop."""
        self._task = spawn(lambda: self._fly(load), self.abandon)

    async def join(self) -> T:
        """Wait for the value.

        Raises:
            Exception: what the load raised.
            LoadFailed: the caller is part of this very load, which would wait for itself.
            Abandoned: see there.
        """
        parker = self._clock.parker()
        asking = self._asking()
        try:
            while self._waits(parker):
                await parker.park(self._next_look(parker))
        except BaseException:
            self._leave(parker)
            raise
        finally:
            if asking is not None:
                asking._waits_for.remove(self)
        return self._outcome()

    def join_sync(self) -> T:
        """The blocking twin of `join`.

        Raises:
            LoadFailed: likewise; or the load runs in the event loop of this very thread.
        """
        self._refuse_to_block_it()
        parker = self._clock.parker_sync()
        asking = self._asking()
        try:
            while self._waits(parker):
                parker.park_sync(self._next_look(parker))
        except BaseException:
            self._leave(parker)
            raise
        finally:
            if asking is not None:
                asking._waits_for.remove(self)
        return self._outcome()

    def fly_sync(self, load: Callable[[], T]) -> T:
        """Run the load in the caller's own thread; others may join meanwhile."""
        asking = self._asking()
        try:
            self.fly_alone(load)
        finally:
            if asking is not None:
                asking._waits_for.remove(self)
        return self._outcome()

    def fly_alone(self, load: Callable[[], T]) -> None:
        """Run the load in a thread of its own, whose owner is told of no error."""
        token = _inside.set(self)
        try:
            self._succeed(load())
        except Exception as error:
            self._fail(error)
        finally:
            _inside.reset(token)
            self.abandon()

    def abandon(self) -> None:
        """It is over, whether or not there is a result."""
        self._on_end(self)
        with self._lock:
            self.landed = True
            callers, self._callers = self._callers, set()
        for parker in callers:
            parker.unpark()

    async def _fly(self, load: Callable[[], Awaitable[T]]) -> None:
        _inside.set(self)
        try:
            self._succeed(await load())
        except Exception as error:
            self._fail(error)

    def _succeed(self, result: T) -> None:
        self._result = result
        self._error = None

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._traceback = error.__traceback__

    def _waits(self, parker: Parker | SyncParker) -> bool:
        if self.lost:
            self.abandon()
        with self._lock:
            if not self.landed:
                self._callers.add(parker)
            return not self.landed

    def _next_look(self, parker: Parker | SyncParker) -> float:
        if self._task is None or self._task.domain is parker.domain:
            return inf
        return self._clock.now() + _LOOK

    def _leave(self, parker: Parker | SyncParker) -> None:
        with self._lock:
            self._callers.discard(parker)
            nobody = not self._callers and not self.landed and not self._unattended
        if nobody and self._task is not None:
            self._task.cancel()

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        return self._result

    def _refuse_to_block_it(self) -> None:
        if self._task is None or self.landed:
            return
        loop = running_loop()
        if self._task.domain is loop or (loop is None and self._task.domain is _trio_run()):
            raise LoadFailed(
                f"{self._what} is being loaded by the event loop of this thread, which a blocking call would "
                "stop: await it instead"
            )

    def _asking(self) -> Flight[Any] | None:
        """The load that the caller is part of, from now on known to wait for this one."""
        asking = _inside.get()
        if asking is None or asking.landed or self.landed:
            return None
        asking._waits_for.append(self)  # before the look: of two that close a circle, one sees the other
        if asking in self._all_waited_for():
            asking._waits_for.remove(self)
            raise LoadFailed(
                f"the load of {asking._what} asks for {self._what}: it would wait for itself for ever"
            )
        return asking

    def _all_waited_for(self) -> set[Flight[Any]]:
        found: set[Flight[Any]] = set()
        looks: list[Flight[Any]] = [self]
        while looks:
            flight = looks.pop()
            if flight not in found and not flight.landed:
                found.add(flight)
                looks += flight._waits_for
        return found


def _trio_run() -> object:
    if not in_trio():
        return None
    import trio

    return trio.lowlevel.current_trio_token()


# The load that runs here.
_inside: ContextVar[Flight[Any] | None] = ContextVar("batchkit_load", default=None)

"""A load that many callers wait for, and that belongs to none of them.

It runs on its own; its callers only wait. So a caller that is cancelled harms nobody, whoever came first;
when the last one is gone, the load is stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Generic, TypeVar

from batchkit._background import Cancellable, spawn
from batchkit._parking import Parker, SyncParker
from batchkit.abc import Clock
from batchkit.exceptions import LoadFailed

T = TypeVar("T")


class Abandoned(Exception):
    """The load was stopped from outside (its event loop ended): whoever still wants the value has to load
    it again.
    """


class Flight(Generic[T]):
    """One load under way.

    Args:
        what: what it loads, for errors.
        clock: where its callers get what they wait with.
        on_end: called once when it is over, just before its callers are woken.
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
        "_what",
        "landed",
    )

    def __init__(self, what: str, clock: Clock, on_end: Callable[[Flight[T]], None]) -> None:
        self.landed = False
        self._what = what
        self._clock = clock
        self._on_end = on_end
        self._lock = threading.Lock()
        self._callers: set[Parker | SyncParker] = set()
        self._result: T
        self._error: Exception | None = Abandoned(what)
        self._traceback: TracebackType | None = None
        self._task: Cancellable | None = None

    def launch(self, load: Callable[[], Awaitable[T]]) -> None:
        """Start the load in the running event loop."""
        self._task = spawn(lambda: self._fly(load), self._land)

    async def join(self) -> T:
        """Wait for the value.

        Raises:
            Exception: what the load raised.
            LoadFailed: the caller is part of this very load, which would wait for itself.
            Abandoned: see there.
        """
        self._refuse_own_parts()
        parker = self._clock.parker()
        try:
            while self._waits(parker):
                await parker.park()
        except BaseException:
            self._leave(parker)
            raise
        return self._outcome()

    def join_sync(self) -> T:
        """The blocking twin of `join`."""
        self._refuse_own_parts()
        parker = self._clock.parker_sync()
        try:
            while self._waits(parker):
                parker.park_sync()
        except BaseException:
            self._leave(parker)
            raise
        return self._outcome()

    def fly_sync(self, load: Callable[[], T]) -> T:
        """Run the load in the caller's own thread; others may join meanwhile."""
        token = _ancestors.set((*_ancestors.get(), self))
        try:
            self._succeed(load())
        except Exception as error:
            self._fail(error)
        finally:
            _ancestors.reset(token)
            self._land()
        return self._outcome()

    async def _fly(self, load: Callable[[], Awaitable[T]]) -> None:
        _ancestors.set((*_ancestors.get(), self))
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

    def _land(self) -> None:
        self._on_end(self)
        with self._lock:
            self.landed = True
            callers, self._callers = self._callers, set()
        for parker in callers:
            parker.unpark()

    def _waits(self, parker: Parker | SyncParker) -> bool:
        with self._lock:
            if not self.landed:
                self._callers.add(parker)
            return not self.landed

    def _leave(self, parker: Parker | SyncParker) -> None:
        with self._lock:
            self._callers.discard(parker)
            nobody = not self._callers and not self.landed
        if nobody and self._task is not None:
            self._task.cancel()

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        return self._result

    def _refuse_own_parts(self) -> None:
        if self in _ancestors.get() and not self.landed:
            raise LoadFailed(
                f"the load of {self._what} asks for {self._what}: it would wait for itself for ever"
            )


_ancestors: ContextVar[tuple[Flight[Any], ...]] = ContextVar("batchkit_loads", default=())

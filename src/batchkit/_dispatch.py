"""The corridor of every call: pace -> limiter -> call -> feedback -> event.

It is there twice, for tasks and for threads: `attempt` and `attempt_sync` differ in what they wait with.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from math import inf
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from batchkit._events import CallFinished, CallStarted, Hook, emit
from batchkit.abc import Clock, Limiter, Permit
from batchkit.exceptions import CallCancelled

A = TypeVar("A")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
Cost = int | Mapping[str, int]
Begin = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]

_FREE: Final = nullcontext()


class Attempt(NamedTuple, Generic[R]):
    """How a call ended.

    Attributes:
        value: what it returned.
        error: what it raised, or None.
        seconds: what it took, without waiting for permits.
        made: whether it was made at all; false where the limiter, or the cost, raised.
        paced, waited: seconds that it waited for its pace, and for its permits.
    """

    value: R | None
    error: Exception | None
    seconds: float = 0.0
    made: bool = True
    paced: float = 0.0
    waited: float = 0.0


# for speed: a named tuple makes itself by a call of Python's
_make: Any = getattr(tuple, "__new__")  # noqa: B009  # what it returns has no type of its own
_new: Final[Callable[[tuple[Any, ...]], Attempt[Any]]] = partial(_make, Attempt)


def _as_it_is(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return function


class Dispatch(Generic[A, R]):
    """Makes calls of one function, each when its limiters let it go.

    Attributes:
        function: what is called; async, or plain for `attempt_sync`.
        plain: whether there is nothing on the way of a call.
        name, hooks: in and for its events.
        now: what time it is.
    """

    __slots__ = ("_cost", "_limiter", "_pace", "_priority", "function", "hooks", "name", "now", "plain")

    def __init__(
        self,
        function: Callable[[A], Any],
        *,
        name: str,
        clock: Clock,
        limiter: Limiter | None = None,
        cost: Callable[[A], Cost] | Cost = 1,
        priority: int = 0,
        pace: Limiter | None = None,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self.function = function
        self.name = name
        self.now = clock.now
        self._limiter = limiter
        self._cost = cost
        self._priority = priority
        self._pace = pace
        self.hooks = tuple(hooks)
        self.plain = pace is None and limiter is None and not self.hooks

    async def call(self, argument: A, size: int = 1) -> R:
        """Call the function with `argument`, which stands for `size` items.

        Raises:
            Exception: what the function, or the limiter, raised.
        """
        attempt = await self.attempt(argument, size)
        if attempt.error is not None:
            raise attempt.error
        return cast(R, attempt.value)

    async def straight(self, argument: A) -> Attempt[R]:
        """The same as `attempt` where there is nothing on the way of a call; nobody asks what it took."""
        try:
            return _new((await self.function(argument), None, 0.0, True, 0.0, 0.0))
        except asyncio.CancelledError as error:
            return Attempt(None, self.explained(error))
        except Exception as error:
            return Attempt(None, error)

    async def attempt(
        self,
        argument: A,
        size: int = 1,
        *,
        priority: int | None = None,
        until: float = inf,
        begin: Begin = _as_it_is,
    ) -> Attempt[R]:
        """The same, with the error as a value.

        Args:
            argument: what the function is called with.
            size: items that it stands for.
            priority: in place of the usual one.
            until: the moment by which the call has to have its permits.
            begin: told that the call begins; returns what is called, such as the function with a time-out
                around it. What it raises is how the call ended, without having been made.
        """
        trip = self._set_out(size, priority, until)
        try:
            if self._pace is not None:
                await self._pace.acquire(priority=trip.priority, timeout=trip.time_left())
                trip.has_its_pace()
            async with self._permit(argument, trip) as permit:
                call = begin(self.function)
                trip.starts(permit)
                value = await call(argument)
                _tell(permit, value)
        except asyncio.CancelledError as error:
            return trip.failed(error, self.explained(error, trip))
        except Exception as error:
            return trip.failed(error, error)
        except BaseException as error:
            trip.ends(error)
            raise
        return trip.returned(value)

    async def bare(self, argument: A, size: int = 1, *, begin: Begin | None = None) -> Attempt[R]:
        """`attempt`, where nothing is on the way (`plain`): for speed."""
        now, call = self.now, self.function
        started = now()
        try:
            value = await (call if begin is None else begin(call))(argument)
        except BaseException as error:
            return Attempt(None, self.explained(error), now() - started)
        return _new((value, None, now() - started, True, 0.0, 0.0))

    def attempt_sync(
        self,
        argument: A,
        size: int = 1,
        *,
        priority: int | None = None,
        until: float = inf,
        begin: Begin = _as_it_is,
    ) -> Attempt[R]:
        """The blocking twin of `attempt`, for a plain function."""
        trip = self._set_out(size, priority, until)
        try:
            if self._pace is not None:
                self._pace.acquire_sync(priority=trip.priority, timeout=trip.time_left())
                trip.has_its_pace()
            with self._permit(argument, trip) as permit:
                call = begin(self.function)
                trip.starts(permit)
                value = call(argument)
                _tell(permit, value)
        except Exception as error:
            return trip.failed(error, error)
        except BaseException as error:
            trip.ends(error)
            raise
        return trip.returned(value)

    def explained(self, error: BaseException, trip: Trip | None = None) -> Exception:
        """The error that a call ended with as that of its items.

        Raises:
            BaseException: it is none: somebody asked the task to stop.
        """
        if isinstance(error, Exception):
            return error
        if isinstance(error, asyncio.CancelledError) and not _asked_to_stop():
            return CallCancelled(f"{self.name}: the call was cancelled from inside")
        if trip is not None:
            trip.ends(error)
        raise error

    def _set_out(self, size: int, priority: int | None, until: float) -> Trip:
        urgency = self._priority if priority is None else priority
        return Trip(self, size, urgency, until)

    def _permit(self, argument: A, trip: Trip) -> Any:
        """The permits of a call; a limiter that listens learns how it ended."""
        if self._limiter is None:
            return _FREE
        cost = self._cost(argument) if callable(self._cost) else self._cost
        return self._limiter.permit(cost, priority=trip.priority, timeout=trip.time_left())


class Trip:
    """One call on its way through the corridor."""

    __slots__ = ("_asked", "_corridor", "_paced", "_size", "_started", "_until", "_waited", "priority")

    def __init__(self, corridor: AnyDispatch, size: int, priority: int, until: float) -> None:
        self.priority = priority
        self._corridor = corridor
        self._size = size
        self._until = until
        self._asked = corridor.now()
        self._started: float | None = None
        self._paced = 0.0
        self._waited = 0.0

    def time_left(self) -> float | None:
        """Seconds that it may wait, or None if it has time."""
        return None if self._until == inf else max(0.0, self._until - self._corridor.now())

    def has_its_pace(self) -> None:
        """Note the end of the wait for the pace."""
        now = self._corridor.now()
        self._paced, self._asked = now - self._asked, now

    def starts(self, permit: Permit | None) -> None:
        """Note the end of all waits."""
        if self._corridor.hooks:
            emit(self._corridor.hooks, CallStarted(self._corridor.name, self._size))
        self._started = now = self._corridor.now()
        if permit is not None:
            self._waited = now - self._asked

    def ends(self, error: BaseException | None) -> float:
        """Note the end of the call, if it began, and return what it took."""
        if self._started is None:
            return 0.0
        seconds = self._corridor.now() - self._started
        if self._corridor.hooks:
            emit(self._corridor.hooks, CallFinished(self._corridor.name, self._size, seconds, error))
        return seconds

    def returned(self, value: R) -> Attempt[R]:
        """It went well."""
        return _new((value, None, self.ends(None), True, self._paced, self._waited))

    def failed(self, cause: BaseException, error: Exception) -> Attempt[Any]:
        """It did not, because of `cause`, which stands as `error`."""
        if self._started is None:
            self._waited = self._corridor.now() - self._asked
        return Attempt(None, error, self.ends(cause), self._started is not None, self._paced, self._waited)


def _tell(permit: Permit | None, value: object) -> None:
    if permit is not None:
        hear_returned(permit, value)


def hear_returned(permit: Permit, answer: object) -> None:
    """Let a limiter hear what a function returned: an answer with a status code, or anything else, which says
    that the call went well. A bare number that a function returns is no status code.
    """
    permit.hear(None if isinstance(answer, int) else answer)


def checked_async(function: F) -> F:
    """The function, if it is async.

    Raises:
        TypeError: it is not.
    """
    if is_async(function):
        return function
    raise TypeError(f"{function!r} is no async function: make it one, with anyio.to_thread.run_sync inside")


def is_async(function: Callable[..., Any]) -> bool:
    """Whether what a function returns is to be awaited.

    Raises:
        TypeError: it is not to be called at all, or it yields values instead of returning one.
    """
    if not callable(function):
        raise TypeError(f"{function!r} is no function")
    called = getattr(function, "func", function)  # what a functools.partial calls
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(f"{function!r} is a generator: it yields values instead of returning one")
    return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(type(called).__call__)


def _asked_to_stop() -> bool:
    """Whether the running task of asyncio was asked to stop, or only something that it awaited was."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


AnyDispatch = Dispatch[Any, Any]

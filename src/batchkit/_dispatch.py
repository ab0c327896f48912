"""The corridor of every call: limiter -> call -> event."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Final, Generic, TypeVar, cast

from attrs import frozen

from batchkit._events import CallFinished, CallStarted, Hook, emit
from batchkit.abc import Clock, Limiter, Permit
from batchkit.exceptions import CallCancelled

A = TypeVar("A")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
Cost = int | Mapping[str, int]

_FREE: Final = nullcontext()


@frozen
class Attempt(Generic[R]):
    """How a call ended.

    Attributes:
        value: what it returned.
        error: what it raised, or None.
        seconds: what it took, without waiting for permits.
        made: whether it was made at all; false where the limiter, or the cost, raised.
    """

    value: R | None
    error: Exception | None
    seconds: float
    made: bool


class Dispatch(Generic[A, R]):
    """Makes calls of one function, each when its limiters let it go.

    Attributes:
        calls: calls that ended.
        seconds: time in calls, summed over all that ran side by side.
        pace_wait, quota_wait: time that calls waited for the pace and for the limiter, summed likewise.
    """

    __slots__ = (
        "_clock",
        "_cost",
        "_function",
        "_hooks",
        "_limiter",
        "_name",
        "_pace",
        "_priority",
        "calls",
        "pace_wait",
        "quota_wait",
        "seconds",
    )

    def __init__(
        self,
        function: Callable[[A], Awaitable[R]] | Callable[[A], R],
        *,
        name: str,
        clock: Clock,
        limiter: Limiter | None = None,
        cost: Callable[[A], Cost] | Cost = 1,
        priority: int = 0,
        pace: Limiter | None = None,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self._function = function
        self._name = name
        self._clock = clock
        self._limiter = limiter
        self._cost = cost
        self._priority = priority
        self._pace = pace
        self._hooks = tuple(hooks)
        self.calls = 0
        self.seconds = 0.0
        self.pace_wait = 0.0
        self.quota_wait = 0.0

    async def call(self, argument: A, size: int = 1) -> R:
        """Call the function with `argument`, which stands for `size` items.

        Raises:
            Exception: what the function, or the limiter, raised.
        """
        attempt = await self.attempt(argument, size)
        if attempt.error is not None:
            raise attempt.error
        return cast(R, attempt.value)

    async def attempt(self, argument: A, size: int = 1, *, priority: int | None = None) -> Attempt[R]:
        """The same, with the error as a value.

        Args:
            argument: what the function is called with.
            size: items that it stands for.
            priority: in place of the usual one.
        """
        started = None
        try:
            if self._pace is not None:
                asked = self._clock.now()
                await self._pace.acquire(priority=self._priority)
                self.pace_wait += self._clock.now() - asked
            asked = self._clock.now()
            async with self._permit(argument, priority) as permit:
                if permit is not None:
                    self.quota_wait += self._clock.now() - asked
                if self._hooks:
                    emit(self._hooks, CallStarted(self._name, size))
                started = self._clock.now()
                value = await cast(Awaitable[R], self._function(argument))
                if permit is not None:
                    hear_returned(permit, value)
        except asyncio.CancelledError as error:
            self._finish(started, size, error)
            if _asked_to_stop():
                raise
            inside = CallCancelled(f"{self._name}: the call was cancelled from inside")
            return Attempt(None, inside, 0.0, made=started is not None)
        except Exception as error:
            return Attempt(None, error, self._finish(started, size, error), made=started is not None)
        except BaseException as error:
            self._finish(started, size, error)
            raise
        return Attempt(value, None, self._finish(started, size, None), made=True)

    def attempt_sync(self, argument: A, size: int = 1, *, priority: int | None = None) -> Attempt[R]:
        """The blocking twin of `attempt`, for a plain function; it has no pace."""
        started = None
        try:
            asked = self._clock.now()
            with self._permit(argument, priority) as permit:
                if permit is not None:
                    self.quota_wait += self._clock.now() - asked
                if self._hooks:
                    emit(self._hooks, CallStarted(self._name, size))
                started = self._clock.now()
                value = cast(R, self._function(argument))
                if permit is not None:
                    hear_returned(permit, value)
        except Exception as error:
            return Attempt(None, error, self._finish(started, size, error), made=started is not None)
        except BaseException as error:
            self._finish(started, size, error)
            raise
        return Attempt(value, None, self._finish(started, size, None), made=True)

    def _permit(self, argument: A, priority: int | None) -> Any:
        """The permits of a call; a limiter that listens learns how it ended."""
        if self._limiter is None:
            return _FREE
        cost = self._cost(argument) if callable(self._cost) else self._cost
        return self._limiter.permit(cost, priority=self._priority if priority is None else priority)

    def _finish(self, started: float | None, size: int, error: BaseException | None) -> float:
        """Count a call that began, and return what it took."""
        if started is None:
            return 0.0
        seconds = self._clock.now() - started
        self.calls += 1
        self.seconds += seconds
        if self._hooks:
            emit(self._hooks, CallFinished(self._name, size, seconds, error))
        return seconds


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

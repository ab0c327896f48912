"""A key on its way to its value, and the call that brings it."""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from attrs import define, field

from batchkit._background import Cancellable
from batchkit._batching.waiters import Waiter
from batchkit._core.gathering import Gathered
from batchkit.abc import Watch

K = TypeVar("K", bound=Hashable)


class NoValue:
    """What stands in the place of a value."""


class Failure(NoValue):
    """An error in the place of a value."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._traceback: TracebackType | None = error.__traceback__

    def raised(self) -> BaseException:
        """The error, to be raised: each of its callers sees where it came from, and not the other callers."""
        return self._error.with_traceback(self._traceback)


PENDING: Final = NoValue()
MISSING: Final = NoValue()  # the loader does not know the key
LOST: Final = NoValue()  # the call ended before its time: whoever still wants the value has to ask again


class Load(Gathered[K]):
    """A key on its way.

    Attributes:
        callers: how many want its value.
        home: the event loop whose task asked for it first, and is still there; None if anybody may load it.
        waiters: what those wait with that wait by now.
        call: the call that it is part of, once it is.
        answer: its value, `PENDING`, `MISSING`, `LOST`, or a `Failure`.
    """

    __slots__ = ("answer", "call", "callers", "home", "waiters")

    def __init__(self, key: K, priority: float, since: float, home: Hashable, waiters: list[Waiter]) -> None:
        self.key = key
        self.priority = priority
        self.since = since
        self.gathers = True
        self.callers = 1
        self.home = home
        self.waiters = waiters
        self.call: Call[K] | None = None
        self.answer: Any = PENDING

    def known(self, value: Any) -> Load[K]:
        """Its value is known: it need not be loaded."""
        self.answer = value
        self.gathers = False
        return self


@define(eq=False)
class Call(Generic[K]):
    """A gatherer, which becomes a call when it takes its keys.

    Attributes:
        domain: the event loop in which it runs; None for threads.
        stoppable: whether it can be stopped: a thread cannot.
        seen: how many keys had arrived when it looked last; -1 after it slept, so that the tasks that are
            ready have a turn before it leaves.
        parker: what it waits with for its batch to be due, once it has to.
        parks: whether it waits so.
        task: its task, once it runs in an event loop.
        loads: its keys, once it took them.
        watch: what keeps their values, if there is a cache.
        wanted: how many of those are still to be loaded, and wanted by somebody.
        waits_for: keys that its loader itself asked for.
        done: whether it went to its end.
        over: whether it has ended, anyhow.
    """

    domain: Hashable
    stoppable: bool = False
    seen: int = -1
    parker: Any = None
    parks: bool = False
    task: Cancellable | None = None
    loads: list[Load[K]] = field(factory=list["Load[K]"])
    watch: Watch | None = None
    wanted: int = 0
    waits_for: list[Load[Any]] = field(factory=list["Load[Any]"])
    done: bool = False
    over: bool = False

    def wake(self) -> None:
        """Have it look again, if it waits for its batch to be due."""
        if self.parks:
            self.parks = False
            self.parker.unpark()

    def cancel(self) -> None:
        """Stop it, if that is possible."""
        if self.stoppable and self.task is not None:
            self.task.cancel()

    def waits(self, loads: list[Load[Any]]) -> None:
        """Its loader waits for these."""
        self.waits_for = [load for load in self.waits_for if load.answer is PENDING] + loads


CALL: ContextVar[Call[Any] | None] = ContextVar("batchkit_load", default=None)


def calling() -> Call[Any] | None:
    """The call that the caller is part of, if there is one."""
    call = CALL.get()
    return None if call is None or call.over else call


def needs(load: Load[Any], call: Call[Any]) -> bool:
    """Whether a load cannot land before that call ends: a loader that waited for it would wait for itself."""
    seen: set[Call[Any]] = set()
    to_see = [load]
    while to_see:
        load = to_see.pop()
        if load.call is call and load.answer is PENDING:
            return True
        if load.call is not None and load.answer is PENDING and load.call not in seen:
            seen.add(load.call)
            to_see += load.call.waits_for
    return False

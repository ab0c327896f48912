"""The call that brings the values of its keys, and what may stand in the place of a value."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

from attrs import define

from batchkit._background import Cancellable
from batchkit._batching.waiters import Waiter, listed
from batchkit._core.gathering import Cohort
from batchkit.abc import Watch

if TYPE_CHECKING:
    from batchkit._batching.rooms import Room

K = TypeVar("K", bound=Hashable)


@final
class NoValue:
    """What stands in the place of a value.

    Args:
        error: the error of the key, if it has one.
    """

    __slots__ = ("_error", "_traceback")

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error
        self._traceback: TracebackType | None = None if error is None else error.__traceback__

    def check(self) -> None:
        """Raise the error: each of its callers sees where it came from, and not the other callers."""
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)


MISSING: Final = NoValue()  # the loader does not know the key
LOST: Final = NoValue()  # the call ended before its time: whoever still wants the value has to ask again


@define(eq=False)
class Call(Generic[K]):
    """A gatherer, which becomes a call when it takes its keys.

    Attributes:
        room: where it runs.
        stoppable: whether it can be stopped: a thread cannot.
        seen: how many keys had arrived when it looked last; -1 after it slept, so that the tasks that are
            ready have a turn before it leaves.
        parker: what it waits with for its batch to be due, once it has to.
        parks: whether it waits so.
        task: its task, once it runs in an event loop.
        batch: its keys, once it took them; those that have their answers are gone from it.
        watch: what keeps their values, if there is a cache.
        waits_for: what its loader itself asked for.
        done: whether it went to its end.
        over: whether it has ended, anyhow.
    """

    room: Room[K]
    stoppable: bool = False
    seen: int = -1
    parker: Any = None
    parks: bool = False
    task: Cancellable | None = None
    batch: Cohort[K] | None = None
    watch: Watch | None = None
    waits_for: Sequence[Wish] = ()
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

    def brings(self, key: K, waiter: Waiter) -> bool:
        """Whether somebody waits for it to bring a key."""
        batch = self.batch
        return batch is not None and key in batch.waiting and waiter in listed(batch.waiting[key])


@define(eq=False)
class Wish:
    """What a loader itself asked for.

    Attributes:
        waiter: what waits for it.
        calls: tells the calls under way that bring some of it.
    """

    waiter: Waiter
    calls: Callable[[], list[Call[Any]]]

    def needs(self, call: Call[Any]) -> bool:
        """Whether it cannot be had before that call ends, whose loader would wait for itself."""
        seen: set[Call[Any]] = set()
        to_see: list[Wish] = [self]
        while to_see:
            for each in to_see.pop().calls():
                if each is call:
                    return True
                if each not in seen:
                    seen.add(each)
                    to_see += each.waits_for
        return False


CALL: ContextVar[Call[Any] | None] = ContextVar("batchkit_load", default=None)


def calling() -> Call[Any] | None:
    """The call that the caller is part of, if there is one."""
    call = CALL.get()
    return None if call is None or call.over else call

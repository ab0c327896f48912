"""How many callers wait for one moment, each at the least that its event loop asks for.

Who waits for a key leaves something with it that is to be given the answer: a bare future of asyncio, the
like of it for trio, or an `Order` for several keys. `give` does that, from anywhere.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from batchkit._background import call_in, domain, runs_loop
from batchkit._parking import SyncParker, in_trio

if TYPE_CHECKING:
    import trio

K = TypeVar("K", bound=Hashable)


class Bell(Protocol):
    """What is told the end of a wait; a future of asyncio is one."""

    def get_loop(self) -> Any:
        """The event loop in which it is to be told; None if that may be done anywhere."""
        ...

    def done(self) -> bool:
        """Whether it was told, or need not be."""
        ...

    def set_result(self, result: Any, /) -> object:
        """Tell it."""
        ...


class TrioFuture:
    """A future for one task of trio, which may be told before it is awaited."""

    __slots__ = ("_done", "_lowlevel", "_result", "_task", "_token")

    def __init__(self, token: Any) -> None:
        self._lowlevel = sys.modules["trio"].lowlevel  # to import it would take as long as half the wait
        self._token: trio.lowlevel.TrioToken = token
        self._task: trio.lowlevel.Task | None = None
        self._result: Any = None
        self._done = False

    def get_loop(self) -> Any:
        return self._token

    def done(self) -> bool:
        return self._done

    def set_result(self, result: Any, /) -> None:
        self._result = result
        self._done = True
        if self._task is not None:
            self._lowlevel.reschedule(self._task)
            self._task = None

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._done:
            self._task = self._lowlevel.current_task()
            yield from self._lowlevel.wait_task_rescheduled(self._give_up).__await__()
        return self._result

    def _give_up(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        self._done = True
        succeeded: trio.lowlevel.Abort = self._lowlevel.Abort.SUCCEEDED
        return succeeded


class ThreadBell:
    """Wakes a thread."""

    __slots__ = ("_wake",)

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake

    def get_loop(self) -> None:
        return None

    def done(self) -> bool:
        return False

    def set_result(self, _: object, /) -> None:
        self._wake()


class Parked(ThreadBell):
    """Wakes a thread that may have to make a call before it has what it waits for."""

    __slots__ = ("parker",)

    def __init__(self, parker: SyncParker) -> None:
        super().__init__(parker.unpark)
        self.parker = parker


class Blocked(ThreadBell):
    """Blocks a thread until it is told, in the time of the machine."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()
        super().__init__(self._event.set)

    def wait(self, seconds: float) -> bool:
        """Wait to be told; false if that did not happen for so long."""
        return self._event.wait(seconds)


class Order:
    """What one caller wants that waits for several keys.

    Args:
        bell: is told when all answers are there.
        wanted: distinct keys.

    Attributes:
        answers: what came so far.
    """

    __slots__ = ("answers", "bell", "wanted")

    def __init__(self, bell: Bell, wanted: Sequence[Any]) -> None:
        self.bell = bell
        self.wanted = wanted
        self.answers: dict[Any, Any] = {}

    def get_loop(self) -> Any:
        return self.bell.get_loop()

    def done(self) -> bool:
        return len(self.answers) == len(self.wanted)


Waiter = Bell | Order
Waiting = Any  # who waits for a key: a Waiter, or a list of several, or of none
Given = Iterable[tuple[Any, Waiting, Any]]  # a key, who waits for it, and its answer
AsyncFuture = asyncio.Future[Any] | TrioFuture


def waiter(here: Hashable) -> AsyncFuture:
    """What the running task, whose event loop is `here`, awaits until it is told."""
    if isinstance(here, asyncio.AbstractEventLoop):
        return asyncio.Future(loop=here)
    return TrioFuture(here)


def is_guest(future: AsyncFuture) -> bool:
    """Whether the running task is one of trio, which cannot await a future of the loop whose guest it is."""
    return isinstance(future, asyncio.Future) and in_trio()


def join(waiting: dict[K, Waiting], key: K, more: Waiting) -> None:
    """Others wait for a key, too."""
    there = waiting[key]
    if there.__class__ is not list:
        there = waiting[key] = [there]
    if more.__class__ is list:
        there += more
    else:
        there.append(more)


def leave(waiting: dict[K, Waiting], key: K, waiter: Waiter) -> bool:
    """Somebody waits no more for a key; false if it did not wait there."""
    there: Any = waiting.get(key)
    if there is waiter:
        waiting[key] = []
    elif there.__class__ is list and waiter in there:
        there.remove(waiter)
    else:
        return False
    return True


def listed(there: Waiting) -> list[Waiter]:
    """All who wait for a key."""
    return there if there.__class__ is list else [there]


def give(given: Given) -> None:
    """Give answers to those who wait, at one wake-up for each event loop. Those in a closed one never come
    back.
    """
    _give_anywhere(given, domain() if runs_loop() else None)


def give_in(here: Hashable, given: Given, home: Hashable) -> None:
    """The same, from where it is known that this event loop runs here, or, if it is None, a thread.

    Args:
        here: the event loop.
        given: the answers.
        home: the event loop of all of those who wait, if it is one.
    """
    if home is None or home is not here:
        _give_anywhere(given, here)
    elif several := _give_here(given):
        _give_anywhere(several, here)


def _give_anywhere(given: Given, here: Hashable) -> None:
    elsewhere: dict[Hashable, list[tuple[Bell, Any]]] = {}
    for key, there, answer in given:
        for waiting in listed(there):
            bell = _rung(waiting, key, answer) if isinstance(waiting, Order) else waiting
            if bell is None:
                continue
            if (place := bell.get_loop()) is here or place is None:
                _tell(bell, answer)
            else:
                elsewhere.setdefault(place, []).append((bell, answer))
    for place, bells in elsewhere.items():
        call_in(place, partial(_tell_all, bells))


def _give_here(given: Given) -> list[tuple[Any, Waiting, Any]]:
    """Give answers to bare futures of the event loop that runs here; returns the others."""
    others: list[tuple[Any, Waiting, Any]] = []
    for key, there, answer in given:
        kind = there.__class__
        if kind is list:
            for one in there:
                if one.__class__ is Order:
                    others.append((key, one, answer))
                elif not one.done():
                    one.set_result(answer)
        elif kind is Order:
            others.append((key, there, answer))
        else:
            try:
                there.set_result(answer)
            except asyncio.InvalidStateError:  # its task was cancelled just now
                continue
    return others


def _rung(order: Order, key: Any, answer: Any) -> Bell | None:
    """What is to be told that an order is complete, if it is."""
    order.answers[key] = answer
    return order.bell if order.done() else None


def _tell(bell: Bell, answer: Any) -> None:
    if not bell.done():
        bell.set_result(answer)


def _tell_all(bells: list[tuple[Bell, Any]]) -> None:
    for bell, answer in bells:
        _tell(bell, answer)

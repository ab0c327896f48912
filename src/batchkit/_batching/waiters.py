"""How many calls wait for one moment, each at the least that its event loop asks for.

A `Parker` can be woken again and again, and has a timer. What is here is awaited once: a bare future on
asyncio, a bare task on trio. It may be rung from anywhere, also before it is awaited.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Generator, Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from batchkit._background import call_in
from batchkit._parking import SyncParker

if TYPE_CHECKING:
    import trio


class TrioWaiter:
    """Waits as a task of trio.

    Attributes:
        token: the trio run that it belongs to.
    """

    __slots__ = ("_lowlevel", "_rung", "_task", "token")

    def __init__(self, token: Any) -> None:
        self._lowlevel = sys.modules["trio"].lowlevel  # to import it would take as long as half the wait
        self.token: trio.lowlevel.TrioToken = token
        self._task: trio.lowlevel.Task | None = None
        self._rung = False

    def __await__(self) -> Generator[Any, None, None]:
        if not self._rung:
            self._task = self._lowlevel.current_task()
            yield from self._lowlevel.wait_task_rescheduled(self._give_up).__await__()

    def ring(self) -> None:
        """Wake the task, from its own run."""
        self._rung = True
        if self._task is not None:
            self._lowlevel.reschedule(self._task)
            self._task = None

    def _give_up(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        succeeded: trio.lowlevel.Abort = self._lowlevel.Abort.SUCCEEDED
        return succeeded


class ThreadWaiter:
    """Waits by blocking its thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait to be rung; false if that did not happen for so long."""
        return self._lock.acquire(timeout=seconds)

    def ring(self) -> None:
        """Wake the thread."""
        try:
            self._lock.release()
        except RuntimeError:  # it was rung already
            return


AsyncWaiter = asyncio.Future[None] | TrioWaiter
Waiter = AsyncWaiter | ThreadWaiter | SyncParker


def waiter(here: Hashable) -> AsyncWaiter:
    """What the running task, whose event loop is `here`, awaits until it is rung."""
    if isinstance(here, asyncio.AbstractEventLoop):
        return asyncio.Future(loop=here)
    return TrioWaiter(here)


def ring(waiters: Iterable[Waiter]) -> None:
    """Wake all of them, at one wake-up for each event loop. Those in a closed one never come back."""
    here = asyncio._get_running_loop()
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    runs: dict[trio.lowlevel.TrioToken, list[TrioWaiter]] = {}
    for waiting in waiters:
        if isinstance(waiting, asyncio.Future):
            if (loop := waiting.get_loop()) is not here:
                loops.setdefault(loop, []).append(waiting)
            elif not waiting.done():
                waiting.set_result(None)
        elif isinstance(waiting, TrioWaiter):
            runs.setdefault(waiting.token, []).append(waiting)
        elif isinstance(waiting, ThreadWaiter):
            waiting.ring()
        else:
            waiting.unpark()
    for loop, futures in loops.items():
        call_in(loop, partial(_ring_futures, futures))
    for run, tasks in runs.items():
        call_in(run, partial(_ring_tasks, tasks))


def _ring_futures(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _ring_tasks(tasks: list[TrioWaiter]) -> None:
    for task in tasks:
        task.ring()

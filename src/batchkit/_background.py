"""Work that belongs to nobody: it outlives the call that started it. A task ends with its event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, Protocol, cast

from batchkit._forks import FORKS
from batchkit._parking import in_trio

_modules: Final = sys.modules


class Cancellable(Protocol):
    """A task that runs in the background."""

    @property
    def domain(self) -> Hashable:
        """The event loop that it runs in, as a parker has it."""
        ...

    @property
    def lost(self) -> bool:
        """Whether its loop was closed without ending it: it never goes on."""
        ...

    def ends_itself(self) -> object:
        """It has begun, and does at its end by itself what `on_end` would do: told so, `spawn` need not."""
        ...

    def cancel(self) -> object:
        """Ask it to stop; may be called from any thread, and after its end."""
        ...

    def call(self, act: Callable[[], object]) -> None:
        """Have something done in its event loop: now, if called from there, or else soon. Not at all, if the
        loop is gone.
        """
        ...


def spawn(work: Callable[[], Coroutine[Any, Any, None]], on_end: Callable[[], None]) -> Cancellable:
    """Run `work` in the running event loop, in a copy of the caller's context.

    It must not raise anything but cancellation. The caller keeps what it gets: asyncio itself refers to
    tasks only weakly.

    Args:
        work: the task.
        on_end: called when it has ended, also when it was cancelled before it began.
    """
    if in_trio():
        return _spawn_on_trio(work, on_end)
    return _AsyncioTask(asyncio.get_running_loop().create_task(work()), on_end)


def run_apart(
    work: Callable[[], Coroutine[Any, Any, None]],
    work_sync: Callable[[], None],
    on_end: Callable[[], None],
) -> object:
    """Run work for its own sake, in no context: as a task if an event loop runs here, or else in a thread.

    Args:
        work: the task, as for `spawn`.
        work_sync: its blocking twin.
        on_end: called when either has ended.

    Returns:
        What the caller keeps until then.
    """
    nobody = Context()
    if runs_loop():
        return nobody.run(spawn, work, on_end)

    def run() -> None:
        try:
            nobody.run(work_sync)
        finally:
            on_end()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def runs_loop() -> bool:
    """Whether an event loop runs in this thread."""
    return in_trio() or asyncio._get_running_loop() is not None


def domain() -> Hashable:
    """The event loop that runs here: what the parkers of its tasks have as theirs.

    Raises:
        RuntimeError: none is running.
    """
    if "trio" in _modules and (lowlevel := _modules["trio"].lowlevel).in_trio_task():
        return cast(Hashable, lowlevel.current_trio_token())
    return get_running_loop()


async def turn() -> None:
    """Let the tasks that are ready have their turn."""
    if in_trio():
        import trio

        await trio.lowlevel.checkpoint()  # those in the same round as this task may come after it
        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


def is_open(domain: Hashable) -> bool:
    """Whether an event loop may still run."""
    if isinstance(domain, asyncio.AbstractEventLoop):
        return not domain.is_closed()
    return call_in(domain, lambda: None)


def runs(domain: Hashable) -> bool:
    """Whether an event loop runs now, in whatever thread; true for one of trio that is about to end."""
    return domain.is_running() if isinstance(domain, asyncio.AbstractEventLoop) else is_open(domain)


def call_in(domain: Hashable, callback: Callable[[], object]) -> bool:
    """Have something called in an event loop, from anywhere: at once if it runs here.

    Returns:
        False if it is closed. One that stands still takes the call, and may never make it.
    """
    if isinstance(domain, asyncio.AbstractEventLoop):
        return _call_in_asyncio(domain, callback)
    if in_trio() and _modules["trio"].lowlevel.current_trio_token() is domain:
        callback()
        return True
    return later(domain, callback)


def later(domain: Hashable, callback: Callable[[], object]) -> bool:
    """Have something called in one of the next turns of an event loop, from anywhere.

    Returns:
        False if it is closed.
    """
    if isinstance(domain, asyncio.AbstractEventLoop):
        return _later_in_asyncio(domain, callback)
    import trio

    try:
        cast(trio.lowlevel.TrioToken, domain).run_sync_soon(callback)
    except trio.RunFinishedError:
        return False
    return True


def _call_in_asyncio(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> bool:
    if asyncio._get_running_loop() is loop:
        callback()
        return True
    return _later_in_asyncio(loop, callback)


def _later_in_asyncio(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> bool:
    soon = loop.call_soon if asyncio._get_running_loop() is loop else loop.call_soon_threadsafe
    try:
        # not in the caller's context, which may say that it runs on trio
        soon(callback, context=Context())
    except RuntimeError:  # it is closed
        return False
    return True


class _AsyncioTask:
    __slots__ = ("_on_end", "_task")

    def __init__(self, task: asyncio.Task[None], on_end: Callable[[], None]) -> None:
        self._task = task
        self._on_end = on_end
        task.add_done_callback(self._ended)

    @property
    def domain(self) -> Hashable:
        return self._task.get_loop()

    @property
    def lost(self) -> bool:
        return self._task.get_loop().is_closed() and not self._task.done()

    def ends_itself(self) -> None:
        self._task.remove_done_callback(self._ended)

    def cancel(self) -> None:
        self.call(self._task.cancel)

    def call(self, act: Callable[[], object]) -> None:
        call_in(self._task.get_loop(), act)

    def _ended(self, _: object) -> None:
        self._on_end()


def _spawn_on_trio(work: Callable[[], Awaitable[None]], on_end: Callable[[], None]) -> Cancellable:
    import trio

    scope = trio.CancelScope()

    async def run() -> None:
        try:
            with scope:
                await work()
        finally:
            on_end()

    trio.lowlevel.spawn_system_task(run, context=copy_context())
    return _TrioTask(scope, trio.lowlevel.current_trio_token())


class _TrioTask:
    lost = False  # trio ends all tasks of a run

    def __init__(self, scope: Any, token: Any) -> None:
        self._scope = scope
        self.domain: Hashable = token

    def ends_itself(self) -> None:
        """To be told its end costs no turn of the event loop here."""

    def cancel(self) -> None:
        self.call(self._scope.cancel)

    def call(self, act: Callable[[], object]) -> None:
        call_in(self.domain, act)


class Backstage:
    """Threads for works that nobody waits for: a few at most, and none when there is nothing to do.

    Args:
        name: of the threads.
        threads: at most.
    """

    def __init__(self, name: str, threads: int = 4) -> None:
        self._name = name
        self._most = threads
        self.forked()
        FORKS.tell(self)

    def do(self, work: Callable[[], object]) -> None:
        """Have something done, in a copy of the caller's context. It must not raise.

        Raises:
            RuntimeError: the interpreter ends, and starts no thread any more.
        """
        work = partial(copy_context().run, work)
        with self._lock:
            if self._threads == self._most:
                self._works.append(work)
                return
            self._threads += 1
        try:
            threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True).start()
        except BaseException:
            self._leave()
            raise

    def forked(self) -> None:
        """Start anew: what the parent's threads did not begin, the parent does."""
        self._lock = threading.Lock()
        self._works: deque[Callable[[], object]] = deque()
        self._threads = 0

    def _run(self, work: Callable[[], object] | None) -> None:
        while work is not None:
            work()
            work = self._next()

    def _next(self) -> Callable[[], object] | None:
        with self._lock:
            if self._works:
                return self._works.popleft()
            self._threads -= 1
            return None

    def _leave(self) -> None:
        with self._lock:
            self._threads -= 1

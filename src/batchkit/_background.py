"""A task that belongs to nobody: it outlives the call that started it, and ends with its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, Protocol

from batchkit._parking import in_trio


class Cancellable(Protocol):
    """A task that runs in the background."""

    def cancel(self) -> object:
        """Ask it to stop; may be called from any thread, and after its end."""
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
    task = asyncio.get_running_loop().create_task(work())
    task.add_done_callback(lambda _: on_end())
    return _AsyncioTask(task)


class _AsyncioTask:
    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        loop = self._task.get_loop()
        if asyncio._get_running_loop() is loop:
            self._task.cancel()
            return
        try:
            loop.call_soon_threadsafe(self._task.cancel)
        except RuntimeError:  # the loop is closed, and its tasks with it
            return


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
    def __init__(self, scope: Any, token: Any) -> None:
        self._scope = scope
        self._token = token

    def cancel(self) -> None:
        import trio

        if in_trio() and trio.lowlevel.current_trio_token() is self._token:
            self._scope.cancel()
            return
        try:
            self._token.run_sync_soon(self._scope.cancel)
        except trio.RunFinishedError:
            return

"""Ctrl-C and SIGTERM, in order: the first lets the calls under way end, the second stops at once."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress

import anyio


async def until_stopped(
    work: Callable[[], Awaitable[None]], stop: Callable[[], None], grace: float, say: Callable[[str], object]
) -> bool:
    """Await `work` to its end, or until a signal comes.

    Args:
        work: what is to be done.
        stop: asks it to begin nothing new.
        grace: seconds from then on after which it is cancelled.
        say: tells the user.

    Returns:
        Whether a signal came.

    Raises:
        Exception: what `work` raised.
    """
    stopped, failure = anyio.Event(), None

    async def heed(signals: AsyncIterator[signal.Signals]) -> None:
        async for _ in signals:
            if stopped.is_set():
                group.cancel_scope.cancel()
                return
            stopped.set()
            stop()
            group.cancel_scope.deadline = anyio.current_time() + grace
            say(f"Stopping: calls under way have up to {grace:g} s to end. Ctrl-C again stops at once.")

    with ExitStack() as stack:
        signals = None
        with suppress(NotImplementedError):  # on Windows Ctrl-C is a KeyboardInterrupt
            signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
        async with anyio.create_task_group() as group:
            if signals is not None:
                group.start_soon(heed, signals)
            try:
                await work()
            except Exception as error:
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return stopped.is_set()

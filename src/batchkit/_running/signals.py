"""A signal that ends a run in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Any

from batchkit._running.streams import Stream


@contextmanager
def drain_on_signal(
    stream: Stream[Any, Any], *, grace: float = 30.0, signals: Sequence[signal.Signals] = (signal.SIGTERM,)
) -> Generator[None]:
    """Within the block, a signal drains a stream: nothing new starts, and what is under way has `grace`
    seconds. A second signal cancels it at once.

    It is for the main thread, and serves asyncio, trio and `map_sync` alike. On leaving the block the
    handlers of before are back.

    Args:
        stream: what `map` or `map_sync` returned.
        grace: seconds. Less than what the process has before it is killed.
        signals: which ones, such as also `signal.SIGINT` for Ctrl-C.

    Raises:
        ValueError: not in the main thread.

    Example:
        ```python
        async with executor.map(items) as outcomes:
            with drain_on_signal(outcomes, grace=20):
                report = await outcomes.collect()
        ```
    """
    # A handler may interrupt whoever holds the locks that draining takes, so a thread of its own does it.
    received: SimpleQueue[bool] = SimpleQueue()

    def handle(number: int, frame: FrameType | None) -> None:
        received.put(True)

    def drain() -> None:
        seconds = grace
        while received.get():
            stream.drain(seconds)
            seconds = 0.0

    before = {number: signal.signal(number, handle) for number in signals}
    thread = threading.Thread(target=drain, name="batchkit signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        received.put(False)
        thread.join()

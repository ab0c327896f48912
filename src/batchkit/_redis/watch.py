"""Event loops of asyncio that read an answer themselves: a wake-up of another thread would take longer than
Redis.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from attrs import frozen


@frozen
class _Watch:
    descriptor: int
    connection: object


class Watches:
    """Which event loops are told when a connection has something to say.

    Args:
        tell: called in the event loop, with it, when there is something to read.
    """

    def __init__(self, tell: Callable[[asyncio.AbstractEventLoop], object]) -> None:
        self._tell = tell
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}

    def add(self, loop: asyncio.AbstractEventLoop, connection: object, descriptor: int) -> bool:
        """Have the running event loop told; false if it cannot be."""
        watch = self._watches.get(loop)
        if watch is not None and watch.connection is connection:
            return True
        self._tidy()
        if watch is not None:
            self.remove(loop)
        own = os.dup(descriptor)  # or a closed one might be another's by the time that it is taken off
        try:
            loop.add_reader(own, self._tell, loop)
        except NotImplementedError:  # Windows: a loop that has no such thing
            os.close(own)
            return False
        self._watches[loop] = _Watch(own, connection)
        return True

    def of(self, loop: asyncio.AbstractEventLoop, connection: object) -> bool:
        """Whether it is that connection of which the loop was told."""
        watch = self._watches.get(loop)
        return watch is not None and watch.connection is connection

    def remove(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell the running event loop no more."""
        watch = self._watches.pop(loop, None)
        if watch is not None:
            loop.remove_reader(watch.descriptor)
            os.close(watch.descriptor)

    def _tidy(self) -> None:
        for loop in list(self._watches):
            if loop.is_closed() and (watch := self._watches.pop(loop, None)) is not None:
                os.close(watch.descriptor)

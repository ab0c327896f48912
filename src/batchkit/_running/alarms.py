"""Things that are to happen at a moment: one timer for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any, TypeVar

import anyio

from batchkit._parking import Parker
from batchkit.abc import Clock

A = TypeVar("A")
R = TypeVar("R")


class Alarms:
    """The alarms of one event loop. They ring while `keep` is awaited."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._set: list[tuple[float, int, Alarm]] = []
        self._serial = count()
        self._keeper: Parker | None = None

    def at(self, moment: float, ring: Callable[[], object]) -> Alarm:
        """Have something done at a moment."""
        alarm = Alarm(ring)
        heappush(self._set, (moment, next(self._serial), alarm))
        if self._keeper is not None and self._set[0][2] is alarm:
            self._keeper.unpark()
        return alarm

    async def keep(self) -> None:
        """Ring each alarm at its moment, until cancelled."""
        self._keeper = self._clock.parker()
        while True:
            while self._set and (self._set[0][2].off or self._set[0][0] <= self._clock.now()):
                heappop(self._set)[2].set_off()
            await self._keeper.park(self._set[0][0] if self._set else inf)

    async def within(self, until: float, call: Callable[[A], Awaitable[R]], argument: A) -> R:
        """Await a call, but no longer than until that moment.

        Raises:
            TimeoutError: it was not over then, and was cancelled.
        """
        with anyio.CancelScope() as scope:
            alarm = self.at(until, scope.cancel)
            try:
                return await call(argument)
            finally:
                alarm.off = True
        raise TimeoutError("the call took too long, and was cancelled")


class Alarm:
    """What is to happen, unless it is switched off.

    Attributes:
        off: whether it is.
    """

    __slots__ = ("_ring", "off")

    def __init__(self, ring: Callable[[], Any]) -> None:
        self._ring = ring
        self.off = False

    def set_off(self) -> None:
        """Ring, once."""
        if not self.off:
            self.off = True
            self._ring()

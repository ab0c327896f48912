"""How an async input is read: ahead of the calls, as far as there is room."""

from __future__ import annotations

from math import inf
from typing import Any, Generic, TypeVar

from batchkit._running.desk import Desk
from batchkit._running.feed import Feed
from batchkit._running.lobby import Lobby
from batchkit._running.plan import Plan

T = TypeVar("T")


class Reading(Generic[T]):
    """Reads into the stock of the feed, where items may go straight, or else for the desk.

    Args:
        plan, feed, desk, lobby: the run's.
        straight: whether items may go straight in this run.
    """

    def __init__(
        self, plan: Plan, feed: Feed[T], desk: Desk[T, Any], lobby: Lobby, *, straight: bool
    ) -> None:
        self._feed = feed
        self._desk = desk
        self._lobby = lobby
        self._clock = plan.clock
        self._straight = straight
        self._size = plan.sizes.most
        self._ahead = self._size * plan.concurrency[1]
        desk.intake.read_ahead()

    async def read(self) -> None:
        """Read to the end."""
        while not self._feed.ended:
            if (room := self._room()) <= 0:
                await self._wait()
            elif self._straight:
                await self._stock(int(room))
            else:
                self._desk.feed(await self._feed.read(), self._clock.now(), ended=self._feed.ended)
                self._lobby.stir()

    async def _stock(self, room: int) -> None:
        feed, lobby = self._feed, self._lobby
        for _ in range(room):
            feed.stock += await feed.read()
            if lobby.idle:
                lobby.stir()
            if feed.ended:
                self._desk.intake.exhausted = feed.is_empty
                return

    def go_on(self) -> None:
        """Go on reading, if there is room for some items, so that not every single one wakes the reader."""
        window = self._desk.intake.window
        if self._lobby.stockers and 2 * self._room() >= min(self._ahead, window):
            self._lobby.tell_stockers()

    def _room(self) -> float:
        """Items that are to be read now."""
        desk, stocked = self._desk, len(self._feed.stock)
        if not self._straight:
            return desk.wants()
        if desk.ending.draining or desk.room <= 0:
            return 0
        return min(self._ahead, max(desk.room, self._size)) - stocked

    async def _wait(self) -> None:
        parker = self._clock.parker()
        (self._lobby.stockers if self._straight else self._lobby.helpers).append(parker)
        await parker.park(inf)

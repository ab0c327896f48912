"""A process that books its permits in Redis, each with its moment, and lets its calls go at those."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from pathlib import Path
from struct import pack, unpack

from batchkit._redis.skew import Skew
from benchmarks.line.standing import PATIENCE
from benchmarks.line.world import Call, Limit, World

SCRIPT = Path(__file__).with_name("bookings.lua").read_text(encoding="utf-8")
KEYS = ("bookings:{quota}", "bookings:{quota}:free")


class Booking:
    """Whoever is first among the process's own calls goes at the first of its moments.

    Args:
        horizon: seconds that may be booked ahead; who wants more asks again at the moment that it is told.
    """

    def __init__(self, world: World, name: str, limit: Limit, horizon: float = inf) -> None:
        self.name = name
        self._world = world
        self._script = world.load(SCRIPT)
        self._limit = limit
        self._horizon = horizon
        self._skew = Skew()
        self._serials = count()
        self._waiting: list[tuple[float, int, Call]] = []  # a heap
        self._moments: list[tuple[float, float]] = []  # a heap: each by the own clock, and by the server's
        self._back: list[float] = []  # moments to be handed back
        self._rate = 0.0  # that the fleet is to be told; 0 if there is none
        self._look = -inf  # before which it is in vain to ask for more
        self._dead = False
        self._asks = False

    def acquire(self, call: Call) -> None:
        order = call.came - call.priority * PATIENCE
        heappush(self._waiting, (order, next(self._serials), call))
        self._ask()

    def cancel(self, call: Call) -> None:
        self._waiting = [entry for entry in self._waiting if entry[2] is not call]
        heapify(self._waiting)
        self._hand_back()
        self._ask()

    def change(self, rate: float) -> None:
        self._rate = rate
        self._ask()

    def kill(self) -> None:
        self._dead = True

    def _ask(self) -> None:
        if self._dead or self._asks:
            return
        wanted = len(self._waiting) - len(self._moments) if self._world.now >= self._look else 0
        if wanted or self._back or self._rate:
            self._asks = True
            limit, horizon = self._limit, min(self._horizon * 1e6, 1e18)
            numbers = [limit.rate, limit.burst, horizon, wanted, self._rate, *self._back]
            self._back, self._rate, sent = [], 0.0, self._world.now
            words = [pack(f">{len(numbers)}d", *numbers)]
            self._world.ask(self._script, KEYS, words, lambda answer: self._answered(sent, answer))

    def _answered(self, sent: float, answer: bytes) -> None:
        self._asks = False
        now, look, *moments = unpack(f">{len(answer) // 8}d", answer)
        self._skew.hear(now, sent, self._world.now)
        for moment in moments:
            heappush(self._moments, (self._skew.here(moment), moment))
            self._world.at(self._skew.here(moment), self._go)
        self._look = self._skew.here(look)
        self._world.at(self._look, self._ask)
        self._hand_back()
        self._ask()  # for those who came meanwhile

    def _go(self) -> None:
        while self._moments and self._moments[0][0] <= self._world.now and not self._dead:
            heappop(self._moments)
            if self._waiting:
                self._world.let_go(heappop(self._waiting)[2])

    def _hand_back(self) -> None:
        """The last of its moments are those that nobody wants."""
        self._moments.sort()
        while len(self._moments) > len(self._waiting):
            self._back.append(self._moments.pop()[1])

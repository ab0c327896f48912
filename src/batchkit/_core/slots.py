"""How many calls are under way at once: permits that come back when a call ends.

A bucket says when permits come in; slots cannot, since nobody knows when a call ends. So whoever finds them
taken is told to wait for a release, and no deadline is certain to pass before it has passed.
"""

from __future__ import annotations

from math import inf
from typing import ClassVar, Self


class Slots:
    """Places for calls.

    Attributes:
        burst: calls that may be under way at once.
        bound: what that is called.
        keeps: False: nobody knows for how long that would be.
        grace: seconds for which a grant is its owner's alone.
        taken: those that are; above `burst` where that was lowered, or a call needed more than it asked for.
        abroad: slots that calls had in the process from which this one was forked.
        closed_until: the moment before which nobody is to be let go; the line sees to that.
        granted: slots taken since it was made, those given back included.
    """

    bound: ClassVar[str] = "limit"
    keeps: ClassVar[bool] = False
    __slots__ = ("abroad", "burst", "closed_until", "grace", "granted", "taken")

    def __init__(self, limit: int) -> None:
        self.burst = limit
        self.taken: int = 0
        self.granted: int = 0
        self.abroad: int = 0
        self.grace = 0.01
        self.closed_until = -inf

    def __str__(self) -> str:
        return f"limit {self.burst}"

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take `cost` slots if they are free beside `reserved` ones that others were granted."""
        if self.taken + cost + reserved > self.burst:
            return False
        self.taken += cost
        self.granted += cost
        return True

    def charge(self, permits: int, now: float) -> None:
        """Take more slots whether they are free or not, or, below zero, give some back."""
        self.taken += permits

    def holds(self, permits: int, now: float) -> bool:
        """Whether that many slots are free."""
        return self.taken + permits <= self.burst

    def refills(self, permits: int, by: float, now: float) -> bool:
        """True: a call may end at any moment."""
        return True

    def due(self, permits: int, now: float) -> float:
        """`now` if that many slots are free; else infinite, since nobody knows when a call ends."""
        return now if self.holds(permits, now) else inf

    def earliest(self, permits: int, now: float) -> float:
        """`now`: a call may end at any moment."""
        return now

    def available(self, now: float) -> float:
        """Slots that are free; below zero where more are taken than may be."""
        return self.burst - self.taken

    def adds_to(self, new: Self, now: float) -> bool:
        """Whether it says anything that a new one would not: calls are under way, or it is paused, or was
        changed.
        """
        return self.closed_until > now or self.burst != new.burst or not self.holds(self.burst, now)

    def fork(self) -> None:
        """This is a new process now, in which no call is under way."""
        self.abroad += self.taken
        self.taken = 0

    def give_back(self, slots: int) -> bool:
        """A call has ended; false if so many were not out."""
        here = min(slots, self.taken)
        if slots - here > self.abroad:
            return False
        self.abroad -= slots - here
        self.taken -= here
        return True

    def change(self, rate: float, burst: int, now: float) -> None:
        """Go on with another number of slots; the calls under way stay so."""
        self.burst = burst

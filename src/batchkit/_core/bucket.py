"""Token-bucket arithmetic: given the time and a cost, go, or wait until that moment.

Rules
-----
1. A bucket of rate `r` (permits/s) and burst `b` (permits) is full at first and never holds more than `b`.
2. A call of cost `c` takes `c` permits at the moment it goes, or none.
3. Therefore no window of `T` seconds sees more than `r*T + b` permits go. (A window may see `b` on top of
   the rate: rate 2 and burst 5 let 5 go at once and 2 a second after that, so the busiest minute holds 125,
   not 120.)

Theory
------
The usual bucket keeps a level and adds to it at each look, so that the rounding of each look stays in it
for good. This one keeps two numbers that no look changes: `since`, a moment at which it was full, and
`taken`, a whole number of permits taken from then on. At `now` it owes `taken - r*(now - since)`; when
that falls to zero it is full, and `since` moves up. There is one rounding in any answer, however old the
bucket is: nothing accumulates, so there is no drift. (The same state as the generic cell rate algorithm's,
which keeps the sum of the two as one "theoretical arrival time".)

The answer "go" is exact for the floats given: where the product comes so close to what is needed that its
rounding could decide, it is taken again in fractions. So the rounding errs to the safe side only, by a
factor of `2**-50` at most.

Doubts
------
`now` must never go back; that is the clock's promise. A float second has about 0.1 ns at an uptime of ten
days, so that above some 1e9 permits/s the clock itself is what is inexact.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, inf, nextafter
from typing import Final

_SURE: Final = 1.0 - 2.0**-50  # a difference and a product of floats err by less


class Bucket:
    """A token bucket, full at `now`.

    Attributes:
        rate: permits a second, a positive number.
        burst: permits that may go at once, a positive whole number.
    """

    __slots__ = ("_since", "_taken", "burst", "rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._since = now  # seconds: a moment at which the bucket was full
        self._taken = 0  # permits taken since then; below zero after a refund

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take `cost` permits if they are there at `now`, beside `reserved` ones that others were granted
        and will take.

        What is reserved still stands in the bucket, so that it refills to the burst less that, and no
        second burst builds up between a grant and the moment its owner goes.
        """
        credit = (now - self._since) * self.rate
        if credit >= self._taken and self._came_in(self._taken, now):
            self._since = now
            self._taken = 0
            credit = 0.0
        needed = self._taken + cost + reserved - self.burst
        if needed > credit or (needed > credit * _SURE and not self._came_in(needed, now)):
            return False
        self._taken += cost
        return True

    def holds(self, permits: int, now: float) -> bool:
        """Whether that many permits are there at `now`."""
        return permits <= self.burst and self._came_in(self._taken + permits - self.burst, now)

    def due(self, permits: int, now: float) -> float:
        """The first moment, `now` or later, at which that many permits will have come in: not before it,
        and at it.
        """
        needed = self._taken + permits - self.burst
        if self._came_in(needed, now):
            return now
        moment = max(self._since + needed / self.rate, now)
        while not self._came_in(needed, moment):
            moment = nextafter(moment, inf)
        return moment

    def available(self, now: float) -> float:
        """Permits that are there at `now`; below zero while a debt is paid off."""
        owed = self._taken - (now - self._since) * self.rate
        return self.burst - max(0.0, owed)

    def charge(self, permits: int, now: float) -> None:
        """Take `permits` more whether they are there or not (a debt), or, below zero, put some back (at
        most to full).
        """
        self._settle_to_full(now)
        self._taken += permits

    def change(self, rate: float, burst: int, now: float) -> None:
        """Go on at another rate and burst; what is owed stays owed, so a change mints nothing."""
        self._settle_to_full(now)
        credit = (now - self._since) * self.rate * _SURE
        owed = ceil(self._taken - credit)
        part = credit - (self._taken - owed)  # of a permit, that has come in already
        self.rate = rate
        self.burst = burst
        self._taken = owed
        self._since = now if part <= 0.0 else nextafter(now - part / rate, inf)

    def _came_in(self, permits: int, now: float) -> bool:
        """Whether that many permits came in since the bucket was full; exact where rounding could decide."""
        credit = (now - self._since) * self.rate
        if permits > credit:
            return False
        return permits <= credit * _SURE or permits <= 0 or self._exactly(now) >= permits

    def _exactly(self, now: float) -> Fraction:
        return (Fraction(now) - Fraction(self._since)) * Fraction(self.rate)

    def _settle_to_full(self, now: float) -> None:
        if self._came_in(self._taken, now):
            self._since = now
            self._taken = 0

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
rounding could decide, it is taken again in whole numbers. So the rounding errs to the safe side only, by a
factor of `2**-50` at most.

Doubts
------
`now` must never go back; that is the clock's promise. A float second has about 0.1 ns at an uptime of ten
days, so that above some 1e9 permits/s the clock itself is what is inexact.
"""

from __future__ import annotations

from math import ceil, inf, nextafter
from typing import ClassVar, Final, Self

_FEW: Final = 3.0  # permits
_LEAST_GRACE: Final = 0.002  # seconds
_MOST_GRACE: Final = 0.01
_SURE: Final = 1.0 - 2.0**-50  # a difference and a product of floats err by less


class Bucket:
    """A token bucket, full at `now`.

    The fields without an underscore may be read by anybody; who writes to them does what `take` does.

    Attributes:
        rate: permits a second, a positive number.
        burst: permits that may go at once, a positive whole number.
        bound: what that is called.
        keeps: True: permits may be kept for a call until it can go.
        since: a moment at which the bucket was full, in seconds.
        taken: permits taken since then, 0 or more.
        before: permits taken before then.
        grace: seconds for which a grant is its owner's alone: what three permits take, within bounds. So
            long a stalled owner may hold others up; a healthy event loop comes sooner.
        closed_until: the moment before which nobody is to be let go; the line sees to that.
        sure_rate: the rate, less what rounding could add: what came in by it has come in for sure.
    """

    bound: ClassVar[str] = "burst"
    keeps: ClassVar[bool] = True
    __slots__ = (
        "_answer",
        "_asked",
        "before",
        "burst",
        "closed_until",
        "grace",
        "rate",
        "since",
        "sure_rate",
        "taken",
    )

    _asked: tuple[int, float]  # how many, and since when, `due` was asked for last
    _answer: float

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._size(rate, burst)
        self.since = now
        self.taken = 0
        self.before = 0
        self.closed_until = -inf

    def __str__(self) -> str:
        return f"rate {self.rate:g}/s, burst {self.burst}"

    @property
    def granted(self) -> int:
        """Permits taken since it was made, less those that were given back."""
        return self.before + self.taken

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take `cost` permits if they are there at `now`, beside `reserved` ones that others were granted
        and will take.

        What is reserved still stands in the bucket, so that it refills to the burst less that, and no
        second burst builds up between a grant and the moment its owner goes.
        """
        self._settle_to_full(now)
        if not self._came_in(self.taken + cost + reserved - self.burst, now):
            return False
        self.taken += cost
        return True

    def holds(self, permits: int, now: float) -> bool:
        """Whether that many permits are there at `now`."""
        return permits <= self.burst and self._came_in(self.taken + permits - self.burst, now)

    def due(self, permits: int, now: float) -> float:
        """The first moment, `now` or later, at which that many permits will have come in: not before it,
        and at it.
        """
        self._settle_to_full(now)
        needed = self.taken + permits - self.burst
        if self._came_in(needed, now):
            return now
        if self._asked != (needed, self.since):  # who looks again and again asks for the same
            self._asked = (needed, self.since)
            self._answer = self._moment(needed)
        return self._answer

    def earliest(self, permits: int, now: float) -> float:
        """The moment before which that many permits are certainly not there: the one at which they are."""
        return self.due(permits, now)

    def refills(self, permits: int, by: float, now: float) -> bool:
        """Whether that many permits, in all, can be taken from now until `by`."""
        self._settle_to_full(now)
        return self._came_in(self.taken + permits - self.burst, max(by, now))

    def available(self, now: float) -> float:
        """Permits that are there at `now`; below zero while a debt is paid off."""
        owed = self.taken - (now - self.since) * self.rate
        return self.burst - max(0.0, owed)

    def charge(self, permits: int, now: float) -> None:
        """Take `permits` more whether they are there or not (a debt), or, below zero, put some back (at
        most to full).
        """
        self._settle_to_full(now)
        self.taken += permits
        if self.taken < 0:
            self._start(now, 0)

    def drain(self, now: float, remaining: int = 0) -> None:
        """Lose what is there but for `remaining` permits: more have to come in first."""
        if self.available(now) > remaining:
            self._start(now, self.burst - remaining)

    def change(self, rate: float, burst: int, now: float) -> None:
        """Go on at another rate and burst; what is owed stays owed, so a change mints nothing."""
        self._settle_to_full(now)
        credit = (now - self.since) * self.sure_rate
        owed = ceil(self.taken - credit)
        part = credit - (self.taken - owed)  # of a permit, that has come in already
        self._size(rate, burst)
        self._start(now if part <= 0.0 else nextafter(now - part / rate, inf), owed)

    def adds_to(self, new: Self, now: float) -> bool:
        """Whether it says anything that a new one would not: it is not full, or paused, or was changed."""
        changed = (self.rate, self.burst) != (new.rate, new.burst)
        return self.closed_until > now or changed or not self.holds(self.burst, now)

    def fork(self) -> None:
        """This is a new process now; what was let go stays counted."""

    def _size(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.sure_rate = rate * _SURE
        self.burst = burst
        self.grace = min(max(_FEW / rate, _LEAST_GRACE), _MOST_GRACE)
        self._asked = (0, inf)
        self._answer = inf

    def _start(self, since: float, taken: int) -> None:
        """Reckon from another moment on; what was granted is not changed by that."""
        self.before += self.taken - taken
        self.since = since
        self.taken = taken

    def _moment(self, needed: int) -> float:
        """The first moment at which so many have come in since the bucket was full."""
        moment = self.since + needed / self.rate
        while not self._came_in(needed, moment):
            moment = nextafter(moment, inf)
        return moment

    def _came_in(self, permits: int, now: float) -> bool:
        """Whether that many permits came in since the bucket was full; exact where rounding could decide."""
        elapsed = now - self.since
        if permits <= elapsed * self.sure_rate or permits <= 0:
            return True
        return permits <= elapsed * self.rate and self._exactly_in(permits, now)

    def _exactly_in(self, permits: int, now: float) -> bool:
        # in whole numbers: a tenth of what fractions take
        ahead, per = now.as_integer_ratio()
        start, start_per = self.since.as_integer_ratio()
        rate, rate_per = self.rate.as_integer_ratio()
        return (ahead * start_per - start * per) * rate >= permits * per * start_per * rate_per

    def _settle_to_full(self, now: float) -> None:
        if self._came_in(self.taken, now):
            self._start(now, 0)

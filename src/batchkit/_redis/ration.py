"""What a process holds of the fleet's permits: the store that its own line stands before. Pure.

Permits come in by answers from Redis, each with the moment at which it is due. Rules:

1. A permit is used at its moment or a little after it, or it lapses and is handed back: a process that was
   stalled does not let a backlog go. What might go at once is good for as long as Redis says, and costs the
   bound nothing. What was booked ahead is good for the time of one permit, but at least 4 ms and at most
   10 s, and may cost the bound about one permit, or what comes in in 4 ms.
2. What is leased may be used by whoever comes within the time of the lease: Redis counts it as if it were
   used at its end.
3. Permits are alike: whoever is first in the process's line takes what is due first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from math import ceil, floor, inf
from typing import ClassVar, Final, Self

from attrs import define

from batchkit._core.store import Store
from batchkit._redis.wire import Answer, Calls, Orders

_LEAST_GRACE: Final = 0.002  # seconds
_PROMPT: Final = 0.002  # seconds; who goes so soon is taken to have gone when it was granted
_LEAST_LATE: Final = 0.004
_MOST_GRACE: Final = 0.01
_FRESH: Final = 1.0  # seconds for which what was heard is taken to be so
_MOST_LATE: Final = 10.0  # Redis takes nothing back that is much older
_LASTS: Final = 0.8  # of what Redis grants; the rest is for the way of the answer
_ROUNDING: Final = 1e-6  # permits


@define(eq=False)
class Booking:
    """Permits that are due one lump after the other; a lump is what one call wants.

    Attributes:
        left: permits.
        due: moment of the first lump.
        step: seconds between two of them; 0 if all are due at the same moment.
        lump: permits of each.
        part: permits left of the first one.
        late: seconds after its moment for which a permit may be used.
        since: when they were granted, in microseconds of the server's clock.
    """

    left: int
    due: float
    step: float
    lump: int
    part: int
    late: float
    since: float

    def there(self, now: float) -> int:
        """How many are due."""
        if now < self.due:
            return 0
        if not self.step:
            return self.left
        return min(self.left, self.part + floor((now - self.due) / self.step) * self.lump)

    def moment(self, permits: int) -> float:
        """When so many of them are due."""
        return self.due + max(0, -((self.part - permits) // self.lump)) * self.step

    def drop(self, permits: int) -> None:
        """So many are gone."""
        self.left -= permits
        lumps = max(0, (permits - self.part) // self.lump + 1)
        self.due += lumps * self.step
        self.part += lumps * self.lump - permits

    def lapse(self, now: float) -> int:
        """Drop those whose time is over, and say how many."""
        over = now - self.late - self.due
        if over <= 0:
            return 0
        lumps = ceil(over / self.step) if self.step else self.left
        lapsed = min(self.left, self.part + (lumps - 1) * self.lump)
        self.drop(lapsed)
        return lapsed


@define(eq=False)
class Lease:
    """Permits for whoever comes, beyond those that are waited for. They lie on a table, so that a caller
    takes some without asking anybody (see `Gate`).

    Attributes:
        size: permits that it had.
        left: permits that it has.
        told: permits that Redis was told to have gone.
        low: permits that are left when the next one is to be asked for.
        until: moment until which they may be used.
        since: when they were granted, in microseconds of the server's clock.
    """

    size: int
    left: int
    told: int
    low: int
    until: float
    since: float

    @classmethod
    def of(cls, answer: Answer, moment: float) -> Lease:
        """What was leased at that moment of the own clock."""
        leased = answer.leased
        return cls(leased, leased, 0, leased // 2, moment + _LASTS * answer.lasts, answer.now)


class Ration:
    """The permits that a process holds.

    Attributes:
        key: which one of its family it is of, in words; empty if it is of none.
        rate, burst: of the fleet.
        bound: what the burst is called.
        keeps: True: permits may be kept for a call until it can go.
        grace: seconds for which a grant is its owner's alone.
        closed_until: the moment before which nobody is to be let go; the line sees to that.
        granted: permits taken, less those given back.
        total: permits held, those included that are not due yet.
        comes_in: the moment at which the first of them is due.
        orders: what is to be said to Redis with the next question.
        lapses: the next moment at which something held has to be handed back unless it is used.
        lasts: seconds for which a permit that may go at once is good.
        look: moment before which it is in vain to ask for more.
        instead: what permits are taken from while Redis is away; None while it is there.
    """

    bound: ClassVar[str] = "burst"
    keeps: ClassVar[bool] = True
    __slots__ = (
        "_bookings",
        "_heard",
        "_level",
        "_measured",
        "_went",
        "burst",
        "closed_until",
        "comes_in",
        "grace",
        "granted",
        "instead",
        "key",
        "lapses",
        "lasts",
        "late",
        "look",
        "orders",
        "rate",
        "total",
    )

    def __init__(self, rate: float, burst: int, key: str = "") -> None:
        self.key = key
        self.granted = 0
        self.closed_until = -inf
        self.orders = Orders()
        self.instead: Store | None = None
        self._size(rate, burst)
        self._empty()

    def __str__(self) -> str:
        return f"rate {self.rate:g}/s, burst {self.burst}"

    def _size(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self.grace = min(max(1.5 / rate, _LEAST_GRACE), _MOST_GRACE)
        self.late = min(max(1.0 / rate, _LEAST_LATE), _MOST_LATE)

    def _empty(self) -> None:
        self._bookings: list[Booking] = []
        self.comes_in = self.lapses = inf
        self.total = 0
        self.look = -inf
        self.lasts = 0.0
        self._went: list[tuple[int, float]] = []
        self._level = 0.0  # permits that were owed, as last heard
        self._measured = -inf
        self._heard = 0.0  # the server's moment of that

    # what the line asks for

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take `cost` permits if they are there beside `reserved` ones."""
        if self.instead is not None:
            taken = self.instead.take(cost, now, reserved)
        else:
            taken = self._there(now) >= cost + reserved
            if taken:
                self._remove(cost, now)
        self.granted += cost if taken else 0
        return taken

    def holds(self, permits: int, now: float) -> bool:
        """Whether that many permits are there at `now`."""
        if self.instead is not None:
            return self.instead.holds(permits, now)
        return self.total >= permits and self._there(now) >= permits

    def refills(self, permits: int, by: float, now: float) -> bool:
        """Whether that many permits, in all, can be taken until `by`."""
        if self.instead is not None:
            return self.instead.refills(permits, by, now)
        return self.due(permits, now) <= by

    def due(self, permits: int, now: float) -> float:
        """The moment at which that many permits are there; infinite if they are not booked yet."""
        if self.instead is not None:
            return self.instead.due(permits, now)
        self.lapse(now)
        if permits > self.total:
            return inf
        if self._there(now) >= permits:
            return now
        return min(self._first(booking, permits) for booking in self._bookings)

    def _first(self, booking: Booking, permits: int) -> float:
        """The first moment of a booking's own at which so many permits are there of all."""

        def suffices(number: int) -> bool:
            moment = booking.moment(number)
            return sum(other.there(moment) for other in self._bookings) >= permits

        number = bisect_left(range(1, booking.left + 1), True, key=suffices) + 1
        return booking.moment(number) if number <= booking.left else inf

    def earliest(self, permits: int, now: float) -> float:
        """The moment before which that many permits are certainly not there, by what was heard last."""
        if self.instead is not None:
            return self.instead.earliest(permits, now)
        if now - self._measured > _FRESH:
            return now  # others may have changed the rate, or given something back
        return self._expected(permits, now, min(self._level, self.burst))

    def charge(self, permits: int, now: float) -> None:
        """Take so many more whether they are there or not; below zero, give some back."""
        self.granted += permits
        if self.instead is not None:
            self.instead.charge(permits, now)
        else:
            self.orders.charge += permits

    def change(self, rate: float, burst: int, now: float) -> None:
        """Go on at another rate and burst."""
        self._size(rate, burst)

    def restore(self, permits: int, now: float, until: float = inf) -> None:
        """Take permits back that were taken by now and not used: whoever waits here may have them, until the
        moment, if it is known, until which they are good.
        """
        self.granted -= permits
        if self.instead is not None:
            self.instead.charge(-permits, now)
            return
        if until < inf:
            self.goes_late(permits, now)
        self._add(1, permits, now, 0.0, until - now if until < inf else self.grace, self._heard)
        self._tidy()

    def goes_late(self, permits: int, taken: float) -> None:
        """What was taken at some moment did not go then."""
        self._went.append((-permits, taken))

    def adds_to(self, new: Self, now: float) -> bool:
        """Whether it says anything that Redis does not know, or has to be looked after."""
        return bool(self.total or self.orders or self.instead is not None)

    def fork(self) -> None:
        """This is a new process now: what was granted to the other one is not here."""
        self._empty()
        self.orders = Orders()

    # what comes from Redis, and goes back

    def expected(self, permits: int, now: float) -> float:
        """The moment at which so many more could be had if nobody else wants any, by what was heard last."""
        return self._expected(permits, now, self._level)

    def available(self, now: float) -> float:
        """Permits that the fleet has at `now`, by what was heard last; below zero while a debt is paid
        off.
        """
        owed = max(0.0, self._level - max(0.0, now - self._measured) * self.rate) if self._level else 0.0
        return self.burst - owed

    def feed(self, answer: Answer, asked: Iterable[Calls], moment: float, slack: float = 0.0) -> None:
        """Take in what was granted of what was asked, at a moment of the own clock. `slack`: seconds for
        which permits are good beyond their time, since answers take longer than the fastest one did.
        """
        if (answer.rate, answer.burst) != (self.rate, self.burst):
            self._size(answer.rate, answer.burst)
        if answer.closed:
            self.closed_until = max(self.closed_until, moment + answer.closed)
        self.lasts = answer.lasts
        self._level, self._measured, self._heard = answer.owed, moment, answer.now
        self.look = moment + answer.look if answer.look else -inf
        self._book(asked, answer, moment, slack)

    def lapse(self, now: float) -> None:
        """Hand back what was not used in time."""
        if now > self.lapses:
            for booking in self._bookings:
                if lapsed := booking.lapse(now):
                    self._return(lapsed, booking.since)
            self._tidy()

    def hand_back(self, permits: int, now: float) -> None:
        """Hand back so many of those that are due: nobody wants them."""
        for booking in self._bookings:
            returned = min(permits, booking.there(now))
            if returned:
                if not booking.step:
                    self._went.append((returned, booking.due))
                permits -= returned
                booking.drop(returned)
                self._return(returned, booking.since)
        self._tidy()

    def went(self, now: float) -> int:
        """Of the permits that might go at once, those that did, or were handed back, and may still be counted
        as on their way; said once.
        """
        if not (gone := self._went):
            return 0
        self._went = []
        return max(0, sum(permits for permits, due in gone if now - due <= self.lasts))

    def surplus(self, wanted: int, now: float) -> int:
        """Of those that are due, how many nobody wants."""
        return max(0, self._there(now) - wanted)

    def _expected(self, permits: int, now: float, level: float) -> float:
        more = permits - self.total
        if more <= 0 or self._measured == -inf:
            return now
        return max(now, self._measured + (level + more - self.burst) / self.rate, self.closed_until)

    def _there(self, now: float) -> int:
        if now > self.lapses:
            self.lapse(now)
        there = 0
        for booking in self._bookings:
            there += booking.there(now)
        return there

    def _remove(self, permits: int, now: float) -> None:
        self.total -= permits
        for booking in self._bookings:
            taken = min(permits, booking.there(now))
            if taken:
                if not booking.step and now - booking.due <= _PROMPT:
                    self._went.append((taken, booking.due))
                booking.drop(taken)
                permits -= taken
                if not permits:
                    break
        self._tidy()

    def _book(self, asked: Iterable[Calls], answer: Answer, moment: float, slack: float) -> None:
        """The permits of a call are due together, when the last of them has come in."""
        granted = answer.at_once + answer.later
        at_once = answer.at_once + max(0.0, -answer.start) + _ROUNDING
        opens = moment + answer.closed
        late = self.late + slack
        good = max(self.late, _LASTS * answer.lasts) + slack
        used = 0
        for number, calls in enumerate(asked):
            served = min(calls.count, (granted - used) // calls.cost)
            if answer.served:  # others may have been served before the first of them
                served = answer.served[number]
            here = max(0, min(served, floor((at_once - used) / calls.cost)))
            self._add(here, calls.cost, opens, 0.0, good, answer.now)
            used += here * calls.cost
            if later := served - here:
                first = moment + (answer.start + used + calls.cost - answer.at_once) / answer.rate
                self._add(later, calls.cost, max(first, opens), calls.cost / answer.rate, late, answer.now)
                used += later * calls.cost
        self._tidy()

    def _add(self, calls: int, cost: int, due: float, step: float, late: float, since: float) -> None:
        if calls:
            self.total += calls * cost
            self._bookings.append(Booking(calls * cost, due, step, cost, cost, late, since))

    def _return(self, permits: int, since: float) -> None:
        self.total -= permits
        self._level = max(0.0, self._level - permits)  # or it would seem certain that they do not come in
        self.orders.add(Orders(back=permits, back_since=since))

    def _tidy(self) -> None:
        bookings = self._bookings
        if len(bookings) > 1:
            bookings = [booking for booking in bookings if booking.left]
        elif bookings and not bookings[0].left:
            bookings = []
        self._bookings = bookings
        if len(bookings) == 1:  # as it is most of the time, or there is none
            self.comes_in = bookings[0].due
            self.lapses = bookings[0].due + bookings[0].late
        elif bookings:
            self.comes_in = min([booking.due for booking in bookings])
            self.lapses = min([booking.due + booking.late for booking in bookings])
        else:
            self.comes_in = self.lapses = inf

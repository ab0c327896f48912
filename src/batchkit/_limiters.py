"""`TokenBucket`: lock, clock and wake-ups around the pure line and bucket of `_core`.

Every decision is made by `_core` under one lock, held for about a microsecond and never across a wait;
what is left to do (waking others) is done after the lock is free. So one object serves threads and event
loops at the same time.

In each event loop (and among all threads together) one of those who wait is the *keeper*: it alone has a
timer, looks at the line when it rings, and wakes whoever may go, wherever that is. It is the one that
joined last, who has the longest to wait, so that the office changes hands seldom.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterable
from math import inf, isfinite, nextafter
from typing import Self, cast

from attrs import define, field

from batchkit._clock import MONOTONIC
from batchkit._core.bucket import Bucket
from batchkit._core.line import Line, Place, State
from batchkit._events import Hook, RateChanged, Waited, emit
from batchkit._parking import Parker, SyncParker
from batchkit._values import Decision, LimiterStatistics
from batchkit.abc import Clock
from batchkit.exceptions import AcquireTimeout, CostExceedsBurst, InvalidCost

_GO = Decision(True)


class TokenBucket:
    """Lets at most `rate * T + burst` permits go in any `T` seconds, first come first served within a
    priority.

    One object may be shared by threads and by event loops of asyncio and trio; it may be made before any
    of them runs.

    Args:
        rate: permits a second, a positive number.
        burst: permits that may go at once after a quiet time, a positive whole number.
        name: what it is called in events and errors.
        hooks: called with each event: `Waited`, `RateChanged`.
        patience: seconds of waiting that outweigh one step of priority, so that low priorities move, too.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a rate, a burst or a patience that is none.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        name: str = "limiter",
        hooks: Iterable[Hook] = (),
        patience: float = 10.0,
        clock: Clock = MONOTONIC,
    ) -> None:
        self.name = name
        self._hooks = tuple(hooks)
        self._clock = clock
        self._lock = threading.Lock()
        rate, burst = checked_rate(rate), checked_burst(burst)
        self._bucket = Bucket(rate, burst, clock.now())
        if isinstance(patience, bool) or not 0 <= patience < inf:
            raise ValueError(f"patience is a number of seconds, 0 or more, not {patience!r}")
        self._line = Line(self._bucket, patience=patience)
        self._rooms: dict[Hashable, _Room] = {}
        self._granted = 0
        self._waits = 0
        self._waited = 0.0
        self._timeouts = 0

    @classmethod
    def within(
        cls,
        limit: int,
        *,
        per: float,
        burst: int = 1,
        name: str = "limiter",
        hooks: Iterable[Hook] = (),
        patience: float = 10.0,
        clock: Clock = MONOTONIC,
    ) -> Self:
        """The bucket that never lets more than `limit` permits go in *any* `per` seconds.

        Its rate is `(limit - burst) / per`: what people mean by "60 a minute". A larger burst is paid for by
        a lower rate.

        Raises:
            ValueError: no rate is left, or a number is none.
        """
        checked_burst(burst)
        if limit.__class__ is not int:
            raise ValueError(f"a limit is a whole number of permits, not {limit!r}")
        if isinstance(per, bool) or not 0 < per < inf:
            raise ValueError(f"per is a number of seconds above 0, not {per!r}")
        if burst >= limit:
            raise ValueError(f"burst {burst} must be below the limit {limit}: the rest is the rate")
        rate = (limit - burst) / per
        return cls(rate, burst, name=name, hooks=hooks, patience=patience, clock=clock)

    @property
    def rate(self) -> float:
        """Permits a second."""
        return self._bucket.rate

    @property
    def burst(self) -> int:
        """Permits at once."""
        return self._bucket.burst

    def try_acquire(self, cost: int = 1) -> Decision:
        """Go now, or not at all; never waits, and never overtakes those who wait.

        Returns:
            A true decision, or a false one with `retry_after` (seconds).

        Raises:
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
        """
        if self._go_at_once(cost):
            return _GO
        return Decision(False, self._retry_after(cost))

    async def acquire(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go. Where nothing is to be waited for, it does not yield to the event
        loop.

        Args:
            cost: permits.
            priority: higher goes first.
            timeout: seconds to wait at most; 0 tries. None waits as long as it takes.

        Raises:
            AcquireTimeout: as soon as it is certain that the permits do not come in within the timeout.
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
            ValueError: a priority that is no whole number, a timeout that is none.
        """
        if priority or timeout is not None:
            _check_wish(priority, timeout)
        if not self._go_at_once(cost):
            parker = self._clock.parker()
            place = self._join(cost, priority, timeout, parker)
            try:
                while (until := self._come(place)) is not None:
                    await parker.park(until)
            except BaseException:
                self._leave(place)
                raise

    def acquire_sync(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """The blocking twin of `acquire`, for threads."""
        if priority or timeout is not None:
            _check_wish(priority, timeout)
        if not self._go_at_once(cost):
            parker = self._clock.parker_sync()
            place = self._join(cost, priority, timeout, parker)
            try:
                while (until := self._come(place)) is not None:
                    parker.park_sync(until)
            except BaseException:
                self._leave(place)
                raise

    def permit(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> TokenPermit:
        """An acquire as a context manager, `async with` or `with`, for a call whose true cost is known
        afterwards.

        Example:
            ```python
            async with bucket.permit(cost=1200) as permit:
                reply = await call()
                permit.settle(reply.usage.total_tokens)
            ```
        """
        return TokenPermit(self, cost, priority, timeout)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    def __enter__(self) -> None:
        self.acquire_sync()

    def __exit__(self, *exc_info: object) -> None:
        return None

    def change(self, *, rate: float | None = None, burst: int | None = None) -> None:
        """Go on at another rate or burst; those who wait are told at once. What was let go before stays
        counted.

        A waiting call whose cost exceeds the new burst ends with `CostExceedsBurst`.

        Raises:
            ValueError: a rate or a burst that is none.
        """
        new_rate = self.rate if rate is None else checked_rate(rate)
        new_burst = self.burst if burst is None else checked_burst(burst)
        with self._lock:
            before = (self.rate, self.burst)
            now = self._clock.now()
            woken = self._line.change(new_rate, new_burst, now) + self._look(now)
        self._wake(woken)
        emit(self._hooks, RateChanged(self.name, new_rate, new_burst, *before))

    def statistics(self) -> LimiterStatistics:
        """What it did so far."""
        with self._lock:
            return LimiterStatistics(
                rate=self.rate,
                burst=self.burst,
                available=self._bucket.available(self._clock.now()) - self._line.reserved,
                waiting=sum(len(room.places) for room in self._rooms.values()),
                granted=self._granted,
                waits=self._waits,
                waited=self._waited,
                timeouts=self._timeouts,
            )

    def __repr__(self) -> str:
        return f"TokenBucket(rate={self.rate:g}, burst={self.burst}, name={self.name!r})"

    def _go_at_once(self, cost: int) -> bool:
        if cost.__class__ is not int or not 0 < cost <= self._bucket.burst:
            raise self._refusal(cost)
        with self._lock:
            if self._line.take(cost, self._clock.now()):
                self._granted += cost
                return True
        return False

    def _refusal(self, cost: int) -> Exception:
        if cost.__class__ is not int or cost < 1:
            return InvalidCost(f"a cost is a whole number of permits, 1 or more, not {cost!r}")
        return CostExceedsBurst(
            f"cost {cost} exceeds burst {self.burst} of {self.name}: it could never be granted; "
            "raise burst, or split the call"
        )

    def _retry_after(self, cost: int) -> float:
        with self._lock:
            now = self._clock.now()
            return _span(now, self._line.estimate(cost, now))

    def _join(self, cost: int, priority: int, timeout: float | None, parker: Parker | SyncParker) -> Place:
        with self._lock:
            now = self._clock.now()
            deadline = inf if timeout is None else now + timeout
            # a thread comes on its own, a task with its event loop
            group = cast(Hashable, parker) if parker.domain is None else parker.domain
            place = self._line.join(
                cost, now, owner=parker, group=group, priority=priority, deadline=deadline
            )
            room = self._rooms.setdefault(parker.domain, _Room(place))
            room.places[place] = None
        return place

    def _come(self, place: Place) -> float | None:
        """The owner of a place is here: None if it goes, or the moment until which it waits for a wake-up."""
        with self._lock:
            now = self._clock.now()
            went = self._line.go(place, now)
            if went:
                self._granted += place.cost
                self._waits += 1
                self._waited += now - place.joined
                woken = self._depart(place, now)
            else:
                woken = self._look(now, here=place)
                self._timeouts += place.state is State.EXPIRED
            until = self._watch(place)
        self._wake(woken)
        if went:
            if self._hooks:
                emit(self._hooks, Waited(self.name, place.cost, now - place.joined))
            return None
        if place.ended:
            raise self._ending(place)
        return until

    def _leave(self, place: Place) -> None:
        """The owner of a place gives up."""
        with self._lock:
            self._line.leave(place)
            woken = self._depart(place, self._clock.now())
        self._wake(woken)

    def _depart(self, place: Place, now: float) -> list[Place]:
        """Take a place out of its room, which needs another keeper if it was the keeper; returns whom to
        wake.
        """
        domain = place.owner.domain
        room = self._rooms.get(domain)
        successors: list[Place] = []
        if room is not None and place in room.places:
            del room.places[place]
            if not room.places:
                del self._rooms[domain]
            elif room.keeper is place:
                room.keeper = next(reversed(room.places))
                room.until = -inf  # it finds out itself, as soon as it is awake
                successors.append(room.keeper)
        return successors + self._look(now)

    def _look(self, now: float, here: Place | None = None) -> list[Place]:
        """Look at the line; returns whom to wake: who may go, and the keepers whose timers ring too late."""
        woken = self._line.look(now)
        moment = self._line.next_look(now)
        for room in self._rooms.values():
            if room.keeper is here:
                room.until = moment
            elif moment < room.until:
                room.until = -inf
                woken.append(room.keeper)
        return woken

    def _watch(self, place: Place) -> float:
        """Until when a waiting place may sleep: the keeper of a room has its timer, the others have none."""
        room = self._rooms.get(place.owner.domain)
        return room.until if room is not None and room.keeper is place else inf

    def _wake(self, places: list[Place]) -> None:
        """Wake the owners of places; one whose event loop is closed never comes, so it hands on at once."""
        to_wake = deque(places)
        while to_wake:
            place = to_wake.popleft()
            if not place.owner.unpark():
                with self._lock:
                    self._line.leave(place)
                    to_wake += self._depart(place, self._clock.now())

    def _ending(self, place: Place) -> Exception:
        if place.state is State.REFUSED:
            return self._refusal(place.cost)
        retry_after = self._retry_after(place.cost)
        return AcquireTimeout(
            f"{place.cost} permits of {self.name} do not come in within {place.deadline - place.joined:g} s "
            f"(rate {self.rate:g}/s, burst {self.burst}); they could be there in {retry_after:.3g} s",
            retry_after=retry_after,
        )

    def charge(self, permits: int) -> None:
        """Count `permits` more as taken, as a debt if need be; below zero, give some back (at most to a
        full bucket).
        """
        with self._lock:
            now = self._clock.now()
            self._bucket.charge(permits, now)
            self._granted += permits
            woken = self._look(now)
        self._wake(woken)


@define(eq=False)
class _Room:
    """Those who wait in one event loop, or in threads.

    Attributes:
        keeper: who has the timer.
        places: all of them, in the order in which they joined.
        until: when the keeper's timer rings.
    """

    keeper: Place
    places: dict[Place, None] = field(factory=dict[Place, None])
    until: float = inf


class TokenPermit:
    """The permits of one call, as a context manager of both colours.

    Attributes:
        cost: permits that it took; after `settle`, what the call really cost.
    """

    __slots__ = ("_bucket", "_priority", "_timeout", "cost")

    def __init__(self, bucket: TokenBucket, cost: int, priority: int, timeout: float | None) -> None:
        self._bucket = bucket
        self.cost = cost
        self._priority = priority
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        await self._bucket.acquire(self.cost, priority=self._priority, timeout=self._timeout)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    def __enter__(self) -> Self:
        self._bucket.acquire_sync(self.cost, priority=self._priority, timeout=self._timeout)
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def settle(self, actual: int) -> None:
        """Say what the call really cost, in permits: more is charged, as a debt if need be; less is given
        back.

        Raises:
            InvalidCost: not a whole number, or below zero.
        """
        if actual.__class__ is not int or actual < 0:
            raise InvalidCost(f"a true cost is a whole number of permits, 0 or more, not {actual!r}")
        self._bucket.charge(actual - self.cost)
        self.cost = actual


def checked_rate(rate: float) -> float:
    """The rate, if it is one: a positive, finite number."""
    if isinstance(rate, bool) or not (isfinite(rate) and rate > 0):
        raise ValueError(f"a rate is a positive number of permits a second, not {rate!r}")
    return float(rate)


def checked_burst(burst: int) -> int:
    """The burst, if it is one: a whole number above zero."""
    if burst.__class__ is not int or burst < 1:
        raise ValueError(f"a burst is a whole number of permits, 1 or more, not {burst!r}")
    return burst


def _check_wish(priority: int, timeout: float | None) -> None:
    if priority.__class__ is not int:
        raise ValueError(f"a priority is a whole number, higher goes first, not {priority!r}")
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds, 0 or more, not {timeout!r}")


def _span(now: float, moment: float) -> float:
    """Seconds from `now` that reach `moment`, whatever the rounding."""
    seconds = moment - now
    while now + seconds < moment:
        seconds = nextafter(seconds, inf)
    return seconds

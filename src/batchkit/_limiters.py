"""`TokenBucket`: so many permits a second, so many at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from math import inf
from typing import Self

from batchkit._clock import MONOTONIC
from batchkit._core.bucket import Bucket
from batchkit._core.place import Place, State
from batchkit._events import Hook, RateChanged, emit
from batchkit._gate import GO, Gate
from batchkit._local import LocalLimiter
from batchkit._numbers import check_wish, checked_burst, checked_charge, checked_rate, span
from batchkit._parking import ABSENT, Parker, SyncParker, wait_at, wait_at_sync
from batchkit._reservation import Reservation
from batchkit._values import Decision, LimiterStatistics
from batchkit.abc import Clock
from batchkit.exceptions import InvalidCost


class TokenBucket(LocalLimiter[Bucket]):
    """Lets at most `rate * T + burst` permits go in any `T` seconds, first come first served within a
    priority.

    One object may be shared by threads and by event loops of asyncio and trio; it may be made before any
    of them runs. It is not shared between processes: after a fork each has a bucket of its own, of the same
    rate, with none of the other's waiters.

    Args:
        rate: permits a second, a positive number.
        burst: permits that may go at once after a quiet time, a positive whole number.
        name: what it is called in events and errors.
        hooks: called with each event: `Waited`, `RateChanged`, `Paused`.
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
        bucket = Bucket(checked_rate(rate), checked_burst(burst), clock.now())
        super().__init__(Gate(bucket, name=name, hooks=hooks, patience=patience, clock=clock))

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
        return self.gate.store.rate

    @property
    def burst(self) -> int:
        """Permits at once."""
        return self.gate.store.burst

    def try_acquire(self, cost: int = 1) -> Decision:
        """Go now, or not at all; never waits, and never overtakes those who wait.

        Returns:
            A true decision, or a false one with `retry_after` (seconds).

        Raises:
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
        """
        if cost.__class__ is not int or cost < 1:
            raise self.gate.refusal(cost)
        now = self._now()
        table = self._table
        try:  # the way without the lock; it stands in `acquire` once more, since a call would cost a fifth
            bucket = table.pop()
            taken = bucket.taken
            sure = (now - bucket.since) * bucket.sure_rate
            if taken <= sure:  # it was full
                bucket.since = now
                bucket.before += taken
                bucket.taken = taken = 0
                sure = 0.0
            taken += cost
            if went := taken - bucket.burst <= sure:
                bucket.taken = taken
        except IndexError:
            went = False
        except BaseException:
            table.append(self.gate.store)
            raise
        else:
            table.append(bucket)
        if went:
            return GO
        return self.gate.attempt(cost)

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
        if cost.__class__ is not int or cost < 1:
            raise self.gate.refusal(cost)
        if priority or timeout is not None:
            check_wish(priority, timeout)
        now = self._now()
        table = self._table
        try:  # as in `try_acquire`
            bucket = table.pop()
            taken = bucket.taken
            sure = (now - bucket.since) * bucket.sure_rate
            if taken <= sure:
                bucket.since = now
                bucket.before += taken
                bucket.taken = taken = 0
                sure = 0.0
            taken += cost
            if went := taken - bucket.burst <= sure:
                bucket.taken = taken
        except IndexError:
            went = False
        except BaseException:
            table.append(self.gate.store)
            raise
        else:
            table.append(bucket)
        if not went:
            gate = self.gate
            parker = gate.clock.parker()
            await wait_at(gate.place(cost, priority, timeout, parker), parker, gate.come, gate.abandon)

    def reserve(self, cost: int = 1, *, priority: int = 0) -> Reservation:
        """Take a place in line now, and wait at it later.

        Example:
            ```python
            with bucket.reserve(cost=3) as reservation:
                if reservation.delay > 60:
                    return "come back tomorrow"  # the place is given up, and cost nobody anything
                await reservation.wait()
            ```

        Raises:
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
            ValueError: a priority that is no whole number.
        """
        check_wish(priority, None)
        if cost.__class__ is not int or not 0 < cost <= self.burst:
            raise self.gate.refusal(cost)
        place = Place(cost, ABSENT, object(), priority, absent=True)
        delay = self.gate.alone(self._reserve, place)
        return Reservation(
            cost,
            delay,
            wait=partial(self._wait_reserved, place),
            wait_sync=partial(self._wait_reserved_sync, place),
            cancel=partial(self.gate.leave, place),
        )

    def change(self, *, rate: float | None = None, burst: int | None = None, reason: str = "") -> None:
        """Go on at another rate or burst; those who wait are told at once. What was let go before stays
        counted.

        A waiting call whose cost exceeds the new burst ends with `CostExceedsBurst`.

        Args:
            rate: permits a second.
            burst: permits at once.
            reason: why, in words, for the event.

        Raises:
            ValueError: a rate or a burst that is none.
        """
        new_rate = self.rate if rate is None else checked_rate(rate)
        new_burst = self.burst if burst is None else checked_burst(burst)
        before = (self.rate, self.burst)
        for limiter in self._change(new_rate, new_burst):
            limiter.change(rate=new_rate, burst=new_burst, reason=reason)
        emit(self.gate.hooks, RateChanged(self.name, new_rate, new_burst, *before, reason=reason))

    def charge(self, permits: int) -> None:
        """Count `permits` more as taken, as a debt if need be; below zero, give some back (at most to a full
        bucket).

        Raises:
            InvalidCost: no whole number.
        """
        self.gate.note(partial(self._charge, permits=checked_charge(permits)))

    def drain(self, remaining: int = 0) -> None:
        """Lose the permits that are there but for so many, say because the server says that no more are left.
        With none left, the next call waits until its permits have come in.

        Raises:
            InvalidCost: no whole number, or below zero.
        """
        if checked_charge(remaining) < 0:
            raise InvalidCost(f"there cannot be {remaining} permits left")
        self.gate.alone(self._drain, remaining)

    def end_call(self, cost: int) -> None:
        """A call that took so many permits is over: nothing comes back."""

    def statistics(self) -> LimiterStatistics:
        """What it did so far."""
        return self.gate.alone(self._statistics)

    def __repr__(self) -> str:
        return f"TokenBucket(rate={self.rate:g}, burst={self.burst}, name={self.name!r})"

    async def _wait_reserved(self, place: Place) -> None:
        parker = self.gate.clock.parker()
        self.gate.alone(self._arrive, place, parker)
        await wait_at(place, parker, self.gate.come, self.gate.abandon)

    def _wait_reserved_sync(self, place: Place) -> None:
        parker = self.gate.clock.parker_sync()
        self.gate.alone(self._arrive, place, parker)
        wait_at_sync(place, parker, self.gate.come, self.gate.abandon)

    def _reserve(self, now: float, place: Place) -> float:
        gate = self.gate
        delay = span(now, gate.line.estimate(place.cost, now))
        gate.waiters.enter(place)
        gate.line.join(place, now)
        gate.waiters.look(now)
        return delay

    def _arrive(self, now: float, place: Place, parker: Parker | SyncParker) -> None:
        """The owner of a reserved place is here, to wait from now on."""
        if place.state is State.REFUSED:
            raise self.gate.refusal(place.cost)
        if place.ended or not place.absent:
            raise RuntimeError("this reservation was waited for, or cancelled, before")
        self.gate.waiters.move(place, parker)

    def _charge(self, now: float, permits: int) -> None:
        self.gate.store.charge(permits, now)
        self.gate.waiters.look(now)

    def _new_store(self, now: float, key: Hashable) -> Bucket:
        return Bucket(self.rate, self.burst, now)

    def _drain(self, now: float, remaining: int) -> None:
        self.gate.store.drain(now, remaining)
        self.gate.waiters.look(now)

    def _statistics(self, now: float) -> LimiterStatistics:
        gate = self.gate
        return LimiterStatistics(
            rate=self.rate,
            burst=self.burst,
            available=self.gate.store.available(now) - gate.line.reserved,
            waiting=len(gate.waiters),
            granted=self.gate.store.granted,
            waits=gate.waits,
            waited=gate.waited,
            timeouts=gate.timeouts,
        )

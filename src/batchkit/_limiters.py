"""`TokenBucket`: lock, clock and wake-ups around the pure line and bucket of `_core`.

One object serves threads and event loops at the same time. Every decision is made by `_core`, by one caller
at a time, in about a microsecond and never across a wait; what is left to do (waking others) is done after
that.

While it is quiet (nobody waits, no pause) the bucket lies on a table, a list of at most one. A caller
that is to go picks it up, takes its permits and lays it back: list methods are atomic, and a quarter of the
cost of a lock. Whoever finds the table empty, or too few permits, goes through the lock, under which the
bucket is picked up, too, and laid back only if it is quiet again. So nobody passes those who wait. An
exception that strikes from outside (Ctrl-C) finds the bucket on the table, or off it while the lock is
free, which costs the next caller the way through the lock and nothing else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from functools import partial
from math import inf, isfinite, nextafter
from typing import Concatenate, ParamSpec, Self, TypeVar, cast

from batchkit._clock import MONOTONIC, give_way
from batchkit._core.bucket import Bucket
from batchkit._core.line import Line, Place, State
from batchkit._events import Hook, RateChanged, Waited, emit
from batchkit._parking import ABSENT, Parker, SyncParker
from batchkit._values import Decision, LimiterStatistics
from batchkit._waiting import Waiters
from batchkit.abc import Clock
from batchkit.exceptions import AcquireTimeout, CostExceedsBurst, InvalidCost

Arguments = ParamSpec("Arguments")
R = TypeVar("R")

_GO = Decision(True)


class TokenBucket:
    """Lets at most `rate * T + burst` permits go in any `T` seconds, first come first served within a
    priority.

    One object may be shared by threads and by event loops of asyncio and trio; it may be made before any
    of them runs. It is not shared between processes: after a fork each has a bucket of its own, of the same
    rate, with none of the other's waiters.

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
        self._now = clock.now
        self._bucket = Bucket(checked_rate(rate), checked_burst(burst), clock.now())
        self._patience = checked_seconds("patience", patience)
        self._settlers: dict[int, int] = {}  # by process: the thread that starts anew there
        self._start_anew()
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
        if cost.__class__ is not int or cost < 1:
            raise self._refusal(cost)
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
            table.append(self._bucket)
            raise
        else:
            table.append(bucket)
        if went:
            return _GO
        return self._alone(self._try, cost)

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
            raise self._refusal(cost)
        if priority or timeout is not None:
            _check_wish(priority, timeout)
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
            table.append(self._bucket)
            raise
        else:
            table.append(bucket)
        if not went:
            await self._wait_turn(cost, priority, timeout)

    async def _wait_turn(self, cost: int, priority: int, timeout: float | None) -> None:
        parker = self._clock.parker()
        await self._wait_at(self._place(cost, priority, timeout, parker), parker)

    async def _wait_at(self, place: Place, parker: Parker) -> None:
        try:
            until = self._come(place)
            while until is not None:
                await parker.park(until)
                until = self._come(place)
        except BaseException:
            self._leave(place)
            raise

    def acquire_sync(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """The blocking twin of `acquire`, for threads."""
        if priority or timeout is not None:
            _check_wish(priority, timeout)
        if not self.try_acquire(cost).allowed:
            self._wait_turn_sync(cost, priority, timeout)

    def _wait_turn_sync(self, cost: int, priority: int, timeout: float | None) -> None:
        parker = self._clock.parker_sync()
        self._wait_at_sync(self._place(cost, priority, timeout, parker), parker)

    def _wait_at_sync(self, place: Place, parker: SyncParker) -> None:
        try:
            until = self._come(place)
            while until is not None:
                parker.park_sync(until)
                until = self._come(place)
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
        _check_wish(priority, None)
        if cost.__class__ is not int or not 0 < cost <= self.burst:
            raise self._refusal(cost)
        place = Place(cost, ABSENT, object(), priority, absent=True)
        delay = self._alone(self._reserve, place)
        return Reservation(
            cost,
            delay,
            wait=partial(self._wait_reserved, place),
            wait_sync=partial(self._wait_reserved_sync, place),
            cancel=partial(self._leave, place),
        )

    async def _wait_reserved(self, place: Place) -> None:
        parker = self._clock.parker()
        self._alone(self._arrive, place, parker)
        await self._wait_at(place, parker)

    def _wait_reserved_sync(self, place: Place) -> None:
        parker = self._clock.parker_sync()
        self._alone(self._arrive, place, parker)
        self._wait_at_sync(place, parker)

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
        before = (self.rate, self.burst)
        self._alone(self._change, new_rate, new_burst)
        emit(self._hooks, RateChanged(self.name, new_rate, new_burst, *before))

    def charge(self, permits: int) -> None:
        """Count `permits` more as taken, as a debt if need be; below zero, give some back (at most to a full
        bucket).
        """
        self._alone(self._charge, permits)

    def pause_for(self, seconds: float) -> None:
        """Let nobody go for so long, say because the server asked for it. Permits come in all the same, up to
        the burst; a longer pause that is under way is not cut short.

        Raises:
            ValueError: no finite number of seconds.
        """
        self._alone(self._pause, checked_seconds("a pause", seconds))

    def drain(self) -> None:
        """Lose the permits that are there, say because the server says that none are left: the next call
        waits until its permits have come in.
        """
        self._alone(self._drain)

    def statistics(self) -> LimiterStatistics:
        """What it did so far."""
        return self._alone(self._statistics)

    def __repr__(self) -> str:
        return f"TokenBucket(rate={self.rate:g}, burst={self.burst}, name={self.name!r})"

    def _alone(
        self,
        decide: Callable[Concatenate[float, Arguments], R],
        *args: Arguments.args,
        **named: Arguments.kwargs,
    ) -> R:
        """Decide something at this moment, with line and bucket in hand and nobody else about."""
        if os.getpid() != self._process:
            self._settle_in_a_fork()
        try:
            with self._lock:
                self._pick_up()
                now = self._now()
                try:
                    decided = decide(now, *args, **named)
                finally:
                    to_wake, self._waiters.to_wake = self._waiters.to_wake, []
                    if self._line.quiet(now):
                        self._laid = True
                        self._table.append(self._bucket)
            if to_wake:
                self._wake(to_wake)
        except BaseException:
            with self._lock:
                self._waiters.recount()
            raise
        return decided

    def _pick_up(self) -> None:
        while self._laid:
            try:
                self._table.pop()
                self._laid = False
            except IndexError:  # a caller has it, and is about to lay it back
                give_way()
            except BaseException:
                self._table.append(self._bucket)
                raise

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._line = Line(self._bucket, patience=self._patience)
        self._waiters = Waiters(self._line)
        self._table = [self._bucket]
        self._laid = True  # on the table, or in the hands of a caller that is about to lay it back
        self._process: int = os.getpid()

    def _settle_in_a_fork(self) -> None:
        """The parent's waiters are not here, and its lock may never be free: leave them behind."""
        process, thread = os.getpid(), threading.get_ident()
        if self._settlers.setdefault(process, thread) == thread:
            paused_until = self._line.paused_until
            self._start_anew()
            self._line.pause(paused_until)
        while self._process != process:
            give_way()

    def _try(self, now: float, cost: int) -> Decision:
        if cost > self.burst:
            raise self._refusal(cost)
        if not self._line.quiet(now):
            self._waiters.look(now)
        if self._line.take(cost, now):
            return _GO
        return Decision(False, _span(now, self._line.estimate(cost, now)))

    def _reserve(self, now: float, place: Place) -> float:
        delay = _span(now, self._line.estimate(place.cost, now))
        self._waiters.enter(place)
        self._line.join(place, now)
        self._waiters.look(now)
        return delay

    def _arrive(self, now: float, place: Place, parker: Parker | SyncParker) -> None:
        """The owner of a reserved place is here, to wait from now on."""
        if place.ended or not place.absent:
            raise RuntimeError("this reservation was waited for, or cancelled, before")
        self._waiters.move(place, parker)

    def _change(self, now: float, rate: float, burst: int) -> None:
        self._waiters.to_wake += self._line.change(rate, burst, now)
        self._waiters.look(now)

    def _charge(self, now: float, permits: int) -> None:
        self._bucket.charge(permits, now)
        self._waiters.look(now)

    def _pause(self, now: float, seconds: float) -> None:
        self._line.pause(now + seconds)
        self._waiters.look(now)

    def _drain(self, now: float) -> None:
        self._bucket.drain(now)
        self._waiters.look(now)

    def _statistics(self, now: float) -> LimiterStatistics:
        return LimiterStatistics(
            rate=self.rate,
            burst=self.burst,
            available=self._bucket.available(now) - self._line.reserved,
            waiting=len(self._waiters),
            granted=self._bucket.granted,
            waits=self._waits,
            waited=self._waited,
            timeouts=self._timeouts,
        )

    def _place(self, cost: int, priority: int, timeout: float | None, parker: Parker | SyncParker) -> Place:
        if cost > self.burst:
            raise self._refusal(cost)
        # a thread comes on its own, a task with its event loop
        group = cast(Hashable, parker) if parker.domain is None else parker.domain
        return Place(cost, parker, group, priority, inf if timeout is None else timeout)

    def _come(self, place: Place) -> float | None:
        """The owner of a place is here: None if it goes, or the moment until which it waits for a wake-up."""
        until = self._alone(self._go, place)
        if until is None:
            if place.state is State.GONE and self._hooks:
                emit(self._hooks, Waited(self.name, place.cost, place.waited))
            return None
        if place.ended:
            raise self._ending(place)
        return until

    def _go(self, now: float, place: Place) -> float | None:
        if place.state is State.NEW:
            if self._line.take(place.cost, now):
                return None
            self._waiters.enter(place)
            if not self._line.join(place, now):
                return inf
        if self._line.go(place, now):
            self._waits += 1
            self._waited += place.waited
            self._waiters.depart(place, now)
            return None
        self._waiters.look(now, here=place)
        self._timeouts += place.state is State.EXPIRED
        return self._waiters.until(place)

    def _leave(self, place: Place) -> None:
        """The owner of a place gives up."""
        try:
            self._alone(self._depart, place)
        except BaseException:  # Ctrl-C, just now: it still has to go
            self._alone(self._depart, place)
            raise

    def _depart(self, now: float, place: Place) -> None:
        self._line.leave(place)
        self._waiters.depart(place, now)

    def _wake(self, places: list[Place]) -> None:
        """Wake the owners of places; one whose event loop is closed never comes, so it hands on at once."""
        for place in places:
            if not place.owner.unpark():
                self._alone(self._depart, place)

    def _refusal(self, cost: int) -> Exception:
        if cost.__class__ is not int or cost < 1:
            return InvalidCost(f"a cost is a whole number of permits, 1 or more, not {cost!r}")
        return CostExceedsBurst(
            f"cost {cost} exceeds burst {self.burst} of {self.name}: it could never be granted; "
            "raise burst, or split the call"
        )

    def _ending(self, place: Place) -> Exception:
        if place.state is State.REFUSED:
            return self._refusal(place.cost)
        retry_after = self._alone(lambda now: _span(now, self._line.estimate(place.cost, now)))
        return AcquireTimeout(
            f"{place.cost} permits of {self.name} do not come in within {place.timeout:g} s "
            f"(rate {self.rate:g}/s, burst {self.burst}); they could be there in {retry_after:.3g} s",
            retry_after=retry_after,
        )


class Reservation:
    """A place in line, taken now and waited at later; a context manager that gives it up if it was not used.

    It takes no permits before its owner goes, so that giving it up needs no refund. When its moment comes
    and nobody waits at it, its permits are kept for a hundredth of a second; then others may pass, and it is
    first in line again as soon as its owner comes.

    Attributes:
        cost: permits.
        delay: seconds after which it could go, counted from when it was made, if nobody ahead leaves and no
            higher priority comes.
    """

    __slots__ = ("_cancel", "_wait", "_wait_sync", "cost", "delay")

    def __init__(
        self,
        cost: int,
        delay: float,
        *,
        wait: Callable[[], Awaitable[None]],
        wait_sync: Callable[[], None],
        cancel: Callable[[], None],
    ) -> None:
        self.cost = cost
        self.delay = delay
        self._wait = wait
        self._wait_sync = wait_sync
        self._cancel = cancel

    async def wait(self) -> None:
        """Return when the caller may go.

        Raises:
            CostExceedsBurst: the burst was lowered below its cost meanwhile.
            RuntimeError: it was waited for, or cancelled, before.
        """
        await self._wait()

    def wait_sync(self) -> None:
        """The blocking twin of `wait`, for threads."""
        self._wait_sync()

    def cancel(self) -> None:
        """Give the place up; nothing happens if it was used."""
        self._cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"Reservation(cost={self.cost}, delay={self.delay:.3g})"


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


def checked_seconds(name: str, seconds: float) -> float:
    """The seconds, if they are some: a finite number, 0 or more."""
    if isinstance(seconds, bool) or not 0 <= seconds < inf:
        raise ValueError(f"{name} is a number of seconds, 0 or more, not {seconds!r}")
    return seconds


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

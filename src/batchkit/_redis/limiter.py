"""`RedisDistributedLimiter`: one quota for all processes of a fleet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import Self

from batchkit._clock import MONOTONIC
from batchkit._core.controller import Sample, SharedController
from batchkit._events import Hook, RateChanged, emit
from batchkit._numbers import checked_burst, checked_charge, checked_rate, checked_seconds
from batchkit._redis.fleet import FleetLimiter
from batchkit._redis.gate import BucketGate, BucketTerms
from batchkit._redis.learning import Learning
from batchkit._redis.names import part
from batchkit._redis.ration import Ration
from batchkit._redis.wire import Orders
from batchkit._values import FleetStatistics
from batchkit.abc import Clock
from batchkit.exceptions import InvalidCost


class RedisDistributedLimiter(FleetLimiter[Ration, BucketGate]):
    """Lets at most `rate * T + burst` permits go in any `T` seconds, in all processes that share a Redis (or
    Valkey) and a key.

    One object may be shared by threads and by event loops of asyncio and trio, may be made before any of them
    runs, and survives a fork. Its calls share round trips: what is waited for together is asked for together,
    and where permits are short they are booked a little ahead, so that a command brings many.

    Args:
        url_or_client: such as "redis://localhost:6379", or a `redis.Redis` or `redis.cluster.RedisCluster`,
            whose settings are taken over (address, TLS, user, Sentinel) with connections of our own.
        key: what the quota is called in Redis: limiters of the same key share it.
        rate: permits a second, a positive number.
        burst: permits that may go at once after a quiet time, a positive whole number. Where processes differ
            on rate or burst, what the last one that started says counts.
        on_unavailable: what happens while Redis cannot be asked: "raise" `LimiterUnavailable`; "deny", as if
            no permit were there; "allow" everybody; or "local": go on with this process's share of the quota.
        timeout: seconds within which Redis has to answer, or it counts as unavailable.
        horizon: seconds that permits may be booked ahead; more of it saves commands where permits are short,
            and lets calls of one process overtake those of others by up to that time.
        cold_start: whether a key that Redis does not know starts empty, so that a Redis that lost its data
            does not let a second burst go.
        lease: whether a busy process may take more permits than its calls wait for, for a few hundredths of a
            second, where there are plenty.
        tag: the hash tag, for a cluster: what has the same one lies on the same node. By default the key.
        prefix: what the names of all keys in Redis start with.
        name: what it is called in events and errors; by default the key.
        hooks: called with each event: `Waited`, `RateChanged`, `Paused`, `Unavailable`, `Reconnected`.
        patience: seconds of waiting that outweigh one step of priority, so that low priorities move, too.
        clock: what time it is; only how long something takes is told to Redis.

    Raises:
        ValueError: a number that is none, an empty key, no URL of Redis.
        TypeError: neither a URL nor a blocking client.

    Example:
        ```python
        limiter = RedisDistributedLimiter("redis://localhost", "openai", rate=2, burst=5)
        async with limiter:
            await client.responses.create(...)
        ```
    """

    def __init__(
        self,
        url_or_client: object,
        key: str,
        *,
        rate: float,
        burst: int,
        on_unavailable: str = "raise",
        timeout: float = 1.0,
        horizon: float = 0.05,
        cold_start: bool = False,
        lease: bool = True,
        tag: str | None = None,
        prefix: str = "batchkit",
        name: str | None = None,
        hooks: Iterable[Hook] = (),
        patience: float = 10.0,
        clock: Clock = MONOTONIC,
    ) -> None:
        terms = BucketTerms(
            prefix,
            key,
            tag,
            cold_start,
            timeout,
            on_unavailable,
            checked_rate(rate),
            checked_burst(burst),
            checked_seconds("horizon", horizon),
            lease,
        )
        super().__init__(
            url_or_client,
            BucketGate,
            Ration(terms.rate, terms.burst),
            terms,
            name=name,
            hooks=hooks,
            patience=patience,
            clock=clock,
        )

    @property
    def rate(self) -> float:
        """Permits a second of the fleet, as last heard."""
        return self.gate.store.rate

    @property
    def burst(self) -> int:
        """Permits at once of the fleet, as last heard."""
        return self.gate.store.burst

    def _goes_at_once(self, cost: int) -> bool:
        """Go with permits that this process has leased, without asking anybody."""
        if cost.__class__ is not int or cost < 1:
            raise self.gate.refusal(cost)
        leases = self.gate.leases
        if not leases:
            return False
        now = self._now()
        try:
            lease = leases.pop()
        except IndexError:  # somebody else is taking from it
            return False
        left = lease.left - cost
        if went := left >= 0 and now <= lease.until:
            lease.left = left
        leases.append(lease)
        if left < lease.low:
            self.gate.renew(lease)
        return went

    def change(self, *, rate: float | None = None, burst: int | None = None, reason: str = "") -> None:
        """Have the whole fleet go on at another rate or burst; those who wait here are told at once, the
        others when they ask next. What was let go before stays counted.

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
        self.gate.order_change(new_rate, new_burst)
        for limiter in self._change(new_rate, new_burst):
            limiter.change(rate=new_rate, burst=new_burst, reason=reason)
        emit(self.gate.hooks, RateChanged(self.name, new_rate, new_burst, *before, reason=reason))

    def for_key(self, key: Hashable) -> Self:
        """The limiter of a key, such as an account: one quota of its own for each, of the same size as this
        one, shared by the fleet.

        Whoever asks for the same key gets the same limiter, as long as somebody holds it or it holds permits.
        A change of this limiter changes those of its keys that this process uses.

        Args:
            key: a str, bytes, int, or a tuple of those.

        Raises:
            TypeError: this is the limiter of a key itself, or a key of another kind.
        """
        return super().for_key(key)

    def charge(self, permits: int) -> None:
        """Count `permits` more as taken, as a debt if need be; below zero, give some back (at most to a full
        bucket). Redis is told with the next question.

        Raises:
            InvalidCost: no whole number.
        """
        self.gate.note(partial(self._charge, permits=checked_charge(permits)))

    def drain(self, remaining: int = 0) -> None:
        """Have the fleet lose the permits that are there but for so many, say because the server says that no
        more are left.

        Raises:
            InvalidCost: no whole number, or below zero.
        """
        if checked_charge(remaining) < 0:
            raise InvalidCost(f"there cannot be {remaining} permits left")
        self.gate.alone(self._drain, remaining)

    def share(self, controller: SharedController) -> None:
        """Have the fleet's rate follow a controller, which goes on from what those of the other processes
        know.

        Raises:
            ValueError: it follows another one.
        """
        if self.gate.learning is not None:
            raise ValueError(f"{self.name} follows a controller already: one AdaptiveLimiter is enough")
        self.gate.learning = Learning(controller)

    def report(self, sample: Sample) -> None:
        """Tell the controller what became of a call."""
        self.gate.note(partial(self._report, sample=sample))

    def end_call(self, cost: int) -> None:
        """A call that took so many permits is over: nothing comes back."""

    def statistics(self) -> FleetStatistics:
        """What this process did so far, and what it last heard of the fleet."""
        return self.gate.alone(self._statistics)

    def __repr__(self) -> str:
        return f"RedisDistributedLimiter({self.name!r}, rate={self.rate:g}, burst={self.burst})"

    def _charge(self, now: float, permits: int) -> None:
        self.gate.store.charge(permits, now)
        self.gate.waiters.look(now)

    def _report(self, now: float, sample: Sample) -> None:
        if self.gate.learning is not None:
            self.gate.learning.add(sample)

    def _drain(self, now: float, remaining: int) -> None:
        self.gate.store.orders.add(Orders(drain=remaining))

    def _new_store(self, now: float, key: Hashable) -> Ration:
        return Ration(self.rate, self.burst, "" if key is None else part(key))

    def _statistics(self, now: float) -> FleetStatistics:
        gate = self.gate
        ration = gate.store
        return FleetStatistics(
            rate=ration.rate,
            burst=ration.burst,
            available=ration.available(now),
            waiting=gate.waiting,
            granted=gate.granted,
            waits=gate.waits,
            waited=gate.waited,
            timeouts=gate.timeouts,
            asked=gate.asked,
            held=ration.total,
            processes=gate.members,
            unavailable=gate.lost is not None,
        )

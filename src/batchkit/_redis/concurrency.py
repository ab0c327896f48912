"""`RedisConcurrencyLimiter`: how many calls of a fleet are under way at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Self
from weakref import ref

from batchkit._clock import MONOTONIC
from batchkit._concurrency import SlotLimiter
from batchkit._events import Hook, LimitChanged, emit
from batchkit._numbers import checked_burst, checked_seconds
from batchkit._redis.fleet import FleetLimiter
from batchkit._redis.names import part
from batchkit._redis.slots import Holding
from batchkit._redis.slots_gate import SlotsGate, SlotsTerms
from batchkit._values import FleetConcurrencyStatistics
from batchkit.abc import Clock


class RedisConcurrencyLimiter(FleetLimiter[Holding, SlotsGate], SlotLimiter[Holding]):
    """Lets at most `limit` calls be under way at once, in all processes that share a Redis (or Valkey) and a
    key; first come first served within a priority.

    A call takes its permits when it goes and gives them back when it ends: use `permit`, or the limiter
    itself, as a context manager, or call `release` for each `acquire` or granted `try_acquire`.

    A process keeps the places of its calls for as long as it lives, however long they take: a thread of its
    own says so to Redis three times within a lease. The places of a process that died are free after the
    lease. A process that stood still for longer than that, such as a suspended machine, goes on with the
    calls that it had under way; the fleet then lets nobody go until there are fewer of them than the limit.

    Args:
        url_or_client: as for `RedisDistributedLimiter`.
        key: what these places are called in Redis: limiters of the same key share them.
        limit: permits that may be out at once, a positive whole number. Where processes differ, what the last
            one that started says counts.
        lease: seconds of silence after which the places of a process are free.
        on_unavailable: what happens while Redis cannot be asked: "raise" `LimiterUnavailable`; "deny", as if
            no permit were there; "allow" everybody; or "local": go on with this process's share of the limit.
        timeout: seconds within which Redis has to answer, or it counts as unavailable.
        cold_start: whether nobody goes for the time of a lease where Redis does not know the key, so that a
            Redis that lost its data does not give places away in which calls are still under way.
        tag: the hash tag, for a cluster: what has the same one lies on the same node. By default the key.
        prefix: what the names of all keys in Redis start with.
        name: what it is called in events and errors; by default the key.
        hooks: called with each event: `Waited`, `LimitChanged`, `Paused`, `Unavailable`, `Reconnected`.
        patience: seconds of waiting that outweigh one step of priority, so that low priorities move, too.
        clock: what time it is; only how long something takes is told to Redis.

    Raises:
        ValueError: a number that is none, an empty key, no URL of Redis, a lease that is not longer than
            the timeout.
        TypeError: neither a URL nor a blocking client.

    Example:
        ```python
        speech = RedisConcurrencyLimiter("redis://localhost", "speech", 3)
        async with speech:
            await speak("好")
        ```
    """

    def __init__(
        self,
        url_or_client: object,
        key: str,
        limit: int,
        *,
        lease: float = 10.0,
        on_unavailable: str = "raise",
        timeout: float = 1.0,
        cold_start: bool = False,
        tag: str | None = None,
        prefix: str = "batchkit",
        name: str | None = None,
        hooks: Iterable[Hook] = (),
        patience: float = 10.0,
        clock: Clock = MONOTONIC,
    ) -> None:
        if checked_seconds("lease", lease) <= timeout:
            raise ValueError(f"a lease of {lease:g} s is not longer than the timeout of {timeout:g} s")
        limit = checked_burst(limit, "a limit")
        terms = SlotsTerms(prefix, key, tag, cold_start, timeout, on_unavailable, limit, lease)
        super().__init__(
            url_or_client,
            SlotsGate,
            Holding(limit),
            terms,
            name=name,
            hooks=hooks,
            patience=patience,
            clock=clock,
        )
        self.gate.limiter = ref(self)

    def change(self, *, limit: int, reason: str = "") -> None:
        """Have the whole fleet go on with another limit; those who wait here are told at once, the others
        when they ask next. Calls under way are not stopped.

        Args:
            limit: permits that may be out at once.
            reason: why, in words, for the event.

        Raises:
            ValueError: a limit that is none.
        """
        before = self.limit
        self.gate.order_change(checked_burst(limit, "a limit"))
        for limiter in self._change(0.0, limit):
            limiter.change(limit=limit, reason=reason)
        emit(self.gate.hooks, LimitChanged(self.name, limit, before, reason))

    def for_key(self, key: Hashable) -> Self:
        """The limiter of a key, such as an account: places of its own for each, as many as this one has,
        shared by the fleet.

        Whoever asks for the same key gets the same limiter, as long as somebody holds it or its calls are
        under way. A change of this limiter changes those of its keys that this process uses.

        Args:
            key: a str, bytes, int, or a tuple of those.

        Raises:
            TypeError: this is the limiter of a key itself, or a key of another kind.
        """
        return super().for_key(key)

    def statistics(self) -> FleetConcurrencyStatistics:
        """What this process did so far, and what it last heard of the fleet."""
        return self.gate.alone(self._statistics)

    def __repr__(self) -> str:
        return f"RedisConcurrencyLimiter({self.name!r}, {self.limit})"

    def _new_store(self, now: float, key: Hashable) -> Holding:
        return Holding(self.limit, "" if key is None else part(key))

    def _around(self, store: Holding) -> Self:
        limiter = super()._around(store)
        limiter.gate.limiter = ref(limiter)
        return limiter

    def _statistics(self, now: float) -> FleetConcurrencyStatistics:
        slots, gate = self.gate.store, self.gate
        return FleetConcurrencyStatistics(
            limit=slots.burst,
            available=round(slots.available(now)) - gate.line.reserved,
            waiting=gate.waiting,
            granted=slots.granted,
            waits=gate.waits,
            waited=gate.waited,
            timeouts=gate.timeouts,
            asked=gate.asked,
            held=slots.held,
            processes=gate.members,
            unavailable=gate.lost is not None,
        )

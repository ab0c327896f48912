"""Who may call, and when: the quota of each service, shared by the whole fleet through Redis.

A worker asks for a limiter by the name of the service, and gets one that lets all workers together go as fast
as the quota allows, the most urgent call first; that slows down when the service refuses after all; and that
waits while Redis is away. `LocalLimits` is the same for one process without Redis.
"""

from types import TracebackType
from typing import Protocol, Self

from attrs import define, field, frozen

from batchkit import (
    AdaptiveLimiter,
    ConcurrencyLimiter,
    RedisConcurrencyLimiter,
    RedisDistributedLimiter,
    TokenBucket,
    all_of,
)
from batchkit.abc import Limiter
from batchkit.presets import Quota

SLOWEST = 1 / 20  # of the quota: as low as refusals may bring the rate
PATIENCE = (
    60.0  # seconds of waiting that outweigh one step of priority; between two priorities lie ten or more
)


@frozen
class Limit:
    """What a service allows, as its clients may use it.

    Attributes:
        service: its name.
        quota: on the side of the service, at the speed at which it runs.
        jitter: seconds by which the network delays one call more than the next.
        at_once: calls under way at once; None if that is not limited.
    """

    service: str
    quota: Quota
    jitter: float
    at_once: int | None = None

    @property
    def burst(self) -> int:
        """Permits at once of a client: fewer than the quota's, since calls arrive closer together than they
        were sent.
        """
        return self.quota.bucket(jitter=self.jitter).burst


class Limits(Protocol):
    """Makes the limiters of a worker; closes them at the end of a block."""

    def limiter(self, limit: Limit) -> Limiter:
        """The limiter of a service."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@define(eq=False)
class FleetLimits:
    """Quotas that all processes share which use the same Redis and the same prefix."""

    redis_url: str
    prefix: str
    _opened: list[RedisDistributedLimiter | RedisConcurrencyLimiter] = field(factory=list, init=False)

    def limiter(self, limit: Limit) -> Limiter:
        """The limiter of a service."""
        rate = limit.quota.rate
        fleet = RedisDistributedLimiter(
            self.redis_url,
            limit.service,
            rate=rate,
            burst=limit.burst,
            on_unavailable="deny",  # who waits goes on when Redis is back
            tag=limit.service,
            prefix=self.prefix,
            patience=PATIENCE,
        )
        self._opened.append(fleet)
        calls = AdaptiveLimiter(fleet, min_rate=rate * SLOWEST, max_rate=rate)
        if limit.at_once is None:
            return calls
        slots = RedisConcurrencyLimiter(
            self.redis_url,
            f"{limit.service}:at-once",
            limit.at_once,
            on_unavailable="deny",
            tag=limit.service,
            prefix=self.prefix,
            patience=PATIENCE,
        )
        self._opened.append(slots)
        return all_of(calls=calls, at_once=slots)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for limiter in self._opened:
            await limiter.aclose()


@frozen
class LocalLimits:
    """Quotas that one process has to itself."""

    def limiter(self, limit: Limit) -> Limiter:
        """The limiter of a service."""
        calls = TokenBucket(limit.quota.rate, limit.burst, name=limit.service, patience=PATIENCE)
        if limit.at_once is None:
            return calls
        slots = ConcurrencyLimiter(limit.at_once, name=f"{limit.service}:at-once", patience=PATIENCE)
        return all_of(calls=calls, at_once=slots)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

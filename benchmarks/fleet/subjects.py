"""What is measured over Redis: the least that a round trip costs, batchkit, and the peers.

Each peer is set up as a token bucket, or as the nearest that it has, in the way that serves its figures best,
with the client of redis-py in its default settings. What is needed is imported when it is made: `worker` does
that, in a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import redis
import redis.asyncio

from batchkit import RedisDistributedLimiter
from benchmarks.frame import Role

Colour = Literal["sync", "asyncio"]
Call = Callable[[], Any]  # is called, or awaited

POLL = 0.01  # seconds between two tries of a library that cannot wait
FOR_EVER = 3600.0  # seconds; throttled-py wants a timeout from those who wait
FLOOR = "EVALSHA of return 1"


@dataclass(frozen=True)
class Quota:
    """What is allowed for each key.

    Attributes:
        url: of the server.
        rate: permits a second.
        burst: permits at once.
    """

    url: str
    rate: float
    burst: int


@dataclass(frozen=True)
class Subject:
    """A way to get a permit.

    Attributes:
        name: with the algorithm, where the library has several.
        role: see `Case`.
        make: makes for each key what is called or awaited for a permit of it.
        module: what has to be installed.
        tries: whether the call may come back without a permit, with something false.
    """

    name: str
    role: Role
    make: Callable[[Quota, Sequence[str]], Sequence[Call]]
    module: str = "redis"
    tries: bool = False

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


def _ours(method: str = "acquire", **options: Any) -> Callable[[Quota, Sequence[str]], Sequence[Call]]:
    def make(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
        limiters = [
            RedisDistributedLimiter(quota.url, key, rate=quota.rate, burst=quota.burst, **options)
            for key in keys
        ]
        return [getattr(limiter, method) for limiter in limiters]

    return make


def _ours_by_key(**options: Any) -> Callable[[Quota, Sequence[str]], Sequence[Call]]:
    def make(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
        family = RedisDistributedLimiter(quota.url, "family", rate=quota.rate, burst=quota.burst, **options)
        return [family.for_key(key).acquire for key in keys]

    return make


# the floors


def _ping(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    return [redis.Redis.from_url(quota.url).ping] * len(keys)


def _ping_async(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    return [redis.asyncio.Redis.from_url(quota.url).ping] * len(keys)


def _evalsha(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    client = redis.Redis.from_url(quota.url)
    return [partial(client.evalsha, _loaded(client), 0)] * len(keys)


def _evalsha_async(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    with redis.Redis.from_url(quota.url) as client:
        digest = _loaded(client)
    return [partial(redis.asyncio.Redis.from_url(quota.url).evalsha, digest, 0)] * len(keys)


def _loaded(client: redis.Redis) -> str:
    digest: Any = client.script_load("return 1")
    return str(digest)


# limits: no token bucket, no burst apart from the rate, no way to wait


def _limits(strategy: str) -> Callable[[Quota, Sequence[str]], Sequence[Call]]:
    def make(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
        from limits import RateLimitItemPerSecond, storage, strategies

        limiter = getattr(strategies, strategy)(storage.RedisStorage(quota.url))
        item = RateLimitItemPerSecond(round(quota.rate), 1)
        return [partial(_polled, partial(limiter.hit, item, key)) for key in keys]

    return make


def _limits_async(strategy: str) -> Callable[[Quota, Sequence[str]], Sequence[Call]]:
    def make(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
        from limits import RateLimitItemPerSecond
        from limits.aio import storage, strategies

        store = storage.RedisStorage(f"async+{quota.url}", implementation="redispy")
        limiter = getattr(strategies, strategy)(store)
        item = RateLimitItemPerSecond(round(quota.rate), 1)
        return [partial(_polled_async, partial(limiter.hit, item, key)) for key in keys]

    return make


def _polled(hit: Callable[[], bool]) -> None:
    while not hit():
        time.sleep(POLL)


async def _polled_async(hit: Callable[[], Awaitable[bool]]) -> None:
    while not await hit():  # noqa: ASYNC110 - another process is waited for
        await asyncio.sleep(POLL)


# throttled-py


def _throttled(algorithm: str) -> Callable[[Quota, Sequence[str]], Sequence[Call]]:
    def make(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
        from throttled import RedisStore, Throttled, per_duration

        size = per_duration(timedelta(seconds=1), round(quota.rate), quota.burst)
        limiter = Throttled(using=algorithm, quota=size, store=RedisStore(quota.url), timeout=FOR_EVER)
        return [partial(limiter.limit, key) for key in keys]

    return make


def _throttled_async(algorithm: str) -> Callable[[Quota, Sequence[str]], Sequence[Call]]:
    def make(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
        from throttled import per_duration
        from throttled.asyncio import RedisStore, Throttled

        size = per_duration(timedelta(seconds=1), round(quota.rate), quota.burst)
        limiter = Throttled(using=algorithm, quota=size, store=RedisStore(quota.url), timeout=FOR_EVER)
        return [partial(limiter.limit, key) for key in keys]

    return make


# pyrate-limiter: a bucket for each key; by default it sleeps 50 ms longer than it has to


def _pyrate_limiter(quota: Quota, keys: Sequence[str], client: Any) -> Any:
    from pyrate_limiter import BucketFactory, Limiter, Rate, RateItem, StateBucket, TokenBucket
    from pyrate_limiter.buckets.redis_state import RedisStateStore

    class OneForEach(BucketFactory):
        def wrap_item(self, name: str, weight: int = 1) -> RateItem:
            return RateItem(name, time.time_ns() // 1_000_000, weight=weight)

        def get(self, item: RateItem) -> StateBucket:
            return buckets[item.name]

    rates = [Rate(round(quota.rate), 1000, quota.burst)]
    buckets = {key: StateBucket(rates, TokenBucket(), RedisStateStore(client, key)) for key in keys}
    return Limiter(OneForEach(), buffer_ms=0)


def _pyrate(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    limiter = _pyrate_limiter(quota, keys, redis.Redis.from_url(quota.url))
    return [partial(limiter.try_acquire, key) for key in keys]


def _pyrate_async(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    limiter = _pyrate_limiter(quota, keys, redis.asyncio.Redis.from_url(quota.url))
    return [partial(limiter.try_acquire_async, key) for key in keys]


# steindamm, and redis-rate-limiters, of which it is a fork: a bucket for each key


def _steindamm(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    from steindamm import SyncTokenBucket

    client = redis.Redis.from_url(quota.url)
    return [
        SyncTokenBucket.create(connection=client, name=key, **_steindamm_size(quota)).__enter__
        for key in keys
    ]


def _steindamm_async(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    from steindamm import AsyncTokenBucket

    client = redis.asyncio.Redis.from_url(quota.url)
    return [
        AsyncTokenBucket.create(connection=client, name=key, **_steindamm_size(quota)).__aenter__
        for key in keys
    ]


def _steindamm_size(quota: Quota) -> dict[str, Any]:
    return {"capacity": quota.burst, "refill_frequency": 1 / quota.rate, "max_sleep": 0}


def _redis_rate_limiters(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    from limiters import SyncTokenBucket

    client = redis.Redis.from_url(quota.url)
    return [SyncTokenBucket(client, key, **_slots(quota)).__enter__ for key in keys]


def _redis_rate_limiters_async(quota: Quota, keys: Sequence[str]) -> Sequence[Call]:
    from limiters import AsyncTokenBucket

    client = redis.asyncio.Redis.from_url(quota.url)
    return [AsyncTokenBucket(client, key, **_slots(quota)).__aenter__ for key in keys]


def _slots(quota: Quota) -> dict[str, Any]:
    """After each refill it lets everybody sleep for 20 ms: it is refilled as seldom as the burst allows."""
    if quota.burst >= quota.rate:
        return {"capacity": quota.burst, "refill_frequency": 1.0, "refill_amount": round(quota.rate)}
    return {"capacity": quota.burst, "refill_frequency": 1 / quota.rate, "refill_amount": 1}


SLIDING, FIXED = "SlidingWindowCounterRateLimiter", "FixedWindowRateLimiter"

FLOORS: dict[Colour, Sequence[Subject]] = {
    "sync": [Subject(FLOOR, "floor", _evalsha), Subject("PING", "floor", _ping)],
    "asyncio": [Subject(FLOOR, "floor", _evalsha_async), Subject("PING", "floor", _ping_async)],
}
PEERS: dict[Colour, Sequence[Subject]] = {
    "sync": [
        Subject("limits, fixed window", "peer", _limits(FIXED), "limits"),
        Subject("limits, sliding window", "peer", _limits(SLIDING), "limits"),
        Subject("pyrate-limiter, token bucket", "peer", _pyrate, "pyrate_limiter"),
        Subject("redis-rate-limiters", "peer", _redis_rate_limiters, "limiters"),
        Subject("steindamm", "peer", _steindamm, "steindamm"),
        Subject("throttled-py, GCRA", "peer", _throttled("gcra"), "throttled"),
        Subject("throttled-py, token bucket", "peer", _throttled("token_bucket"), "throttled"),
    ],
    "asyncio": [
        Subject("limits, fixed window", "peer", _limits_async(FIXED), "limits"),
        Subject("limits, sliding window", "peer", _limits_async(SLIDING), "limits"),
        Subject("pyrate-limiter, token bucket", "peer", _pyrate_async, "pyrate_limiter"),
        Subject("redis-rate-limiters", "peer", _redis_rate_limiters_async, "limiters"),
        Subject("steindamm", "peer", _steindamm_async, "steindamm"),
        Subject("throttled-py, GCRA", "peer", _throttled_async("gcra"), "throttled"),
        Subject("throttled-py, token bucket", "peer", _throttled_async("token_bucket"), "throttled"),
    ],
}
OURS: dict[Colour, Sequence[Subject]] = {
    "sync": [
        Subject("batchkit", "batchkit", _ours("acquire_sync")),
        Subject("batchkit, no lease", "batchkit", _ours("acquire_sync", lease=False)),
        Subject("batchkit, try", "batchkit", _ours("try_acquire"), tries=True),
        Subject("batchkit, try, no lease", "batchkit", _ours("try_acquire", lease=False), tries=True),
    ],
    "asyncio": [
        Subject("batchkit", "batchkit", _ours()),
        Subject("batchkit, no lease", "batchkit", _ours(lease=False)),
    ],
}
HORIZONS: Sequence[Subject] = [
    Subject(f"batchkit, horizon {horizon * 1000:.0f} ms", "batchkit", _ours(horizon=horizon))
    for horizon in (0.02, 0.2)  # it is 50 ms by default
]
BY_KEY: Sequence[Subject] = [
    Subject("batchkit, for_key", "batchkit", _ours_by_key()),
    Subject("batchkit, for_key, no lease", "batchkit", _ours_by_key(lease=False)),
]


def find(colour: Colour, name: str) -> Subject:
    """The subject of that name.

    Raises:
        LookupError: there is none.
    """
    for subject in [*FLOORS[colour], *OURS[colour], *PEERS[colour], *HORIZONS, *BY_KEY]:
        if subject.name == name:
            return subject
    raise LookupError(f"nobody is called {name!r}")

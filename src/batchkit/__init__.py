"""Run a queue of rate-limited API calls as fast as the quota allows: never over it, nothing lost, nothing
asked twice.
"""

from typing import TYPE_CHECKING

from batchkit._adaptive import AdaptiveLimiter
from batchkit._batcher import Batcher
from batchkit._cache import TTLCache
from batchkit._cached import CachedAsyncFunction, CachedFunction, cached
from batchkit._call import CallInfo, current_call
from batchkit._concurrency import ConcurrencyLimiter
from batchkit._events import (
    BatchSplit,
    CallFinished,
    CallStarted,
    CircuitChanged,
    DecodeFailed,
    Event,
    Hook,
    ItemFinished,
    ItemRetried,
    LimitChanged,
    Paused,
    PrefetchFailed,
    RateChanged,
    Reconnected,
    RunFinished,
    RunStarted,
    Throttled,
    Unavailable,
    Waited,
)
from batchkit._executor import BatchedExecutor, batched
from batchkit._groups import AllOf, all_of
from batchkit._limited import limited
from batchkit._limiters import TokenBucket
from batchkit._reservation import Reservation
from batchkit._running.signals import drain_on_signal
from batchkit._running.streams import OutcomeStream, SyncOutcomeStream
from batchkit._values import (
    CacheStatistics,
    CheckpointStatistics,
    ConcurrencyStatistics,
    Decision,
    Entry,
    FleetConcurrencyStatistics,
    FleetStatistics,
    LimiterStatistics,
    Outcome,
    RunReport,
    TierStatistics,
)
from batchkit.breaker import CircuitBreaker
from batchkit.checkpoints import SQLiteCheckpoint
from batchkit.exceptions import (
    AcquireTimeout,
    BatchFailed,
    BatchkitError,
    CallCancelled,
    CheckpointError,
    CheckpointLocked,
    CircuitOpen,
    CodecFailed,
    CostExceedsBurst,
    FailedEarlier,
    InvalidCost,
    LimiterClosed,
    LimiterUnavailable,
    LoadFailed,
    NoCurrentCall,
    NotStarted,
    NotStorable,
    RunFailed,
    StreamClosed,
    TierUnavailable,
)
from batchkit.retries import Retry

if TYPE_CHECKING:
    from batchkit._redis.concurrency import RedisConcurrencyLimiter as RedisConcurrencyLimiter
    from batchkit._redis.limiter import RedisDistributedLimiter as RedisDistributedLimiter
    from batchkit._redis.tier import RedisTier as RedisTier

__all__ = [
    "AcquireTimeout",
    "AdaptiveLimiter",
    "AllOf",
    "BatchFailed",
    "BatchSplit",
    "BatchedExecutor",
    "Batcher",
    "BatchkitError",
    "CacheStatistics",
    "CachedAsyncFunction",
    "CachedFunction",
    "CallCancelled",
    "CallFinished",
    "CallInfo",
    "CallStarted",
    "CheckpointError",
    "CheckpointLocked",
    "CheckpointStatistics",
    "CircuitBreaker",
    "CircuitChanged",
    "CircuitOpen",
    "CodecFailed",
    "ConcurrencyLimiter",
    "ConcurrencyStatistics",
    "CostExceedsBurst",
    "Decision",
    "DecodeFailed",
    "Entry",
    "Event",
    "FailedEarlier",
    "FleetConcurrencyStatistics",
    "FleetStatistics",
    "Hook",
    "InvalidCost",
    "ItemFinished",
    "ItemRetried",
    "LimitChanged",
    "LimiterClosed",
    "LimiterStatistics",
    "LimiterUnavailable",
    "LoadFailed",
    "NoCurrentCall",
    "NotStarted",
    "NotStorable",
    "Outcome",
    "OutcomeStream",
    "Paused",
    "PrefetchFailed",
    "RateChanged",
    "Reconnected",
    "RedisConcurrencyLimiter",
    "RedisDistributedLimiter",
    "RedisTier",
    "Reservation",
    "Retry",
    "RunFailed",
    "RunFinished",
    "RunReport",
    "RunStarted",
    "SQLiteCheckpoint",
    "StreamClosed",
    "SyncOutcomeStream",
    "TTLCache",
    "Throttled",
    "TierStatistics",
    "TierUnavailable",
    "TokenBucket",
    "Unavailable",
    "Waited",
    "all_of",
    "batched",
    "cached",
    "current_call",
    "drain_on_signal",
    "limited",
]


def __getattr__(name: str) -> object:
    """What imports redis is imported when it is first used."""
    if name == "RedisDistributedLimiter":
        from batchkit._redis.limiter import RedisDistributedLimiter

        return RedisDistributedLimiter
    if name == "RedisConcurrencyLimiter":
        from batchkit._redis.concurrency import RedisConcurrencyLimiter

        return RedisConcurrencyLimiter
    if name == "RedisTier":
        from batchkit._redis.tier import RedisTier

        return RedisTier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

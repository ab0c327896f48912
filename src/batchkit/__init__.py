"""Run a queue of rate-limited API calls as fast as the quota allows: never over it, nothing lost, nothing
asked twice.
"""

from batchkit._adaptive import AdaptiveLimiter
from batchkit._batcher import Batcher
from batchkit._cache import TTLCache
from batchkit._concurrency import ConcurrencyLimiter
from batchkit._events import (
    BatchSplit,
    CallFinished,
    CallStarted,
    Event,
    Hook,
    ItemFinished,
    LimitChanged,
    Paused,
    RateChanged,
    RunFinished,
    RunStarted,
    Waited,
)
from batchkit._executor import BatchedExecutor, OutcomeStream, batched
from batchkit._groups import AllOf, all_of
from batchkit._limited import limited
from batchkit._limiters import TokenBucket
from batchkit._reservation import Reservation
from batchkit._values import (
    CacheStatistics,
    ConcurrencyStatistics,
    Decision,
    LimiterStatistics,
    Outcome,
    RunReport,
)
from batchkit.exceptions import (
    AcquireTimeout,
    BatchFailed,
    BatchkitError,
    CallCancelled,
    CostExceedsBurst,
    InvalidCost,
    LoadFailed,
)

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
    "CallCancelled",
    "CallFinished",
    "CallStarted",
    "ConcurrencyLimiter",
    "ConcurrencyStatistics",
    "CostExceedsBurst",
    "Decision",
    "Event",
    "Hook",
    "InvalidCost",
    "ItemFinished",
    "LimitChanged",
    "LimiterStatistics",
    "LoadFailed",
    "Outcome",
    "OutcomeStream",
    "Paused",
    "RateChanged",
    "Reservation",
    "RunFinished",
    "RunReport",
    "RunStarted",
    "TTLCache",
    "TokenBucket",
    "Waited",
    "all_of",
    "batched",
    "limited",
]

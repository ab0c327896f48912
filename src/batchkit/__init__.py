"""Run a queue of rate-limited API calls as fast as the quota allows: never over it, nothing lost, nothing
asked twice.
"""

from batchkit._batcher import Batcher
from batchkit._cache import TTLCache
from batchkit._events import (
    BatchSplit,
    CallFinished,
    CallStarted,
    Event,
    Hook,
    ItemFinished,
    RateChanged,
    RunFinished,
    RunStarted,
    Waited,
)
from batchkit._executor import BatchedExecutor, OutcomeStream, batched
from batchkit._limiters import Reservation, TokenBucket, TokenPermit
from batchkit._values import CacheStatistics, Decision, LimiterStatistics, Outcome, RunReport
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
    "BatchFailed",
    "BatchSplit",
    "BatchedExecutor",
    "Batcher",
    "BatchkitError",
    "CacheStatistics",
    "CallCancelled",
    "CallFinished",
    "CallStarted",
    "CostExceedsBurst",
    "Decision",
    "Event",
    "Hook",
    "InvalidCost",
    "ItemFinished",
    "LimiterStatistics",
    "LoadFailed",
    "Outcome",
    "OutcomeStream",
    "RateChanged",
    "Reservation",
    "RunFinished",
    "RunReport",
    "RunStarted",
    "TTLCache",
    "TokenBucket",
    "TokenPermit",
    "Waited",
    "batched",
]

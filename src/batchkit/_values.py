"""The frozen values that callers get back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar, cast

from attrs import field, frozen

from batchkit._core.bottleneck import Bottleneck
from batchkit.exceptions import NotStarted

T = TypeVar("T")
R = TypeVar("R")


@frozen
class Decision:
    """The answer to a try: true if the caller may go.

    Attributes:
        allowed: whether the caller may go.
        retry_after: seconds after which it could, if nobody who waits leaves; 0.0 if it may go now; infinite
            if nobody can say, since a call has to end first.
    """

    allowed: bool
    retry_after: float = 0.0

    def __bool__(self) -> bool:
        return self.allowed


@frozen
class LimiterStatistics:
    """What a limiter did so far.

    Attributes:
        rate: permits a second.
        burst: permits at once.
        available: permits there now; below zero while a debt is paid off.
        waiting: calls that wait now.
        granted: permits let go, less those given back.
        waits: calls that had to wait and went.
        waited: seconds that those waited, in total.
        timeouts: calls that ended by their timeout.
    """

    rate: float
    burst: int
    available: float
    waiting: int
    granted: int
    waits: int
    waited: float
    timeouts: int


@frozen
class FleetStatistics(LimiterStatistics):
    """What a limiter of a fleet did so far in this process; `rate`, `burst` and `available` are the fleet's,
    as last heard.

    Attributes:
        asked: questions to Redis.
        held: permits that this process holds and has not let go yet.
        processes: those that used the limiter within the last half minute, as last heard.
        unavailable: whether Redis cannot be asked now.
    """

    asked: int
    held: int
    processes: int
    unavailable: bool


@frozen
class ConcurrencyStatistics:
    """What a limiter of calls at once did so far.

    Attributes:
        limit: permits that may be out at once.
        available: permits there now; below zero while more are out than may be.
        waiting: calls that wait now.
        granted: permits let go, less those given back.
        waits: calls that had to wait and went.
        waited: seconds that those waited, in total.
        timeouts: calls that ended by their timeout.
    """

    limit: int
    available: int
    waiting: int
    granted: int
    waits: int
    waited: float
    timeouts: int


@frozen
class FleetConcurrencyStatistics(ConcurrencyStatistics):
    """What a fleet's limiter of calls at once did so far in this process; `limit` and `available` are the
    fleet's, as last heard.

    Attributes:
        asked: questions to Redis.
        held: permits that this process has, those of its calls under way included.
        processes: those that used the limiter within three leases, as last heard.
        unavailable: whether Redis cannot be asked now.
    """

    asked: int
    held: int
    processes: int
    unavailable: bool


@frozen
class Entry:
    """What a checkpoint knows about one item.

    Attributes:
        key: the item's.
        value: what the function returned; None if it failed.
        error: type and words of the error with which it failed, or None.
        attempts: calls that the item took part in.
        seconds: what its last call took.
        item: the item, of those that failed; as a text (its `repr`) where JSON cannot hold it.
    """

    key: str
    value: Any = None
    error: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    item: Any = None

    @property
    def ok(self) -> bool:
        """Whether the item has a value (which may be None)."""
        return self.error is None


@frozen
class CheckpointStatistics:
    """What a checkpoint holds for one executor.

    Attributes:
        succeeded: items with a value.
        failed: items with an error.
        outdated: items of other versions of the function; `compact` drops them.
        bytes: size of the file, what other executors have in it included.
    """

    succeeded: int
    failed: int
    outdated: int
    bytes: int


@frozen
class CacheStatistics:
    """What a cache did so far.

    Attributes:
        size: entries kept now, expired ones that were not swept yet included.
        weight: what they weigh together; without `weigh`, the same.
        hits: look-ups answered from the cache.
        stale_hits: those of the hits that got a stale value.
        negative_hits: those of the hits that were told that there is no value.
        misses: look-ups that were not answered.
        loads: values loaded through the cache.
        load_calls: calls of loaders, those that failed included.
        load_failures: those of the calls that raised.
        load_seconds: what all calls took together.
        tier_hits: values found in the tier behind the cache, instead of being loaded.
        evicted: entries dropped to make room.
        expired: entries dropped because their time was over.
        deleted: entries dropped by their key, a tag, a prefix, or with all others.
        refused: values not kept since they weigh more than the cache may hold.
    """

    size: int
    weight: int
    hits: int
    stale_hits: int
    negative_hits: int
    misses: int
    loads: int
    load_calls: int
    load_failures: int
    load_seconds: float
    tier_hits: int
    evicted: int
    expired: int
    deleted: int
    refused: int

    @property
    def load_latency(self) -> float:
        """Mean seconds of a call of a loader; 0.0 before the first."""
        return self.load_seconds / self.load_calls if self.load_calls else 0.0

    @property
    def hit_rate(self) -> float:
        """Hits among the look-ups, 0.0 to 1.0; 0.0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


@frozen
class TierStatistics:
    """What a process did so far with a tier.

    Attributes:
        hits: look-ups that it answered.
        misses: look-ups that it did not.
        kept: values that were stored there.
        dropped: values that were not, since they were dropped while they were loaded.
        alone: keys that were loaded without asking whether another process does so, since Redis was away.
        undecodable: values there that could not be read.
        rules: tags and prefixes that were dropped, as far as they are remembered.
        listening: how it hears of what other processes change: "tracking", "pubsub", or "" for not at all.
        unavailable: whether Redis cannot be asked just now.
    """

    hits: int
    misses: int
    kept: int
    dropped: int
    alone: int
    undecodable: int
    rules: int
    listening: str
    unavailable: bool


class _Draft(Generic[T, R]):
    """What becomes an outcome. A frozen class sets each of its fields by a call, and seven of them cost more
    than all else that is done for an item that goes well.
    """

    __slots__ = ("__weakref__", "attempts", "error", "index", "item", "resumed", "seconds", "value")

    def __init__(
        self, index: int, item: T, value: R | None, error: Exception | None, attempts: int, seconds: float
    ) -> None:
        self.index = index
        self.item = item
        self.value = value
        self.error = error
        self.attempts = attempts
        self.seconds = seconds
        self.resumed = False


@frozen
class Outcome(_Draft[T, R]):
    """What became of one item.

    Attributes:
        index: the item's number in the input, from 0.
        item: the item.
        value: what the function returned; None if there is none.
        error: why there is no value, or None; a `NotStarted` if the run ended before the item was called.
        attempts: calls that the item took part in (more than one where a failed batch was split, or a call
            made again; none where a cache, or a checkpoint, knew the value).
        seconds: what its last call took.
        resumed: whether it is from a checkpoint, where an earlier run left it.
    """

    index: int
    item: T
    value: R | None = None
    error: Exception | None = None
    attempts: int = 1
    seconds: float = 0.0
    resumed: bool = False

    @property
    def ok(self) -> bool:
        """Whether the item has a value (which may be None)."""
        return self.error is None

    @property
    def state(self) -> Literal["value", "error", "not started"]:
        """What became of it, in a word."""
        if self.error is None:
            return "value"
        return "not started" if isinstance(self.error, NotStarted) else "error"


@frozen
class RunReport(Generic[T, R]):
    """What a run did, and what held it back.

    Attributes:
        name: the executor's name.
        outcomes: one for each item, in the order in which they finished, or in the items' order if asked.
        succeeded: items with a value.
        failed: items with an error.
        calls: calls of the function.
        splits: batches that failed and were split.
        seconds: from the start of the run to its end.
        latency: mean seconds of a call.
        concurrency: calls at once that were allowed.
        limited_by: what held the run back.
        advice: the same in words, with the number to change.
        not_started: items that were taken, and not called before the run ended.
        resumed: items whose outcome was in the checkpoint.
        cached: items whose value was in the cache.
        retries: calls that were made again.
    """

    name: str
    outcomes: Sequence[Outcome[T, R]] = field(repr=False)
    succeeded: int
    failed: int
    calls: int
    splits: int
    seconds: float
    latency: float
    concurrency: int
    limited_by: Bottleneck
    advice: str
    not_started: int = 0
    resumed: int = 0
    cached: int = 0
    retries: int = 0

    @property
    def items(self) -> int:
        """Items that were taken from the input, or submitted."""
        return self.succeeded + self.failed + self.not_started


def outcome_of(
    index: int, item: T, value: R | None, error: Exception | None, attempts: int, seconds: float
) -> Outcome[T, R]:
    """An outcome, made in a third of the time."""
    draft: Any = _Draft(index, item, value, error, attempts, seconds)
    draft.__class__ = Outcome
    outcome: Outcome[T, R] = draft
    return outcome


AnyOutcome = Outcome[Any, Any]
AnyReport = RunReport[Any, Any]


def described(error: BaseException) -> str:
    """Type and words of an error; of a group, also those of its errors."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    words = str(error)
    if isinstance(error, BaseExceptionGroup):
        group = cast(BaseExceptionGroup[BaseException], error)
        words += f" [{'; '.join(described(each) for each in group.exceptions)}]"
    return f"{name}: {words}" if words else name

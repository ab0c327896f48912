"""How far a run is and how long it will take: as values, and as a bar of rich or tqdm.

All of these are hooks of an executor:

```python
meter = ProgressMeter(limiter=bucket)
executor = BatchedExecutor(write, limiter=bucket, hooks=[meter, rich_progress(limiter=bucket)])
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define, frozen

from batchkit._clock import MONOTONIC
from batchkit._core.progress import Capacity, Lately, Seen, UnderWay, seconds_left
from batchkit._events import CallFinished, CallStarted, Event, ItemFinished, RunFinished, RunStarted
from batchkit._forks import OwnLock
from batchkit._values import AnyOutcome, LimiterStatistics
from batchkit.abc import Clock, Hook, Limiter

if TYPE_CHECKING:
    import rich.progress

__all__ = ["Progress", "ProgressMeter", "rich_progress", "tqdm_progress"]

_SPAN: Final = 30.0  # seconds of the past that say how fast a run is
_CALLS: Final = 4  # and calls one after the other, if these take longer
_MEMORY: Final = 50  # calls over which latency and size are averaged


@frozen
class Progress:
    """How far a run is.

    Attributes:
        name: the executor's.
        done: items that have their outcome.
        failed: those of them with an error.
        resumed: those of them whose outcome was in the checkpoint.
        total: items in all, or None where the input does not tell.
        seconds: since the run began.
        rate: items a second, lately; without those that were resumed.
        left: seconds that it will still take, by the present quota and latency; None as long as nobody can
            say.
        finished: whether it is over.
    """

    name: str
    done: int
    failed: int
    resumed: int
    total: int | None
    seconds: float
    rate: float
    left: float | None
    finished: bool

    def __str__(self) -> str:
        items = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        failed = f", {self.failed:,} failed" if self.failed else ""
        left = "" if self.finished else f", {duration(self.left)} left"
        return f"{self.name}: {items}{failed}, {self.rate:.3g}/s{left}"


def duration(seconds: float | None) -> str:
    """Seconds as minutes and seconds, with hours if need be; rounded up, so that 0:00 is the end."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@define
class _Tally:
    """What happened in a run so far.

    Attributes:
        name, total: the executor's name, and the number of items, if it is known.
        lately: when how much was done.
        free: items whose permits were there as it began.
        granted: permits that the limiters had let go before it began.
        calls, most: calls under way, and the most of them that were at once.
        items: in them.
        starts, last_start: the moments at which they began, added up, and that of the last one.
        called: items that were in calls so far.
        ended_calls: those that came back.
        latency, size: seconds, and items, of a call, on average over the last ones; None before the first.
        ended: the moment at which the run was over.
    """

    name: str
    total: int | None
    lately: Lately
    free: float
    granted: Sequence[int]
    done: int = 0
    failed: int = 0
    resumed: int = 0
    calls: int = 0
    most: int = 1
    items: int = 0
    starts: float = 0.0
    last_start: float = 0.0
    called: int = 0
    ended_calls: int = 0
    latency: float | None = None
    size: float = 1.0
    ended: float | None = None

    def add(self, event: Event, now: float) -> None:
        """Count an event."""
        # no `match`, which takes twice as long, and this is done three times for an item
        if isinstance(event, ItemFinished):
            self._count(event.outcome, now)
        elif isinstance(event, CallStarted):
            self.calls += 1
            self.most = max(self.most, self.calls)
            self.items += event.size
            self.called += event.size
            self.starts += now
            self.last_start = now
        elif isinstance(event, CallFinished):
            self.calls -= 1
            self.items -= event.size
            self.starts -= now - event.seconds
            self._learn(event.size, event.seconds)
        elif isinstance(event, RunFinished):
            self.ended = now

    def under_way(self, now: float) -> UnderWay:
        """The calls that are under way."""
        spent = max(0.0, now - self.starts / self.calls) if self.calls else 0.0
        return UnderWay(self.items, spent, now - self.last_start)

    def costs(self, granted: Sequence[int]) -> list[float]:
        """Permits that an item takes of each limiter, as far as was seen."""
        if not self.called:
            return [1.0] * len(granted)
        return [(after - before) / self.called for after, before in zip(granted, self.granted, strict=True)]

    def seen(self, now: float) -> Seen:
        """What was done lately."""
        return self.lately.seen(now, self.done - self.resumed, self.free)

    def _count(self, outcome: AnyOutcome, now: float) -> None:
        self.done += 1
        self.failed += not outcome.ok
        self.resumed += outcome.resumed
        self.lately.note(now, self.done - self.resumed, max(_SPAN, _CALLS * (self.latency or 0.0)))

    def _learn(self, size: int, seconds: float) -> None:
        self.ended_calls += 1
        share = 1 / min(self.ended_calls, _MEMORY)
        self.latency = seconds if self.latency is None else self.latency + share * (seconds - self.latency)
        self.size += share * (size - self.size)


class ProgressMeter:
    """A hook that knows how far a run is. Any thread may ask it.

    It is for one executor. A run that begins while another one is on starts the count anew.

    Args:
        limiter: the executor's: its rate bounds how fast the rest can go. Without it, that shows only in
            what was seen.
        concurrency: the executor's; without it the most calls that were seen at once.
        clock: for tests, `batchkit.testing.ManualClock`.
    """

    def __init__(
        self, *, limiter: Limiter | None = None, concurrency: int | None = None, clock: Clock = MONOTONIC
    ) -> None:
        self._limiter = limiter
        self._concurrency = concurrency
        self._clock = clock
        self._lock = OwnLock()
        self._tally = self._new_tally("", None)

    def __call__(self, event: Event) -> None:
        """Count what happened."""
        if isinstance(event, RunStarted):
            self._tally = self._new_tally(event.name, event.total)
            return
        with self._lock():
            self._tally.add(event, self._clock.now())

    @property
    def done(self) -> int:
        """Items that have their outcome."""
        return self._tally.done

    def progress(self) -> Progress:
        """How far it is now."""
        limits = _limits(self._limiter)
        with self._lock():
            tally = self._tally
            now = self._clock.now() if tally.ended is None else tally.ended
            left = self._left(tally, limits, now)
            seen = tally.seen(now)
            return Progress(
                name=tally.name,
                done=tally.done,
                failed=tally.failed,
                resumed=tally.resumed,
                total=None if tally.total is None else max(tally.total, tally.done),
                seconds=now - tally.lately.started,
                rate=seen.items / seen.seconds if seen.seconds else 0.0,
                left=left,
                finished=tally.ended is not None,
            )

    def _left(self, tally: _Tally, limits: Sequence[LimiterStatistics], now: float) -> float | None:
        if tally.ended is not None:
            return 0.0
        if tally.total is None:
            return None
        quota, free = _permits(limits, tally.costs([limit.granted for limit in limits]))
        if limits:
            tally.lately.note_rate(now, tally.done - tally.resumed, min(limit.rate for limit in limits))
        capacity = Capacity(quota, tally.latency, self._concurrency or tally.most, tally.size)
        rest = max(0, tally.total - tally.done)
        return seconds_left(rest, free, capacity, tally.under_way(now), tally.seen(now))

    def _new_tally(self, name: str, total: int | None) -> _Tally:
        limits = _limits(self._limiter)
        _, free = _permits(limits, [1.0] * len(limits))
        granted = [limit.granted for limit in limits]
        return _Tally(name, total, Lately(self._clock.now()), free, granted)


def _limits(limiter: Limiter | None) -> list[LimiterStatistics]:
    """What is known about each limiter that has a rate."""
    statistics = getattr(limiter, "statistics", None)
    if statistics is None:
        return []
    found: object = statistics()
    several = cast(Mapping[str, object], found).values() if isinstance(found, Mapping) else [found]
    return [limit for limit in several if isinstance(limit, LimiterStatistics)]


def _permits(limits: Sequence[LimiterStatistics], costs: Sequence[float]) -> tuple[float, float]:
    """Items a second, and items at once, for which there are permits of all limiters."""
    pairs = [(limit, cost) for limit, cost in zip(limits, costs, strict=True) if cost > 0]
    quota = min((limit.rate / cost for limit, cost in pairs), default=inf)
    return quota, min((limit.available / cost for limit, cost in pairs), default=0.0)


def rich_progress(
    progress: rich.progress.Progress | None = None,
    *,
    limiter: Limiter | None = None,
    concurrency: int | None = None,
    clock: Clock = MONOTONIC,
) -> Hook:
    """A hook that shows runs as bars of [rich](https://rich.readthedocs.io), one for each executor that it is
    given to. It needs the extra `batchkit-limits[rich]`.

    Args:
        progress: where the bars are to be. Whoever made it starts and stops it; a column may show the
            task's fields `failed` and `left`, which are texts. Without it there is one of its own, from the
            start of the first run to the end of the last one.
        limiter: as for [`ProgressMeter`][batchkit.progress.ProgressMeter].
        concurrency: likewise.
        clock: likewise.
    """
    from batchkit._bars import RichBars

    return RichBars(lambda: ProgressMeter(limiter=limiter, concurrency=concurrency, clock=clock), progress)


def tqdm_progress(
    *,
    limiter: Limiter | None = None,
    concurrency: int | None = None,
    clock: Clock = MONOTONIC,
    **options: Any,
) -> Hook:
    """A hook that shows runs as bars of [tqdm](https://tqdm.github.io), one for each executor that it is
    given to. It needs the extra `batchkit-limits[tqdm]`.

    Args:
        limiter: as for [`ProgressMeter`][batchkit.progress.ProgressMeter].
        concurrency: likewise.
        clock: likewise.
        options: for `tqdm.auto.tqdm`, such as `leave=False`.
    """
    from batchkit._bars import TqdmBars

    return TqdmBars(lambda: ProgressMeter(limiter=limiter, concurrency=concurrency, clock=clock), options)

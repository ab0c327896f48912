"""How long a run will still take.

Two things bound it. The quota: calls start no faster than their permits come in, and the last one takes its
time. The work: so many calls at once, each of so many seconds, get through so many items a second (Little's
law). A run takes the longer of the two times.

What that rule does not know, such as others who use the same quota, calls that are made again, or values that
a cache had, shows in what was seen: if the run took twice as long as by the rule for what it did lately, it
will for the rest, too.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from attrs import define, field, frozen

_DOUBT: Final = 5.0  # items, in seconds of the rule, that count as seen to go by it
_ODD: Final = 100.0  # no run is believed to be so many times faster, or slower, than the rule
_MARKS: Final = 30  # in the time that is of interest
_LEAST: Final = 20  # items whose time is of interest, however long they took
_OTHER: Final = 1.25  # times the rate before: what was seen at that one says little about this one


@frozen
class Capacity:
    """What a run could do.

    Attributes:
        quota: items a second for which permits come in; infinite without a limiter.
        latency: seconds of a call; None before the first one ended.
        calls: at once.
        size: items of a call.
    """

    quota: float = inf
    latency: float | None = None
    calls: int = 1
    size: float = 1.0

    @property
    def rate(self) -> float:
        """Items a second at the most."""
        return min(self.quota, self.calls * self.size / self.latency if self.latency else inf)


@frozen
class UnderWay:
    """Calls that are under way.

    Attributes:
        items: in them.
        spent: seconds that they took so far, on average.
        since: seconds since the last one began.
    """

    items: int = 0
    spent: float = 0.0
    since: float = 0.0


@frozen
class Seen:
    """What a run did lately.

    Attributes:
        items: that were done.
        seconds: in which they were.
        free: items that needed not wait for the quota, since their permits were there from the start.
        is_start: whether that is from the start of the run on, when nothing was under way yet.
    """

    items: int
    seconds: float
    free: float = 0.0
    is_start: bool = True


def seconds_left(
    items: int, free: float, capacity: Capacity, under_way: UnderWay, seen: Seen
) -> float | None:
    """Seconds until the rest is done, or None as long as nothing is known.

    Args:
        items: that are left, with those under way.
        free: items, beside those under way, for which permits are there.
        capacity: what the run could do.
        under_way: what it is doing.
        seen: what it did lately.
    """
    if not items:
        return 0.0
    if capacity.rate == inf:
        return None
    rule = max(_by_quota(items, free, capacity, under_way), _by_work(items, capacity, under_way))
    return rule * _slowness(capacity, under_way, seen)


def _by_quota(items: int, free: float, capacity: Capacity, under_way: UnderWay) -> float:
    """Until the last call may start, and its own time; or what is left of that."""
    waiting, latency = items - under_way.items, capacity.latency or 0.0
    if waiting <= 0:
        return max(0.0, latency - under_way.since)
    return max(0.0, waiting - free) / capacity.quota + latency


def _by_work(items: int, capacity: Capacity, under_way: UnderWay) -> float:
    """Until all calls are through, if as many as may be are always under way."""
    latency = capacity.latency or 0.0
    done = under_way.items * min(under_way.spent, latency)
    return max(0.0, items * latency - done) / (capacity.calls * capacity.size)


def _slowness(capacity: Capacity, under_way: UnderWay, seen: Seen) -> float:
    """How many times as long as by the rule it took lately; nearer to 1 the less was seen."""
    soonest = _needed(seen.items, capacity, under_way, seen)
    latest = _needed(seen.items + capacity.size, capacity, under_way, seen)  # then the next call is late
    doubt = _DOUBT / capacity.rate + (capacity.latency or 0.0)
    by_rule = min(max(seen.seconds, soonest), latest)
    return min(_ODD, max(1 / _ODD, (seen.seconds + doubt) / (by_rule + doubt)))


def _needed(items: float, capacity: Capacity, under_way: UnderWay, seen: Seen) -> float:
    """Seconds in which so many items are done, by the rule."""
    if not items:
        return 0.0
    if not seen.is_start:
        return items / capacity.rate
    latency = capacity.latency or 0.0
    by_quota = max(0.0, items - seen.free) / capacity.quota + latency
    work = items * latency + under_way.items * min(under_way.spent, latency)
    return max(by_quota, work / (capacity.calls * capacity.size))


@define
class Lately:
    """Remembers how many items were done when, as far back as is needed.

    Attributes:
        started: the moment at which the run began.
    """

    started: float
    _marks: deque[tuple[float, int]] = field(init=False)
    _is_start: bool = field(default=True, init=False)
    _rate: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._marks = deque([(self.started, 0)])

    def note(self, now: float, items: int, span: float) -> None:
        """So many items are done by now; what is of interest is the last `span` seconds, and what some items
        took.
        """
        if now - self._marks[-1][0] < span / _MARKS:
            return
        self._marks.append((now, items))
        while len(self._marks) > 2 and self._is_enough(self._marks[1], now, items, span):
            self._marks.popleft()
            self._is_start = False

    def note_rate(self, now: float, items: int, rate: float) -> None:
        """The quota has this rate now. If it is quite another one, what was seen before is forgotten."""
        if self._rate is None:
            self._rate = rate
        elif not 1 / _OTHER <= rate / self._rate <= _OTHER:
            self._rate, self._is_start = rate, False
            self._marks = deque([(now, items)])

    def seen(self, now: float, items: int, free: float) -> Seen:
        """What was done since the first mark; `free` is of the run's start."""
        moment, before = self._marks[0]
        return Seen(items - before, now - moment, free if self._is_start else 0.0, self._is_start)

    def _is_enough(self, mark: tuple[float, int], now: float, items: int, span: float) -> bool:
        return now - mark[0] >= span and items - mark[1] >= _LEAST

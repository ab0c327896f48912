"""When a batch of keys leaves, and which keys are in it.

A batch leaves when it is full, or when no call is under way; otherwise when no key came for a quarter of
`max_wait`, and `max_wait` after its first key at the latest. While `max_in_flight` calls are under way none
leaves: the keys gather, so that load makes the calls larger, and not more. So a lone call waits for nobody.
Nagle's algorithm (RFC 896) does the same for packets, and PostgreSQL's `commit_siblings` for commits.

Higher priorities leave first. A step of priority is worth `patience` seconds of waiting, so that low ones
move, too.

Keys that came together stay together, as a cohort, unless a batch has no room for all of them: what is done
once for a cohort need not be done for each key. More than a batch holds are several cohorts from the start:
to take a part out of a large one costs more than to have it apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Sequence
from itertools import islice
from math import inf
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

PRESSING: Final = inf  # a priority: a call under way waits for this key, so that it waits for no call to end
_QUIET: Final = 4  # the part of max_wait without a further key after which a batch leaves


class Cohort(Generic[K]):
    """Keys that came together, and that go together.

    Attributes:
        waiting: the keys, each with who waits for it.
        priority: higher leaves first; of a batch, the highest one.
        since: moment at which they came.
        home: the event loop of all who wait; None if they are of several, or threads.
        intact: whether nobody left, and nothing else was said about a key, since a call took them.
        call: what took them, once something did.
        is_new: whether its keys were in another cohort before.
    """

    __slots__ = ("call", "home", "intact", "is_new", "priority", "since", "waiting")

    def __init__(self, waiting: dict[K, Any], priority: float, since: float, home: Hashable = None) -> None:
        self.waiting = waiting
        self.priority = priority
        self.since = since
        self.home = home
        self.intact = True
        self.call: Any = None
        self.is_new = False

    def split(self, size: int) -> Cohort[K]:
        """Its first keys, as a cohort of their own."""
        waiting = self.waiting
        some = {key: waiting[key] for key in islice(waiting, size)}
        first = Cohort(some, self.priority, self.since, self.home)
        for key in first.waiting:
            del waiting[key]
        first.is_new = True
        return first

    def remove(self, part: Sequence[K]) -> Collection[Any]:
        """Take out keys, which are in the order of the others; returns who waits for them."""
        waiting = self.waiting
        if len(part) < len(waiting):
            return [waiting.pop(key) for key in part]
        self.waiting = {}
        return waiting.values()

    def join(self, other: Cohort[K]) -> None:
        """Take over the keys of another one."""
        self.waiting.update(other.waiting)
        self.priority = max(self.priority, other.priority)
        if other.home is not self.home:
            self.home = None
        self.is_new = True


class Gathering(Generic[K]):
    """Keys that wait for their batch, and how many batches are under way.

    Args:
        max_size: keys in a batch at most.
        max_wait: seconds that a key waits for others while calls are under way, at most.
        max_in_flight: calls under way at most.
        patience: seconds of waiting that outweigh one step of priority.

    Attributes:
        waiting: keys that wait.
        arrivals: keys that ever came.
        under_way: batches that were taken and have not come back.
    """

    __slots__ = (
        "_lanes",
        "_latest",
        "_max_in_flight",
        "_max_size",
        "_max_wait",
        "_patience",
        "arrivals",
        "under_way",
        "waiting",
    )

    def __init__(self, max_size: int, max_wait: float, max_in_flight: int, patience: float) -> None:
        self._max_size = max_size
        self._max_wait = max_wait
        self._max_in_flight = max_in_flight
        self._patience = patience
        self._lanes: dict[
            float, deque[Cohort[K]]
        ] = {}  # by priority, in order of arrival; some have no keys left
        self._latest = -inf
        self.waiting = 0
        self.arrivals = 0
        self.under_way = 0

    @property
    def has_room(self) -> bool:
        """Whether one more call may be under way."""
        return self.under_way < self._max_in_flight

    @property
    def presses(self) -> bool:
        """Whether the next batch need not wait for further keys."""
        return self._is_full() or self._is_pressed()

    def portions(self, came: dict[K, Any]) -> list[dict[K, Any]]:
        """Keys that came together, apart so that each portion fits into a batch."""
        size = self._max_size
        if len(came) <= size:
            return [came] if came else []
        items = iter(came.items())
        return [dict(islice(items, size)) for _ in range(0, len(came), size)]

    def add(self, cohort: Cohort[K]) -> None:
        """Keys came."""
        size = len(cohort.waiting)
        self.arrivals += size
        self.waiting += size
        self._latest = cohort.since
        self._put(cohort)

    def promote(self, cohort: Cohort[K], key: K, priority: float) -> Cohort[K]:
        """A key that waits is wanted sooner; returns where it is now."""
        moved = Cohort({key: cohort.waiting.pop(key)}, priority, cohort.since, cohort.home)
        self._put(moved)
        self._tidy()
        return moved

    def discard(self, cohort: Cohort[K], key: K) -> None:
        """Nobody wants a key any more that waits."""
        del cohort.waiting[key]
        self.waiting -= 1
        self._tidy()

    def settles(self, now: float) -> bool:
        """Whether it is worth a turn of the event loop to see if more keys come."""
        return bool(self.waiting) and not self._is_full() and now < self._oldest() + self._max_wait

    def due(self, now: float) -> float:
        """The moment at which the next batch leaves, now at the earliest; infinite if there is none, or while
        too many are under way.
        """
        if not self.waiting:
            return inf
        if self._is_pressed():
            return now
        if self.under_way >= self._max_in_flight:
            return inf
        if not self.under_way or self._is_full():
            return now
        return max(now, min(self._oldest() + self._max_wait, self._latest + self._max_wait / _QUIET))

    def take(self) -> Cohort[K]:
        """The keys of the next batch, which is under way from now on."""
        self.under_way += 1
        batch = self._take_some(self._max_size)
        while self.waiting and (room := self._max_size - len(batch.waiting)):
            batch.join(self._take_some(room))
        return batch

    def come_back(self) -> None:
        """A batch is under way no more."""
        self.under_way -= 1

    def all_waiting(self) -> list[Cohort[K]]:
        """Those that wait."""
        return [cohort for lane in self._lanes.values() for cohort in lane if cohort.waiting]

    def clear(self) -> None:
        """Forget all keys, and all that is under way."""
        self._lanes.clear()
        self.waiting = self.under_way = 0

    def _put(self, cohort: Cohort[K]) -> None:
        lane = self._lanes.get(cohort.priority)
        if lane is None:
            lane = self._lanes[cohort.priority] = deque()
        lane.append(cohort)

    def _is_full(self) -> bool:
        return self.waiting >= self._max_size

    def _is_pressed(self) -> bool:
        return PRESSING in self._lanes and self._head(PRESSING) is not None

    def _take_some(self, most: int) -> Cohort[K]:
        """The most urgent keys, which came together."""
        priority = self._first_lane()
        lane = self._lanes[priority]
        some = lane[0]
        if len(some.waiting) > most:
            some = some.split(most)
        else:
            lane.popleft()
            if not lane:
                del self._lanes[priority]
        self.waiting -= len(some.waiting)
        return some

    def _first_lane(self) -> float:
        """Priority is part of the order from the start: the moment at which a key came, less what its
        priority is worth.
        """
        if self._is_pressed():
            return PRESSING
        heads = {priority: head for priority in [*self._lanes] if (head := self._head(priority)) is not None}
        if len(heads) == 1:
            (only,) = heads
            return only
        ranks = [(head.since - lane * self._patience, -lane) for lane, head in heads.items()]
        return -min(ranks)[1]

    def _head(self, priority: float) -> Cohort[K] | None:
        """The first keys of a lane; a lane without any ends."""
        lane = self._lanes[priority]
        while lane:
            if lane[0].waiting:
                return lane[0]
            lane.popleft()
        del self._lanes[priority]
        return None

    def _oldest(self) -> float:
        return min(head.since for priority in [*self._lanes] if (head := self._head(priority)) is not None)

    def _tidy(self) -> None:
        """Forget those that have no keys left; seldom, since it takes a look at all."""
        if sum(map(len, self._lanes.values())) > 2 * self.waiting + 64 or not self.waiting:
            for priority, lane in [*self._lanes.items()]:
                standing = deque(cohort for cohort in lane if cohort.waiting)
                if standing:
                    self._lanes[priority] = standing
                else:
                    del self._lanes[priority]

"""When a batch of keys leaves, and which keys are in it.

A batch leaves when it is full, or when no call is under way; otherwise when no key came for a quarter of
`max_wait`, and `max_wait` after its first key at the latest. While `max_in_flight` calls are under way none
leaves: the keys gather, so that load makes the calls larger, and not more. So a lone call waits for nobody.
Nagle's algorithm (RFC 896) does the same for packets, and PostgreSQL's `commit_siblings` for commits.

Higher priorities leave first. A step of priority is worth `patience` seconds of waiting, so that low ones
move, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
G = TypeVar("G", bound="Gathered[Any]")

PRESSING: Final = inf  # a priority: a call under way waits for this key, so that it waits for no call to end
_QUIET: Final = 4  # the part of max_wait without a further key after which a batch leaves


class Gathered(Generic[K]):
    """A key that waits for its batch.

    Attributes:
        key: the key.
        priority: higher leaves first.
        since: moment at which it came.
        gathers: whether it still waits.
    """

    __slots__ = ("gathers", "key", "priority", "since")

    def __init__(self, key: K, priority: float, since: float) -> None:
        self.key = key
        self.priority = priority
        self.since = since
        self.gathers = True


class Gathering(Generic[G]):
    """Keys that wait for their batch, and how many batches are under way.

    Args:
        max_size: keys in a batch at most.
        max_wait: seconds that a key waits for others while calls are under way, at most.
        max_in_flight: calls under way at most.
        patience: seconds of waiting that outweigh one step of priority.

    Attributes:
        came: keys that came since the last look at all of them; whoever comes is put to these.
        under_way: batches that were taken and have not come back.
    """

    __slots__ = (
        "_arrivals",
        "_lanes",
        "_latest",
        "_max_in_flight",
        "_max_size",
        "_max_wait",
        "_patience",
        "_waiting",
        "came",
        "under_way",
    )

    def __init__(self, max_size: int, max_wait: float, max_in_flight: int, patience: float) -> None:
        self._max_size = max_size
        self._max_wait = max_wait
        self._max_in_flight = max_in_flight
        self._patience = patience
        # By priority, in order of arrival. Who left, or has another priority by now, is passed over.
        self._lanes: dict[float, deque[G]] = {}
        self._latest = -inf
        self._waiting = 0
        self._arrivals = 0
        self.came: list[G] = []
        self.under_way = 0

    @property
    def waiting(self) -> int:
        """Keys that wait."""
        return self._waiting + len(self.came)

    @property
    def arrivals(self) -> int:
        """Keys that ever came."""
        return self._arrivals + len(self.came)

    @property
    def presses(self) -> bool:
        """Whether the next batch need not wait for further keys."""
        self._take_in()
        return self._is_full() or self._is_pressed()

    def promote(self, key: G, priority: float) -> None:
        """A key that waits is wanted sooner."""
        if priority > key.priority:
            self._take_in()
            key.priority = priority
            self._lanes.setdefault(priority, deque()).append(key)
            self._tidy()

    def discard(self, key: G) -> None:
        """Nobody wants a key any more that waits."""
        self._take_in()
        key.gathers = False
        self._waiting -= 1
        self._tidy()

    def settles(self, now: float) -> bool:
        """Whether it is worth a turn of the event loop to see if more keys come."""
        self._take_in()
        return bool(self._waiting) and not self._is_full() and now < self._oldest() + self._max_wait

    def due(self, now: float) -> float:
        """The moment at which the next batch leaves, now at the earliest; infinite if there is none, or while
        too many are under way.
        """
        if not self.waiting:
            return inf
        self._take_in()
        if self._is_pressed():
            return now
        if self.under_way >= self._max_in_flight:
            return inf
        if not self.under_way or self._is_full():
            return now
        return max(now, min(self._oldest() + self._max_wait, self._latest + self._max_wait / _QUIET))

    def take(self) -> list[G]:
        """The keys of the next batch, which is under way from now on."""
        self._take_in()
        self.under_way += 1
        batch: list[G] = []
        while self._waiting and (room := self._max_size - len(batch)):
            priority = self._first_lane()
            lane = self._lanes[priority]
            some = self._take_from(lane, priority, room if len(self._lanes) == 1 else 1)
            self._waiting -= len(some)
            batch += some
            if not lane:
                del self._lanes[priority]
        return batch

    def come_back(self) -> None:
        """A batch is under way no more."""
        self.under_way -= 1

    def all_waiting(self) -> list[G]:
        """Those that wait."""
        self._take_in()
        return [key for priority, lane in self._lanes.items() for key in lane if _stands(key, priority)]

    def clear(self) -> None:
        """Forget all keys, and all that is under way."""
        self._lanes.clear()
        self.came.clear()
        self._waiting = self.under_way = 0

    def _take_in(self) -> None:
        """Put those that came into their lanes."""
        came = self.came
        if not came:
            return
        self._arrivals += len(came)
        self._waiting += len(came)
        self._latest = came[-1].since
        for key in came:
            lane = self._lanes.get(key.priority)
            if lane is None:
                lane = self._lanes[key.priority] = deque()
            lane.append(key)
        came.clear()

    def _is_full(self) -> bool:
        return self._waiting >= self._max_size

    def _is_pressed(self) -> bool:
        return PRESSING in self._lanes and self._head(PRESSING) is not None

    def _take_from(self, lane: deque[G], priority: float, most: int) -> list[G]:
        some: list[G] = []
        if len(lane) == self._waiting <= most:  # all of them stand, and all are taken
            some += lane
            lane.clear()
        else:
            while lane and len(some) < most:
                if _stands(key := lane.popleft(), priority):
                    some.append(key)
        for key in some:
            key.gathers = False
        return some

    def _first_lane(self) -> float:
        """Priority is part of the order from the start: the moment at which a key came, less what its
        priority is worth.
        """
        if len(self._lanes) == 1:
            (only,) = self._lanes
            return only
        if PRESSING in self._lanes:
            return PRESSING
        heads = {priority: head for priority in [*self._lanes] if (head := self._head(priority)) is not None}
        ranks = [(head.since - lane * self._patience, -lane) for lane, head in heads.items()]
        return -min(ranks)[1]

    def _head(self, priority: float) -> G | None:
        """The first key of a lane; a lane without any ends."""
        lane = self._lanes[priority]
        while lane:
            if _stands(lane[0], priority):
                return lane[0]
            lane.popleft()
        del self._lanes[priority]
        return None

    def _oldest(self) -> float:
        return min(head.since for priority in [*self._lanes] if (head := self._head(priority)) is not None)

    def _tidy(self) -> None:
        """Forget those that left; seldom, since it takes a look at all."""
        if sum(map(len, self._lanes.values())) > 2 * self._waiting + 64 or not self._waiting:
            for priority, lane in [*self._lanes.items()]:
                standing = deque(key for key in lane if _stands(key, priority))
                if standing:
                    self._lanes[priority] = standing
                else:
                    del self._lanes[priority]


def _stands(key: Gathered[Any], priority: float) -> bool:
    return key.gathers and key.priority == priority

"""Where keys come in: each event loop has a room of its own, into which nobody else looks.

So a task that asks for a key takes no lock. What came in a turn of the event loop is put to the keys of all
in its next turn, by the gatherer of that loop.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from batchkit._background import is_open
from batchkit._batching.loads import Call
from batchkit._batching.waiters import Waiter, Waiting, leave

K = TypeVar("K", bound=Hashable)


class Room(Generic[K]):
    """What an event loop, or all threads together, have for themselves.

    Args:
        domain: the event loop; None for threads.

    Attributes:
        came: keys that its tasks asked for in this turn, with who waits.
        roused: whether somebody will see to those.
        gatherer: who gathers here, if somebody does; belongs to the lock of the keys.
    """

    __slots__ = ("came", "domain", "gatherer", "roused")

    def __init__(self, domain: Hashable) -> None:
        self.domain = domain
        self.came: dict[K, Waiting] = {}
        self.roused = False
        self.gatherer: Call[K] | None = None

    def take(self) -> dict[K, Waiting]:
        """What came; to be asked in its event loop only."""
        came, self.came, self.roused = self.came, {}, False
        return came

    def leave(self, keys: Iterable[K], waiter: Waiter) -> None:
        """Somebody wants keys no more that may have come just now."""
        came = self.came
        for key in keys if came else ():
            if leave(came, key, waiter) and not came[key]:
                del came[key]


class Rooms(Generic[K]):
    """The rooms of one batcher; in the hands of whoever has the lock of its keys.

    Attributes:
        by_loop: those of event loops, the newest one last. One may be looked up without the lock.
        of_threads: that of all threads.
    """

    def __init__(self) -> None:
        self.by_loop: dict[Hashable, Room[K]] = {}
        self.of_threads: Room[K] = Room(None)

    def clear(self) -> None:
        """Forget them all."""
        self.by_loop.clear()
        self.of_threads = Room(None)

    def of(self, here: Hashable) -> Room[K]:
        """That of the event loop that runs here."""
        room = self.by_loop.get(here)
        if room is None:
            for closed in [loop for loop in self.by_loop if not is_open(loop)]:
                del self.by_loop[closed]
            room = self.by_loop[here] = Room(here)
        return room

    def in_order(self, first: Room[K]) -> list[Room[K]]:
        """All of them: this one, those in which somebody gathers, the newest event loops, threads."""
        rooms = [*reversed(self.by_loop.values()), self.of_threads]
        return [*dict.fromkeys([first, *(room for room in rooms if room.gatherer is not None), *rooms])]

"""Which entry leaves when there is no room: S3-FIFO.

Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP 2023. A new key enters
a small queue of a tenth of the room; what was asked for again by the time it reaches the end of that moves to
the main queue, the rest leaves and is remembered as a ghost for a while; a ghost that came back moves to the
main queue, too. (In the paper it enters it at once; so the ghosts are asked once for a key, and not twice.)
So keys that are seen once leave soon, and a hit costs one counter, with nothing to move.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Final

from batchkit._core.entries import ENDED, Entry
from batchkit._core.ghosts import Ghosts
from batchkit._core.index import Index

_MOST_ROUNDS: Final = 64  # entries that are given another round before one leaves, wanted or not


class Queue:
    """Entries, the oldest first; those that ended leave it later.

    It is in two parts, the older one in front. What is looked at goes from the head of the one behind to the
    tail of the one in front. When all are in front, that is the part behind again, and another round begins.

    Attributes:
        in_front: the older ones, the oldest first.
        behind: the others; new ones are appended here.
        more: what all weigh together, beyond 1 each; those that ended included.
        due: a moment before which no entry's time is over.
        seen: the same for those in front.
    """

    __slots__ = ("behind", "due", "in_front", "more", "seen")

    def __init__(self) -> None:
        self.in_front: deque[Entry] = deque()
        self.behind: deque[Entry] = deque()
        self.more = 0
        self.due = self.seen = inf

    def __len__(self) -> int:
        return len(self.in_front) + len(self.behind)

    def __iter__(self) -> Iterator[Entry]:
        yield from self.in_front
        yield from self.behind

    @property
    def weight(self) -> int:
        """Of all entries, those that ended included."""
        return len(self.in_front) + len(self.behind) + self.more

    def append(self, entry: Entry) -> None:
        """Take an entry in."""
        self.behind.append(entry)
        self.more += entry.weight - 1
        self.due = min(self.due, entry.gone)

    def pop(self) -> Entry:
        """The oldest entry, which is in the queue no more, but for its weight."""
        return (self.in_front or self.behind).popleft()

    def look(self, looks: int, now: float, plain: list[Entry], others: list[Entry]) -> None:
        """Look at so many entries, and take those out whose time is over.

        Args:
            looks: how many.
            now: the moment.
            plain: where those go that are plain and did not end before.
            others: where the others go.
        """
        for _ in range(min(looks, len(self))):
            entry = self.behind.popleft()
            gone = entry.fresh if type(entry) is Entry else entry.gone
            if gone > now:
                self.in_front.append(entry)
                if gone < self.seen:
                    self.seen = gone
            elif type(entry) is Entry and gone > ENDED:
                plain.append(entry)
            else:
                self.more -= entry.weight - 1
                others.append(entry)
            if not self.behind:
                self.behind, self.in_front = self.in_front, self.behind
                self.due, self.seen = self.seen, inf


class Eviction:
    """The order in which entries leave.

    Args:
        size: what all entries weigh at most.
        ghosts: keys that are remembered when they left.
        index: where the entries are by key.

    Attributes:
        small: the queue of new entries.
        main: the queue of those that are worth keeping.
    """

    __slots__ = ("_ghosts", "_index", "_patience", "_small_room", "main", "small")

    def __init__(self, size: int, ghosts: int, index: Index[Entry]) -> None:
        self.small = Queue()
        self.main = Queue()
        self._index = index
        self._small_room = size / 10
        self._ghosts = Ghosts(ghosts, index.number)
        self._patience = 0

    def tidy(self, looks: int, now: float) -> tuple[list[Entry], list[Entry]]:
        """Look at so many entries of each queue, and take those out whose time is over.

        Returns:
            Those that are plain; and the others, among which are those that ended before.
        """
        plain: list[Entry] = []
        others: list[Entry] = []
        self.small.look(looks, now, plain, others)
        self.main.look(looks, now, plain, others)
        return plain, others

    def leave(self, weight: int, now: float) -> tuple[int, list[Entry]]:
        """Take entries out that weigh so much together, or more.

        Returns:
            How many left that are plain and whose time is not over: they have ended, and are out of the
            index. And the others, among which are some that ended before, which weigh nothing.
        """
        plain = 0
        others: list[Entry] = []
        self._patience = _MOST_ROUNDS
        small, main = self.small, self.main
        while weight > 0:
            too_much = small.weight - self._small_room
            if too_much >= 0 or not main:
                turns = int(too_much) + 1 if main else weight
                left = self._leave_small(min(weight, turns), now)
                plain += left
                weight -= left
                if left < turns and weight > 0 and small:
                    weight -= self._judge(small.pop(), small, now, others)
            else:
                weight -= self._judge(main.pop(), main, now, others)
        return plain, others

    def remember(self, number: int) -> None:
        """Remember about so many keys that left, at least; forgets all if it has to be changed for that."""
        if self._ghosts.size < number // 2:
            self._ghosts = Ghosts(number, self._index.number)

    def _leave_small(self, turns: int, now: float) -> int:
        """The next entries of the small queue leave, so many at most, and none from one on with which there
        is more to it; returns how many. Here is what a new key in a full cache takes most of its time for.
        """
        source = self.small.in_front or self.small.behind
        parts, number = self._index.parts, self._index.number
        ghosts = self._ghosts
        marks, size, reach = ghosts.marks, ghosts.size, ghosts.reach
        turns = min(turns, len(source))
        for turn in range(turns):
            entry = source.popleft()
            key = entry.key
            rest = hash(key) % reach  # what `Ghosts.met` does, without a call
            place = rest % size
            mark = rest & 0xFFFF
            if entry.hits or entry.fresh <= now or marks[place] == mark != 0 or type(entry) is not Entry:
                source.appendleft(entry)
                return turn
            marks[place] = mark
            del parts[place % number][key]
            entry.fresh = ENDED
            entry.value = None
        return turns

    def _judge(self, entry: Entry, queue: Queue, now: float, left: list[Entry]) -> int:
        """An entry that was the next of a queue leaves, or stays for another round; returns its weight if it
        left.
        """
        queue.more -= entry.weight - 1
        if entry.fresh <= now and entry.gone <= now:
            left.append(entry)
            return entry.weight if entry.gone > ENDED else 0
        from_small = queue is self.small
        if self._patience > 0 and (entry.hits or (from_small and self._ghosts.met(hash(entry.key)))):
            self._patience -= 1
            entry.hits = 0 if from_small else entry.hits - 1
            self.main.append(entry)
            return 0
        left.append(entry)
        return entry.weight

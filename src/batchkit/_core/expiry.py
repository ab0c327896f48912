"""Which entry is stale, expired or to be evicted, given `now`.

Eviction is S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction",
SOSP 2023): a new key enters a small queue of a tenth of the room; what was asked for again by the time it
reaches the end of that moves to the main queue, the rest leaves and is remembered as a ghost for a while; a
ghost that comes back enters the main queue at once. So keys that are seen once leave soon, and a hit costs
one counter, with nothing to move.

Expiry is lazy and amortised: an expired entry is never returned, and each `put` drops a few from the old
ends of the queues, so that a million entries that expire together stop nobody. `sweep` drops them all.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import Any, Final

_MOST_HITS: Final = 3
_DROPS_A_PUT: Final = 2


class Entry:
    """A value and until when it holds.

    Attributes:
        key: its key.
        value: its value.
        expires: moment from which it does not hold any more.
        hits: how often it was asked for since it was last considered for eviction, up to 3.
        kept: false once it has left the store.
    """

    __slots__ = ("expires", "hits", "kept", "key", "value")

    def __init__(self, key: Hashable, value: Any, expires: float) -> None:
        self.key = key
        self.value = value
        self.expires = expires
        self.hits = 0
        self.kept = True


class Store:
    """At most `maxsize` entries.

    Attributes:
        evicted: entries dropped to make room.
        expired: entries dropped because their time was over.
    """

    __slots__ = ("_entries", "_ghosts", "_main", "_maxsize", "_small", "_small_room", "evicted", "expired")

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._small_room = max(1, maxsize // 10)
        self._entries: dict[Hashable, Entry] = {}
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._ghosts: OrderedDict[Hashable, None] = OrderedDict()
        self.evicted = 0
        self.expired = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(list(self._entries))

    def find(self, key: Hashable, now: float) -> Entry | None:
        """The entry of a key, if it holds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            self._expire(entry)
            return None
        if entry.hits < _MOST_HITS:
            entry.hits += 1
        return entry

    def put(self, key: Hashable, value: Any, expires: float, now: float) -> None:
        """Keep a value until `expires`."""
        for queue in (self._small, self._main):
            self._drop_old(queue, now)
        entry = self._entries.get(key)
        if entry is not None:
            entry.value, entry.expires = value, expires
            return
        while len(self._entries) >= self._maxsize:
            self._evict()
        entry = self._entries[key] = Entry(key, value, expires)
        if key in self._ghosts:
            del self._ghosts[key]
            self._main.append(entry)
        else:
            self._small.append(entry)
        self._compact()

    def remove(self, key: Hashable) -> bool:
        """Drop the entry of a key; false if there was none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        entry.kept = False
        return True

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()

    def sweep(self, now: float) -> int:
        """Drop all expired entries; returns how many."""
        over = [entry for entry in self._entries.values() if entry.expires <= now]
        for entry in over:
            self._expire(entry)
        self._compact()
        return len(over)

    def _expire(self, entry: Entry) -> None:
        self.remove(entry.key)
        self.expired += 1

    def _drop_old(self, queue: deque[Entry], now: float) -> None:
        for _ in range(_DROPS_A_PUT):
            if not queue or (queue[0].kept and queue[0].expires > now):
                return
            entry = queue.popleft()
            if entry.kept:
                self._expire(entry)

    def _evict(self) -> None:
        """Take one step towards room: drop an entry, or give one another round."""
        from_small = len(self._small) >= self._small_room or not self._main
        entry = (self._small if from_small else self._main).popleft()
        if not entry.kept:
            return
        if entry.hits == 0:
            self.remove(entry.key)
            self.evicted += 1
            if from_small:
                self._remember(entry.key)
        else:
            entry.hits = 0 if from_small else entry.hits - 1
            self._main.append(entry)

    def _remember(self, key: Hashable) -> None:
        self._ghosts[key] = None
        if len(self._ghosts) > self._maxsize:
            self._ghosts.popitem(last=False)

    def _compact(self) -> None:
        """Drop what is left of removed entries, so that memory follows the entries kept."""
        if len(self._small) + len(self._main) > 2 * len(self._entries) + 16:
            self._small = deque(entry for entry in self._small if entry.kept)
            self._main = deque(entry for entry in self._main if entry.kept)

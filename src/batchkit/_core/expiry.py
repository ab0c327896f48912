"""What holds, is stale, or has expired, given `now`.

Expiry is lazy and amortised: an expired entry is never found, and once there may be any, a few more entries
of the queues are looked at with each change, round and round, and dropped if their time is over. So memory
follows what is kept, and a million entries that expire together stop nobody.

No operation takes long, however many entries there are, but for those that say so.

One writer at a time; readers of `front` and `beyond_front` need no lock, if they read an entry's value first,
then `fresh`, and then see that the value is still the same: then the value was the entry's at that moment.
For this the order of the writes below matters.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from math import inf
from typing import Any, Final

from batchkit._core.entries import ENDED, Entry
from batchkit._core.eviction import Eviction
from batchkit._core.index import KEYS_A_DICT, Index
from batchkit._core.tags import Tagged

MOST_HITS: Final = 3
_CHANGES: Final = 4  # after which entries of each queue are looked at, to see whether their time is over:
_FEWEST_LOOKS: Final = 4  # so many while there is none of that kind,
_MOST_LOOKS: Final = 16  # and so many while there are
_SPARE: Final = 24  # entries that leave at a time
_LARGE: Final = 800 * KEYS_A_DICT  # entries that a store with a bound by weight is made for


class Store:
    """Entries whose weights are at most `maxsize` together.

    Args:
        maxsize: the bound.
        weighted: whether entries have weights of their own, so that their number is not known.

    Attributes:
        front: some of the entries by key; see `Index`.
        beyond_front: gives the entry of a key that is not in front, whatever its moment.
        evicted: entries dropped to make room.
        expired: entries dropped because their time was over.
        removed: entries dropped because somebody said so.
        refused: entries not taken since they weigh more than the whole store.
    """

    __slots__ = (
        "_changes",
        "_due",
        "_ended",
        "_eviction",
        "_index",
        "_looks",
        "_maxsize",
        "_number",
        "_parts",
        "_room",
        "_small",
        "_tags",
        "_weighted",
        "beyond_front",
        "evicted",
        "expired",
        "front",
        "refused",
        "removed",
    )

    def __init__(self, maxsize: int, *, weighted: bool = False) -> None:
        self._maxsize = maxsize
        self._weighted = weighted
        self._index: Index[Entry] = Index(min(maxsize, _LARGE) if weighted else maxsize)
        self._start()
        self._parts = self._index.parts
        self._number = self._index.number
        self.front = self._index.front
        self.beyond_front = self._index.get
        self.evicted = 0
        self.expired = 0
        self.removed = 0
        self.refused = 0

    def _start(self) -> None:
        self._eviction = Eviction(self._maxsize, 0 if self._weighted else self._maxsize, self._index)
        self._small = self._eviction.small
        self._tags = Tagged()
        self._room = self._maxsize
        self._ended = 0  # entries that are in a queue only
        self._due = inf  # no entry's time is over before that moment
        self._changes = 0  # since entries were looked at
        self._looks = _FEWEST_LOOKS

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._index)

    @property
    def weight(self) -> int:
        """Of all entries."""
        return self._maxsize - self._room

    def find(self, key: Hashable, now: float) -> Entry | None:
        """The entry of a key, if it is of any use, which counts as a hit."""
        entry = self.look(key, now)
        if entry is not None and entry.hits < MOST_HITS:
            entry.hits += 1
        return entry

    def look(self, key: Hashable, now: float) -> Entry | None:
        """The entry of a key, if it is of any use, without a hit."""
        entry = self._index.get(key)
        if entry is None or entry.fresh > now or entry.gone > now:
            return entry
        if entry.gone > ENDED:
            self._drop(entry)
            self.expired += 1
        return None

    def set(self, key: Hashable, value: Any, expires: float, now: float) -> None:
        """Keep a value until `expires`, with nothing more to it."""
        if now >= self._due:
            self._look_after(now)
        part = self._parts[hash(key) % self._number]
        hits = 0
        if key in part:
            entry = part[key]
            if type(entry) is Entry:
                if expires < entry.fresh:
                    self._expect(expires)
                entry.value = value
                entry.fresh = expires
                return
            hits, _held = entry.hits, self._outdate(entry)
        if self._room <= 0:
            self._make_room(1, now)
        entry = Entry()
        entry.key = key
        entry.value = value
        entry.fresh = expires
        entry.hits = hits
        part[key] = entry
        self._room -= 1
        small = self._small
        small.behind.append(entry)
        if expires < small.due:
            self._expect(expires)

    def put(self, entry: Entry, now: float, *, main: bool = False) -> None:
        """Take an entry in, in the place of another one of its key.

        Args:
            entry: the entry.
            now: the moment.
            main: whether it is known to be worth keeping.
        """
        if type(entry) is Entry and not main:
            self.set(entry.key, entry.value, entry.fresh, now)
            return
        if now >= self._due:
            self._tidy_up(now)
        part = self._part(entry.key)
        old = part.get(entry.key)
        if entry.weight > self._maxsize:
            self._refuse(entry, old)
            return
        if old is not None:
            entry.hits, _held = old.hits, self._outdate(old)
        self._make_room(entry.weight, now)
        part[entry.key] = entry
        self._room -= entry.weight
        self._tags.add(entry)
        self._expect(entry.gone)
        (self._eviction.main if main else self._small).append(entry)

    def remove(self, key: Hashable, now: float) -> bool:
        """Drop the entry of a key; false if there was none."""
        entry = self.look(key, now)
        if entry is None:
            return False
        self._drop(entry)
        self.removed += 1
        self._tidy_up(now)
        return True

    def postpone(self, key: Hashable, now: float, seconds: float) -> None:
        """If there is an entry of the key, it is not to be loaded again for so long."""
        if (entry := self.look(key, now)) is not None:
            entry.postpone(now + seconds)

    def tagged(self, tag: Hashable) -> list[Hashable]:
        """The keys that have a tag; takes as long as there are such keys."""
        return self._tags.keys(tag)

    def clear(self) -> None:
        """Drop all entries; takes as long as there are entries."""
        self.removed += len(self)
        for entry, _ in self.in_order():
            entry.end()
        self._index.clear()
        self._start()

    def tidy(self, now: float, looks: int) -> int:
        """Look at so many entries of each queue, and drop those whose time is over; returns how many left."""
        plain, others = self._eviction.tidy(looks, now)
        self.expired += len(plain)
        self._end_plain(plain)
        for entry in others:
            self._bury(entry, now)
        self._due = ENDED if self._ended else min(self._small.due, self._eviction.main.due)
        return len(plain) + len(others)

    @property
    def longest_queue(self) -> int:
        """Entries of which each is looked at once by so many looks of `tidy`."""
        return max(len(self._small), len(self._eviction.main))

    def in_order(self) -> Iterator[tuple[Entry, bool]]:
        """All entries, those first that are known to be worth keeping, and whether they are; takes as long as
        there are entries.
        """
        main = self._eviction.main
        for queue in (main, self._small):
            yield from ((entry, queue is main) for entry in queue if entry.gone > ENDED)

    def _part(self, key: Hashable) -> dict[Hashable, Entry]:
        return self._parts[hash(key) % self._number]

    def _expect(self, moment: float) -> None:
        """The time of an entry is over at that moment; it may be in any queue, and may have been looked at
        before.
        """
        for queue in (self._small, self._eviction.main):
            queue.due = min(queue.due, moment)
            queue.seen = min(queue.seen, moment)
        self._due = min(self._due, moment)

    def _look_after(self, now: float) -> None:
        self._changes += 1
        if self._changes >= _CHANGES:
            self._tidy_up(now)

    def _tidy_up(self, now: float) -> None:
        self._changes = 0
        some_were_over = self.tidy(now, self._looks) > 0
        self._looks = min(2 * self._looks, _MOST_LOOKS) if some_were_over else _FEWEST_LOOKS

    def _make_room(self, weight: int, now: float) -> None:
        """Have entries leave until there is room, and for some more than asked: to have many leave at a time
        takes half as long.
        """
        wanted = weight - self._room
        if wanted <= 0:
            return
        plain, others = self._eviction.leave(wanted + min(_SPARE, self._maxsize // 256), now)
        for entry in others:
            self._bury(entry, now)
        self.evicted += plain
        self._room += plain
        if self._weighted:
            self._eviction.remember(len(self._eviction.main))

    def _bury(self, entry: Entry, now: float) -> None:
        """An entry has left its queue."""
        if entry.gone == ENDED:
            self._ended -= 1
            return
        if entry.gone <= now:
            self.expired += 1
        else:
            self.evicted += 1
        self._end(entry)

    def _refuse(self, entry: Entry, old: Entry | None) -> None:
        self.refused += 1
        entry.end()
        if old is not None:
            self._drop(old)

    def _drop(self, entry: Entry) -> None:
        """An entry is wanted no more; it will leave its queue later."""
        del self._part(entry.key)[entry.key]
        self._outdate(entry)

    def _outdate(self, entry: Entry) -> Any:
        """As `_drop`, but for the index, where another entry is about to take its place: so a key that has a
        value is never missed by those without the lock. Returns the value, which is to be held until then,
        since to let go of it may call anything.
        """
        value = entry.value
        self._let_go(entry)
        self._ended += 1
        self._due = ENDED
        return value

    def _end_plain(self, entries: list[Entry]) -> None:
        """As `_end`, in half of the time."""
        self._room += len(entries)
        parts, number = self._parts, self._number
        for entry in entries:
            key = entry.key
            del parts[hash(key) % number][key]
            entry.fresh = ENDED
            entry.value = None

    def _end(self, entry: Entry) -> None:
        del self._part(entry.key)[entry.key]
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        self._room += entry.weight
        self._tags.discard(entry)
        entry.end()

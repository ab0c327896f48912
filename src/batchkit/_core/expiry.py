"""Which entry holds, is stale, has expired or is to be evicted, given `now`.

Eviction is S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction",
SOSP 2023): a new key enters a small queue of a tenth of the room; what was asked for again by the time it
reaches the end of that moves to the main queue, the rest leaves and is remembered as a ghost for a while; a
ghost that came back moves to the main queue, too. (In the paper it enters it at once; so the ghosts are asked
once for a key, and not twice.) So keys that are seen once leave soon, and a hit costs one counter, with
nothing to move.

Expiry is lazy and amortised: an expired entry is never found, and with each change a few more entries of the
queues are looked at, round and round, and dropped if their time is over. So memory follows what is kept, and
a million entries that expire together stop nobody.

No operation takes long, however many entries there are, but for those that say so.

One writer at a time; readers of `front` and `beyond_front` need no lock, if they read an entry's value first,
then `fresh`, and then see that the value is still the same: then the value was the entry's at that moment.
For this the order of the writes below matters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from math import inf
from typing import Any, Final

from batchkit._core.ghosts import Ghosts
from batchkit._core.index import KEYS_A_DICT, Index

MOST_HITS: Final = 3
_CHANGES: Final = 8  # after which entries of each queue are looked at, to see whether their time is over:
_FEWEST_LOOKS: Final = 4  # so many while there is none of that kind,
_MOST_LOOKS: Final = 32  # and so many while there are
_MOST_ROUNDS: Final = 64  # entries that are given another round before one leaves, wanted or not
_SPARE: Final = 16  # entries that leave at a time
_LARGE: Final = 500 * KEYS_A_DICT  # entries that a store with a bound by weight is made for


class Entry:
    """A value and until when it holds.

    Attributes:
        key: its key.
        value: its value.
        fresh: moment until which nothing else has to be thought of when it is asked for; -inf for an entry
            that is in no store any more.
        hits: how often it was asked for since it was last considered for eviction, up to 3.
        weight: what it takes of the store's room.
        tags: what it can be removed by, with others.
        negative: whether it says that there is no value.
    """

    __slots__ = ("fresh", "hits", "key", "value")

    weight: int = 1
    tags: tuple[Hashable, ...] = ()
    negative: bool = False

    # no __init__, which would take as long as all the rest of `Store.set`
    key: Hashable
    value: Any
    fresh: float
    hits: int

    @property
    def expires(self) -> float:
        """Moment from which it does not hold any more."""
        return self.fresh

    @property
    def gone(self) -> float:
        """Moment from which it is of no use, not even as a stale value."""
        return self.fresh

    def stale(self, now: float) -> bool:
        """Whether it does not hold any more, but can be used while it is loaded again."""
        return now >= self.expires

    def wants_reload(self, now: float) -> bool:
        """Whether who asks for it now should have it loaded again."""
        return False

    def postpone(self, moment: float) -> None:
        """Not to be loaded again before that moment."""

    def end(self) -> None:
        """It is in no store any more. Lets go of the value, since the entry itself may lie about for long."""
        self.fresh = -inf
        self.value = None


def plain_entry(key: Hashable, value: Any, fresh: float) -> Entry:
    """An entry with nothing more to it."""
    entry = Entry()
    entry.key = key
    entry.value = value
    entry.fresh = fresh
    entry.hits = 0
    return entry


class FullEntry(Entry):
    """An entry with more to it.

    Attributes:
        due: moment from which it is to be loaded again when it is asked for.
    """

    __slots__ = ("_expires", "_gone", "due", "negative", "tags", "weight")

    def __init__(
        self,
        key: Hashable,
        value: Any,
        expires: float,
        *,
        due: float = inf,
        gone: float = -inf,
        weight: int = 1,
        tags: tuple[Hashable, ...] = (),
        negative: bool = False,
    ) -> None:
        self.key = key
        self.value = value
        self.fresh = -inf if negative else min(due, expires)
        self.hits = 0
        self._expires = expires
        self._gone = max(expires, gone)
        self.due = due
        self.weight = weight
        self.tags = tags
        self.negative = negative

    @property
    def expires(self) -> float:
        return self._expires

    @property
    def gone(self) -> float:
        return self._gone

    def wants_reload(self, now: float) -> bool:
        # before it expires only if it is hot: asked for before, too
        return now >= self.due and (self.hits > 1 or now >= self._expires)

    def postpone(self, moment: float) -> None:
        self.due = moment

    def end(self) -> None:
        self._expires = self._gone = -inf
        super().end()


class Store:
    """Entries whose weights are at most `maxsize` together.

    Args:
        maxsize: the bound.
        weighted: whether entries have weights of their own, so that their number is not known.

    Attributes:
        front: some of the entries by key; see `Index`.
        weight: of all entries.
        evicted: entries dropped to make room.
        expired: entries dropped because their time was over.
        removed: entries dropped because somebody said so.
        refused: entries not taken since they weigh more than the whole store.
    """

    __slots__ = (
        "_changes",
        "_ghosts",
        "_index",
        "_looks",
        "_main",
        "_maxsize",
        "_number",
        "_parts",
        "_small",
        "_small_room",
        "_tagged",
        "_weighted",
        "evicted",
        "expired",
        "front",
        "refused",
        "removed",
        "weight",
    )

    def __init__(self, maxsize: int, *, weighted: bool = False) -> None:
        self._maxsize = maxsize
        self._weighted = weighted
        self._small_room = maxsize / 10
        self._index: Index[Entry] = Index(min(maxsize, _LARGE) if weighted else maxsize)
        self._start()
        self._parts = self._index.parts
        self._number = self._index.number
        self.front = self._index.front
        self.evicted = 0
        self.expired = 0
        self.removed = 0
        self.refused = 0

    def _start(self) -> None:
        self._small = _Queue()
        self._main = _Queue()
        self._ghosts = Ghosts(0 if self._weighted else self._maxsize)
        self._tagged: dict[Hashable, set[Hashable]] = {}
        self._changes = 0
        self._looks = _FEWEST_LOOKS
        self.weight: int = 0

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._index)

    def beyond_front(self, key: Hashable) -> Entry | None:
        """The entry of a key that is not in front, whatever its moment. Needs no lock."""
        return self._index.get(key)

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
        self._expire(entry)
        return None

    def set(self, key: Hashable, value: Any, expires: float, now: float) -> None:
        """Keep a value until `expires`, with nothing more to it."""
        self._changes += 1
        if self._changes >= _CHANGES:
            self._tidy_up(now)
        part = self._parts[hash(key) % self._number]
        entry = part.get(key)
        hits = 0
        if entry is not None:
            if type(entry) is Entry:
                entry.value = value
                entry.fresh = expires
                return
            hits = entry.hits
            self._drop(entry, part)
        if self.weight >= self._maxsize:
            self._make_room(1, now)
        entry = Entry()
        entry.key = key
        entry.value = value
        entry.fresh = expires
        entry.hits = hits
        part[key] = entry
        self.weight += 1
        self._small.behind.append(entry)
        self._small.weight += 1

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
        self._tidy_up(now)
        part = self._part(entry.key)
        if (old := part.get(entry.key)) is not None:
            entry.hits = old.hits
            self._drop(old, part)
        if entry.weight > self._maxsize:
            self.refused += 1
            entry.end()
            return
        self._make_room(entry.weight, now)
        part[entry.key] = entry
        self.weight += entry.weight
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(entry.key)
        (self._main if main else self._small).append(entry)

    def remove(self, key: Hashable, now: float) -> bool:
        """Drop the entry of a key; false if there was none."""
        entry = self.look(key, now)
        if entry is None:
            return False
        self._drop(entry, self._part(key))
        self.removed += 1
        self._tidy_up(now)
        return True

    def postpone(self, key: Hashable, now: float, seconds: float) -> None:
        """If there is an entry of the key, it is not to be loaded again for so long."""
        if (entry := self.look(key, now)) is not None:
            entry.postpone(now + seconds)

    def tagged(self, tag: Hashable) -> list[Hashable]:
        """The keys that have a tag; takes as long as there are such keys."""
        return list(self._tagged.get(tag, ()))

    def clear(self) -> None:
        """Drop all entries; takes as long as there are entries."""
        self.removed += len(self)
        for entry, _ in self.in_order():
            entry.end()
        self._index.clear()
        self._start()

    def tidy(self, now: float, looks: int) -> None:
        """Look at so many entries of each queue, and drop those whose time is over."""
        self._small.tidy(now, looks, self._expire)
        self._main.tidy(now, looks, self._expire)

    @property
    def longest_queue(self) -> int:
        """Entries of which each is looked at once by so many looks of `tidy`."""
        return max(len(self._small), len(self._main))

    def in_order(self) -> Iterator[tuple[Entry, bool]]:
        """All entries, those first that are known to be worth keeping, and whether they are; takes as long as
        there are entries.
        """
        for queue in (self._main, self._small):
            yield from ((entry, queue is self._main) for entry in queue if entry.gone > -inf)

    def _part(self, key: Hashable) -> dict[Hashable, Entry]:
        return self._parts[hash(key) % self._number]

    def _tidy_up(self, now: float) -> None:
        self._changes = 0
        before = len(self._small) + len(self._main)
        self.tidy(now, self._looks)
        some_were_over = len(self._small) + len(self._main) < before
        self._looks = min(2 * self._looks, _MOST_LOOKS) if some_were_over else _FEWEST_LOOKS

    def _make_room(self, weight: int, now: float) -> None:
        """Have entries leave until there is room, and for some more than asked: to have many leave at a time
        takes half as long.
        """
        most = self._maxsize - weight
        if self.weight <= most:
            return
        most -= min(_SPARE, self._maxsize // 256)
        small, main, met = self._small, self._main, self._ghosts.met
        parts, number = self._parts, self._number
        rounds = 0
        while self.weight > most:
            from_small = small.weight >= self._small_room or not main
            queue = small if from_small else main
            entry = (queue.in_front or queue.behind).popleft()
            queue.weight -= 1 if type(entry) is Entry else entry.weight
            if entry.fresh <= now and entry.gone <= now:
                if entry.gone > -inf:
                    self._expire(entry)
                continue
            known = hash(entry.key)
            rounds += 1
            if rounds > _MOST_ROUNDS or (entry.hits == 0 and not (from_small and met(known))):
                self._drop(entry, parts[known % number])
                self.evicted += 1
            else:
                entry.hits = 0 if from_small else entry.hits - 1
                main.append(entry)
        if self._weighted and self._ghosts.size < len(main) // 2:
            self._ghosts = Ghosts(len(main))

    def _expire(self, entry: Entry) -> None:
        self._drop(entry, self._part(entry.key))
        self.expired += 1

    def _drop(self, entry: Entry, part: dict[Hashable, Entry]) -> None:
        del part[entry.key]
        if type(entry) is Entry:
            self.weight -= 1
            entry.fresh = -inf
            entry.value = None
            return
        self.weight -= entry.weight
        for tag in entry.tags:
            members = self._tagged[tag]
            members.discard(entry.key)
            if not members:
                del self._tagged[tag]
        entry.end()


class _Queue:
    """Entries, the oldest first; those that ended leave it later.

    It is in two parts, the older one in front. What is looked at goes from the head of the one behind to the
    tail of the one in front. When all are in front, that is the part behind again.

    Attributes:
        in_front: the older ones, the oldest first.
        behind: the others; new ones are appended here.
        weight: of all entries, those that ended included.
    """

    __slots__ = ("behind", "in_front", "weight")

    def __init__(self) -> None:
        self.in_front: deque[Entry] = deque()
        self.behind: deque[Entry] = deque()
        self.weight: int = 0

    def __len__(self) -> int:
        return len(self.in_front) + len(self.behind)

    def __iter__(self) -> Iterator[Entry]:
        yield from self.in_front
        yield from self.behind

    def append(self, entry: Entry) -> None:
        self.behind.append(entry)
        self.weight += entry.weight

    def tidy(self, now: float, looks: int, expire: Callable[[Entry], object]) -> None:
        """Look at so many entries; called with those whose time is over."""
        for _ in range(looks):
            if not self.behind:
                if not self.in_front:
                    return
                self.behind, self.in_front = self.in_front, self.behind
            entry = self.behind.popleft()
            if entry.fresh > now or entry.gone > now:
                self.in_front.append(entry)
                continue
            self.weight -= entry.weight
            if entry.gone > -inf:
                expire(entry)


def prefixes(key: Hashable, separator: str) -> Iterable[str]:
    """The beginnings of a key that end with the separator: "a:" and "a:b:" of "a:b:c"."""
    if not isinstance(key, str):
        return
    end = key.find(separator)
    while end >= 0:
        end += len(separator)
        yield key[:end]
        end = key.find(separator, end)

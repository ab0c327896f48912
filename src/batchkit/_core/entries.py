"""What a cache keeps: a value, until when it holds, and what else there is to it."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Any, Final

ENDED: Final = -inf  # the end of an entry that is in no store any more


class Entry:
    """A value and until when it holds.

    Attributes:
        key: its key.
        value: its value.
        fresh: moment until which nothing else has to be thought of when it is asked for.
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
        self.fresh = ENDED
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
        gone: float = ENDED,
        weight: int = 1,
        tags: tuple[Hashable, ...] = (),
        negative: bool = False,
    ) -> None:
        self.key = key
        self.value = value
        self.fresh = ENDED if negative else min(due, expires)
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
        self._expires = self._gone = ENDED
        super().end()

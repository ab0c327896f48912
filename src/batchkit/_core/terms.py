"""On which terms a value is kept: for how long, when it is loaded again, its weight, its tags."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeAlias

from attrs import Factory, field, frozen

from batchkit._core.entries import Entry, FullEntry, plain_entry
from batchkit._core.tags import Prefix, prefixes

Ttl: TypeAlias = float | Callable[[Any, Any], float]
Tags: TypeAlias = Iterable[Hashable]


def checked_ttl(ttl: Ttl) -> Ttl:
    """The time to live, if it is one: a number of seconds above 0, or a function that tells it.

    Raises:
        ValueError: it is none.
    """
    if callable(ttl):
        return ttl
    if isinstance(ttl, bool) or not ttl > 0:
        raise ValueError(f"a ttl is a number of seconds above 0, or a function of key and value, not {ttl!r}")
    return float(ttl)


def checked_period(name: str, seconds: float) -> float:
    """The seconds, if they are some: a number above 0.

    Raises:
        ValueError: they are none.
    """
    if isinstance(seconds, bool) or not seconds > 0:
        raise ValueError(f"{name} is a number of seconds above 0, not {seconds!r}")
    return float(seconds)


@frozen
class Terms:
    """The terms of a cache.

    Attributes:
        ttl: seconds for which a value holds, or a function of key and value.
        jitter: the part of them that chance may take away, 0.0 to 1.0.
        chance: gives a number from 0.0 to 1.0 at random.
        stale: seconds for which a value may be used beyond them while it is loaded again.
        refresh_ahead: seconds before their end from which a hot value is loaded again; never more than half
            of them.
        negative_ttl: seconds for which it is kept that there is no value; None: not at all.
        weigh: what an entry takes of the room; None: 1 each.
        tags: the tags of an entry by key and value.
        separator: what ends the parts of keys that are removed by prefix.
        plain: whether an entry has a value and its time, and nothing else.
    """

    ttl: Ttl
    chance: Callable[[], float]
    jitter: float = 0.0
    stale: float = 0.0
    refresh_ahead: float = 0.0
    negative_ttl: float | None = None
    weigh: Callable[[Any, Any], int] | None = None
    tags: Callable[[Any, Any], Tags] | None = None
    separator: str | None = None
    plain: bool = field(init=False, default=Factory(lambda terms: _is_plain(terms), takes_self=True))

    @property
    def constant(self) -> float | None:
        """The seconds for which every value holds, if there is nothing more to it than that."""
        return self.ttl if self.plain and not self.jitter and not callable(self.ttl) else None

    def entry(
        self, key: Hashable, value: Any, now: float, ttl: Ttl | None = None, tags: Tags = ()
    ) -> Entry | None:
        """A value as it is kept from now on; None if its time to live says that it is not."""
        if ttl is None:
            ttl = self.ttl
        seconds = ttl(key, value) if callable(ttl) else ttl
        if not seconds > 0:
            return None
        return self.entry_for(key, value, now, seconds * (1.0 - self.jitter * self.chance()), tags)

    def entry_for(self, key: Hashable, value: Any, now: float, seconds: float, tags: Tags = ()) -> Entry:
        """A value as it is kept for so many seconds."""
        expires = now + seconds
        if self.plain and not tags:
            return plain_entry(key, value, expires)
        weight = 1 if self.weigh is None else _checked_weight(self.weigh(key, value))
        all_tags = self._tags(key, value, tags)
        if weight == 1 and not (all_tags or self.stale or self.refresh_ahead):
            return plain_entry(key, value, expires)
        return FullEntry(
            key,
            value,
            expires,
            due=expires - min(self.refresh_ahead, seconds / 2),
            gone=expires + self.stale,
            weight=weight,
            tags=all_tags,
        )

    def negative(self, key: Hashable, answer: object, now: float) -> Entry | None:
        """What was answered for a key that has no value; None if that is not kept."""
        if self.negative_ttl is None:
            return None
        return self.negative_for(key, answer, now, self.negative_ttl * (1.0 - self.jitter * self.chance()))

    def negative_for(self, key: Hashable, answer: object, now: float, seconds: float) -> Entry:
        """What was answered for a key that has no value, kept for so many seconds."""
        return FullEntry(key, answer, now + seconds, tags=self._prefixes(key), negative=True)

    def _tags(self, key: Hashable, value: Any, tags: Tags) -> tuple[Hashable, ...]:
        if not tags and self.tags is None and self.separator is None:
            return ()
        own = () if self.tags is None else self.tags(key, value)
        return (*dict.fromkeys((*tags, *own)), *self._prefixes(key))

    def _prefixes(self, key: Hashable) -> tuple[Prefix, ...]:
        return () if self.separator is None else tuple(map(Prefix, prefixes(key, self.separator)))


def _is_plain(terms: Terms) -> bool:
    more = (terms.weigh, terms.tags, terms.separator)
    return not (terms.stale or terms.refresh_ahead) and all(each is None for each in more)


def _checked_weight(weight: int) -> int:
    if weight.__class__ is not int or weight < 1:
        raise ValueError(f"a weight is a whole number, 1 or more, not {weight!r}")
    return weight

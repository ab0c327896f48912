"""By which rules values count as dropped: by tag, by prefix, or all that were kept before a moment. Pure.

A rule has a moment, which only grows. A value remembers the last moment that its process knew of when its
load began. So it counts as dropped by each rule that came later, also while it was loaded.

Redis keeps the rules, and each process has a copy. Both keep a limited number: instead of the oldest ones
they remember that whatever was kept before those counts as dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Final, cast

from batchkit._redis.names import part, whole
from batchkit.abc import Invalidation, Prefix

MOST: Final = 10_000  # rules
LAST: Final = "*"  # whose moment is that of the last rule
FLOOR: Final = "^"  # what was kept before its moment counts as dropped


ALL: Final = "p"  # the rule that drops whatever there is

_TAG, _TEXT, _TUPLE = "tpq"  # how rules begin


def tag_rule(text: str) -> str:
    """The rule that drops the tag of that text."""
    return _TAG + text


def prefix_rule(prefix: Prefix) -> str:
    """The rule that drops the keys that start with a prefix; all keys whatever, if that is an empty text."""
    return _TEXT + prefix if isinstance(prefix, str) else _TUPLE + part(prefix, scalars=True)[:-1]


def _prefix(rule: str) -> Prefix:
    if rule[0] == _TEXT:
        return rule[1:]
    return cast("tuple[Hashable, ...]", whole(f"{rule[1:]})"))


class Rules:
    """The rules as far as this process knows.

    Args:
        most: how many are kept.

    Attributes:
        position: the last moment that is known of; 0 before the first answer.
    """

    def __init__(self, most: int = MOST) -> None:
        self.position = 0
        self._most = most
        self._floor = 0
        self._moments: dict[str, int] = {}
        self._lengths: tuple[int, ...] = ()  # of prefixes, with the letter before them

    def __len__(self) -> int:
        return len(self._moments)

    def is_dropped(self, key: Hashable, tags: Iterable[str], born: int, known: int | None = None) -> bool:
        """Whether a value counts as dropped.

        Args:
            key: its key.
            tags: the texts of its tags.
            born: the last moment that was known of when its load began.
            known: rules that came after this moment do not count.
        """
        if born >= self.position:
            return False
        last = self.position if known is None else known
        if born < self._floor <= last:
            return True
        return any(born < self._moments.get(rule, 0) <= last for rule in self._rules_about(key, tags))

    def _rules_about(self, key: Hashable, tags: Iterable[str]) -> Iterator[str]:
        yield from map(tag_rule, tags)
        if self._lengths and isinstance(key, str | tuple):
            text = prefix_rule(cast(Prefix, key))
            yield from (text[:length] for length in self._lengths if length <= len(text))

    def hear(self, pairs: Iterable[tuple[str, int]]) -> Invalidation | None:
        """Take in what Redis has from the last known moment on, or as a whole.

        Returns:
            What is to be dropped, if there is anything new. What is there at first drops nothing.
        """
        news: list[str] = []
        before, missed = self.position, False
        for rule, moment in pairs:
            self.position = max(self.position, moment)
            if rule == FLOOR:
                missed = missed or moment > before
                self._floor = max(self._floor, moment)
            elif rule != LAST and self._moments.get(rule, 0) < moment:
                self._moments[rule] = moment
                news.append(rule)
        if missed or len(self._moments) > self._most + self._most // 8:
            self._forget()
        self._lengths = tuple({*self._lengths, *(len(rule) for rule in news if rule[0] != _TAG)})
        if not before or not (news or missed):
            return None
        if missed:
            return Invalidation(everything=True)
        return Invalidation(
            tags=tuple(whole(rule[1:]) for rule in news if rule[0] == _TAG),
            prefixes=tuple(_prefix(rule) for rule in news if rule[0] != _TAG),
        )

    def _forget(self) -> None:
        """Let go of rules that say nothing any more, and of the oldest ones if there are too many."""
        if len(self._moments) > self._most:
            self._floor = max(self._floor, sorted(self._moments.values())[-self._most - 1])
        self._moments = {rule: at for rule, at in self._moments.items() if at > self._floor}
        self._lengths = tuple({len(rule) for rule in self._moments if rule[0] != _TAG})

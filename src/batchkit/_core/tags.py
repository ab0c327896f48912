"""What entries can be dropped by, with others: tags, and the beginnings of keys."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from batchkit._core.entries import Entry


class Tagged:
    """The keys that have a tag."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[Hashable, set[Hashable]] = {}

    def add(self, entry: Entry) -> None:
        """An entry is kept."""
        for tag in entry.tags:
            self._keys.setdefault(tag, set()).add(entry.key)

    def discard(self, entry: Entry) -> None:
        """It is not kept any more."""
        for tag in entry.tags:
            keys = self._keys[tag]
            keys.discard(entry.key)
            if not keys:
                del self._keys[tag]

    def keys(self, tag: Hashable) -> list[Hashable]:
        """The keys that have a tag; takes as long as there are such keys."""
        return list(self._keys.get(tag, ()))


class Prefix(str):
    """The beginning of keys, as a tag: never equal to a tag of a user's."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and str.__eq__(self, other)

    def __hash__(self) -> int:
        return hash((Prefix, str(self)))


def prefixes(key: Hashable, separator: str) -> Iterable[str]:
    """The beginnings of a key that end with the separator: "a:" and "a:b:" of "a:b:c"."""
    if not isinstance(key, str):
        return
    end = key.find(separator)
    while end >= 0:
        end += len(separator)
        yield key[:end]
        end = key.find(separator, end)


def starts_with(key: Hashable, prefix: str | tuple[Hashable, ...]) -> bool:
    """Whether a text starts with a text, or a tuple with a tuple."""
    if isinstance(key, str):
        return isinstance(prefix, str) and key.startswith(prefix)
    return isinstance(key, tuple) and isinstance(prefix, tuple) and key[: len(prefix)] == prefix


def own_tags(entry: Entry) -> tuple[Hashable, ...]:
    """The tags of an entry that were given to it."""
    return tuple(tag for tag in entry.tags if not isinstance(tag, Prefix))

"""Keys to entries, in any number, with no operation that takes long.

A dict that grows is rehashed at once, which takes 25 ms for a million keys; so does the first key that is no
string. So the keys of a large index are spread over many dicts, each of which is small. To find the right
one takes longer than to look into it: so a *front* keeps what was found lately, in one dict.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Final, Generic, TypeVar

E = TypeVar("E")

KEYS_A_DICT: Final = 4096
_FRONT: Final = 4 * KEYS_A_DICT
# Primes: what is left of a hash by such a number says nothing of its lowest bits, which a dict goes by.
_NUMBERS_OF_DICTS: Final = (1, 31, 127, 251, 509, 1021, 2039, 4093)


class Index(Generic[E]):
    """A dict of entries.

    Args:
        size: keys that it is made for; it takes more.

    Attributes:
        front: the entries found lately, by key; of a small index, all. It may also hold some that are not
            in the index any more: an entry has to say so itself. To look into it is one atomic step.
    """

    __slots__ = ("_dicts", "_size", "front")

    def __init__(self, size: float) -> None:
        wanted = size / KEYS_A_DICT
        number = next((number for number in _NUMBERS_OF_DICTS if number >= wanted), _NUMBERS_OF_DICTS[-1])
        self._dicts: list[dict[Hashable, E]] = [{} for _ in range(number)]
        self._size = 0
        self.front: dict[Hashable, E] = self._dicts[0] if number == 1 else {}

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Hashable]:
        return chain.from_iterable(map(list, self._dicts))

    def get(self, key: Hashable) -> E | None:
        """The entry of a key; it is in front from now on."""
        entry = self._dict(key).get(key)
        if entry is not None and len(self._dicts) > 1:
            if len(self.front) >= _FRONT:
                self.front.clear()
            self.front[key] = entry
        return entry

    def add(self, key: Hashable, entry: E) -> None:
        """Put an entry in; there is none of that key."""
        self._dict(key)[key] = entry
        self._size += 1

    def remove(self, key: Hashable, entry: E) -> None:
        """Take the entry of a key out, if it is that one."""
        entries = self._dict(key)
        if entries.get(key) is entry:
            del entries[key]
            self._size -= 1

    def clear(self) -> None:
        """Take all out."""
        self._size = 0
        self.front.clear()
        for part in self._dicts:
            part.clear()

    def _dict(self, key: Hashable) -> dict[Hashable, E]:
        return self._dicts[hash(key) % len(self._dicts)]

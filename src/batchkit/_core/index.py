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

KEYS_A_DICT: Final = 2048
_FRONT: Final = 4 * KEYS_A_DICT
# Primes: what is left of a hash by such a number says nothing of its lowest bits, which a dict goes by.
_NUMBERS_OF_DICTS: Final = (1, 31, 127, 251, 509, 1021, 2039, 4093)


class Index(Generic[E]):
    """Entries by key.

    Args:
        size: keys that it is made for; it takes more.

    Attributes:
        parts: the dicts; a key is in the one of number `hash(key) % number`.
        number: how many dicts there are.
        front: the entries found lately, by key; of a small index, all. It may also hold some that are not
            in the index any more: an entry has to say so itself. To look into it is one atomic step.
    """

    __slots__ = ("front", "number", "parts")

    def __init__(self, size: float) -> None:
        wanted = size / KEYS_A_DICT
        self.number = next((each for each in _NUMBERS_OF_DICTS if each >= wanted), _NUMBERS_OF_DICTS[-1])
        self.parts: list[dict[Hashable, E]] = [{} for _ in range(self.number)]
        self.front: dict[Hashable, E] = self.parts[0] if self.number == 1 else {}

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Hashable]:
        return chain.from_iterable(map(list, self.parts))

    def get(self, key: Hashable) -> E | None:
        """The entry of a key; it is in front from now on. Needs no lock."""
        entry = self.parts[hash(key) % self.number].get(key)
        if entry is not None and self.number > 1:
            if len(self.front) >= _FRONT:
                self.front.clear()
            self.front[key] = entry
        return entry

    def clear(self) -> None:
        """Take all out."""
        self.front.clear()
        for part in self.parts:
            part.clear()

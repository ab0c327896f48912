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

KEYS_A_DICT: Final = 1250  # few enough that a dict of so many is not made four times as large as it need be
_MOST_DICTS: Final = 4093
_FRONT: Final = 8192  # keys


class Index(Generic[E]):
    """Entries by key.

    Args:
        size: keys that it is made for; it takes more.

    Attributes:
        parts: the dicts; a key is in the one of number `hash(key) % number`.
        number: how many dicts there are: one, or an odd prime, since what is left of a hash by such a number
            says nothing of its lowest bits, which a dict goes by.
        front: the entries found lately, by key; of a small index, all. It may also hold some that are not
            in the index any more: an entry has to say so itself. To look into it is one atomic step.
    """

    __slots__ = ("front", "number", "parts")

    def __init__(self, size: float) -> None:
        self.number = _number_of_dicts(size)
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


def _number_of_dicts(size: float) -> int:
    if size <= KEYS_A_DICT:
        return 1
    number = int(min(size / KEYS_A_DICT, _MOST_DICTS - 1)) + 1 | 1
    while any(number % each == 0 for each in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number

"""The keys that left a cache lately, without the keys."""

from __future__ import annotations

from array import array
from typing import Final

_MOST: Final = 2**21  # 4 MB, which are made at once
_DIGIT: Final = 30  # bits of a number with which Python is quick


class Ghosts:
    """Remembers about `size` keys by their hashes: a place for each, which belongs to the last key that has
    it. So a key is forgotten some time after it left. A key that never was there is taken for one that was
    with a chance of 2**-16 among 16,000 keys or fewer, and of 2**-10 among a million.

    It takes 2 bytes a key, and keeps no key alive.

    Args:
        size: keys.
        number: of an index's dicts, an odd one. The rest of a place by it is that of the hash.

    Attributes:
        size: places.
        reach: what counts of a hash is its rest by this: the place is the rest of that by `size`, the mark
            its lowest 16 bits.
        marks: by place; 0 where there is none.
    """

    __slots__ = ("marks", "reach", "size")

    def __init__(self, size: int, number: int = 1) -> None:
        # odd, so that the place of a hash says nothing of its lowest bits, which are the mark
        self.size = number * (min(size, _MOST) // number | 1)
        self.reach = self.size << min(16, _DIGIT - self.size.bit_length())
        self.marks = array("H", bytes(2 * self.size))

    def met(self, known: int) -> bool:
        """Whether the key of that hash is remembered. If so it is forgotten; if not it is remembered."""
        rest = known % self.reach
        place = rest % self.size
        mark = rest & 0xFFFF
        if self.marks[place] == mark != 0:
            self.marks[place] = 0
            return True
        self.marks[place] = mark
        return False

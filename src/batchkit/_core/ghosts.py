"""The keys that left a cache lately, without the keys."""

from __future__ import annotations

from array import array
from typing import Final

_MOST: Final = 2**21  # 4 MB, which are made at once


class Ghosts:
    """Remembers about `size` keys by their hashes: a place for each, which belongs to the last key that has
    it. So a key is forgotten some time after it left. A key that never was there is taken for one that was
    with a chance of 2**-16.

    It takes 2 bytes a key, and keeps no key alive.
    """

    __slots__ = ("marks", "size")

    def __init__(self, size: int) -> None:
        # odd, so that the place of a hash says nothing of its lowest bits, which are the mark
        self.size = min(size, _MOST) | 1
        self.marks = array("H", bytes(2 * self.size))

    def met(self, known: int) -> bool:
        """Whether the key of that hash is remembered. If so it is forgotten; if not it is remembered."""
        place = known % self.size
        mark = known & 0xFFFF
        if self.marks[place] == mark != 0:
            self.marks[place] = 0
            return True
        self.marks[place] = mark
        return False

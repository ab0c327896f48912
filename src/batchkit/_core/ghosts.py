"""The keys that left a cache lately, without the keys."""

from __future__ import annotations

from typing import Final

MARKS: Final = 256  # different marks, of a byte each
_MOST: Final = 2**21  # 2 MB, which are made at once


class Ghosts:
    """Remembers about `size` keys by their hashes: a place for each, which belongs to the last key that has
    it. So a key is forgotten some time after it left. A key that never was there is taken for one that was
    with a chance of 1 in 256.

    It takes a byte a key, and keeps no key alive.

    Attributes:
        marks: what is at each place: a part of the hash of the key that it belongs to, or 0.
        span: how many different rests of a hash there are: each stands for a place and a mark.
    """

    __slots__ = ("marks", "size", "span")

    def __init__(self, size: int) -> None:
        # odd, so that the place of a hash says nothing of its lowest bits, which are the mark
        self.size = min(size, _MOST) | 1
        self.span = self.size * MARKS  # a rest by it fits into 30 bits, with which Python is quick
        self.marks = bytearray(self.size)

    def met(self, known: int) -> bool:
        """Whether the key of that hash is remembered. If so it is forgotten; if not it is remembered."""
        place, mark = divmod(known % self.span, MARKS)
        if self.marks[place] == mark != 0:
            self.marks[place] = 0
            return True
        self.marks[place] = mark
        return False

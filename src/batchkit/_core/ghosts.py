"""The keys that left a cache lately, without the keys."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Final

_CHUNK: Final = 4096  # places of 8 bytes that are made at a time, so that no operation takes long


class Ghosts:
    """Remembers about `size` keys by their hashes: a place for each, which belongs to the last key that has
    it. So a key is forgotten some time after it left; a key that never was there is taken for one that was
    with a chance of 2**-61.

    It takes 8 bytes a key, and keeps no key alive.
    """

    __slots__ = ("_chunks", "_size")

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._chunks: dict[int, array[int]] = {}

    @property
    def size(self) -> int:
        """How many it remembers at most."""
        return self._size

    def add(self, key: Hashable) -> None:
        """Remember a key."""
        known = hash(key)
        number, place = divmod(known % self._size, _CHUNK)
        if number not in self._chunks:
            self._chunks[number] = array("q", [0]) * min(_CHUNK, self._size)
        self._chunks[number][place] = known

    def recall(self, key: Hashable) -> bool:
        """Whether a key is remembered; it is no longer afterwards."""
        known = hash(key)
        number, place = divmod(known % self._size, _CHUNK)
        chunk = self._chunks.get(number)
        if chunk is None or chunk[place] != known or known == 0:
            return False
        chunk[place] = 0
        return True

"""A barrier: no item of the next batch starts before the last one of this is done, and a pause has passed."""

from __future__ import annotations

from math import inf


class Barrier:
    """Whether the next batch may begin.

    Args:
        size: items between two barriers.
        pause: seconds between the end of a batch and the start of the next; None for no barrier at all.
    """

    __slots__ = ("_begun", "_opens", "_pause", "_size")

    def __init__(self, size: int, pause: float | None) -> None:
        self._size = size
        self._pause = pause
        self._begun = 0  # items of this batch that have started
        self._opens = inf  # when the next one may begin; infinite while this one is not done

    @property
    def room(self) -> float:
        """Items that may start before the next barrier."""
        return inf if self._pause is None else self._size - self._begun

    def begin(self, items: int) -> None:
        """So many items started."""
        if self._pause is not None:
            self._begun += items

    def ended(self, now: float, *, all_done: bool) -> None:
        """A call ended; `all_done`, if no other is under way or is to come for these items."""
        if self._pause is not None and all_done and self._begun >= self._size:
            self._opens = now + self._pause

    def is_open(self, now: float) -> bool:
        """Whether an item may start."""
        if now >= self._opens:
            self._begun, self._opens = 0, inf
        return self.room > 0

    def due(self) -> float:
        """The moment at which that changes."""
        return self._opens

"""Places that another limit holds up, and what is kept for them."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from math import inf

from batchkit._core.place import Place, State

COMPACT_ABOVE = 64


class Held:
    """The held places of a line: others pass them, but do not take what is kept for the first of them.

    Attributes:
        wanted: permits of those for which something is kept.
    """

    __slots__ = ("_kept", "_places", "_serial", "wanted")

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self._places: dict[Place, None] = dict.fromkeys(places)
        self._serial = 0
        self.wanted = sum(place.cost for place in self._places if place.kept_for < inf)
        self._kept: list[tuple[tuple[float, int], int, Place]] = []  # may hold places that are held no more
        self._compact()

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, place: Place, until: float) -> None:
        """Keep a place's permits for that moment; infinite: keep nothing."""
        place.state = State.HELD
        place.kept_for = until
        self._places[place] = None
        if until < inf:
            self._serial += 1
            self.wanted += place.cost
            heappush(self._kept, (place.order, self._serial, place))
            if len(self._kept) > COMPACT_ABOVE + 2 * len(self._places):
                self._compact()

    def remove(self, place: Place) -> None:
        """It is held no more."""
        if place.kept_for < inf:
            self.wanted -= place.cost
        del self._places[place]

    @property
    def kept(self) -> list[Place]:
        """Those for which something is kept."""
        return [place for place in self._places if place.kept_for < inf]

    @property
    def passed(self) -> list[Place]:
        """Those for which nothing is kept."""
        return [place for place in self._places if place.kept_for == inf]

    def above(self, cost: int) -> list[Place]:
        """Those that cost more."""
        return [place for place in self._places if place.cost > cost]

    def first(self) -> Place | None:
        """The one for which something is kept that stands before all other such."""
        kept = self._kept
        while kept and not (kept[0][2].state is State.HELD and kept[0][2].kept_for < inf):
            heappop(kept)
        return kept[0][2] if kept else None

    def _compact(self) -> None:
        self._kept = [(place.order, 0, place) for place in self._places if place.kept_for < inf]
        heapify(self._kept)

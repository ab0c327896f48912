"""How many calls at once are enough, by Little's law: rate of calls x seconds of a call.

While calls wait for permits, the rate is the quota's, so that the product is what the quota needs. While they
do not, the product is only the number of calls at once itself, and says nothing. Then more are tried, as long
as that raises the rate: a service that has enough answers more calls at once only more slowly.
"""

from __future__ import annotations

from math import ceil
from typing import Final

_SPARE: Final = 1.5  # what is allowed beyond rate x latency, and by how much more are tried
_FEWEST: Final = 4  # calls that one look is made from, at least; two rounds of calls, if that is more
_GAIN: Final = 0.25  # part of the rise in calls at once that has to be seen in the rate to be worth it
_HELD: Final = 8  # looks for which a number is kept that could not be raised


class FoundConcurrency:
    """Finds the number of calls at once between two bounds.

    Args:
        least, most: the bounds.

    Attributes:
        limit: calls at once, for now.
    """

    __slots__ = (
        "_calls",
        "_held",
        "_kept",
        "_least",
        "_most",
        "_rate",
        "_seconds",
        "_since",
        "_waits",
        "_wanted",
        "limit",
    )

    def __init__(self, least: int, most: int) -> None:
        self.limit = least
        self._least = least
        self._most = most
        self._kept = least  # the largest limit that was worth it
        self._rate = 0.0  # the rate that it gave
        self._held = 0
        self._calls = self._waits = 0
        self._seconds = 0.0
        self._since: float | None = None
        self._wanted = False

    def note(self, seconds: float, now: float, *, wanted: bool, waited: bool) -> None:
        """A call ended.

        Args:
            seconds: what it took, without waiting for permits.
            now: the moment.
            wanted: whether all of `limit` were in use.
            waited: whether it had to wait for its permits.
        """
        if self._since is None:
            self._since = now - seconds
        self._calls += 1
        self._waits += waited
        self._seconds += seconds
        self._wanted = self._wanted or wanted
        if self._calls >= max(_FEWEST, 2 * self.limit) and now > self._since:
            self._look(self._calls / (now - self._since))
            self._calls, self._waits, self._seconds, self._since, self._wanted = 0, 0, 0.0, now, False

    def _look(self, rate: float) -> None:
        if not self._wanted:  # who is not wanted is no measure
            return
        if 2 * self._waits >= self._calls:
            needed = rate * self._seconds / self._calls
            self._kept, self._rate = self._within(needed * _SPARE), 0.0
            self.limit = self._kept
        elif self.limit > self._kept and not self._is_worth_it(rate):
            self.limit, self._held = self._kept, _HELD
        elif self._held:
            self._held, self._rate = self._held - 1, rate
        else:
            self._kept, self._rate = self.limit, rate
            self.limit = self._within(self.limit * _SPARE)

    def _is_worth_it(self, rate: float) -> bool:
        """Whether the rate is higher than at the number before, as far as more were tried."""
        return rate >= self._rate * (1 + _GAIN * (self.limit / self._kept - 1))

    def _within(self, number: float) -> int:
        return min(self._most, max(self._least, ceil(number)))

"""How many calls at once are enough, by Little's law: rate of calls x seconds of a call."""

from __future__ import annotations

from math import ceil, inf
from typing import Final

_SPARE: Final = 1.5  # what is allowed beyond rate x latency: room to find out whether more would help
_FEWEST: Final = 4  # calls that one look is made from, at least; two rounds of calls, if that is more
_RISE: Final = 1.1  # by how much the usual latency may rise from one look to the next


class FoundConcurrency:
    """Finds the number of calls at once between two bounds.

    While calls wait for permits, the rate of calls is the quota's, and rate x latency is what it needs. While
    nothing but the number itself holds calls back, rate x latency *is* that number, so that it grows by half
    with each look, until the rate no longer follows: calls that only take longer, because the service has
    enough, raise neither the rate nor the latency that counts, which is the least of late.

    Args:
        least, most: the bounds.

    Attributes:
        limit: calls at once, for now.
    """

    __slots__ = ("_calls", "_least", "_most", "_seconds", "_since", "_usual", "_wanted", "limit")

    def __init__(self, least: int, most: int) -> None:
        self.limit = least
        self._least = least
        self._most = most
        self._usual = inf
        self._calls = 0
        self._seconds = 0.0
        self._since: float | None = None
        self._wanted = False

    def note(self, seconds: float, now: float, *, wanted: bool) -> None:
        """A call ended.

        Args:
            seconds: what it took, without waiting for permits.
            now: the moment.
            wanted: whether all of `limit` were in use.
        """
        if self._since is None:
            self._since = now - seconds
        self._calls += 1
        self._seconds += seconds
        self._wanted = self._wanted or wanted
        if self._calls >= max(_FEWEST, 2 * self.limit) and now > self._since:
            self._look(now, self._since)

    def _look(self, now: float, since: float) -> None:
        rate, latency = self._calls / (now - since), self._seconds / self._calls
        self._usual = min(latency, self._usual * _RISE)
        if self._wanted:  # who is not wanted is no measure
            self.limit = min(self._most, max(self._least, ceil(rate * self._usual * _SPARE)))
        self._calls, self._seconds, self._since, self._wanted = 0, 0.0, now, False

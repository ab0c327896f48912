"""What a moment of the server's clock is by the own one. Pure.

An answer that names the server's moment came at some moment of the own clock; the fastest of the last ones
tells best. Taken so, a moment of the server never seems earlier than it was, and later only by the way of the
fastest answer.
"""

from __future__ import annotations

from math import inf
from typing import Final

from batchkit._redis.wire import MICROSECONDS

_KEPT: Final = 10.0  # seconds; two clocks drift apart by less than a millisecond in that time
_JUMPED: Final = 0.001  # seconds


class Skew:
    """The own clock less the server's, in seconds."""

    __slots__ = ("_before", "_least", "_renewed")

    def __init__(self) -> None:
        self._least = inf
        self._before = inf
        self._renewed = -inf

    @property
    def known(self) -> bool:
        """Whether the server's clock was heard of."""
        return self._least < inf

    def hear(self, server: float, sent: float, received: float) -> None:
        """A question sent at one moment of the own clock was answered by another one; the server said its
        microseconds.
        """
        moment = server / MICROSECONDS
        if received - self._renewed > _KEPT:
            self._before, self._least, self._renewed = self._least, inf, received
        self._least = min(self._least, received - moment)
        if min(self._least, self._before) < sent - moment - _JUMPED:  # one of the clocks was set
            self._least = self._before = received - moment

    def here(self, server: float) -> float:
        """The moment of the own clock at which the server's showed so many microseconds."""
        return server / MICROSECONDS + min(self._least, self._before)

    def there(self, moment: float) -> float:
        """The microseconds of the server's clock at a moment of the own one; 0 if it was not heard of."""
        return (moment - min(self._least, self._before)) * MICROSECONDS if self.known else 0.0

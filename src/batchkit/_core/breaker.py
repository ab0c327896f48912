"""When a service that fails again and again is left alone, and when it is tried again.

The circuit is *closed* as long as calls go. After so many failures in a row it *opens*: no call goes. After
a while it is *half-open*: one call goes, as a probe. If that goes well the circuit closes, otherwise it is
open for the same time again. A probe that is never heard of, since its caller was cancelled or killed, is
followed by another one after that time.

Source: M. Nygard, "Release It!", 2007.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, Literal

from attrs import define, field

State = Literal["closed", "open", "half-open"]

_LOOKS: Final = 20  # looks of those who wait while a probe is under way, in the time that it may take


@define
class Circuit:
    """The state of one service, as far as its calls tell. Each method takes the moment, in seconds.

    Attributes:
        failures: in a row after which it opens.
        within: seconds in which these have to come.
        reset_after: seconds until a probe goes.
        state: "closed", "open" or "half-open".
    """

    failures: int
    within: float
    reset_after: float
    state: State = field(default="closed", init=False)
    _failed_at: deque[float] = field(factory=deque, init=False)
    _until: float = field(default=-inf, init=False)

    def allow(self, now: float) -> float:
        """0.0 if a call may go; else seconds until it is worth asking again.

        A call that may go although the circuit was not closed is the probe.
        """
        if self.state == "closed":
            return 0.0
        left = self._until - now
        if left <= 0:
            self.state, self._until = "half-open", now + self.reset_after
            return 0.0
        return left if self.state == "open" else min(left, self.reset_after / _LOOKS)

    @property
    def is_well(self) -> bool:
        """Whether a success would change nothing."""
        return self.state == "closed" and not self._failed_at

    def ended(self, now: float) -> None:
        """A call ended in a way that says nothing: another one may be the probe at once."""
        if self.state == "half-open":
            self._until = now

    def succeeded(self, now: float) -> None:
        """A call went well. One from before it opened says nothing about now."""
        if self.state != "open":
            self.state = "closed"
            self._failed_at.clear()

    def failed(self, now: float) -> None:
        """A call failed by a fault of the service's."""
        if self.state == "open":
            return
        self._failed_at.append(now)
        while now - self._failed_at[0] > self.within:
            self._failed_at.popleft()
        if self.state == "half-open" or len(self._failed_at) >= self.failures:
            self.state, self._until = "open", now + self.reset_after
            self._failed_at.clear()

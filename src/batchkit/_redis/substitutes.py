"""What permits are taken from while Redis is away."""

from __future__ import annotations

from math import inf
from typing import ClassVar, Final, Self

_GRACE: Final = 0.01  # seconds


class Unlimited:
    """What permits are taken from where all may go while Redis is away; they are counted."""

    bound: ClassVar[str] = "burst"
    keeps: ClassVar[bool] = True

    def __init__(self, burst: int) -> None:
        self.burst = burst
        self.grace = _GRACE
        self.closed_until = -inf
        self.granted = 0

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take them."""
        self.granted += cost
        return True

    def holds(self, permits: int, now: float) -> bool:
        """True."""
        return True

    def refills(self, permits: int, by: float, now: float) -> bool:
        """True."""
        return True

    def due(self, permits: int, now: float) -> float:
        """Now."""
        return now

    def earliest(self, permits: int, now: float) -> float:
        """Now."""
        return now

    def charge(self, permits: int, now: float) -> None:
        """Count so many more."""
        self.granted += permits

    def change(self, rate: float, burst: int, now: float) -> None:
        """Nothing depends on it."""
        self.burst = burst

    def adds_to(self, new: Self, now: float) -> bool:
        """Nobody asks."""
        return True

    def fork(self) -> None:
        """Nothing is shared."""


class Nothing(Unlimited):
    """What permits are taken from where nobody may go while Redis is away."""

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """False."""
        return False

    def holds(self, permits: int, now: float) -> bool:
        """False."""
        return False

    def refills(self, permits: int, by: float, now: float) -> bool:
        """False."""
        return False

    def due(self, permits: int, now: float) -> float:
        """Nobody can say."""
        return inf

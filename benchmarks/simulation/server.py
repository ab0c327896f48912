"""The server: a token bucket whose rate changes with time, and what it says to those whom it refuses."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Literal

RetryAfter = Literal["none", "exact", "seconds"]


@dataclass(frozen=True)
class Schedule:
    """The quota's rate over time: straight lines between points of (second, permits/s)."""

    points: tuple[tuple[float, float], ...]

    def rate(self, now: float) -> float:
        """Permits a second at `now`; of two points at the same second the later one counts."""
        index = bisect_right(self.points, now, key=lambda point: point[0])
        if index == len(self.points):
            return self.points[-1][1]
        (start, low), (end, high) = self.points[index - 1], self.points[index]
        return low + (high - low) * (now - start) / (end - start)

    def permits(self, start: float, end: float) -> float:
        """How many come in between two moments."""
        inner = [second for second, _ in self.points if start < second < end]
        # the rate just before a point is what matters at the end of a line
        return sum(self._area(one, other) for one, other in pairwise([start, *inner, end]))

    def _area(self, start: float, end: float) -> float:
        return self.rate((start + end) / 2) * (end - start)


def constant(rate: float) -> Schedule:
    return Schedule(((0.0, rate),))


def step(rate: float, low: float, down: float, up: float) -> Schedule:
    """`rate`, but `low` between two moments."""
    return Schedule(((0.0, rate), (down, rate), (down, low), (up, low), (up, rate)))


class Server:
    """Admits a call if a whole permit is there; holds up to `burst` seconds' worth, at least one permit."""

    def __init__(self, schedule: Schedule, burst: float, retry_after: RetryAfter) -> None:
        self._schedule = schedule
        self._burst = burst
        self._retry_after: RetryAfter = retry_after
        self._level = self.capacity(0.0)
        self._at = 0.0

    def capacity(self, now: float) -> float:
        """Permits that it holds at most."""
        return max(1.0, self._burst * self._schedule.rate(now))

    def admit(self, now: float) -> bool:
        came_in = self._schedule.permits(self._at, now)
        self._level = min(self.capacity(now), self._level + came_in)
        self._at = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def advice(self, now: float) -> float | None:
        """The `Retry-After` of a refusal, in seconds."""
        wait = (1.0 - self._level) / self._schedule.rate(now)
        match self._retry_after:
            case "none":
                return None
            case "exact":
                return wait
            case "seconds":
                return float(max(1, ceil(wait)))

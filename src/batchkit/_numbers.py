"""The numbers that callers hand over, checked."""

from __future__ import annotations

from math import inf, isfinite, nextafter
from typing import Final

from batchkit.exceptions import InvalidCost

_MOST: Final = 2**63  # permits; more is a mistake, which must not get into figures that no number brings back


def checked_rate(rate: float) -> float:
    """The rate, if it is one: a positive, finite number."""
    if isinstance(rate, bool) or not (isfinite(rate) and rate > 0):
        raise ValueError(f"a rate is a positive number of permits a second, not {rate!r}")
    return float(rate)


def checked_burst(burst: int, name: str = "a burst") -> int:
    """The burst, if it is one: a whole number above zero."""
    if burst.__class__ is not int or not 1 <= burst <= _MOST:
        raise ValueError(f"{name} is a whole number of permits, 1 or more and at most 2**63, not {burst!r}")
    return burst


def checked_charge(permits: int) -> int:
    """A number of permits to be charged or, below zero, given back."""
    if permits.__class__ is not int or abs(permits) > _MOST:
        raise InvalidCost(f"what is charged is a whole number of permits, at most 2**63, not {permits!r}")
    return permits


def checked_seconds(name: str, seconds: float) -> float:
    """The seconds, if they are some: a finite number, 0 or more."""
    if isinstance(seconds, bool) or not 0 <= seconds < inf:
        raise ValueError(f"{name} is a number of seconds, 0 or more, not {seconds!r}")
    return seconds


def check_wish(priority: int, timeout: float | None) -> None:
    """Refuse a priority or a timeout that is none."""
    if priority.__class__ is not int:
        raise ValueError(f"a priority is a whole number, higher goes first, not {priority!r}")
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds, 0 or more, not {timeout!r}")


def span(now: float, moment: float) -> float:
    """Seconds from `now` that reach `moment`, whatever the rounding."""
    seconds = moment - now
    while now + seconds < moment:
        seconds = nextafter(seconds, inf)
    return seconds

"""How long to wait before another attempt: longer each time, and by chance, so that those who failed together
do not come back together.

Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015. In its simulation full
jitter needs the fewest calls until all are through, and gRPC (its proposal A6) waits that way, too.
Jitter in seconds is what stamina adds.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Jitter: TypeAlias = Literal["full", "equal", "none"] | float


def exponential_delay(
    attempt: int, *, first: float, most: float, factor: float, jitter: Jitter, draw: float
) -> float:
    """Seconds to wait after an attempt that failed, 0.0 to `most`.

    Without jitter it is `first * factor ** (attempt - 1)`, but `most` at the most.

    Args:
        attempt: its number, from 1.
        first: seconds after the first attempt.
        most: seconds after any attempt.
        factor: how much longer each one is than the one before.
        jitter: "full", anything from 0 to that time; "equal", from half of it to all; "none"; or seconds,
            of which anything from 0 on is added.
        draw: a random number, 0.0 to 1.0.
    """
    steady = _steady(attempt, first, most, factor)
    match jitter:
        case "full":
            return steady * draw
        case "equal":
            return steady * (1 + draw) / 2
        case "none":
            return steady
        case _:
            return min(most, steady + jitter * draw)


def _steady(attempt: int, first: float, most: float, factor: float) -> float:
    try:
        return min(most, first * factor ** (attempt - 1))
    except OverflowError:  # beyond any float, so beyond the most
        return most

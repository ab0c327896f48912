"""What a record of a run comes to."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import chain
from math import nan

from benchmarks.simulation.engine import Record
from benchmarks.simulation.server import Schedule


def count(moments: array[float], start: float, end: float) -> int:
    """How many lie in [start, end)."""
    return bisect_left(moments, end) - bisect_left(moments, start)


def refused_share(record: Record, start: float, end: float) -> float:
    """429s among the calls that reached the server in a window."""
    refused = count(record.refused, start, end)
    calls = refused + count(record.admitted, start, end)
    return refused / calls if calls else 0.0


def use(record: Record, schedule: Schedule, start: float, end: float) -> float:
    """Calls admitted in a window, as a part of what came in less what other clients took.

    The burst that the server holds at the start comes on top, so this may be a little above 1.
    """
    quota = schedule.permits(start, end) - count(record.others, start, end)
    return count(record.admitted, start, end) / quota


def settled(record: Record, drop: float, low: float) -> float:
    """Seconds after a drop to `low` permits/s until a second begins with few 429s: 5 % of `low`, or one."""
    few = max(1.0, 0.05 * low)
    for moment in chain([drop], record.refused):
        if moment >= drop and count(record.refused, moment + 1e-9, moment + 1.0) <= few:
            return moment - drop
    return nan


def back(record: Record, rise: float, rate: float) -> float:
    """Seconds after a rise until the middle of the first two seconds that had 90 % of `rate` admitted."""
    for moment in record.admitted:
        if moment >= rise and count(record.admitted, moment, moment + 2.0) >= 0.9 * 2.0 * rate:
            return moment + 1.0 - rise
    return nan

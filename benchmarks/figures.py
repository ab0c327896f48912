"""The arithmetic of the benchmarks: from times of each round to ratios, and to a table. No clock in here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from statistics import median, quantiles


def spread(values: Sequence[float]) -> float:
    """The distance between the quartiles as a part of the median: 0.1 is 10 %.

    Outliers, which a shared machine has, stay out of it.
    """
    if len(values) < 2:
        return 0.0
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle else 0.0


def ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """How many times the reference, by the median of the rounds' own ratios.

    Both were measured in each round, one soon after the other: what slows the machine for a while slows both.
    """
    return median(value / base for value, base in zip(values, reference, strict=True))


def over_bound(moments: Iterable[float], rate: float, burst: int) -> float:
    """Permits beyond `rate * T + burst` in the worst window; 0.0 if the bound was kept in each.

    Args:
        moments: when each permit was used, in seconds, in ascending order.
        rate: permits a second.
        burst: permits.
    """
    worst = 0.0
    lowest = float("inf")  # of all openings of a window so far, the one with the least credit
    for used, moment in enumerate(moments):
        lead = used - rate * moment  # permits ahead of the rate
        lowest = min(lowest, lead)
        worst = max(worst, lead - lowest + 1 - burst)
    return worst


def most_in_a_window(moments: Sequence[float], seconds: float) -> int:
    """The most permits that were used within any window of that length.

    Args:
        moments: when each permit was used, in ascending order.
        seconds: of the window; one that is used at its very end is in.
    """
    return max((bisect_right(moments, moment + seconds) - n for n, moment in enumerate(moments)), default=0)


def binned(moments: Iterable[float], width: float, seconds: float) -> list[float]:
    """How many of the moments, from 0, lie in each stretch of that width."""
    counts = [0.0] * max(1, round(seconds / width))
    for moment in moments:
        counts[min(max(0, int(moment / width)), len(counts) - 1)] += 1
    return counts


def overtaken(numbers: Iterable[int]) -> int:
    """How many went after one that came later than they did.

    Args:
        numbers: who came when, in the order of going.
    """
    latest = -1
    count = 0
    for number in numbers:
        count += number < latest
        latest = max(latest, number)
    return count


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of aligned columns: the first to the left, the figures to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if n else cell.ljust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()

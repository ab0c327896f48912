"""Figures of a run, worked out from the ledger alone: counts, the busiest window, and the quota bound.

They are computed from arrival times, not from the buckets, so that they also check the buckets.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import TypedDict

from examples.standin.ledger import Answer, Entry
from examples.standin.quota import NOTHING, Quota


class Window(TypedDict):
    """A stretch of time, from one arrival to another, both counted."""

    calls: int  # permits used in it
    seconds: float
    allowed: float  # rate x seconds + burst
    excess: float  # calls - allowed; above 0 the quota was broken


class Figures(TypedDict):
    """What was counted."""

    calls: int  # arrivals, however they ended
    under_way: int
    ok: int
    refused: int
    malformed: int
    errors: int
    aborted: int
    repeated: int  # times a key was answered well beyond its first time, summed over the keys
    bound_seconds: float | None  # of the slowest service; None if nothing was admitted or a quota changed


class ServiceFigures(Figures):
    """What was counted at one service, against its request quota."""

    billed: int  # tokens, pictures, or characters spoken
    most_at_once: int  # calls admitted that were under way at the same time
    rate: float | None  # the quota of these calls; None if it changed among them
    burst: int | None
    busiest: Window | None  # of the calls admitted: its excess is never above 0
    busiest_asked: Window | None  # of all calls, the refused ones, too: how far the clients went over


class Summary(Figures):
    """The figures of all services together and of each."""

    since: int  # index of the first call that is counted
    next: int  # index of the next call to come: `since` of a later run
    services: dict[str, ServiceFigures]


def summary(entries: Sequence[Entry], since: int = 0) -> Summary:
    """The figures of the calls from index `since` on."""
    counted = entries[since:]
    names = sorted({entry.service for entry in counted})
    services = {name: of_service([entry for entry in counted if entry.service == name]) for name in names}
    bounds = [figures["bound_seconds"] for figures in services.values()]
    return Summary(
        **figures_of(counted, largest(bounds)), since=since, next=max(since, len(entries)), services=services
    )


def of_service(entries: Sequence[Entry]) -> ServiceFigures:
    """The figures of one service's calls."""
    quota = only_quota(entries)
    admitted = [entry for entry in entries if entry.admitted]
    return ServiceFigures(
        **figures_of(entries, bound_seconds(admitted, quota) if quota else None),
        billed=sum(entry.billed for entry in entries),
        most_at_once=most_at_once(admitted),
        rate=float(quota.rate) if quota else None,
        burst=quota.burst if quota else None,
        busiest=busiest(admitted, quota) if quota else None,
        busiest_asked=busiest(entries, quota) if quota else None,
    )


def figures_of(entries: Sequence[Entry], bound: float | None) -> Figures:
    answers: Counter[Answer | None] = Counter(entry.answer for entry in entries)
    return Figures(
        calls=len(entries),
        under_way=answers[None],
        ok=answers["ok"],
        refused=answers["refused"],
        malformed=answers["malformed"],
        errors=answers["error"],
        aborted=answers["aborted"],
        repeated=repeated(entries),
        bound_seconds=bound,
    )


def repeated(entries: Iterable[Entry]) -> int:
    """Times a key was answered well although it had been answered well before, at the same service."""
    answered = Counter(
        (entry.service, key) for entry in entries if entry.answer == "ok" for key in entry.keys
    )
    return sum(times - 1 for times in answered.values())


def most_at_once(entries: Iterable[Entry]) -> int:
    """Calls that were under way at the same time; one that ends as another arrives makes room for it."""
    changes: list[tuple[Fraction, int]] = []
    for entry in entries:
        changes.append((entry.arrived, 1))
        if entry.ended is not None:
            changes.append((entry.ended, -1))
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def only_quota(entries: Iterable[Entry]) -> Quota | None:
    """The quota under which all these calls arrived, or None if there were several."""
    quotas = {entry.quota for entry in entries}
    return quotas.pop() if len(quotas) == 1 else None


def busiest(entries: Sequence[Entry], quota: Quota) -> Window | None:
    """The window with the largest excess over rate x seconds + burst, of all windows.

    Kadane's walk: `debt` is what the best window that ends here used beyond rate x seconds. As soon as a gap
    has paid it back, a window that begins later does better.
    """
    best: Window | None = None
    most, debt, used, began, before = NOTHING, NOTHING, 0, NOTHING, NOTHING
    for entry in entries:
        debt -= quota.rate * (entry.arrived - before)
        if debt <= 0:
            debt, used, began = NOTHING, 0, entry.arrived
        debt, used, before = debt + entry.cost, used + entry.cost, entry.arrived
        if debt > most:
            most, best = debt, window(used, entry.arrived - began, quota)
    return best


def window(calls: int, seconds: Fraction, quota: Quota) -> Window:
    allowed = quota.rate * seconds + quota.burst
    return Window(calls=calls, seconds=float(seconds), allowed=float(allowed), excess=float(calls - allowed))


def bound_seconds(admitted: Sequence[Entry], quota: Quota) -> float | None:
    """Service seconds that no program can beat.

    A call after which n permits are used cannot be sent before (n - burst) / rate, and then takes as long as
    it really took. The bound is the last end of all.
    """
    used = accumulate(entry.cost for entry in admitted)
    return largest(
        float(max(NOTHING, (n - quota.burst) / quota.rate)) + entry.seconds
        for n, entry in zip(used, admitted, strict=True)
        if entry.seconds is not None
    )


def largest(numbers: Iterable[float | None]) -> float | None:
    return max((number for number in numbers if number is not None), default=None)

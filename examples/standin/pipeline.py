"""The quota bound of work that goes through several services: the time that no program can beat.

A path is what one result needs: stages one after another, each of steps side by side. A step is one call,
named by its service and its key. A flashcard needs its text, and then its picture and both its sounds.

A call of a service after which n permits are used cannot be sent before (n - burst) / rate, counted from
the moment at which any call of that service was possible; nor before the stages that come first in its path
have ended; and then it takes as long as it really took. The bound is the last end of all.

    100 cards, the first text takes 4 s; pictures of 6 s at 1/s, burst 3: 4 + (100 - 3) / 1 + 6 = 107 s
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from math import inf

from examples.standin.ledger import Entry
from examples.standin.quota import NOTHING
from examples.standin.summary import largest, only_quota

Step = tuple[str, str]  # service, key
Path = Sequence[Sequence[Step]]
Begins = Mapping[Step, float]  # the earliest moment of each step that is known so far


def bounds(entries: Iterable[Entry], paths: Sequence[Path]) -> dict[str, float | None]:
    """Of each service, the service seconds before which its calls cannot have ended.

    Calls that are in no path belong to other work, and are left out; without paths, all count. None for a
    service whose quota changed meanwhile.
    """
    known = {step for path in paths for stage in path for step in stage}
    admitted = [entry for entry in entries if entry.admitted]
    calls = of_services([entry for entry in admitted if not known or known & {*steps(entry)}])
    begins = earliest(calls, paths)
    return {
        name: largest(ends(of_one, begins).values()) if only_quota(of_one) else None
        for name, of_one in calls.items()
    }


def earliest(calls: Mapping[str, Sequence[Entry]], paths: Sequence[Path]) -> dict[Step, float]:
    """The moment before which no call for a step was possible, stage by stage."""
    begins = {step: 0.0 for path in paths for stage in path[:1] for step in stage}
    for depth in range(1, max(map(len, paths), default=0)):
        ended = {step: end for of_one in calls.values() for step, end in ended_well(of_one, begins)}
        for path in paths:
            if depth < len(path):
                # A step that nobody called for was done before.
                before = [ended.get(step, begins.get(step, 0.0)) for step in path[depth - 1]]
                for step in path[depth]:
                    begins[step] = min(begins.get(step, inf), max(before, default=0.0))
    return begins


def ended_well(calls: Sequence[Entry], begins: Begins) -> Iterable[tuple[Step, float]]:
    """The steps that calls of one service brought to a good end, and when at the earliest."""
    found = ends(calls, begins)
    for entry in calls:
        if entry.answer == "ok" and entry.index in found:
            yield from ((step, found[entry.index]) for step in steps(entry))


def ends(calls: Sequence[Entry], begins: Begins) -> dict[int, float]:
    """The earliest end of each call of one service, by its index; without those that cannot begin yet."""
    possible = [begin(entry, begins) for entry in calls]
    first = min(possible)
    return {
        entry.index: max(moment, first + slot) + entry.seconds
        for entry, moment, slot in zip(calls, possible, slots(calls), strict=True)
        if entry.seconds is not None and moment < inf
    }


def begin(entry: Entry, begins: Begins) -> float:
    """The moment before which a call was not possible; without paths, any was from the start."""
    return min((begins.get(step, inf) for step in steps(entry)), default=0.0) if begins else 0.0


def slots(calls: Sequence[Entry]) -> Iterable[float]:
    """For each call of one service, the seconds from the first one on before which its quota has no room."""
    quota = only_quota(calls)
    if quota is None:
        return [0.0] * len(calls)
    used = accumulate(entry.cost for entry in calls)
    return [float(max(NOTHING, (n - quota.burst) / quota.rate)) for n in used]


def of_services(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The calls of each service, in order of arrival."""
    by_name = sorted(entries, key=lambda entry: entry.service)
    return {name: [*calls] for name, calls in groupby(by_name, key=lambda entry: entry.service)}


def steps(entry: Entry) -> list[Step]:
    """The steps that a call is for."""
    return [(entry.service, key) for key in entry.keys]

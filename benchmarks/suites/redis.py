"""Limiters that share a quota through Redis: what a permit costs, and how well a fleet keeps to its quota.

All that calls runs in processes of its own, against a server of our own. Each case has a time limit; one that
fails, or hangs, is named with its reason. Server and callers share the machine, as on a developer's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.figures import binned, most_in_a_window, over_bound
from benchmarks.fleet.crew import Together, run_crew
from benchmarks.fleet.server import NONE, binary, server
from benchmarks.fleet.subjects import (
    BY_KEY,
    FLOORS,
    HORIZONS,
    OURS,
    PEERS,
    Colour,
    Quota,
    Subject,
)
from benchmarks.fleet.worker import Job
from benchmarks.frame import Case, Sample, Skipped, Suite, SyncCase

LONE_CALLS = 2_000

PLENTY_RATE, PLENTY_BURST = 1e6, 1_000_000
PLENTY_TASKS = 64
PLENTY_SECONDS = 1.0
PROCESSES = (1, 4, 16)
TASKS_EACH = 32  # of each of several processes
KEYS = 10_000

SATURATED_RATE, SATURATED_BURST = 500, 50
SATURATED_SECONDS = 4.0
SATURATED_PROCESSES, SATURATED_TASKS = 4, 16
BIN = 0.05  # seconds

FAIR_PROCESSES, FAIR_TASKS = 20, 2
FAIR_PERMITS = 60  # in the time of the case, which so decides on the rate
FAIR_SECONDS = 30.0


def _cases(
    colour: Colour,
    group: str,
    subjects: Sequence[Subject],
    measure: Callable[[Colour, Subject, int], Sample],
    operations: int,
) -> list[Case | Skipped]:
    return [
        SyncCase(
            name=subject.name,
            role=subject.role,
            group=group,
            operations=operations,
            measure=partial(measure, colour, subject),
        )
        if subject.installed
        else Skipped(subject.name, f"{subject.module} is not installed")
        for subject in subjects
    ]


def _all(colour: Colour) -> list[Subject]:
    return [*FLOORS[colour], *OURS[colour], *PEERS[colour]]


def _with_a_server(cases: Callable[[], list[Case | Skipped]]) -> Callable[[], list[Case | Skipped]]:
    return lambda: [Skipped("all cases", NONE)] if binary() is None else cases()


def lone_cases() -> list[Case | Skipped]:
    colours: list[Colour] = ["sync", "asyncio"]
    return [case for colour in colours for case in _cases(colour, colour, _all(colour), _lone, LONE_CALLS)]


def _lone(colour: Colour, subject: Subject, calls: int) -> Sample:
    quota = Quota(server().url, PLENTY_RATE, PLENTY_BURST)
    job = Job(subject=subject.name, colour=colour, quota=quota, mode="lone", calls=calls)
    together = run_crew(server(), [job])
    (done,) = together.each
    extras = {"99 % us": done.high * 1e6, **together.per_permit()}
    return Sample(done.median * calls, {**extras, "refused": done.refused} if subject.tries else extras)


def plenty_cases() -> list[Case | Skipped]:
    measure = partial(_plenty, 1, PLENTY_TASKS, 1)
    return _cases("asyncio", f"{PLENTY_TASKS} tasks", _all("asyncio"), measure, _ms(PLENTY_SECONDS))


def process_cases() -> list[Case | Skipped]:
    found: list[Case | Skipped] = []
    for processes in PROCESSES:
        measure = partial(_plenty, processes, TASKS_EACH, 1)
        group = f"processes: {processes}"
        found += _cases("asyncio", group, _all("asyncio"), measure, _ms(PLENTY_SECONDS))
    return found


def key_cases() -> list[Case | Skipped]:
    one, many = (partial(_plenty, 1, PLENTY_TASKS, keys) for keys in (1, KEYS))
    of_many = [*FLOORS["asyncio"], *BY_KEY, *PEERS["asyncio"]]
    return [
        *_cases("asyncio", "keys: 1", _all("asyncio"), one, _ms(PLENTY_SECONDS)),
        *_cases("asyncio", f"keys: {KEYS:,}", of_many, many, _ms(PLENTY_SECONDS)),
    ]


def _plenty(processes: int, tasks: int, keys: int, colour: Colour, subject: Subject, ms: int) -> Sample:
    job = Job(
        subject=subject.name,
        colour=colour,
        quota=Quota(server().url, PLENTY_RATE, PLENTY_BURST),
        keys=[f"key-{number}" for number in range(keys)],
        mode="count",
        tasks=tasks,
        seconds=ms / 1000,
    )
    together = run_crew(server(), [job] * processes)
    a_second = sum(done.permits / done.seconds for done in together.each)
    return Sample(ms / a_second, together.per_permit(), {"permits/s": a_second})


def saturated_cases() -> list[Case | Skipped]:
    return [
        _ideal_case("asyncio", _ms(SATURATED_SECONDS)),
        *_cases(
            "asyncio",
            "asyncio",
            [*OURS["asyncio"], *HORIZONS, *PEERS["asyncio"]],
            _saturated,
            _ms(SATURATED_SECONDS),
        ),
    ]


def _ideal_case(group: str, operations: int) -> Case:
    """A fleet that lets go all that the quota allows: the time is only computed."""
    return SyncCase(
        name="ideal",
        role="floor",
        group=group,
        operations=operations,
        measure=lambda ms: Sample(ms / 1000),
    )


def _saturated(colour: Colour, subject: Subject, ms: int) -> Sample:
    job = Job(
        subject=subject.name,
        colour=colour,
        quota=Quota(server().url, SATURATED_RATE, SATURATED_BURST),
        mode="stamp",
        tasks=SATURATED_TASKS,
        seconds=ms / 1000,
    )
    together = run_crew(server(), [job] * SATURATED_PROCESSES)
    return _kept(together, ms / 1000, SATURATED_RATE, SATURATED_BURST)


def _kept(together: Together, seconds: float, rate: float, burst: int) -> Sample:
    """How well a fleet kept to its quota. The time is what all permits would take at its pace."""
    allowed = rate * seconds + burst
    stamps = together.stamps
    return Sample(
        seconds * allowed / together.permits,
        {
            "most in 1 s": most_in_a_window(stamps, 1.0),
            "permits over the bound": over_bound(stamps, rate, burst),
            **together.per_permit(),
        },
        {
            "admitted": together.permits,
            "% of the quota": 100 * together.permits / allowed,
            **_shares(together),
        },
        binned(stamps, BIN, seconds),
    )


def _shares(together: Together) -> dict[str, float]:
    permits = [done.permits for done in together.each]
    return {"least of a process": min(permits), "most of a process": max(permits)}


def fair_cases() -> list[Case | Skipped]:
    subjects = [*OURS["asyncio"], *PEERS["asyncio"]]
    return [
        _ideal_case("asyncio", _ms(FAIR_SECONDS)),
        *_cases("asyncio", "asyncio", subjects, _fair, _ms(FAIR_SECONDS)),
    ]


def _fair(colour: Colour, subject: Subject, ms: int) -> Sample:
    rate = FAIR_PERMITS / (ms / 1000)
    job = Job(
        subject=subject.name,
        colour=colour,
        quota=Quota(server().url, rate, 1),
        mode="stamp",
        tasks=FAIR_TASKS,
        seconds=ms / 1000,
        warm=False,  # it would take as long as the rest
    )
    together = run_crew(server(), [job] * FAIR_PROCESSES)
    return _kept(together, ms / 1000, rate, 1)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


SUITES: Sequence[Suite] = [
    Suite(
        "redis_lone",
        "Redis: one caller, plenty of permits: median time of a call, us",
        _with_a_server(lone_cases),
        unit="us",
    ),
    Suite(
        "redis_plenty",
        f"Redis: {PLENTY_TASKS} tasks of one process, plenty of permits: time of one, us",
        _with_a_server(plenty_cases),
        unit="us",
        rounds=5,
        seconds=PLENTY_SECONDS,
    ),
    Suite(
        "redis_processes",
        f"Redis: 1, 4 and 16 processes of {TASKS_EACH} tasks, plenty of permits: time of one, us",
        _with_a_server(process_cases),
        unit="us",
        rounds=3,
        seconds=PLENTY_SECONDS,
    ),
    Suite(
        "redis_keys",
        f"Redis: {PLENTY_TASKS} tasks that take 1 or {KEYS:,} keys in turn: time of one permit, us",
        _with_a_server(key_cases),
        unit="us",
        rounds=3,
        seconds=PLENTY_SECONDS,
    ),
    Suite(
        "redis_saturated",
        f"Redis: {SATURATED_PROCESSES} processes of {SATURATED_TASKS} tasks at {SATURATED_RATE}/s, "
        f"burst {SATURATED_BURST}: time of all permits at their pace",
        _with_a_server(saturated_cases),
        unit="ms in all",
        rounds=3,
        seconds=SATURATED_SECONDS,
    ),
    Suite(
        "redis_fair",
        f"Redis: {FAIR_PROCESSES} processes share {FAIR_PERMITS} permits in {FAIR_SECONDS:g} s, "
        "or in --seconds at another rate",
        _with_a_server(fair_cases),
        unit="ms in all",
        rounds=1,
        seconds=FAIR_SECONDS,
    ),
]

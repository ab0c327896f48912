"""The line of processes that stands in Redis, beside plain bookings: order, priority, commands, what is lost.

Scripts in a real server decide, by a clock that is moved: the figures are the same in each run. The times are
those of that clock: what callers feel, beside what it would be with an ideal limiter. Each is the mean of
several runs, which differ in how long questions are on their way; the other columns are the worst of those.

Plain bookings know no line. A process books the permits that its calls want, and is told the moment of each,
however far ahead ("unlimited"), or up to a horizon: then it asks for the rest at a moment that it is told.
Who asks first is first. What a process has booked goes to whoever is first among its own calls, and the
moments that it does not want any more are handed back, for whoever asks next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import pairwise
from math import inf
from random import Random
from statistics import fmean, median

from benchmarks.figures import over_bound
from benchmarks.fleet.server import NONE, binary
from benchmarks.frame import Case, Role, Sample, Skipped, Suite, SyncCase
from benchmarks.line.bookings import Booking
from benchmarks.line.standing import HORIZON, Standing
from benchmarks.line.world import Call, Limit, Process, Way, World

RUNS = 10  # of each timing
ROUNDING = 0.1  # permits; moments are whole microseconds
WAYS: Sequence[tuple[str, Role, Way]] = [
    ("batchkit, a line", "batchkit", Standing),
    ("bookings, unlimited", "peer", Booking),
    (f"bookings, {HORIZON * 1000:.0f} ms", "peer", partial(Booking, horizon=HORIZON)),
]

FAIR_PROCESSES, FAIR_TASKS, FAIR_PERMITS, FAIR = 20, 2, 60, Limit(2, 2)
SATURATED_PROCESSES, SATURATED_TASKS, SATURATED_MS, SATURATED = 4, 16, 4_000, Limit(500, 50)
URGENT_PROCESSES, URGENT_CALLS, URGENT = 4, 200, (Limit(20, 1), Limit(500, 1))
LOST_PROCESSES, LOST_TASKS, LOST_PERMITS, LOST = 3, 10, 100, Limit(20, 1)
SLOWER_PROCESSES, SLOWER_CALLS, SLOWER = 4, 200, Limit(100, 10)

Scene = Callable[[World, Way, int], Sample]


def cases() -> list[Case | Skipped]:
    if binary() is None:
        return [Skipped("all cases", NONE)]
    return [
        *_group(
            f"{FAIR_PROCESSES} processes, {FAIR.rate}/s",
            _fair,
            lambda permits: (permits - FAIR.burst) / FAIR.rate,
            FAIR_PERMITS,
        ),
        *_group(
            f"{SATURATED_PROCESSES} x {SATURATED_TASKS} tasks, {SATURATED.rate}/s",
            _saturated,
            lambda ms: ms / 1000,
            SATURATED_MS,
        ),
        *(
            case
            for limit in URGENT
            for case in _group(
                f"a high priority, {limit.rate}/s",
                partial(_urgent, limit),
                partial(_half_a_permit, limit),
                URGENT_CALLS,
            )
        ),
        *(
            case
            for what, strike in (("a process dies", _kill), (f"{LOST_TASKS} calls are cancelled", _cancel))
            for case in _group(
                f"{what}, {LOST.rate}/s",
                partial(_lost, strike),
                lambda permits: permits / LOST.rate,
                LOST_PERMITS,
            )
        ),
        *_group(f"{SLOWER.rate}/s are halved", _slower, None, SLOWER_CALLS),
    ]


def _group(group: str, scene: Scene, ideal: Callable[[int], float] | None, operations: int) -> Iterator[Case]:
    """An ideal limiter, of which the seconds are only computed, and each way."""
    case = partial(SyncCase, group=group, operations=operations)
    if ideal is not None:
        yield case(name="ideal", role="floor", measure=partial(_computed, ideal))
    for name, role, way in WAYS:
        yield case(name=name, role=role, measure=partial(_measured, scene, way))


def _computed(ideal: Callable[[int], float], operations: int) -> Sample:
    return Sample(ideal(operations))


def _measured(scene: Scene, way: Way, operations: int) -> Sample:
    samples: list[Sample] = []
    for seed in range(RUNS):
        with closing(World(seed)) as world:
            samples.append(scene(world, way, operations))
    first = samples[0]
    return Sample(
        fmean(sample.seconds for sample in samples),
        {name: max(sample.extras[name] for sample in samples) for name in first.extras},
        {name: median(sample.typical[name] for sample in samples) for name in first.typical},
    )


# the scenes; the seconds of each are what its first line says


def _fair(world: World, way: Way, permits: int) -> Sample:
    """Until so many have gone, of tasks in a loop."""
    processes = _fleet(world, way, FAIR_PROCESSES, FAIR)
    _come(world, processes, FAIR_PROCESSES * FAIR_TASKS, again=True)
    world.run(until=lambda: len(world.gone) >= permits)
    shares = [sum(call.process == process.name for call in world.gone) for process in processes]
    return Sample(
        world.now,
        {
            "overtaken by": _most_overtaken(world.calls),
            "commands a second and process": world.commands / world.now / FAIR_PROCESSES,
            **_kept(world, FAIR),
        },
        {"least of a process": min(shares), "most of a process": max(shares)},
    )


def _saturated(world: World, way: Way, ms: int) -> Sample:
    """For all that the quota allows, at the pace of tasks in a loop."""
    seconds = ms / 1000
    processes = _fleet(world, way, SATURATED_PROCESSES, SATURATED)
    _come(world, processes, SATURATED_PROCESSES * SATURATED_TASKS, again=True)
    world.run_to(seconds)
    allowed = SATURATED.rate * seconds + SATURATED.burst
    permits = len(world.gone)
    return Sample(
        seconds * allowed / permits,
        _kept(world, SATURATED),
        {"admitted": permits, "% of the quota": 100 * permits / allowed},
    )


def _urgent(limit: Limit, world: World, way: Way, calls: int) -> Sample:
    """Until the one call goes that comes last, to a process of its own, half-way between two permits, when a
    tenth of the others went.
    """
    processes = _fleet(world, way, URGENT_PROCESSES, limit)
    _come(world, processes, calls)
    world.run_to((calls // 10 + 0.5) / limit.rate)
    before = len(world.gone)
    urgent = world.come(way(world, "urgent", limit), priority=1)
    world.run(until=lambda: urgent.went < inf)
    return Sample(
        urgent.went - urgent.came,
        {"permits before it": world.gone.index(urgent) - before, **_kept(world, limit)},
    )


def _half_a_permit(limit: Limit, calls: int) -> float:
    return 0.5 / limit.rate


def _lost(strike: Callable[[World, Process], None], world: World, way: Way, permits: int) -> Sample:
    """Until so many have gone after one of several processes, with tasks in a loop, was struck, at a moment
    by chance.
    """
    processes = _fleet(world, way, LOST_PROCESSES, LOST)
    _come(world, processes, LOST_PROCESSES * LOST_TASKS, again=True)
    world.run_to(LOST_TASKS * LOST_PROCESSES * Random(world.seed).uniform(1, 2) / LOST.rate)
    struck, before = processes[-1], len(world.gone)
    strike(world, struck)
    world.run(until=lambda: len(world.gone) >= before + permits)
    moments = [call.went for call in world.gone[before - 1 :]]
    seconds = moments[-1] - moments[0]
    return Sample(
        seconds,
        {
            "permits lost": seconds * LOST.rate - permits,
            "ms without any": 1000 * max(later - moment for moment, later in pairwise(moments)),
            "overtaken by": _most_overtaken([call for call in world.calls if call.process != struck.name]),
            **_kept(world, LOST),
        },
    )


def _kill(world: World, process: Process) -> None:
    process.kill()


def _cancel(world: World, process: Process) -> None:
    for call in world.calls:
        if call.process == process.name and call.went == inf:
            process.cancel(call)


def _slower(world: World, way: Way, calls: int) -> Sample:
    """Until the new rate holds, of which one process hears, as by a 429, when a tenth of the calls went."""
    processes = _fleet(world, way, SLOWER_PROCESSES, SLOWER)
    _come(world, processes, calls)
    world.run(until=lambda: len(world.gone) >= calls // 10)
    begin, before = world.now, len(world.gone)
    processes[0].change(SLOWER.rate / 2)
    world.run(until=lambda: len(world.gone) == calls)
    beyond = [
        (number - (call.went - begin) * SLOWER.rate / 2, call.went - begin)
        for number, call in enumerate(world.gone[before:], start=1)
    ]
    most = max(number for number, _ in beyond)
    return Sample(
        min(moment for number, moment in beyond if number > most - ROUNDING),
        {"calls beyond the new rate": most, **_commands(world)},
    )


# what they are made of


def _fleet(world: World, way: Way, processes: int, limit: Limit) -> list[Process]:
    return [way(world, f"p{number}", limit) for number in range(processes)]


def _come(world: World, processes: Sequence[Process], calls: int, *, again: bool = False) -> None:
    """So many calls come at once, spread over the processes."""
    for number in range(calls):
        world.come(processes[number % len(processes)], again=again)


def _kept(world: World, limit: Limit) -> dict[str, float]:
    moments = [call.went for call in world.gone]
    return {"permits over the bound": over_bound(moments, limit.rate, limit.burst), **_commands(world)}


def _commands(world: World) -> dict[str, float]:
    return {"commands a permit": world.commands / len(world.gone)}


def _most_overtaken(calls: Sequence[Call]) -> int:
    """The most calls that came later than one of them and went before it."""
    return max(sum(later.came > call.came and later.went < call.went for later in calls) for call in calls)


SUITES: Sequence[Suite] = [
    Suite(
        "redis_line",
        "Redis: the line of processes beside plain bookings, simulated: the time that callers feel",
        cases,
        unit="ms in all",
        rounds=1,
    )
]

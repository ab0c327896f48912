"""What is printed, and what is written as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from benchmarks.figures import ratio, spread, table
from benchmarks.fleet import server
from benchmarks.frame import Failure, Role, Sample, Samples, Skipped, Suite, Taken, Unit, scaled

MEASURED = (
    "batchkit-limits",
    "anyio",
    "trio",
    "aiodataloader",
    "aiolimiter",
    "aiometer",
    "async-batcher",
    "asynciolimiter",
    "batched",
    "aiocache",
    "aiolimiter",
    "aiometer",
    "async-lru",
    "asynciolimiter",
    "cachebox",
    "cachetools",
    "cashews",
    "limits",
    "pyrate-limiter",
    "redis",
    "redis-rate-limiters",
    "steindamm",
    "strawberry-graphql",
    "theine",
    "throttled-py",
    "token-bucket",
)
PER_SECOND: dict[Unit, float] = {"ns": 1e9, "us": 1e6, "ms in all": 1e3}


@dataclass(frozen=True)
class Row:
    """The figures of one case.

    Attributes:
        group, name, role: the case's.
        operations: done in each timing.
        ns: nanoseconds an operation took, in each round in which the case did not fail.
        median_ns, min_ns: of those; None if there are none.
        spread: distance of the quartiles as a part of the median.
        to_floor, to_batchkit: how many times the group's floor, and batchkit's first case; None without one.
        extras: other figures, the worst of all rounds.
        typical: other figures, the median of all rounds.
        series: figures over time, of the first round.
        failures: why rounds failed.
    """

    group: str
    name: str
    role: Role
    operations: int
    ns: list[float]
    median_ns: float | None
    min_ns: float | None
    spread: float
    to_floor: float | None
    to_batchkit: float | None
    extras: dict[str, float]
    typical: dict[str, float]
    series: list[float]
    failures: list[str]


Times = list[float | None]  # nanoseconds of one operation in each round; None where the case failed


def rows(samples: Samples, scale: float = 1.0) -> list[Row]:
    """The figures of all cases of a suite, in its order."""
    times = [[_ns(each, scaled(case, scale)) for each in taken] for case, taken in samples]
    return [_row(samples, times, index, scale) for index in range(len(samples))]


def _ns(taken: Taken, operations: int) -> float | None:
    return None if isinstance(taken, Failure) else taken.seconds * 1e9 / operations


def _row(samples: Samples, times: list[Times], index: int, scale: float) -> Row:
    case, taken = samples[index]
    good = [sample for sample in taken if isinstance(sample, Sample)]
    ns = [each for each in times[index] if each is not None]
    return Row(
        group=case.group,
        name=case.name,
        role=case.role,
        operations=scaled(case, scale),
        ns=ns,
        median_ns=median(ns) if ns else None,
        min_ns=min(ns) if ns else None,
        spread=spread(ns),
        to_floor=_ratio(times[index], _first(samples, times, case.group, "floor")),
        to_batchkit=_ratio(times[index], _first(samples, times, case.group, "batchkit")),
        extras=_over_rounds(max, [sample.extras for sample in good]),
        typical=_over_rounds(median, [sample.typical for sample in good]),
        series=list(good[0].series) if good else [],
        failures=list(dict.fromkeys(str(each) for each in taken if isinstance(each, Failure))),
    )


def _first(samples: Samples, times: list[Times], group: str, role: Role) -> Times | None:
    for (case, _), ns in zip(samples, times, strict=True):
        if case.group == group and case.role == role:
            return ns
    return None


def _ratio(times: Times, reference: Times | None) -> float | None:
    """Of the rounds in which both have a time."""
    if reference is None:
        return None
    both = [(ns, base) for ns, base in zip(times, reference, strict=True) if ns is not None and base]
    return ratio([ns for ns, _ in both], [base for _, base in both]) if both else None


def _over_rounds(
    judge: Callable[[list[float]], float], rounds: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    return {name: judge([figures[name] for figures in rounds]) for name in (rounds[0] if rounds else ())}


def text(suite: Suite, measured: Sequence[Row], skipped: Sequence[Skipped]) -> str:
    """A suite's tables, one for each group."""
    groups = dict.fromkeys(row.group for row in measured)
    return "\n".join(
        [
            f"{suite.name}: {suite.about}",
            *(
                _group_text(suite.unit, group, [row for row in measured if row.group == group])
                for group in groups
            ),
            *(f"failed: {row.group}, {row.name}: {why}" for row in measured for why in row.failures),
            *(f"skipped: {case.name} ({case.reason})" for case in skipped),
        ]
    )


def _group_text(unit: Unit, group: str, measured: Sequence[Row]) -> str:
    typical = list(dict.fromkeys(name for row in measured for name in row.typical))
    extras = list(dict.fromkeys(name for row in measured for name in row.extras))
    medians = [f"median {name}" for name in typical]
    header = [group, f"median {unit}", "min", "spread", "x floor", "x batchkit", *medians, *extras]
    return table(
        header,
        ([*_cells(unit, row), *_more(row.typical, typical), *_more(row.extras, extras)] for row in measured),
    )


def _cells(unit: Unit, row: Row) -> list[str]:
    factor = PER_SECOND[unit] / 1e9 * (row.operations if unit == "ms in all" else 1)
    return [
        f"  {row.name}",
        _number(None if row.median_ns is None else row.median_ns * factor),
        _number(None if row.min_ns is None else row.min_ns * factor),
        f"{row.spread:.0%}" if row.ns else "failed",
        _number(row.to_floor),
        _number(row.to_batchkit),
    ]


def _more(figures: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [_number(figures.get(name)) for name in names]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 0 < abs(value) < 0.1 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """Facts that explain a figure, and nothing that tells whose machine it is."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
    }


def versions() -> dict[str, str | None]:
    """The versions of what is measured; None where it is missing."""
    return {**{name: _version(name) for name in MEASURED}, "server": server.version()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def document(suites: dict[str, Any], *, seed: int, quick: bool) -> dict[str, Any]:
    """All there is to know about a run, ready for JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "seed": seed,
        "quick": quick,
        "suites": suites,
    }


def suite_document(
    suite: Suite, rounds: int, measured: Sequence[Row], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """The part of one suite."""
    return {
        "about": suite.about,
        "rounds": rounds,
        "cases": [asdict(row) for row in measured],
        "skipped": [asdict(case) for case in skipped],
    }

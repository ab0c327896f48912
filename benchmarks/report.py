"""What is printed, and what is written as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from benchmarks.figures import ratio, spread, table
from benchmarks.frame import Role, Samples, Skipped, Suite, Unit, scaled

MEASURED = (
    "batchkit-limits",
    "anyio",
    "trio",
    "aiolimiter",
    "aiometer",
    "asynciolimiter",
    "limits",
    "pyrate-limiter",
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
        ns: nanoseconds an operation took, in each round.
        median_ns, min_ns: of those.
        spread: distance of the quartiles as a part of the median.
        to_floor, to_batchkit: how many times the group's floor, and batchkit's first case; None without one.
        extras: other figures, the worst of all rounds.
    """

    group: str
    name: str
    role: Role
    operations: int
    ns: list[float]
    median_ns: float
    min_ns: float
    spread: float
    to_floor: float | None
    to_batchkit: float | None
    extras: dict[str, float]


def rows(samples: Samples, scale: float = 1.0) -> list[Row]:
    """The figures of all cases of a suite, in its order."""
    times = [[sample.seconds * 1e9 / scaled(case, scale) for sample in taken] for case, taken in samples]
    return [_row(samples, times, index, scale) for index in range(len(samples))]


def _row(samples: Samples, times: list[list[float]], index: int, scale: float) -> Row:
    case, taken = samples[index]
    ns = times[index]
    floor = _first(samples, times, case.group, "floor")
    ours = _first(samples, times, case.group, "batchkit")
    return Row(
        group=case.group,
        name=case.name,
        role=case.role,
        operations=scaled(case, scale),
        ns=ns,
        median_ns=median(ns),
        min_ns=min(ns),
        spread=spread(ns),
        to_floor=None if floor is None else ratio(ns, floor),
        to_batchkit=None if ours is None else ratio(ns, ours),
        extras={name: max(sample.extras[name] for sample in taken) for name in taken[0].extras},
    )


def _first(samples: Samples, times: list[list[float]], group: str, role: Role) -> list[float] | None:
    for (case, _), ns in zip(samples, times, strict=True):
        if case.group == group and case.role == role:
            return ns
    return None


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
            *(f"skipped: {case.name} ({case.reason})" for case in skipped),
        ]
    )


def _group_text(unit: Unit, group: str, measured: Sequence[Row]) -> str:
    extras = list(dict.fromkeys(name for row in measured for name in row.extras))
    header = [group, f"median {unit}", "min", "spread", "x floor", "x batchkit", *extras]
    return table(header, ([*_cells(unit, row), *_extra_cells(row, extras)] for row in measured))


def _cells(unit: Unit, row: Row) -> list[str]:
    factor = PER_SECOND[unit] / 1e9 * (row.operations if unit == "ms in all" else 1)
    return [
        f"  {row.name}",
        _number(row.median_ns * factor),
        _number(row.min_ns * factor),
        f"{row.spread:.0%}",
        _number(row.to_floor),
        _number(row.to_batchkit),
    ]


def _extra_cells(row: Row, names: Sequence[str]) -> list[str]:
    return [_number(row.extras.get(name)) for name in names]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


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
    return {name: _version(name) for name in MEASURED}


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

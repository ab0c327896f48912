"""Figures of a run as SVG: `python -m benchmarks.plots figures.json docs/images`, from what `--json` wrote.

The same figures make the same bytes. Each image has a background of its own: it is readable on light and on
dark pages alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.suites.redis import BIN, SATURATED_BURST, SATURATED_RATE
from benchmarks.traces import TRACES

COLOURS = {"floor": "#8c959f", "batchkit": "#0969da", "peer": "#d4a72c"}
PAPER, INK, GRID = "#f6f8fa", "#24292f", "#d0d7de"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "axes.labelcolor": INK,
    "axes.spines.bottom": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text, for search and for screen readers
    "svg.hashsalt": "batchkit",  # ids that do not change from run to run
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


COMMANDS = "commands a permit"
IN_MICROSECONDS = {"redis_lone", "tier"}  # suites whose plots are in microseconds


@dataclass(frozen=True)
class Panel:
    """The bars of one group of a suite.

    Attributes:
        title: what the bars are.
        suite, group: whose cases.
        per: operations a bar is for: one, or, if None, all of a timing.
        figure: the name of another figure, if the bars are not times.
    """

    title: str
    suite: str
    group: str = "asyncio"
    per: int | None = None
    figure: str = ""

    def cases(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """Those of the group, as in the document, that have the figure; none if the suite did not run."""
        return [
            case
            for case in _cases(document, self.suite)
            if case["group"] == self.group and (not self.figure or self.figure in _figures(case))
        ]

    def values(self, cases: list[dict[str, Any]]) -> list[float]:
        """The figure, or nanoseconds of one operation, or milliseconds of all."""
        if self.figure:
            return [_figures(case)[self.figure] for case in cases]
        if self.per == 1:
            return [case["median_ns"] for case in cases]
        return [case["median_ns"] * case["operations"] / 1e6 for case in cases]


def _cases(document: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    """Those that did not fail in all rounds."""
    cases = document["suites"].get(suite, {"cases": []})["cases"]
    return [case for case in cases if case["median_ns"] is not None]


def _figures(case: dict[str, Any]) -> dict[str, float]:
    return {**case.get("extras", {}), **case.get("typical", {})}


IMAGES: dict[str, Sequence[Panel]] = {
    "limiters-uncontended": [
        Panel("A try that is granted", "limiters_sync", "granted", per=1),
        Panel("A try that is refused", "limiters_sync", "refused", per=1),
        Panel("An acquire that does not wait, on asyncio", "limiters_async", per=1),
    ],
    "limiters-waiting": [
        Panel("Tasks that wait at a high rate: until all have gone", "limiters_waiting"),
    ],
    "limiters-trouble": [
        Panel("After a stall of the event loop: time of the next 12 permits", "limiters_stalled"),
        Panel("Waiters are cancelled: wait of the next caller", "limiters_cancelled", "while they wait"),
        Panel(
            "A waiter is cancelled in the tick of its grant: wait of the next",
            "limiters_cancelled",
            "in the tick of the grant",
        ),
        Panel("A call of high cost among calls of cost 1: its wait", "limiters_mixed"),
        Panel("Eight busy tasks at a high rate: time of all permits at their pace", "limiters_use"),
    ],
    "batcher-loads": [
        Panel("A load, by 100 workers, on asyncio", "batcher", "asyncio, by workers", per=1),
        Panel("A load, in waves of 1,000 tasks, on asyncio", "batcher", "asyncio, in waves", per=1),
        Panel("A load, all at once, on asyncio", "batcher", "asyncio, all at once", per=1),
        Panel("A load, by 100 workers, on trio", "batcher", "trio, by workers", per=1),
    ],
    "batcher-calls": [
        Panel("20 loads that come one after the other: calls", "batcher_calls", figure="calls"),
        Panel("Until all of them are answered", "batcher_calls"),
    ],
    "cache": [
        Panel("Cache of 100,000 entries: a hit, any key", "cache_sync", "a hit, any key", per=1),
        Panel("A new value, one leaves", "cache_sync", "a new value, one leaves", per=1),
        Panel("A hit that is awaited", "cache_async", "a hit", per=1),
        Panel(
            "A million entries: each beside key and value",
            "cache_memory",
            "filled three times over",
            figure="bytes an entry",
        ),
    ],
    "cache-hit-ratio": [
        Panel(f"Hits, trace {trace.name}", "cache_hit_ratio", trace.name, figure="hits %") for trace in TRACES
    ],
    "redis-lone": [
        Panel("Redis, a blocking caller: a call", "redis_lone", "sync", per=1),
        Panel("Redis, a caller on asyncio: a call", "redis_lone", per=1),
    ],
    "tier": [
        Panel("A tier in Redis, a blocking caller: a look-up of one key", "tier", "a thread, one key", per=1),
        Panel("... on asyncio, one after the other", "tier", "asyncio, one key", per=1),
        Panel("... 64 tasks at once", "tier", "asyncio, 64 tasks, one key each", per=1),
        Panel("A look-up of 50 keys, on asyncio", "tier", "asyncio, 50 keys", per=1),
    ],
    "redis-throughput": [
        Panel("Redis, one process of 64 tasks", "redis_plenty", "64 tasks", figure="permits/s"),
    ],
    "redis-processes": [
        Panel("Redis, 1 process of 32 tasks", "redis_processes", "processes: 1", figure="permits/s"),
        Panel("Redis, 4 processes of 32 tasks", "redis_processes", "processes: 4", figure="permits/s"),
        Panel("Redis, 16 processes of 32 tasks", "redis_processes", "processes: 16", figure="permits/s"),
    ],
    "redis-keys": [
        Panel("Redis, 64 tasks, 1 key", "redis_keys", "keys: 1", figure="permits/s"),
        Panel("Redis, 64 tasks, 10,000 keys", "redis_keys", "keys: 10,000", figure="permits/s"),
    ],
    "redis-commands": [
        Panel("Redis, plenty of permits", "redis_plenty", "64 tasks", figure=COMMANDS),
        Panel("Redis, saturated", "redis_saturated", figure=COMMANDS),
    ],
}
TIMELINE = "redis-saturated"  # what each library let go over time


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Write an image for each set of suites that ran.

    Args:
        document: of a run, see `report.document`.
        folder: is made if need be.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        _image(document, panels, folder / f"{name}.svg")
        for name, panels in IMAGES.items()
        if all(panel.cases(document) for panel in panels)
    ]
    if lines := [case for case in _cases(document, "redis_saturated") if case["series"]]:
        written.append(_timeline(lines, folder / f"{TIMELINE}.svg"))
    return written


def _image(document: dict[str, Any], panels: Sequence[Panel], file: Path) -> Path:
    heights = [len(panel.cases(document)) + 1 for panel in panels]  # in bars; 1 for the title
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.28 * sum(heights)), layout="constrained")
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
        for panel, each in zip(panels, axes[:, 0], strict=True):
            _bars(each, panel, panel.cases(document))
        return _save(figure, file)


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    return file


def _timeline(cases: list[dict[str, Any]], file: Path) -> Path:
    """A row of bars for each case: permits in each stretch of 50 ms. What is beyond the edge is told."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.55 * len(cases) + 0.5), layout="constrained")
        axes = figure.subplots(len(cases), squeeze=False, sharex=True)
        for case, each in zip(cases, axes[:, 0], strict=True):
            _stretches(each, case)
        axes[0, 0].set_title(
            f"Redis, saturated: permits in each {BIN * 1000:.0f} ms, and what the rate allows"
        )
        axes[-1, 0].set_xlabel("seconds")
        return _save(figure, file)


def _stretches(axes: Axes, case: dict[str, Any]) -> None:
    series: list[float] = case["series"]
    at_rate = SATURATED_RATE * BIN
    edge = 2 * (at_rate + SATURATED_BURST)
    starts = [BIN * number for number in range(len(series))]
    axes.bar(starts, series, width=BIN, align="edge", color=COLOURS[case["role"]])
    axes.axhline(at_rate, color=INK, linewidth=0.6)
    axes.set_ylim(0, edge)
    axes.set_yticks([])
    beyond = f", up to {max(series):,.0f}" if max(series) > edge else ""
    name = axes.text(1, 0.95, f"{case['name']}{beyond}", transform=axes.transAxes, ha="right", va="top")
    name.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 1})


def _bars(axes: Axes, panel: Panel, cases: list[dict[str, Any]]) -> None:
    values = panel.values(cases)
    bars = axes.barh(
        [case["name"] for case in cases], values, color=[COLOURS[case["role"]] for case in cases]
    )
    axes.bar_label(
        bars, [_label(panel, case, value) for case, value in zip(cases, values, strict=True)], padding=4
    )
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)  # each bar has its number
    scale = _scale(axes, min(values), max(values))
    axes.set_title(f"{panel.title} ({scale})")


def _scale(axes: Axes, low: float, high: float) -> str:
    """Let bars take somewhat less than the left half, so that the longest has room for its label."""
    if high < 10 * low:
        axes.set_xlim(0, 2.3 * high)
        return "linear scale"
    axes.set_xscale("log")
    axes.set_xlim(low / 2, high * (2 * high / low) ** 1.3)
    return "logarithmic scale"


def _label(panel: Panel, case: dict[str, Any], value: float) -> str:
    """The value, and of the other figures those that are not almost nothing."""
    if panel.figure or panel.suite in IN_MICROSECONDS:
        return _alone(panel, value)
    unit = "ns" if panel.per == 1 else "ms"
    others = [f"{name}: {figure:,.0f}" for name, figure in case["extras"].items() if figure >= 0.5]
    return ", ".join([f"{value:,.0f} {unit}", *others])


def _alone(panel: Panel, value: float) -> str:
    if not panel.figure:
        return f"{value / 1e3:,.1f} us"
    return f"{value:,.0f} {panel.figure}" if value >= 10 else f"{value:.2g} {panel.figure}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.plots", description=__doc__)
    parser.add_argument("file", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("folder", type=Path, help="for the images")
    options = parser.parse_args(arguments)
    for written in draw(json.loads(options.file.read_text(encoding="utf-8")), options.folder):
        print(written)


if __name__ == "__main__":
    main()

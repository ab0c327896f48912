"""The steps of the quota as SVG: what each strategy came to, and its rate over time.

The same figures make the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.plots import COLOURS, INK, STYLE
from benchmarks.simulation.engine import Record
from benchmarks.simulation.result import Result
from benchmarks.simulation.scenarios import Scenario, scenarios

OURS, PLAIN = "batchkit", "back-off"
OVER_TIME = (OURS, "AIMD", "botocore-like")
EACH = 0.5  # seconds between two points of a line


def draw(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write both images.

    Args:
        results: of a run; those of the steps without Retry-After and with 20 workers are drawn.
        folder: is made if need be.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [scenario for scenario in scenarios() if scenario.name in _names(results)]
    with mpl.rc_context(STYLE):
        return [
            _save(_comparison(drawn, results), folder / "simulation-steps.svg"),
            _save(_over_time(drawn[-2]), folder / "simulation-rate.svg"),
        ]


def _names(results: Sequence[Result]) -> set[str]:
    return {
        result.scenario
        for result in results
        if result.scenario.startswith("step") and result.scenario.endswith("Retry-After none")
    }


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    return file


def _comparison(drawn: Sequence[Scenario], results: Sequence[Result]) -> Figure:
    figure = Figure(figsize=(9, 1.75 * len(drawn)), layout="constrained")
    axes = figure.subplots(len(drawn), 2, squeeze=False)
    for scenario, (left, right) in zip(drawn, axes, strict=True):
        case = scenario.name.removeprefix("step, ").removesuffix(", Retry-After none")
        own = [result for result in results if result.scenario == scenario.name]
        _bars(left, own, "429s", "{:,.0f}")
        left.set_xscale("log")
        left.set_xlim(5, 20_000)
        left.set_title(f"{case}: 429s (logarithmic scale)")
        _bars(right, own, "use", "{:.1%}")
        right.set_xlim(0, 1.4)
        right.set_title("use of the quota")
        right.set_yticks([])
    return figure


def _bars(axes: Axes, results: Sequence[Result], figure: str, label: str) -> None:
    values = [fmean(run[figure] for run in result.figures) for result in results]
    bars = axes.barh(
        [result.strategy for result in results],
        values,
        color=[COLOURS[_role(result.strategy)] for result in results],
    )
    axes.bar_label(bars, [label.format(value) for value in values], padding=4)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)  # each bar has its number


def _role(strategy: str) -> str:
    return {OURS: "batchkit", PLAIN: "floor"}.get(strategy, "peer")


def _over_time(scenario: Scenario) -> Figure:
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(len(OVER_TIME), sharex=True, sharey=True)
    for strategy, each in zip(OVER_TIME, axes, strict=True):
        record = scenario.run(strategy, seed=0)
        seconds = [index * EACH for index in range(int(scenario.seconds / EACH))]
        quota = [scenario.schedule.rate(second) for second in seconds]
        each.plot(seconds, quota, color=INK, linewidth=1, linestyle="--", label="the hidden quota")
        each.plot(
            *_thinned(record), color=COLOURS[_role(strategy)], linewidth=1.5, label="the limiter's rate"
        )
        refused = len(record.refused)
        each.set_title(f"{strategy}: {refused} refused, {len(record.admitted):,} admitted")
        each.set_ylabel("permits/s")
    axes[0].set_ylim(0, 2.5 * scenario.schedule.rate(0.0))
    axes[0].legend(loc="upper center", frameon=False)
    axes[-1].set_xlabel(f"seconds; {scenario.name}")
    return figure


def _thinned(record: Record) -> tuple[list[float], list[float]]:
    """The rate at the first answer of each half second."""
    points: dict[int, tuple[float, float]] = {}
    for moment, rate in zip(record.moments, record.rates, strict=True):
        points.setdefault(int(moment / EACH), (moment, rate))
    return [moment for moment, _ in points.values()], [rate for _, rate in points.values()]

"""Run every scenario under every strategy, print the figures as they are, and say which targets are met."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from attrs import asdict

from benchmarks.figures import table
from benchmarks.simulation.result import Result
from benchmarks.simulation.scenarios import Scenario, Target, scenarios
from benchmarks.simulation.strategies import STRATEGIES

OURS, PLAIN = "batchkit", "back-off"
COUNTS = {"429s"}
SECONDS = {"settled", "back"}


def measure(scenario: Scenario, strategies: Sequence[str], seeds: int) -> list[Result]:
    results = [
        Result(scenario.name, name, [scenario.figures(name, seed) for seed in range(seeds)])
        for name in strategies
    ]
    plain = next((result for result in results if result.strategy == PLAIN), None)
    for result in results:
        for own, other in zip(result.figures, plain.figures if plain else (), strict=False):
            own["fewer"] = 1.0 - own["429s"] / other["429s"] if other["429s"] else 0.0
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    seeds: int = options.seeds or (2 if options.quick else 3)
    everything: list[Result] = []
    verdicts: list[list[str]] = []
    for scenario in scenarios(quick=options.quick):
        results = measure(scenario, list(STRATEGIES), seeds)
        print(f"\n{scenario.name}\n{_figures(results)}", flush=True)
        ours = next(result for result in results if result.strategy == OURS)
        verdicts += [_verdict(scenario.name, name, target, ours) for name, target in scenario.targets.items()]
        everything += results
    print(f"\nTargets of {OURS}, {seeds} seeds\n")
    print(table(["scenario", "figure", "target", "mean", "worst", "met"], verdicts))
    met = [row[-1] for row in verdicts]
    print(
        f"\nOf {len(met)} targets {met.count('yes')} are met by every seed, "
        f"{met.count('on average')} more by the mean of the seeds"
    )
    if options.plot is not None:
        from benchmarks.simulation.plots import draw  # matplotlib is slow to import, and optional

        for written in draw(everything, options.plot):
            print(written)
    if options.json is not None:
        document = [asdict(result) for result in everything]
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _figures(results: list[Result]) -> str:
    names = list(results[0].figures[0])
    rows = [
        [result.strategy, *(shown(name, fmean(run[name] for run in result.figures)) for name in names)]
        for result in results
    ]
    return table(["mean of the seeds", *names], rows)


def _verdict(scenario: str, name: str, target: Target, ours: Result) -> list[str]:
    values = [run[name] for run in ours.figures]
    worst = max(values) if target.most is not None else min(values)
    met = "yes" if target.met(worst) else "on average" if target.met(fmean(values)) else "NO"
    return [
        scenario,
        name,
        f"{'<=' if target.most is not None else '>='} {shown(name, target.bound)}",
        shown(name, fmean(values)),
        shown(name, worst),
        met,
    ]


def shown(name: str, value: float) -> str:
    if name in COUNTS:
        return f"{value:.0f}"
    return f"{value:.1f} s" if name in SECONDS else f"{value:.2%}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.simulation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of the scenarios, with fewer seeds")
    parser.add_argument("--seeds", type=int, help="runs of each scenario and strategy (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the steps as SVG there")
    return parser


if __name__ == "__main__":
    main()

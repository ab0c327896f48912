"""Run suites, print their tables, and write all figures to a file or draw them, if asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.frame import Case, Skipped, Suite, run_suite
from benchmarks.suites import all_suites

QUICK_ROUNDS = 3
QUICK_SCALE = 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    suites = all_suites()
    options = _parser(suites).parse_args(arguments)
    print(
        f"{_facts()}\nOnly ratios within one run count. "
        "Extra figures are the worst of all rounds, if not called a median."
    )
    documents: dict[str, Any] = {}
    for name in options.suite or suites:
        documents[name] = _run(suites[name], options)
    document = report.document(documents, seed=options.seed, quick=options.quick)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        _plot(document, options.plot)


def _plot(document: dict[str, Any], folder: Path) -> None:
    from benchmarks.plots import draw  # matplotlib: only for those who want a plot

    for written in draw(document, folder):
        print(written)


def _run(suite: Suite, options: argparse.Namespace) -> dict[str, Any]:
    found = suite.cases()
    cases = [case for case in found if isinstance(case, Case)]
    skipped = list(dict.fromkeys(case for case in found if isinstance(case, Skipped)))
    scale = _scale(suite, options)
    rounds: int = options.rounds or (min(suite.rounds, QUICK_ROUNDS) if options.quick else suite.rounds)
    rows = report.rows(run_suite(cases, rounds=rounds, seed=options.seed, scale=scale), scale)
    print(f"\n{report.text(suite, rows, skipped)}", flush=True)
    return report.suite_document(suite, rounds, rows, skipped)


def _scale(suite: Suite, options: argparse.Namespace) -> float:
    """The part of the suite's work that is done."""
    if suite.seconds is not None and options.seconds is not None:
        return float(options.seconds / suite.seconds)
    return QUICK_SCALE if options.quick else 1.0


def _parser(suites: dict[str, Suite]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description=__doc__,
        epilog="suites:\n" + "\n".join(f"  {name:20}{suite.about}" for name, suite in suites.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--suite", nargs="+", choices=suites, metavar="NAME", help="run these only; their names are below"
    )
    parser.add_argument(
        "--rounds", type=_count, help="timings of each case; the suite's own number by default"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    timed = ", ".join(f"{name}: {suite.seconds:g}" for name, suite in suites.items() if suite.seconds)
    parser.add_argument(
        "--seconds", type=_seconds, help=f"of each timing of the suites that run for a time ({timed})"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order of the cases (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the figures as SVG there")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.01 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("0.01 or more")
    return seconds


def _facts() -> str:
    facts = report.machine()
    peers = ", ".join(f"{name} {number or '(missing)'}" for name, number in report.versions().items())
    return f"{facts['implementation']} {facts['python']}, {facts['cpus']} CPUs; {peers}"


if __name__ == "__main__":
    main()

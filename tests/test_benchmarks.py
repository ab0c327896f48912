"""The arithmetic behind the figures of `benchmarks`, the turns of the cases, and that each suite runs.

No test looks at a time. Peers that are not installed are left out by the suites themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from benchmarks import plots
from benchmarks.__main__ import main
from benchmarks.figures import over_bound, overtaken, ratio, spread, table
from benchmarks.frame import AsyncCase, Case, Role, Sample, SyncCase, run_suite
from benchmarks.report import rows
from benchmarks.suites import all_suites


def test_ratio_is_taken_round_by_round_so_that_a_slow_round_does_not_count() -> None:
    assert ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == 2.0


def test_spread_is_the_distance_of_the_quartiles_and_ignores_an_outlier() -> None:
    assert spread([1.0]) == 0.0
    assert spread([9.0, 10.0, 10.0, 10.0, 11.0, 12.0, 500.0]) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("moments", "beyond"),
    [
        ([], 0.0),
        ([0.0, 0.0, 0.5, 1.0], 0.0),  # rate 2, burst 2: exactly what it may be
        ([0.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0, 0.25], 0.5),
        ([0.0, 10.0, 10.0, 10.0, 10.0], 2.0),  # quiet times save up no more than the burst
    ],
)
def test_over_bound_finds_the_worst_window(moments: list[float], beyond: float) -> None:
    assert over_bound(moments, rate=2.0, burst=2) == beyond


def test_overtaken_counts_those_that_went_after_a_later_one() -> None:
    assert overtaken([]) == 0
    assert overtaken([0, 1, 2]) == 0
    assert overtaken([0, 3, 1, 2, 4]) == 2


def test_table_aligns_the_name_to_the_left_and_figures_to_the_right() -> None:
    assert table(["", "ns"], [["empty", "1"], ["us", "100"]]) == "        ns\nempty    1\nus     100"


def _says(name: str, said: list[str], role: Role, seconds: Callable[[int], float]) -> Case:
    def measure(operations: int) -> Sample:
        said.append(name)
        return Sample(seconds(operations), {"worst": float(len(said))})

    return SyncCase(name=name, role=role, operations=100, measure=measure)


def test_every_case_is_timed_once_a_round_in_changing_order() -> None:
    said: list[str] = []
    cases = [_says(name, said, "peer", float) for name in "abcd"]

    run_suite(cases, rounds=8, seed=1)

    orders = {"".join(said[start : start + 4]) for start in range(0, len(said), 4)}
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(orders) > 1


def test_rows_hold_times_of_one_operation_and_ratios_within_the_group() -> None:
    said: list[str] = []
    cases = [
        _says("floor", said, "floor", lambda operations: operations * 1e-9),
        _says("us", said, "batchkit", lambda operations: operations * 4e-9),
        _says("peer", said, "peer", lambda operations: operations * 8e-9),
    ]

    floor, us, peer = rows(run_suite(cases, rounds=3, seed=1, scale=0.1), scale=0.1)

    assert floor.operations == 10
    assert math.isclose(us.median_ns, 4.0)
    assert peer.to_floor is not None
    assert peer.to_batchkit is not None
    assert math.isclose(peer.to_floor, 8.0)
    assert math.isclose(peer.to_batchkit, 2.0)
    assert max(row.extras["worst"] for row in (floor, us, peer)) == 9.0


def test_a_group_without_a_floor_has_no_ratio_to_one() -> None:
    (row,) = rows(run_suite([_says("alone", [], "peer", float)], rounds=1, seed=1))
    assert (row.to_floor, row.to_batchkit) == (None, None)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_cases_run_in_an_event_loop_of_their_backend(backend: str) -> None:
    async def measure(operations: int) -> Sample:
        assert trio.lowlevel.in_trio_task() == (backend == "trio")
        return Sample(1.0)

    case = AsyncCase(
        name="",
        role="peer",
        operations=1,
        measure=measure,
        backend="trio" if backend == "trio" else "asyncio",
    )
    ((_, samples),) = run_suite([case], rounds=2, seed=1)
    assert len(samples) == 2


@pytest.mark.parametrize("suite", all_suites())
def test_each_suite_runs_and_has_batchkit_in_each_group(suite: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    main(["--suite", suite, "--quick", "--rounds", "1", "--json", str(file)])

    cases = json.loads(file.read_text(encoding="utf-8"))["suites"][suite]["cases"]
    groups = {case["group"] for case in cases}
    assert groups == {case["group"] for case in cases if case["role"] == "batchkit"}


def test_the_same_figures_make_the_same_images_and_suites_that_did_not_run_make_none(tmp_path: Path) -> None:
    case = {"group": "asyncio", "name": "us", "role": "batchkit", "operations": 10, "median_ns": 1e6}
    document = {"suites": {"limiters_waiting": {"cases": [{**case, "extras": {"overtaken tasks": 3.0}}]}}}

    (first,) = plots.draw(document, tmp_path / "first")
    (second,) = plots.draw(document, tmp_path / "second")

    assert first.name == "limiters-waiting.svg"
    assert first.read_bytes() == second.read_bytes()
    assert "10 ms, overtaken tasks: 3" in first.read_text(encoding="utf-8")

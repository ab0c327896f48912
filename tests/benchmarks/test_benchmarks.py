"""The arithmetic behind the figures of `benchmarks`, the turns of the cases, and that suites run.

No test looks at a time. Peers that are not installed are left out by the suites themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from benchmarks import plots
from benchmarks.__main__ import main
from benchmarks.figures import binned, most_in_a_window, over_bound, overtaken, ratio, spread, table
from benchmarks.fleet import crew
from benchmarks.fleet.server import NONE, Server, binary, server
from benchmarks.fleet.subjects import Quota
from benchmarks.fleet.worker import Job
from benchmarks.frame import AsyncCase, Case, Failure, Role, Sample, Suite, SyncCase, run_suite
from benchmarks.line.bookings import Booking
from benchmarks.line.world import Limit, Way, World
from benchmarks.report import rows, text
from benchmarks.suites import all_suites
from benchmarks.suites.line import WAYS


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


def test_most_in_a_window_counts_both_of_its_ends() -> None:
    assert most_in_a_window([], 1.0) == 0
    assert most_in_a_window([0.0, 0.5, 1.0, 1.75, 2.0, 5.0], 1.0) == 3


def test_binned_counts_in_stretches_of_a_width_and_the_end_belongs_to_the_last() -> None:
    assert binned([0.0, 0.25, 0.5, 1.0], 0.5, 1.0) == [2.0, 2.0]


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
    assert us.median_ns is not None
    assert math.isclose(us.median_ns, 4.0)
    assert peer.to_floor is not None
    assert peer.to_batchkit is not None
    assert math.isclose(peer.to_floor, 8.0)
    assert math.isclose(peer.to_batchkit, 2.0)
    assert max(row.extras["worst"] for row in (floor, us, peer)) == 9.0


def test_a_group_without_a_floor_has_no_ratio_to_one() -> None:
    (row,) = rows(run_suite([_says("alone", [], "peer", float)], rounds=1, seed=1))
    assert (row.to_floor, row.to_batchkit) == (None, None)


def test_a_case_that_fails_is_told_with_its_reason_and_compared_by_the_rounds_in_which_it_did_not() -> None:
    lucky = iter([True, False, True])

    def sometimes(operations: int) -> Sample:
        if not next(lucky):
            raise Failure("out of luck")
        return Sample(operations * 6e-9, typical={"luck": 7.0}, series=[1.0, 2.0])

    def never(operations: int) -> Sample:
        raise Failure("not today")

    said: list[str] = []
    cases = [
        _says("floor", said, "floor", lambda operations: operations * 2e-9),
        SyncCase(name="sometimes", role="peer", operations=100, measure=sometimes),
        SyncCase(name="never", role="peer", operations=100, measure=never),
    ]

    _, some, none = measured = rows(run_suite(cases, rounds=3, seed=1))

    assert (len(some.ns), some.failures, some.typical, some.series) == (
        2,
        ["out of luck"],
        {"luck": 7.0},
        [1, 2],
    )
    assert some.to_floor is not None
    assert math.isclose(some.to_floor, 3.0)
    assert (none.median_ns, none.to_floor, none.failures) == (None, None, ["not today"])
    printed = text(Suite("luck", "tried", lambda: cases), measured, [])
    assert "never: not today" in printed
    assert "median luck" in printed


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


LARGE = {"redis_processes", "redis_keys", "redis_fair"}  # what the other Redis suites do, with more of it


@pytest.mark.parametrize("suite", [name for name in all_suites() if name not in LARGE])
def test_each_suite_runs_and_has_batchkit_in_each_group(suite: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    main(["--suite", suite, "--quick", "--rounds", "1", "--json", str(file)])

    cases = json.loads(file.read_text(encoding="utf-8"))["suites"][suite]["cases"]
    groups = {case["group"] for case in cases}
    assert groups == {case["group"] for case in cases if case["role"] == "batchkit"}
    assert [case["failures"] for case in cases if case["role"] != "peer" and case["failures"]] == []


@pytest.fixture
def real() -> Server:
    if binary() is None:
        pytest.skip(NONE)
    return server()


def _job(real: Server) -> Job:
    return Job(subject="PING", colour="asyncio", quota=Quota(real.url, 1.0, 1), mode="count", seconds=0.1)


def test_processes_of_a_crew_count_permits_and_the_commands_of_clients(real: Server) -> None:
    together = crew.run_crew(real, [replace(_job(real), mode="stamp", tasks=2)] * 2)
    assert len(together.each) == 2
    assert len(together.stamps) == together.permits
    assert 0.0 <= together.stamps[0] <= together.stamps[-1] < 0.1
    assert 1.0 <= together.per_permit()["commands a permit"] < 2.0


def test_commands_of_scripts_are_not_counted(real: Server) -> None:
    together = crew.run_crew(real, [replace(_job(real), subject="batchkit, no lease", quota=_plenty(real))])
    assert together.per_permit()["commands a permit"] == pytest.approx(1.0, abs=0.2)


def _plenty(real: Server) -> Quota:
    return Quota(real.url, 1e6, 1_000_000)


def test_an_error_in_a_process_is_the_reason_of_the_failure(real: Server) -> None:
    with pytest.raises(Failure, match="nobody is called 'Nobody'"):
        crew.run_crew(real, [_job(real), replace(_job(real), subject="Nobody")])


def test_a_process_that_does_not_answer_is_given_up(real: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "LIMIT", 0.1)
    monkeypatch.setattr(crew, "LIMIT_EACH", 0.1)
    with pytest.raises(Failure, match="processes did not answer"):
        crew.run_crew(real, [replace(_job(real), seconds=0.0, mode="lone", calls=10**9)])


@pytest.mark.parametrize("way", [way for _, _, way in WAYS], ids=[name for name, _, _ in WAYS])
def test_a_simulated_fleet_goes_at_its_rate_and_the_same_seed_makes_the_same_run(
    real: Server, way: Way
) -> None:
    def gone() -> list[tuple[float, str]]:
        with closing(World(1)) as world:
            processes = [way(world, name, Limit(rate=10, burst=2)) for name in "ab"]
            for process in processes * 3:
                world.come(process)
            world.run(until=lambda: len(world.gone) == 6)
            return [(call.went, call.process) for call in world.gone]

    assert [moment for moment, _ in gone()] == pytest.approx([0.0, 0.0, 0.1, 0.2, 0.3, 0.4], abs=0.005)
    assert gone() == gone()


def test_a_booked_moment_that_is_handed_back_goes_to_whoever_asks_next(real: Server) -> None:
    with closing(World(1)) as world:
        one, other = (Booking(world, name, Limit(rate=10, burst=1)) for name in "ab")
        mine = [world.come(one) for _ in range(3)]
        world.run_to(0.01)
        theirs = [world.come(other)]
        world.run_to(0.05)
        one.cancel(mine.pop())
        world.run_to(0.06)
        theirs.append(world.come(other))
        world.run_to(1.0)
        assert [call.went for call in mine + theirs] == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=0.005)


def test_the_same_figures_make_the_same_images_and_suites_that_did_not_run_make_none(tmp_path: Path) -> None:
    case = {"group": "asyncio", "name": "us", "role": "batchkit", "operations": 10, "median_ns": 1e6}
    document = {"suites": {"limiters_waiting": {"cases": [{**case, "extras": {"overtaken tasks": 3.0}}]}}}

    (first,) = plots.draw(document, tmp_path / "first")
    (second,) = plots.draw(document, tmp_path / "second")

    assert first.name == "limiters-waiting.svg"
    assert first.read_bytes() == second.read_bytes()
    assert "10 ms, overtaken tasks: 3" in first.read_text(encoding="utf-8")


def test_what_was_let_go_over_time_is_drawn_for_each_case_that_did_not_fail(tmp_path: Path) -> None:
    case = {"group": "asyncio", "name": "us", "role": "batchkit", "operations": 10, "median_ns": 1e6}
    cases = [
        {**case, "extras": {"commands a permit": 0.25}, "series": [50.0, 25.0]},
        {**case, "name": "flood", "role": "peer", "extras": {}, "series": [9_000.0, 25.0]},
        {**case, "name": "gone", "median_ns": None, "extras": {}, "series": []},
    ]

    (image,) = plots.draw({"suites": {"redis_saturated": {"cases": cases}}}, tmp_path)

    drawn = image.read_text(encoding="utf-8")
    assert image.name == "redis-saturated.svg"
    assert "flood, up to 9,000" in drawn
    assert "gone" not in drawn

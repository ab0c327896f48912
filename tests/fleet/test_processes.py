"""Fleets of real processes: the bound, order, shares, commands, and what they learn together.

Figures of speed are the benchmarks' matter. What is asserted of them here is generous, since the machine may
be busy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests.helpers import worst_excess
from tests.servers import Server

pytestmark = pytest.mark.alone
ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


@frozen
class Went:
    """A call that went.

    Attributes:
        process: its number.
        came, went: when.
    """

    process: int
    came: float
    went: float


def spawn(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.fleet.worker", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run(server: Server, processes: int, tasks: int, seconds: float, **options: Any) -> list[Went]:
    """What processes let go that begin at the same moment, in order."""
    running = [spawn(server.url(), tasks, json.dumps(options)) for _ in range(processes)]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        start = time.monotonic() + 0.2
        for process in running:
            assert process.stdin is not None
            print(start, start + seconds, file=process.stdin, flush=True)
        told = [json.loads(process.communicate(timeout=seconds + PATIENCE)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    calls = [Went(number, came, went) for number, gone in enumerate(told) for came, went in gone]
    return sorted(calls, key=lambda call: call.went)


def excess(calls: list[Went], rate: float, burst: int) -> float:
    return float(worst_excess([call.went for call in calls], rate, burst))


def overtaken(calls: list[Went]) -> list[int]:
    """By how many later ones each call was overtaken, the fewest first; calls that came at about the same
    time do not count.
    """
    return sorted(
        sum(other.came > call.came + 0.005 for other in calls[:number]) for number, call in enumerate(calls)
    )


def test_a_saturated_fleet_keeps_the_bound_and_needs_few_commands(valkey: Server) -> None:
    calls = run(valkey, processes=4, tasks=16, seconds=4, rate=500, burst=50)
    assert excess(calls, 500, 50) <= 1 + 500 * 0.004
    assert len(calls) >= 0.85 * (500 * 4 + 50)
    assert valkey.commands()["evalsha"] <= 0.4 * len(calls)
    assert overtaken(calls)[-1] <= 4 * 500 * 0.05


def test_each_process_gets_its_share_in_order(valkey: Server) -> None:
    calls = run(valkey, processes=20, tasks=1, seconds=30, rate=2, burst=1)
    assert excess(calls, 2, 1) <= 1
    assert len(calls) >= 57
    shares = [sum(call.process == number for call in calls) for number in range(20)]
    assert min(shares) >= 2
    assert max(shares) <= 4
    assert overtaken(calls)[-4] <= 2  # on a busy machine one or the other comes too late for its turn
    assert valkey.commands()["evalsha"] <= 4 * 20 * 31.5 + 0.25 * len(calls)


def test_leases_of_several_processes_keep_the_bound(valkey: Server) -> None:
    calls = run(valkey, processes=4, tasks=4, seconds=1.5, rate=20_000, burst=20_000)
    assert excess(calls, 20_000, 20_000) <= 1 + 20_000 * 0.004


def test_twenty_that_adapt_get_hardly_more_refusals_than_one(valkey: Server) -> None:
    refusals: dict[int, int] = {}
    for processes in (1, 20):
        valkey.flush()
        worker = spawn("adapt", valkey.url(), time.monotonic() + 14, 20, processes, 20)
        accepted, refusals[processes] = json.loads(worker.communicate(timeout=PATIENCE)[0])
        assert accepted > 100
    assert refusals[20] <= 1.5 * refusals[1] + 2

"""Processes that call at the same time, and what they did together: one case of the Redis suites.

Each round of a case starts a crew anew, with an empty store, and ends it, whatever became of it: none is
waited for longer than its time limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.fleet.server import Server
from benchmarks.fleet.worker import Done, Job
from benchmarks.frame import Failure

ROOT = Path(__file__).resolve().parents[2]
LONGEST_LINE = 1 << 27  # bytes, of a process with very many stamps
PAUSE = 0.5  # seconds between warming up and the start, in which permits come in again
LIMIT = 20.0  # seconds that a crew may take beyond the time of its calls ...
LIMIT_EACH = 2.0  # ... and for each process
COUNT_FROM = 0.05  # seconds before the start


@dataclass(frozen=True)
class Together:
    """What a crew did.

    Attributes:
        each: what each process did.
        start: the moment at which all began.
        commands: sent to the server by all.
        server_cpu: seconds of user and system time of the server.
    """

    each: Sequence[Done]
    start: float
    commands: int
    server_cpu: float

    @property
    def permits(self) -> int:
        return sum(done.permits for done in self.each)

    @property
    def seconds(self) -> float:
        """Until the last process was done."""
        return max(done.seconds for done in self.each)

    @property
    def stamps(self) -> list[float]:
        """The moments of all permits in order, in seconds from the start."""
        return sorted(stamp - self.start for done in self.each for stamp in done.stamps)

    def per_permit(self) -> dict[str, float]:
        """What a permit cost."""
        cpu = sum(done.cpu for done in self.each)
        return {
            "commands a permit": self.commands / self.permits,
            "client CPU us a permit": cpu * 1e6 / self.permits,
            "server CPU us a permit": self.server_cpu * 1e6 / self.permits,
        }


def run_crew(server: Server, jobs: Sequence[Job]) -> Together:
    """Let a process do each of the jobs, all at the same time.

    Raises:
        Failure: one of them fails, or takes too long, or nobody gets a permit.
    """
    server.forget()
    with tempfile.TemporaryFile() as errors:
        together = asyncio.run(_run(server, jobs, errors))
    if not together.permits:
        raise Failure(f"no permit in {together.seconds:.1f} s")
    return together


async def _run(server: Server, jobs: Sequence[Job], errors: IO[bytes]) -> Together:
    limit = LIMIT + LIMIT_EACH * len(jobs) + max(job.seconds for job in jobs)
    processes: list[Process] = []
    silent: set[Process] = set()
    try:
        async with asyncio.timeout(limit):
            for job in jobs:
                processes.append(await _start(job, errors))  # noqa: PERF401 - those that started are ended
            return await _lead(server, processes, silent, errors)
    except TimeoutError:
        who = f"{len(silent)} of {len(jobs)} processes"
        raise Failure(f"{who} did not answer, and were given up after {limit:.0f} s") from None
    finally:
        await _end(processes)


async def _start(job: Job, errors: IO[bytes]) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "benchmarks.fleet.worker", job.text()),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=PIPE,
        stdout=PIPE,
        stderr=errors,
        limit=LONGEST_LINE,
    )


async def _lead(
    server: Server, processes: list[Process], silent: set[Process], errors: IO[bytes]
) -> Together:
    await _hear(processes, silent, errors)
    _tell(processes, "")
    await _hear(processes, silent, errors)
    start = time.monotonic() + PAUSE
    _tell(processes, repr(start))
    await asyncio.sleep(PAUSE - COUNT_FROM)
    server.count_from_zero()
    cpu = server.cpu()
    said = await _hear(processes, silent, errors)
    commands, server_cpu = server.commands(), server.cpu() - cpu
    return Together([Done(**json.loads(line)) for line in said], start, commands, server_cpu)


async def _hear(processes: list[Process], silent: set[Process], errors: IO[bytes]) -> list[bytes]:
    """A line of each process; until then it is one of the silent ones."""
    silent.update(processes)
    said = await asyncio.gather(*(_line(process, silent) for process in processes))
    for line in said:
        if not line:
            raise Failure(f"a process ended: {_tail(errors)}")
        if line.startswith(b"{") and (error := json.loads(line).get("error")):
            raise Failure(error)
    return said


async def _line(process: Process, silent: set[Process]) -> bytes:
    assert process.stdout
    line = await process.stdout.readline()
    silent.discard(process)
    return line


def _tell(processes: list[Process], line: str) -> None:
    for process in processes:
        assert process.stdin
        process.stdin.write(f"{line}\n".encode())


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines: Any = errors.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "without a word")


async def _end(processes: list[Process]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
    for process in processes:
        with suppress(subprocess.SubprocessError):
            await process.wait()

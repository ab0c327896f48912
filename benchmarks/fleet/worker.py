"""One calling process of a crew: `python -P -m benchmarks.fleet.worker JOB`, started by `crew`.

It says a word on a line of its output when it has made what it calls, and when it has warmed up, and goes on
when a line comes in: the last of these has the moment at which all begin. Then it says what it did, as JSON,
and stays, so that its connections do, until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from math import ceil
from statistics import median, quantiles
from typing import Any, Literal, NoReturn

from benchmarks.fleet.subjects import Call, Colour, Quota, find
from benchmarks.frame import quiet

Mode = Literal["lone", "count", "stamp"]

WARM_UP = 50  # calls of a lone caller
SETTLE = 1.0  # seconds that tasks have to end after they were cancelled


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process does.

    Attributes:
        subject, colour: what it calls.
        quota: of each key.
        keys: which its calls take in turn.
        mode: "lone": one caller takes the time of each of `calls` calls; "count": `tasks` tasks call for
            `seconds`, and count; "stamp": they note the moment of each permit, too.
        warm: whether each task calls before the start, until each key was called for.
    """

    subject: str
    colour: Colour
    quota: Quota
    mode: Mode
    keys: Sequence[str] = ("key",)
    tasks: int = 1
    calls: int = 0
    seconds: float = 0.0
    warm: bool = True

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Job:
        said = json.loads(text)
        return cls(**{**said, "quota": Quota(**said["quota"])})


@dataclass
class Done:
    """What a process did.

    Attributes:
        permits: that it got.
        seconds: from the start to the last permit that was counted.
        cpu: seconds of user and system time meanwhile.
        median, high: of the times of a lone caller's calls, in seconds; one in a hundred exceeds `high`.
        refused: calls that came back without a permit, of those that only try.
        stamps: moments of the permits, of the clock that all processes share.
    """

    permits: int
    seconds: float
    cpu: float
    median: float = 0.0
    high: float = 0.0
    refused: int = 0
    stamps: list[float] = field(default_factory=list[float])


def main(text: str) -> None:
    job = Job.parse(text)
    try:
        if job.colour == "asyncio":
            asyncio.run(_call_async(job))
        else:
            _call_sync(job)
    except BaseException as error:
        _end({"error": _first(error)})


def _end(said: dict[str, Any]) -> NoReturn:
    say(json.dumps(said))
    sys.stdin.read()
    os._exit(0)  # whatever may still run, or wait


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def say(line: str) -> None:
    print(line, flush=True)


def _ready(word: str) -> str:
    """Say that we are, and wait for the others."""
    say(word)
    return sys.stdin.readline()


def _start(line: str) -> float:
    """Wait for the moment in the line, and return it."""
    moment = float(line)
    time.sleep(max(0.0, moment - time.monotonic()))
    return moment


def _call_sync(job: Job) -> NoReturn:
    subject = find("sync", job.subject)
    calls = subject.make(job.quota, job.keys)
    _ready("made")
    for _ in range(WARM_UP):
        calls[0]()
    line = _ready("warm")
    times: list[float] = []
    answers: list[object] = []
    with quiet():
        _start(line)
        cpu = time.process_time()
        for _, call in zip(range(job.calls), cycle(calls), strict=False):
            before = time.perf_counter()
            answers.append(call())
            times.append(time.perf_counter() - before)
        done = _lone(times, time.process_time() - cpu)
    done.refused = sum(not answer for answer in answers) if subject.tries else 0
    _end(asdict(done))


def _lone(times: list[float], cpu: float) -> Done:
    high = quantiles(times, n=100)[-1] if len(times) > 1 else times[0]
    return Done(permits=len(times), seconds=sum(times), cpu=cpu, median=median(times), high=high)


async def _call_async(job: Job) -> NoReturn:
    calls = find("asyncio", job.subject).make(job.quota, job.keys)
    _ready("made")
    if job.warm:
        await _warm_up(job, calls)
    line = _ready("warm")  # stands still meanwhile, as nobody calls
    with quiet():
        moment = _start(line)
        done = await MODES[job.mode](job, calls, moment)
    _end(asdict(done))


async def _warm_up(job: Job, calls: Sequence[Call]) -> None:
    turns = cycle(calls)
    for _ in range(WARM_UP if job.mode == "lone" else ceil(len(calls) / job.tasks)):
        async with asyncio.TaskGroup() as group:
            for _ in range(job.tasks):
                group.create_task(_wait_for(next(turns)()))


async def _wait_for(permit: Awaitable[object]) -> None:
    await permit


async def _call_alone(job: Job, calls: Sequence[Call], moment: float) -> Done:
    times: list[float] = []
    cpu = time.process_time()
    for _, call in zip(range(job.calls), cycle(calls), strict=False):
        before = time.perf_counter()
        await call()
        times.append(time.perf_counter() - before)
    return _lone(times, time.process_time() - cpu)


async def _count(job: Job, calls: Sequence[Call], moment: float) -> Done:
    turns = cycle(calls)  # which all tasks share
    end = moment + job.seconds
    cpu = time.process_time()

    async def go_on() -> int:
        permits = 0
        while time.monotonic() < end:
            await next(turns)()
            permits += 1
        return permits

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(go_on()) for _ in range(job.tasks)]
    seconds = time.monotonic() - moment
    permits = sum(task.result() for task in tasks)
    return Done(permits=permits, seconds=seconds, cpu=time.process_time() - cpu)


async def _stamp(job: Job, calls: Sequence[Call], moment: float) -> Done:
    turns = cycle(calls)
    stamps: list[float] = []
    end = moment + job.seconds
    cpu = time.process_time()

    async def go_on() -> None:
        while time.monotonic() < end:
            await next(turns)()
            stamps.append(time.monotonic())

    tasks = [asyncio.create_task(go_on()) for _ in range(job.tasks)]
    await asyncio.sleep(end - time.monotonic())
    used = time.process_time() - cpu
    for task in tasks:
        task.cancel()
    ended, _ = await asyncio.wait(tasks, timeout=SETTLE)
    for task in ended:
        if not task.cancelled() and (error := task.exception()):
            raise error
    in_time = [stamp for stamp in stamps if stamp < end]
    return Done(permits=len(in_time), seconds=job.seconds, cpu=used, stamps=in_time)


MODES: dict[Mode, Callable[[Job, Sequence[Call], float], Awaitable[Done]]] = {
    "lone": _call_alone,
    "count": _count,
    "stamp": _stamp,
}

if __name__ == "__main__":
    main(sys.argv[1])

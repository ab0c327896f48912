"""The frame: what a case and a suite are, how a case is timed, and how the cases of a suite take turns.

Rules
-----
1. One timing runs at a time. A suite's cases are interleaved: each round runs all of them, in a new order.
2. Only ratios count, within one group of one run: so each group has a floor, the least that such work costs,
   beside us and the peers.
3. The making of what is measured is not timed, and no garbage is collected during a timing.
4. What a case does must be seen to be done: a case that loses items or breaks its bound says so, or fails.
5. A case that fails is named with its reason, and the others go on: see `Failure`.

A suite is a `Suite` in the `SUITES` of a module of `benchmarks.suites`; a new module there is found.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import repeat
from time import perf_counter
from typing import Literal, TypeVar

import anyio

T = TypeVar("T")

Backend = Literal["asyncio", "trio"]
Role = Literal["floor", "batchkit", "peer"]
Unit = Literal["ns", "us", "ms in all"]


@dataclass(frozen=True)
class Sample:
    """One timing.

    Attributes:
        seconds: what all operations took together.
        extras: other figures by name, unit included; the larger, the worse.
        typical: other figures of which neither end is worse, so that their median is told.
        series: figures over time, if there are any.
    """

    seconds: float
    extras: Mapping[str, float] = field(default_factory=dict[str, float])
    typical: Mapping[str, float] = field(default_factory=dict[str, float])
    series: Sequence[float] = ()


class Failure(Exception):
    """Raised by a measure: the case did not do its work in this round. It stands in the place of a sample."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to measure: a `SyncCase` or an `AsyncCase`.

    Attributes:
        name: what is measured, unique in its group.
        role: a group's first floor and batchkit's first case are what the others are compared with.
        operations: operations in one timing.
        group: cases that do the same work, and so may be compared.
    """

    name: str
    role: Role
    operations: int
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class SyncCase(Case):
    """Measured by `measure(operations)`."""

    measure: Callable[[int], Sample]


@dataclass(frozen=True, kw_only=True)
class AsyncCase(Case):
    """Measured by `await measure(operations)` in an event loop of `backend`: one for each round."""

    measure: Callable[[int], Awaitable[Sample]]
    backend: Backend = "asyncio"


@dataclass(frozen=True)
class Skipped:
    """A case that cannot run here, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Suite:
    """Cases that run interleaved.

    Attributes:
        name: for `--suite`.
        about: one line for the reader of the table.
        cases: makes the cases; called when the suite runs, since it imports the peers.
        unit: of the times in the table: for one operation, or for all of them.
        rounds: how often each case is timed, if not told otherwise.
        seconds: how long each timing lasts, if it is a time that ends it, and not a number of operations;
            operations are milliseconds then.
    """

    name: str
    about: str
    cases: Callable[[], Sequence[Case | Skipped]]
    unit: Unit = "ns"
    rounds: int = 7
    seconds: float | None = None


Taken = Sample | Failure
Samples = list[tuple[Case, list[Taken]]]


def run_suite(cases: Sequence[Case], *, rounds: int, seed: int, scale: float = 1.0) -> Samples:
    """Time each case once a round.

    Args:
        cases: the cases of one suite.
        rounds: number of rounds.
        seed: of the order, which is another one in each round.
        scale: the part of each case's operations that is done.
    """
    chance = random.Random(seed)
    samples: list[list[Taken]] = [[] for _ in cases]
    for _ in range(rounds):
        for index, sample in _round(cases, chance, scale):
            samples[index].append(sample)
    return list(zip(cases, samples, strict=True))


def _round(cases: Sequence[Case], chance: random.Random, scale: float) -> Iterator[tuple[int, Taken]]:
    """The number of each case, with its sample. Those of one event loop run in a row, by chance."""
    kinds: list[Backend | None] = [None, "asyncio", "trio"]
    chance.shuffle(kinds)
    for kind in kinds:
        turns = [index for index, case in enumerate(cases) if _backend(case) == kind]
        chance.shuffle(turns)
        if kind is None:
            yield from _measure_sync(cases, turns, scale)
        elif turns:
            yield from anyio.run(_measure_async, cases, turns, scale, backend=kind)


def _backend(case: Case) -> Backend | None:
    return case.backend if isinstance(case, AsyncCase) else None


def _measure_sync(cases: Sequence[Case], turns: list[int], scale: float) -> list[tuple[int, Taken]]:
    samples: list[tuple[int, Taken]] = []
    for index in turns:
        case = cases[index]
        if isinstance(case, SyncCase):
            try:
                samples.append((index, case.measure(scaled(case, scale))))
            except Failure as failure:
                samples.append((index, failure))
    return samples


async def _measure_async(cases: Sequence[Case], turns: list[int], scale: float) -> list[tuple[int, Taken]]:
    samples: list[tuple[int, Taken]] = []
    for index in turns:
        case = cases[index]
        if isinstance(case, AsyncCase):
            try:
                samples.append((index, await case.measure(scaled(case, scale))))
            except Failure as failure:
                samples.append((index, failure))
    return samples


def scaled(case: Case, scale: float) -> int:
    """The operations of one timing."""
    return max(1, int(case.operations * scale))


def time_calls(make: Callable[[], Callable[[], object]]) -> Callable[[int], Sample]:
    """The measure of a plain call, repeated; the floor repeats an empty call, so that the loop is in both.

    Args:
        make: makes what is called; not timed.
    """

    def measure(operations: int) -> Sample:
        call = make()
        with quiet():
            started = perf_counter()
            for _ in repeat(None, operations):
                call()
            return Sample(perf_counter() - started)

    return measure


def time_awaits(make: Callable[[], Callable[[], Awaitable[object]]]) -> Callable[[int], Awaitable[Sample]]:
    """The async twin of `time_calls`; `make` is called in the event loop."""

    async def measure(operations: int) -> Sample:
        call = make()
        with quiet():
            started = perf_counter()
            for _ in repeat(None, operations):
                await call()
            return Sample(perf_counter() - started)

    return measure


def time_run(
    make: Callable[[int], Callable[[], Awaitable[T]]],
    judge: Callable[[T], Mapping[str, float]],
) -> Callable[[int], Awaitable[Sample]]:
    """The measure of a piece of work that does all operations by itself.

    Args:
        make: makes the work, given the number of operations; not timed.
        judge: looks at what the work returned, and gives the sample's extras; not timed, either.
    """

    async def measure(operations: int) -> Sample:
        work = make(operations)
        with quiet():
            started = perf_counter()
            result = await work()
            seconds = perf_counter() - started
        return Sample(seconds, judge(result))

    return measure


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage of an earlier case is collected in the time of this one."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def backends() -> tuple[list[Backend], list[Skipped]]:
    """The event loops that are here, and the one that is not."""
    if find_spec("trio") is None:
        return ["asyncio"], [Skipped("all cases on trio", "trio is not installed")]
    return ["asyncio", "trio"], []

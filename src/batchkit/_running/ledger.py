"""The figures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from attrs import define

from batchkit._core.bottleneck import Bottleneck, Spent, bottleneck
from batchkit._dispatch import Attempt
from batchkit._values import Outcome, RunReport

T = TypeVar("T")
R = TypeVar("R")


@define(eq=False)
class Ledger:
    """What a run did so far.

    Attributes:
        succeeded, failed, not_started: items.
        resumed, cached: those whose outcome was known before.
        retries, splits: batches called again, and batches split.
        calls: calls that ended; `calling` seconds, summed over all that ran side by side.
        quota, pace, barrier, input, output, retrying: seconds that workers waited, by what for.
        started, finished: moments; None before.
    """

    succeeded: int = 0
    failed: int = 0
    not_started: int = 0
    resumed: int = 0
    cached: int = 0
    retries: int = 0
    splits: int = 0
    calls: int = 0
    calling: float = 0.0
    quota: float = 0.0
    pace: float = 0.0
    barrier: float = 0.0
    input: float = 0.0
    output: float = 0.0
    retrying: float = 0.0
    started: float | None = None
    finished: float | None = None

    def count(self, outcome: Outcome[T, R]) -> None:
        """Note an item's outcome."""
        if outcome.error is None:
            self.succeeded += 1
        elif outcome.state == "error":
            self.failed += 1
        else:
            self.not_started += 1
        if outcome.resumed:
            self.resumed += 1

    def called(self, attempt: Attempt[Any]) -> None:
        """Note how a call ended."""
        self.calls += attempt.made
        self.calling += attempt.seconds
        self.quota += attempt.waited
        self.pace += attempt.paced

    def went_well(self, seconds: float, paced: float, waited: float) -> None:
        """The same for a call that went well: for speed."""
        self.calls += 1
        self.calling += seconds
        if waited or paced:
            self.quota += waited
            self.pace += paced

    def idled(self, reason: Bottleneck | None, seconds: float) -> None:
        """Note that a worker had nothing to do."""
        match reason:
            case "barrier":
                self.barrier += seconds
            case "output":
                self.output += seconds
            case "retries":
                self.retrying += seconds
            case "input":
                self.input += seconds
            case _:
                pass

    def report(
        self, name: str, concurrency: int, now: float, outcomes: Sequence[Outcome[T, R]]
    ) -> RunReport[T, R]:
        """The figures so far."""
        seconds = 0.0
        if self.started is not None:
            seconds = (now if self.finished is None else self.finished) - self.started
        spent = Spent(
            calling=self.calling,
            quota=self.quota,
            pace=self.pace,
            barrier=self.barrier,
            input=self.input,
            output=self.output,
            retries=self.retrying,
        )
        limited_by, advice = bottleneck(spent, calls=self.calls, seconds=seconds, concurrency=concurrency)
        return RunReport(
            name=name,
            outcomes=outcomes,
            succeeded=self.succeeded,
            failed=self.failed,
            calls=self.calls,
            splits=self.splits,
            seconds=seconds,
            latency=self.calling / self.calls if self.calls else 0.0,
            concurrency=concurrency,
            limited_by=limited_by,
            advice=advice,
            not_started=self.not_started,
            resumed=self.resumed,
            cached=self.cached,
            retries=self.retries,
        )

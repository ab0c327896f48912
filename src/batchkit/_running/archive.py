"""The way of outcomes into a checkpoint: all that came meanwhile in one commit, and nobody reads one that is
not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from attrs import evolve

from batchkit._core.agenda import Job
from batchkit._running.verdicts import Done
from batchkit._values import Entry, Outcome, described
from batchkit.abc import Checkpoint
from batchkit.exceptions import CallCancelled, FailedEarlier, NotStorable

T = TypeVar("T")
R = TypeVar("R")


class Archive(Generic[T, R]):
    """What is to be kept in a checkpoint. `find` and `keep` block, and are called in a thread.

    Attributes:
        pending: what is not kept yet.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.pending: list[Done[T, R]] = []
        self._checkpoint = checkpoint
        self.open = checkpoint.open
        self.close = checkpoint.close

    def takes(self, job: Job[T], done: Outcome[T, R]) -> bool:
        """Whether an outcome is to be kept; if so, it waits for the next commit."""
        if job.key is None or done.state == "not started" or isinstance(done.error, CallCancelled):
            return False
        self.pending.append((job, done))
        return True

    def take(self) -> list[Done[T, R]]:
        """What is to be kept now."""
        pending, self.pending = self.pending, []
        return pending

    def find(self, jobs: Sequence[Job[T]]) -> list[Done[T, R]]:
        """Those of the jobs whose outcome an earlier run left."""
        known = self._checkpoint.find([str(job.key) for job in jobs])
        return [(job, _resumed(job, known[str(job.key)])) for job in jobs if str(job.key) in known]

    def keep(self, pending: list[Done[T, R]]) -> list[Done[T, R]]:
        """Keep outcomes, in one commit; returns them. One that cannot be kept becomes the item's error."""
        try:
            self._checkpoint.write([_entry(job, done) for job, done in pending])
        except NotStorable as error:
            return self.keep([_failed(job, done, error) for job, done in pending])
        except BaseException:
            self.pending = pending + self.pending
            raise
        return pending


def _resumed(job: Job[T], entry: Entry) -> Outcome[T, Any]:
    error = None if entry.error is None else FailedEarlier(entry.error)
    return Outcome(job.index, job.item, entry.value, error, entry.attempts, entry.seconds, resumed=True)


def _entry(job: Job[T], done: Outcome[T, Any]) -> Entry:
    if done.error is None:
        return Entry(str(job.key), done.value, None, done.attempts, done.seconds)
    return Entry(str(job.key), None, described(done.error), done.attempts, done.seconds, done.item)


def _failed(job: Job[T], done: Outcome[T, R], error: NotStorable) -> Done[T, R]:
    if str(job.key) != error.key:
        return job, done
    return job, evolve(done, value=None, error=error)

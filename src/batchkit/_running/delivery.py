"""The way of an outcome: into the checkpoint, into the cache and to those with the same key, to the hooks, to
the figures, to the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from batchkit._core.agenda import Job
from batchkit._events import Event, ItemFinished, emit
from batchkit._running.archive import Archive
from batchkit._running.ending import Ending
from batchkit._running.intake import Intake
from batchkit._running.ledger import Ledger
from batchkit._running.outbox import Outbox
from batchkit._running.plan import Plan, Terms
from batchkit._running.verdicts import Done, finished
from batchkit._values import Outcome, outcome_of
from batchkit._watching import watcher

T = TypeVar("T")
R = TypeVar("R")


class Delivery(Generic[T, R]):
    """Hands out what the items of a run came to.

    Attributes:
        outbox: outcomes for the reader.
        ledger: the figures.
        archive: what is to be kept in a checkpoint, if there is one.
        left: outcomes that nobody reads, since the run was stopped.
        closing: whether the run ends, so that what fails now stops nothing.
    """

    def __init__(self, plan: Plan, terms: Terms, intake: Intake[T], ending: Ending) -> None:
        self.outbox: Outbox[T, R] = Outbox(ordered=terms.ordered)
        self.ledger = Ledger()
        self.archive = None if plan.checkpoint is None else Archive[T, R](plan.checkpoint)
        self.left: list[Outcome[T, R]] = []
        self.closing = False
        self._plan = plan
        self._intake = intake
        self._ending = ending
        self._hooks = plan.hooks
        self._put_in_outbox = self.outbox.put
        self._watch = None if plan.cache is None else watcher(plan.cache)
        self._plainly = plan.key is None and plan.on_error == "collect" and not plan.hooks

    def watch(self, jobs: Sequence[Job[T]]) -> None:
        """Jobs are about to be called: what is dropped from the cache meanwhile is not put back."""
        if self._watch is not None:
            watch = self._watch([job.key for job in jobs])
            for job in jobs:
                job.watch = watch

    def without_value(self, job: Job[T], error: Exception) -> None:
        """An item failed before its call, or without one."""
        done: Outcome[T, R] = outcome_of(job.index, job.item, None, error, job.attempts, 0.0)
        self.finish(job, done)

    def finish(self, job: Job[T], done: Outcome[T, R]) -> None:
        """An item has its outcome. It is kept before it is delivered, if it is to be kept."""
        if self.archive is None or not self.archive.takes(job, done):
            self.deliver([(job, done)])

    def finish_all(self, outcomes: Sequence[Done[T, R]]) -> None:
        """The same for several."""
        if self.archive is None:
            self.deliver(outcomes)
        else:
            for job, done in outcomes:
                self.finish(job, done)

    def deliver(self, outcomes: Sequence[Done[T, R]]) -> None:
        """Outcomes are kept, if they are to be."""
        for job, done in outcomes:
            if self._plainly:
                self._put(done)
            else:
                self.hand_out(done)
                self._use_for_others(job, done)

    def went_well(self, done: Outcome[T, R]) -> None:
        """An item has a value that is nobody else's: for speed."""
        self._intake.finished += 1
        self.ledger.succeeded += 1
        if self._hooks:
            self.emit(ItemFinished(self._plan.name, done))
        self._put_in_outbox(done)

    def called_well(self, done: Outcome[T, R]) -> None:
        """The same for the item and its call in one, where nobody listens: for speed."""
        self._intake.finished += 1
        ledger = self.ledger
        ledger.succeeded += 1
        ledger.calls += 1
        ledger.calling += done.seconds
        self._put_in_outbox(done)

    def hand_out(self, done: Outcome[T, R]) -> None:
        """An outcome that is nobody else's: to the hooks, the figures and the reader."""
        if self._plan.hooks and done.state != "not started":
            self.emit(ItemFinished(self._plan.name, done))
        if done.error is not None and self._plan.on_error == "raise":
            self.leave(done)
            if done.state == "error" and not self.closing:
                self._ending.fails_by(done.error)
        else:
            self._put(done)

    def leave(self, done: Outcome[T, R]) -> None:
        """An outcome that nobody reads."""
        self._intake.finished += 1
        self.ledger.count(done)
        self.left.append(done)

    def emit(self, event: Event) -> None:
        """Tell the hooks."""
        if self._plan.hooks:
            emit(self._plan.hooks, event)

    def _put(self, done: Outcome[T, R]) -> None:
        self._intake.finished += 1
        self.ledger.count(done)
        self._put_in_outbox(done)

    def _use_for_others(self, job: Job[T], done: Outcome[T, R]) -> None:
        """A value is kept in the cache, and is that of those who waited with the same key."""
        if job.key is None:
            return
        if done.ok and job.watch is not None and done.attempts:
            job.watch.keep(job.key, done.value)
        for twin in self._intake.twins_of(job):
            self.hand_out(finished(twin, done.value, done.error)[1])

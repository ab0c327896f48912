"""What tasks and threads ask about a run, and tell it: how much to read, what to call, how a call ended.

A desk waits for nothing and takes no lock: its run sees to it that one caller at a time comes to it. What is
known lies in rooms of their own: how items come in, what is called next, where outcomes go, how it ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, Final, Generic, TypeVar

from batchkit._core.agenda import Batch, Job
from batchkit._core.bottleneck import Bottleneck
from batchkit._dispatch import Attempt
from batchkit._events import BatchSplit, ItemRetried, RunFinished, RunStarted, Throttled
from batchkit._running.caller import Caller
from batchkit._running.delivery import Delivery
from batchkit._running.ending import Ending
from batchkit._running.intake import Intake
from batchkit._running.plan import Plan, Terms
from batchkit._running.scheduler import Scheduler
from batchkit._running.verdicts import Done, Ruling, finished, outcomes_of, ruling
from batchkit._values import Outcome, RunReport, outcome_of
from batchkit.exceptions import NotStarted, RunFailed
from batchkit.feedback import Verdict, classify

T = TypeVar("T")
R = TypeVar("R")

_NOBODY: Final = frozenset[int]()


class Desk(Generic[T, R]):
    """One run.

    Attributes:
        intake: how its items come in.
        scheduler: what is called next, and what is under way.
        delivery: where outcomes go.
        ending: how it ends.
    """

    def __init__(self, plan: Plan, terms: Terms) -> None:
        self.intake: Intake[T] = Intake(plan, terms)
        self.scheduler: Scheduler[T] = Scheduler(plan)
        self.ending = Ending(plan.name)
        self.delivery: Delivery[T, R] = Delivery(plan, terms, self.intake, self.ending)
        self._plan = plan
        self._retry = plan.retry
        self._terms = terms
        self._name = secrets.token_hex(6)

    def start(self, total: int | None, now: float) -> None:
        """The run begins."""
        self.delivery.ledger.started = now
        self.ending.ends = now + self._terms.deadline
        self.delivery.emit(RunStarted(self._plan.name, total))

    def caller(self) -> Caller:
        """For one worker."""
        version = self._plan.checkpoint.version if self._plan.checkpoint is not None else ""
        return Caller(f"{self._plan.name}:{version}", self._name)

    # What to read

    def wants(self) -> int:
        """How many items are to be read now."""
        if self.ending.draining:
            return 0
        delivered = self.delivery.outbox.delivered
        return self.intake.wants(self.scheduler.agenda.waiting, delivered, self.scheduler.room)

    @property
    def waiting(self) -> int:
        """Items that were taken, and have not started."""
        return self.scheduler.agenda.waiting + len(self.intake.unknown) + len(self.intake.asked)

    @property
    def room(self) -> float:
        """Items that may be taken until some outcomes are read."""
        return self.intake.window - self.intake.taken + self.delivery.outbox.delivered

    def feed(self, items: Sequence[T], now: float, *, ended: bool) -> None:
        """Take in what was read; `ended`, if nothing comes after it."""
        self.intake.exhausted = ended
        self.admit(items, now)

    def submit(self, item: T, now: float, priority: int | None) -> None:
        """Take in an item that is not from the input.

        Raises:
            StreamClosed: the run is over, or ends.
        """
        self.ending.check_open()
        self.admit([item], now, priority)

    def admit(self, items: Iterable[T], now: float, priority: int | None = None) -> None:
        """Take items in."""
        for item in items:
            try:
                job = self.intake.job(item, now, priority)
            except Exception as error:  # of a function of an item: it is this item's
                self.delivery.without_value(Job(self.intake.taken - 1, item), error)
            else:
                self._place(job)

    def _place(self, job: Job[T]) -> None:
        if self.ending.is_over:
            self.delivery.leave(self._without_value(job, self.ending.not_started()))
        elif self.intake.is_twin(job) or self._finish_cached([job]):
            return
        elif self._plan.checkpoint is not None:
            self.intake.unknown.append(job)
        else:
            self.scheduler.add(job)

    @property
    def has_paperwork(self) -> bool:
        """Whether jobs are to be looked up in the checkpoint, or outcomes to be kept there."""
        archive = self.delivery.archive
        return bool(self.intake.unknown) or (archive is not None and bool(archive.pending))

    def take_unknown(self) -> list[Job[T]]:
        """Jobs that are to be looked up in the checkpoint."""
        self.intake.asked, self.intake.unknown = self.intake.unknown, []
        return self.intake.asked

    def place_known(self, jobs: Sequence[Job[T]], known: Sequence[Done[T, R]]) -> None:
        """They were looked up: some have their outcomes."""
        self.intake.asked = []
        self.delivery.deliver(known)
        indexes = {job.index for job, _ in known}
        for job in jobs:
            if job.index not in indexes:
                self.scheduler.add(job)

    # What to call

    def goes_straight(self) -> bool:
        """Whether the next item may be called without anybody asking here, as far as the run is concerned."""
        scheduler = self.scheduler
        if scheduler.has_work:
            scheduler.has_work = bool(scheduler.agenda)
        return not (scheduler.has_work or self.ending.draining) and self.room > 0

    def take(self, now: float) -> Batch[T] | None:
        """What is to be called now, if there is something."""
        self.ending.look_at_clock(now)
        while not self.ending.draining:
            batch = self.scheduler.next(now, more=self._plan.whole_batches and self._more())
            if batch is None:
                return None
            if self._is_still_wanted(batch, now) and self.scheduler.begin(batch, now):
                self.delivery.watch(batch.jobs)
                return batch
        return None

    def _more(self) -> bool:
        """Whether further jobs can come before one of those that wait goes."""
        if self.intake.exhausted:
            return self.intake.open or self.intake.looks_up
        return self.wants() > 0

    def _is_still_wanted(self, batch: Batch[T], now: float) -> bool:
        """Sort out the jobs that need no call any more: whose value is known now, or whose time is over."""
        if self._plan.cache is not None and (known := self._finish_cached(batch.jobs)):
            batch.jobs = [job for job in batch.jobs if job.index not in known]
        if self._plan.deadline is not None and (late := self._finish_late(batch.jobs, now)):
            batch.jobs = [job for job in batch.jobs if job.index not in late]
        return bool(batch.jobs)

    def _finish_late(self, jobs: Sequence[Job[T]], now: float) -> frozenset[int]:
        """Jobs whose time is over are not called; returns their numbers."""
        late = [job for job in jobs if job.deadline <= now]
        for job in late:
            error = TimeoutError(f"{self._plan.name}: the time of this item is over")
            self.delivery.without_value(job, job.error or error)
        return frozenset(job.index for job in late)

    def _finish_cached(self, jobs: Sequence[Job[T]]) -> frozenset[int]:
        """Jobs whose value is in the cache need no call; returns their numbers."""
        if self._plan.cache is None:
            return _NOBODY
        found = self._plan.cache.get_present([job.key for job in jobs])
        known = [job for job in jobs if job.key in found]
        for job in known:
            self.delivery.ledger.cached += 1
            self.delivery.finish(*finished(job, found[job.key], None))
        return frozenset(job.index for job in known)

    def argument(self, batch: Batch[T]) -> Any:
        """What the function is called with."""
        return [job.item for job in batch.jobs] if self._plan.whole_batches else batch.jobs[0].item

    def begins(self, caller: Caller, started: float) -> float:
        """A call begins; returns the moment at which its time is over.

        Raises:
            NotStarted: the run ends, so that it does not begin.
        """
        if self.ending.draining:
            raise self.ending.not_started()
        caller.waits = False
        until = inf
        if (batch := caller.batch) is not None:
            batch.calling, until = True, batch.deadline
            for job in batch.jobs:
                job.attempts += 1
        timeout = self._plan.timeout
        caller.until = until if timeout is None else min(until, started + timeout)
        return caller.until

    def due(self) -> float:
        """The moment at which `take` may say something else although nothing happened."""
        return inf if self.ending.draining else self.scheduler.due(more=self._more())

    def idle_reason(self) -> Bottleneck | None:
        """Why a worker finds nothing to do."""
        if self.scheduler.is_full:
            return None
        if reason := self.scheduler.idle_reason():
            return reason
        if self.intake.exhausted and not self.intake.open:
            return "retries" if self.scheduler.agenda.put_back_ones else None
        return "input" if self.room > 0 else "output"

    # What becomes of it

    def settle(self, batch: Batch[T], attempt: Attempt[Any], now: float) -> None:
        """Decide about a batch whose call ended."""
        if isinstance(attempt.error, NotStarted):
            return  # it is there when the run is closed
        self._learn_from(attempt)
        self.scheduler.ended(batch, attempt, now)
        self._carry_out(batch, ruling(self._plan, batch, attempt, now), now)
        self.scheduler.settled(now)

    def went_well(self, first: int, argument: Any, attempt: Attempt[Any]) -> bool:
        """A call that went straight has ended; false if it is to be settled as a batch."""
        value, error, seconds, _, paced, waited = attempt
        if error is not None:
            return False
        if not self._plan.whole_batches:
            self.delivery.went_well(outcome_of(first, argument, value, None, 1, seconds))
        elif outcomes := outcomes_of(first, argument, value, seconds):
            for done in outcomes:
                self.delivery.went_well(done)
        else:
            return False
        self.delivery.ledger.went_well(seconds, paced, waited)
        if self._retry is not None:
            self._retry.succeeded()
        return True

    def batch_of(self, first: int, argument: Any, attempt: Attempt[Any], now: float) -> Batch[T]:
        """The batch that a call which went straight was for."""
        began = now - attempt.seconds - attempt.waited - attempt.paced
        return self.take_up(first, argument, began, calling=attempt.made)

    def take_up(self, first: int, argument: Any, began: float, *, calling: bool) -> Batch[T]:
        """What went straight is under way as a batch; `calling`, if the function was called with it."""
        items = argument if self._plan.whole_batches else [argument]
        jobs = [self.intake.taken_as(index, item, began) for index, item in enumerate(items, first)]
        for job in jobs:
            job.attempts = int(calling)
        return self.scheduler.take_up(jobs, began, calling=calling)

    def _learn_from(self, attempt: Attempt[Any]) -> None:
        self.delivery.ledger.called(attempt)
        if attempt.error is None:
            if self._plan.retry is not None:
                self._plan.retry.succeeded()
        elif self._plan.hooks:
            self._notice_throttling(attempt.error)

    def _carry_out(self, batch: Batch[T], ruled: Ruling[T, R], now: float) -> None:
        self.delivery.finish_all(ruled.done)
        if ruled.error is None:
            return
        if ruled.again is not None:
            self._call_again(ruled.again, ruled.delay, ruled.error, now)
        if ruled.parts:
            self._split(batch, ruled.parts, ruled.error)

    def _split(self, batch: Batch[T], parts: Sequence[Batch[T]], error: Exception) -> None:
        self.delivery.ledger.splits += 1
        self.delivery.emit(BatchSplit(self._plan.name, len(batch.jobs), error))
        for job in batch.jobs:
            job.error = error
        for part in parts:
            self.scheduler.put_back(part)

    def _call_again(self, batch: Batch[T], delay: float, error: Exception, now: float) -> None:
        self.delivery.ledger.retries += 1
        self.scheduler.put_back(batch, now + delay)
        for job in batch.jobs:
            job.error = error
            self.delivery.emit(ItemRetried(self._plan.name, job.index, batch.tries, delay, error))

    def _notice_throttling(self, error: Exception) -> None:
        said = classify(error)
        if said is not None and said.verdict is Verdict.THROTTLED:
            self.delivery.emit(Throttled(self._plan.name, said.retry_after))

    # How it ends

    @property
    def nothing_left(self) -> bool:
        """Whether there is nothing to be called, now or later, unless what is under way leads to it."""
        if self.ending.draining:
            return True
        intake = self.intake
        return intake.exhausted and not (intake.open or intake.looks_up or self.scheduler.agenda)

    def close(self, rest: Iterable[T], input_error: Exception | None, now: float) -> None:
        """Give an outcome to each item that has none.

        Args:
            rest: items that were not taken in, and are to have one.
            input_error: what the input raised.
            now: the moment.
        """
        delivery, ending = self.delivery, self.ending
        delivery.closing = True
        if not ending.is_read:
            delivery.left += delivery.outbox.take_all()
        if delivery.archive is not None:
            for _, done in delivery.archive.take():
                delivery.leave(done)
        hand_out = delivery.hand_out if ending.is_read else delivery.leave
        for job in self._unfinished(rest, now):
            hand_out(self._without_value(job, job.error or ending.not_started()))
        ending.is_over = True
        delivery.ledger.finished = now
        ending.failure = ending.failure or input_error or self._failure_of_items(now)
        unstarted = [done for done in delivery.left if done.state == "not started"]
        delivery.emit(RunFinished(self._plan.name, self.report(now, unstarted)))

    def _without_value(self, job: Job[T], error: Exception) -> Outcome[T, R]:
        return outcome_of(job.index, job.item, None, error, job.attempts, 0.0)

    def _unfinished(self, rest: Iterable[T], now: float) -> list[Job[T]]:
        jobs = [*self.scheduler.agenda.clear(), *self.intake.clear()]
        for batch in self.scheduler.clear(now):
            for job in batch.jobs:
                job.error = self.ending.stopped() if batch.calling else job.error
            jobs += batch.jobs
        jobs += [Job(self.intake.taken + number, item) for number, item in enumerate(rest)]
        return sorted(jobs, key=lambda job: job.index)

    def _failure_of_items(self, now: float) -> RunFailed | None:
        failures = self.ending.failures
        if not failures:
            return None
        count = len(failures)
        words = f"{self._plan.name}: {count} item{'s' * (count > 1)} failed, and the run was stopped"
        return RunFailed(words, failures, self.report(now, self.delivery.left))

    def all_outcomes(self) -> list[Outcome[T, R]]:
        """The outcomes that were not read.

        Raises:
            BaseException: what the run, or its input, failed with.
        """
        outcomes = self.delivery.outbox.take_all()
        if self.ending.failure is not None:
            self.delivery.left += outcomes  # which are those of the report, too
        self.ending.raise_failure()
        return outcomes

    def report(self, now: float, outcomes: Sequence[Outcome[T, R]]) -> RunReport[T, R]:
        """The figures so far."""
        return self.delivery.ledger.report(self._plan.name, self._plan.concurrency[1], now, outcomes)

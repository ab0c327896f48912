"""What is known of one run, and every decision about it.

A desk waits for nothing and takes no lock: its run sees to it that one caller at a time comes to it. Tasks
and threads ask it the same questions: how much to read, what to call, what becomes of a call that ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, Final, Generic, TypeVar

from batchkit._core.agenda import Agenda, Batch, Job
from batchkit._core.barrier import Barrier
from batchkit._core.bottleneck import Bottleneck
from batchkit._core.concurrency import FoundConcurrency
from batchkit._dispatch import Attempt
from batchkit._events import (
    BatchSplit,
    Event,
    ItemFinished,
    ItemRetried,
    RunFinished,
    RunStarted,
    Throttled,
    emit,
)
from batchkit._running.archive import Archive
from batchkit._running.caller import Caller
from batchkit._running.intake import Intake
from batchkit._running.ledger import Ledger
from batchkit._running.outbox import Outbox
from batchkit._running.plan import Plan, Terms
from batchkit._running.verdicts import Done, Ruling, finished, ruling
from batchkit._values import Outcome, RunReport
from batchkit._watching import watcher
from batchkit.exceptions import CallCancelled, NotStarted, RunFailed, StreamClosed
from batchkit.feedback import Verdict, classify

T = TypeVar("T")
R = TypeVar("R")


_NOBODY: Final = frozenset[int]()
_NOTABLE: Final = 0.01  # part of a call's time from which on it had to wait for its permits


class Desk(Generic[T, R]):
    """One run.

    Attributes:
        intake: how its items come in.
        outbox: outcomes for the reader.
        ledger: the figures.
        archive: what is to be kept in a checkpoint, if there is one.
        left: outcomes that nobody reads, since the run was stopped.
        draining: whether nothing new starts.
        abandoned: whether the reader has left.
        is_over: whether each item has its outcome.
        ends: when the time of the run is over; infinite if it has none.
        cut: when calls under way are not waited for any longer; infinite if they may take their time.
    """

    def __init__(self, plan: Plan, terms: Terms) -> None:
        self.intake: Intake[T] = Intake(plan, terms)
        self.outbox: Outbox[T, R] = Outbox(ordered=terms.ordered)
        self.ledger = Ledger()
        self.archive = None if plan.checkpoint is None else Archive[T, R](plan.checkpoint)
        self.left: list[Outcome[T, R]] = []
        self.draining = False
        self.abandoned = False
        self.is_over = False
        self.ends = inf
        self.cut = inf
        self._plan = plan
        self._terms = terms
        self._agenda: Agenda[T] = Agenda(
            plan.sizes, max_wait=plan.max_wait, passes=plan.reach, patience=plan.patience
        )
        self._barrier = Barrier(plan.batch_size, plan.pause)
        self._found = FoundConcurrency(*plan.concurrency)
        # whether a job is nothing but an item, and an outcome goes nowhere but to the reader: for speed
        self._simple = plan.key is None and plan.on_error == "collect" and not plan.hooks
        self._finds = plan.concurrency[0] < plan.concurrency[1]
        self._watch = None if plan.cache is None else watcher(plan.cache)
        self._under_way: set[Batch[T]] = set()
        self._down_until = 0.0  # while the breaker lets nobody go
        self._closing = False
        self._failures: list[Exception] = []  # of items
        self._failure: BaseException | None = None  # of the run
        self._name = secrets.token_hex(6)

    def start(self, total: int | None, now: float) -> None:
        """The run begins."""
        self.ledger.started = now
        self.ends = now + self._terms.deadline
        self.emit(RunStarted(self._plan.name, total))

    # What to read

    def wants(self) -> int:
        """How many items are to be read now."""
        if self.draining:
            return 0
        return self.intake.wants(self._agenda.waiting, self.outbox.delivered, self._barrier.room)

    @property
    def waiting(self) -> int:
        """Items that were taken, and have not started."""
        return self._agenda.waiting + len(self.intake.unknown) + len(self.intake.asked)

    @property
    def has_room(self) -> bool:
        """Whether the reader is fast enough."""
        return self.intake.taken - self.outbox.delivered < self.intake.window

    def feed(self, items: Sequence[T], wanted: int, now: float) -> None:
        """Take in what was read; fewer than wanted, where the input is at its end."""
        if len(items) < wanted:
            self.intake.exhausted = True
        self.admit(items, now)

    def submit(self, item: T, now: float, priority: int | None) -> None:
        """Take in an item that is not from the input.

        Raises:
            StreamClosed: the run is over, or ends.
        """
        self.check_open()
        self.admit([item], now, priority)

    def check_open(self) -> None:
        """Refuse items where nobody would call them.

        Raises:
            StreamClosed: the run is over, or ends.
        """
        if self.draining or self.abandoned or self.is_over:
            words = f"{self._plan.name}: the run is over, or ends: it takes no further items"
            raise StreamClosed(words)

    def admit(self, items: Iterable[T], now: float, priority: int | None = None) -> None:
        """Take items in."""
        place = self._agenda.add if self._simple and not self.is_over else self._place
        for item in items:
            try:
                job = self.intake.job(item, now, priority)
            except Exception as error:  # of a function of an item: it is this item's
                self._finish_without_value(Job(self.intake.taken - 1, item), error)
            else:
                place(job)

    def _place(self, job: Job[T]) -> None:
        if self.is_over:
            self._finish_unread(self._without_value(job, self._never()))
        elif self.intake.is_twin(job) or self._finish_cached([job]):
            return
        elif self.archive is not None:
            self.intake.unknown.append(job)
        else:
            self._agenda.add(job)

    @property
    def has_paperwork(self) -> bool:
        """Whether jobs are to be looked up in the checkpoint, or outcomes to be kept there."""
        return bool(self.intake.unknown) or (self.archive is not None and bool(self.archive.pending))

    def take_unknown(self) -> list[Job[T]]:
        """Jobs that are to be looked up in the checkpoint."""
        self.intake.asked, self.intake.unknown = self.intake.unknown, []
        return self.intake.asked

    def place_known(self, jobs: Sequence[Job[T]], known: Sequence[Done[T, R]]) -> None:
        """They were looked up: some have their outcomes."""
        self.intake.asked = []
        self.deliver(known)
        indexes = {job.index for job, _ in known}
        for job in jobs:
            if job.index not in indexes:
                self._agenda.add(job)

    # What to call

    def caller(self) -> Caller:
        """What a worker tells the function about its calls."""
        version = self._plan.checkpoint.version if self._plan.checkpoint is not None else ""
        return Caller(f"{self._plan.name}:{version}", self._name)

    def take(self, now: float) -> Batch[T] | None:
        """What is to be called now, if there is something."""
        self.look_at_clock(now)
        while self._may_call(now) and (free := self._found.limit - len(self._under_way)) > 0:
            fresh = self._barrier.is_open(now)
            more = self._plan.whole_batches and self._more()
            batch = self._agenda.next(now, more=more, slots=free, fresh=fresh)
            if batch is None:
                return None
            if self._is_still_wanted(batch, now):
                if self._service_is_up(now):
                    return self._begin(batch, now)
                self._agenda.put_back(batch)
        return None

    def _may_call(self, now: float) -> bool:
        if now >= self._down_until:
            self._down_until = 0.0
        return not (self.draining or self._down_until)

    def _service_is_up(self, now: float) -> bool:
        """Whether a call may go. Who may is to say how it ended, for it may be the breaker's probe."""
        if self._plan.breaker is None:
            return True
        if wait := self._plan.breaker.allow(now):
            self._down_until = now + wait
        return not wait

    def _more(self) -> bool:
        """Whether further jobs can come before one of those that wait goes."""
        if self.intake.exhausted:
            return self.intake.open or self.intake.looks_up
        return self.wants() > 0

    def _is_still_wanted(self, batch: Batch[T], now: float) -> bool:
        """Sort out the jobs that need no call any more: whose value is known now, or whose time is over."""
        known = self._finish_cached(batch.jobs)
        if known:
            batch.jobs = [job for job in batch.jobs if job.index not in known]
        late = self._finish_late(batch.jobs, now) if self._plan.deadline is not None else _NOBODY
        if late:
            batch.jobs = [job for job in batch.jobs if job.index not in late]
        return bool(batch.jobs)

    def _finish_late(self, jobs: Sequence[Job[T]], now: float) -> frozenset[int]:
        """Jobs whose time is over are not called; returns their numbers."""
        late = [job for job in jobs if job.deadline <= now]
        for job in late:
            error = TimeoutError(f"{self._plan.name}: the time of this item is over")
            self._finish_without_value(job, job.error or error)
        return frozenset(job.index for job in late)

    def _finish_cached(self, jobs: Sequence[Job[T]]) -> frozenset[int]:
        """Jobs whose value is in the cache need no call; returns their numbers."""
        if self._plan.cache is None:
            return _NOBODY
        found = self._plan.cache.get_present([job.key for job in jobs])
        known = [job for job in jobs if job.key in found]
        for job in known:
            self.ledger.cached += 1
            self.finish(*finished(job, found[job.key], None))
        return frozenset(job.index for job in known)

    def _begin(self, batch: Batch[T], now: float) -> Batch[T]:
        batch.tries += 1
        if batch.began is None:
            batch.began = now
            self._barrier.begin(len(batch.jobs))
        if self._watch is not None:
            watch = self._watch([job.key for job in batch.jobs])
            for job in batch.jobs:
                job.watch = watch
        self._under_way.add(batch)
        return batch

    def argument(self, batch: Batch[T]) -> Any:
        """What the function is called with."""
        return [job.item for job in batch.jobs] if self._plan.whole_batches else batch.jobs[0].item

    def begins(self, batch: Batch[T], started: float) -> float:
        """A call begins; returns the moment at which its time is over.

        Raises:
            NotStarted: the run ends, so that it does not begin.
        """
        if self.draining:
            raise self._never()
        batch.calling = True
        for job in batch.jobs:
            job.attempts += 1
        timeout = self._plan.timeout
        batch.until = batch.deadline if timeout is None else min(batch.deadline, started + timeout)
        return batch.until

    def due(self) -> float:
        """The moment at which `take` may say something else although nothing happened."""
        if self.draining or len(self._under_way) >= self._found.limit:
            return inf
        if self._down_until:
            return self._down_until
        return min(self._agenda.due(more=self._more()), self._barrier.due())

    def idle_reason(self) -> Bottleneck | None:
        """Why a worker finds nothing to do."""
        if len(self._under_way) >= self._found.limit:
            return None
        if self._down_until:
            return "retries"
        if self._barrier.room <= 0:
            return "barrier"
        if self.intake.exhausted and not self.intake.open:
            return "retries" if self._agenda.put_back_ones else None
        return "input" if self.has_room else "output"

    # What becomes of it

    def settle(self, batch: Batch[T], attempt: Attempt[Any], now: float) -> None:
        """Decide about a batch whose call ended."""
        if isinstance(attempt.error, NotStarted):
            return  # it is there when the run is closed
        self._learn_from(attempt, now)
        self._under_way.discard(batch)
        batch.calling = False
        self._carry_out(batch, ruling(self._plan, batch, attempt, now), now)
        self._barrier.ended(now, all_done=not (self._under_way or self._agenda.put_back_ones))

    def _learn_from(self, attempt: Attempt[Any], now: float) -> None:
        self.ledger.called(attempt)
        if attempt.made and self._finds:
            wanted = len(self._under_way) >= self._found.limit
            waited = attempt.waited + attempt.paced > _NOTABLE * attempt.seconds
            self._found.note(attempt.seconds, now, wanted=wanted, waited=waited)
        if attempt.error is None and self._plan.retry is not None:
            self._plan.retry.succeeded()
        if self._plan.breaker is not None:
            self._tell_breaker(attempt.error if attempt.made else self._never(), now)
        if attempt.error is not None and self._plan.hooks:
            self._notice_throttling(attempt.error)

    def _carry_out(self, batch: Batch[T], ruled: Ruling[T, R], now: float) -> None:
        if self.archive is None:
            self.deliver(ruled.done)
        else:
            for job, done in ruled.done:
                self.finish(job, done)
        if ruled.error is None:
            return
        if ruled.again is not None:
            self._call_again(ruled.again, ruled.delay, ruled.error, now)
        if ruled.parts:
            self._split(batch, ruled.parts, ruled.error)

    def _split(self, batch: Batch[T], parts: Sequence[Batch[T]], error: Exception) -> None:
        self.ledger.splits += 1
        self.emit(BatchSplit(self._plan.name, len(batch.jobs), error))
        for job in batch.jobs:
            job.error = error
        for part in parts:
            self._agenda.put_back(part)

    def _call_again(self, batch: Batch[T], delay: float, error: Exception, now: float) -> None:
        self.ledger.retries += 1
        self._agenda.put_back(batch, now + delay)
        for job in batch.jobs:
            job.error = error
            self.emit(ItemRetried(self._plan.name, job.index, batch.tries, delay, error))

    def _tell_breaker(self, error: Exception | None, now: float) -> None:
        if self._plan.breaker is not None:
            self._plan.breaker.heard(error, now)
            self._down_until = 0.0 if error is None else self._down_until

    def _notice_throttling(self, error: Exception) -> None:
        said = classify(error)
        if said is not None and said.verdict is Verdict.THROTTLED:
            self.emit(Throttled(self._plan.name, said.retry_after))

    def finish(self, job: Job[T], done: Outcome[T, R]) -> None:
        """An item has its outcome. It is kept before it is delivered, if it is to be kept."""
        if self.archive is None or not self.archive.takes(job, done):
            self.deliver([(job, done)])

    def _without_value(self, job: Job[T], error: Exception) -> Outcome[T, R]:
        return Outcome(job.index, job.item, None, error, job.attempts)

    def _finish_without_value(self, job: Job[T], error: Exception) -> None:
        self.finish(job, self._without_value(job, error))

    def deliver(self, outcomes: Sequence[Done[T, R]]) -> None:
        """Outcomes are kept, if they are to be."""
        if self._simple:
            self._hand_out_plainly(outcomes)
            return
        for job, done in outcomes:
            self._hand_out(done)
            if job.key is not None:
                self._use_for_others(job, done)

    def _use_for_others(self, job: Job[T], done: Outcome[T, R]) -> None:
        """A value is kept in the cache, and is that of those who waited with the same key."""
        if done.ok and job.watch is not None and done.attempts:
            job.watch.keep(job.key, done.value)
        for twin in self.intake.twins_of(job):
            self._hand_out(finished(twin, done.value, done.error)[1])

    def finish_plainly(self, done: Outcome[T, R], seconds: float) -> None:
        """The same where nothing but concurrency was asked for: for speed."""
        ledger = self.ledger
        ledger.calls += 1
        ledger.calling += seconds
        if done.error is None:
            ledger.succeeded += 1
        else:
            ledger.failed += 1
        self.intake.finished += 1
        self.outbox.put(done)

    def cut_off(self, index: int, item: T) -> None:
        """The same for a call that was cancelled, since the run was."""
        self._under_way.add(Batch([Job(index, item, attempts=1)], calling=True))

    def _hand_out_plainly(self, outcomes: Sequence[Done[T, R]]) -> None:
        self.intake.finished += len(outcomes)
        for _, done in outcomes:
            self.ledger.count(done)
            self.outbox.put(done)

    def _hand_out(self, done: Outcome[T, R]) -> None:
        self.intake.finished += 1
        self.ledger.count(done)
        if self._plan.hooks and done.state != "not started":
            self.emit(ItemFinished(self._plan.name, done))
        if done.error is not None and self._plan.on_error == "raise":
            self._note_failure(done, done.error)
        else:
            self.outbox.put(done)

    def _note_failure(self, done: Outcome[T, R], error: Exception) -> None:
        self.left.append(done)
        if done.state == "error" and not self._closing:
            self._failures.append(error)
            self.draining = True

    def emit(self, event: Event) -> None:
        """Tell the hooks."""
        if self._plan.hooks:
            emit(self._plan.hooks, event)

    # How it ends

    @property
    def nothing_left(self) -> bool:
        """Whether there is nothing to be called, now or later, unless what is under way leads to it."""
        if self.draining:
            return True
        intake = self.intake
        return intake.exhausted and not (intake.open or intake.looks_up or self._agenda)

    @property
    def has_failed(self) -> bool:
        """Whether the run is to be stopped, since an item failed or the run itself did."""
        return bool(self._failures) or self._failure is not None

    @property
    def calls_under_way(self) -> bool:
        """Whether the function is at work."""
        return any(batch.calling for batch in self._under_way)

    def look_at_clock(self, now: float) -> None:
        """The run is drained when its time is over."""
        if now >= self.ends:
            self.drain(self.ends)

    def drain(self, cut: float = inf) -> None:
        """Nothing new starts, and after that moment nothing is under way."""
        self.draining = True
        self.cut = min(self.cut, cut)

    def fails(self, error: BaseException) -> None:
        """The run cannot go on."""
        self.draining = True
        self._failure = self._failure or error

    def close(self, rest: Iterable[T], input_error: Exception | None, now: float) -> None:
        """Give an outcome to each item that has none.

        Args:
            rest: what was not read of an input that has an end.
            input_error: what the input raised.
            now: the moment.
        """
        self._closing = True
        read = not self.abandoned and self._failure is None
        if not read:
            self.left += self.outbox.take_all()
        if self.archive is not None:
            for _, done in self.archive.take():
                self._finish_unread(done)
        never = self._never()
        for job in self._unfinished(rest if self.draining else (), now):
            done = self._without_value(job, job.error or never)
            (self._hand_out if read else self._finish_unread)(done)
        self.is_over = True
        self.ledger.finished = now
        self._failure = self._failure or input_error or self._failure_of_items(now)
        unstarted = [done for done in self.left if done.state == "not started"]
        self.emit(RunFinished(self._plan.name, self.report(now, unstarted)))

    def _unfinished(self, rest: Iterable[T], now: float) -> list[Job[T]]:
        jobs = [*self._agenda.clear(), *self.intake.clear()]
        for batch in self._under_way:
            self._tell_breaker(self._never(), now)
            for job in batch.jobs:
                job.error = self._stopped() if batch.calling else job.error
            jobs += batch.jobs
        self._under_way.clear()
        jobs += [Job(self.intake.taken + number, item) for number, item in enumerate(rest)]
        return sorted(jobs, key=lambda job: job.index)

    def _never(self) -> NotStarted:
        return NotStarted(f"{self._plan.name}: the run ended before this item was called")

    def _stopped(self) -> Exception:
        if self.cut == self.ends < inf:
            return TimeoutError(f"{self._plan.name}: the time of the run is over")
        return CallCancelled(f"{self._plan.name}: the run was stopped while this call was under way")

    def _finish_unread(self, done: Outcome[T, R]) -> None:
        self.intake.finished += 1
        self.ledger.count(done)
        self.left.append(done)

    def _failure_of_items(self, now: float) -> RunFailed | None:
        if not self._failures:
            return None
        count = len(self._failures)
        words = f"{self._plan.name}: {count} item{'s' * (count > 1)} failed, and the run was stopped"
        return RunFailed(words, self._failures, self.report(now, self.left))

    def raise_failure(self) -> None:
        """What the reader is to know after the last outcome.

        Raises:
            BaseException: what the run, or its input, failed with.
        """
        if self._failure is not None:
            raise self._failure

    def all_outcomes(self) -> list[Outcome[T, R]]:
        """The outcomes that were not read.

        Raises:
            BaseException: what the run, or its input, failed with.
        """
        outcomes = self.outbox.take_all()
        if self._failure is not None:
            self.left += outcomes  # which are those of the report, too
            raise self._failure
        return outcomes

    def report(self, now: float, outcomes: Sequence[Outcome[T, R]]) -> RunReport[T, R]:
        """The figures so far."""
        return self.ledger.report(self._plan.name, self._plan.concurrency[1], now, outcomes)

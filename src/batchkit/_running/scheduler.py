"""What is called next, and what is under way: as barrier, breaker and the number of calls at once allow."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any, Final, Generic, TypeVar

from batchkit._core.agenda import Agenda, Batch, Job
from batchkit._core.barrier import Barrier
from batchkit._core.bottleneck import Bottleneck
from batchkit._core.concurrency import FoundConcurrency
from batchkit._dispatch import Attempt
from batchkit._running.plan import Plan
from batchkit.exceptions import NotStarted

T = TypeVar("T")

_NOTABLE: Final = 0.01  # part of a call's time from which on it had to wait for its permits


class Scheduler(Generic[T]):
    """The calls of a run.

    Attributes:
        agenda: what waits to be called.
        has_work: whether something may be on it; set whenever something comes.
    """

    def __init__(self, plan: Plan) -> None:
        self.agenda: Agenda[T] = Agenda(
            plan.sizes, max_wait=plan.max_wait, passes=plan.reach, patience=plan.patience
        )
        self.has_work = False
        self._barrier = Barrier(plan.batch_size, plan.pause)
        self._breaker = plan.breaker
        self._found = FoundConcurrency(*plan.concurrency)
        self._finds = plan.concurrency[0] < plan.concurrency[1]
        self._patience = plan.patience
        self._under_way: set[Batch[T]] = set()
        self._down_until = 0.0  # while the breaker lets nobody go

    @property
    def room(self) -> float:
        """Items that may start before a barrier."""
        return self._barrier.room

    @property
    def calls_under_way(self) -> bool:
        """Whether the function is at work."""
        return any(batch.calling for batch in self._under_way)

    def add(self, job: Job[T]) -> None:
        """Have an item called."""
        self.has_work = True
        self.agenda.add(job)

    def put_back(self, batch: Batch[T], due: float | None = None) -> None:
        """Have a batch called again, at once or at a moment."""
        self.has_work = True
        self.agenda.put_back(batch, due)

    def next(self, now: float, *, more: bool) -> Batch[T] | None:
        """What may be called now; it is to begin, or else was in vain.

        Args:
            now: the moment.
            more: whether further jobs can come before one of those that wait goes.
        """
        free = self._found.limit - len(self._under_way)
        if free <= 0 or self._is_down(now):
            return None
        return self.agenda.next(now, more=more, slots=free, fresh=self._barrier.is_open(now))

    def begin(self, batch: Batch[T], now: float) -> bool:
        """Take a batch up, if its service is up. Who does so is to say how it ended, for it may be the
        breaker's probe.
        """
        if self._breaker is not None and (wait := self._breaker.allow(now)):
            self._down_until = now + wait
            self.put_back(batch)
            return False
        batch.tries += 1
        if batch.began is None:
            batch.began = now
            self._barrier.begin(len(batch.jobs))
        self._under_way.add(batch)
        return True

    def take_up(self, jobs: list[Job[T]], began: float, *, calling: bool) -> Batch[T]:
        """A batch whose first call is under way, or has just ended, although it was on no agenda."""
        place = (began - jobs[0].priority * self._patience, jobs[0].index)
        batch = Batch(jobs, place, tries=1, began=began, calling=calling)
        self._under_way.add(batch)
        return batch

    def ended(self, batch: Batch[T], attempt: Attempt[Any], now: float) -> None:
        """A call ended; what it leads to is to be put back before `settled`."""
        if attempt.made and self._finds:
            wanted = len(self._under_way) >= self._found.limit
            waited = attempt.waited + attempt.paced > _NOTABLE * attempt.seconds
            self._found.note(attempt.seconds, now, wanted=wanted, waited=waited)
        if self._breaker is not None:
            error = attempt.error if attempt.made else NotStarted()
            self._breaker.heard(error, now)
            self._down_until = 0.0 if error is None else self._down_until
        self._under_way.discard(batch)
        batch.calling = False

    def settled(self, now: float) -> None:
        """What the end of a call leads to is known."""
        self._barrier.ended(now, all_done=not (self._under_way or self.agenda.put_back_ones))

    def due(self, *, more: bool) -> float:
        """The moment at which `next` may say something else although nothing happened."""
        if len(self._under_way) >= self._found.limit:
            return inf
        return self._down_until or min(self.agenda.due(more=more), self._barrier.due())

    def idle_reason(self) -> Bottleneck | None:
        """Why there is nothing to do for another worker, if it is to be found here."""
        if self._down_until:
            return "retries"
        return "barrier" if self._barrier.room <= 0 else None

    @property
    def is_full(self) -> bool:
        """Whether as many calls are under way as may be."""
        return len(self._under_way) >= self._found.limit

    def clear(self, now: float) -> Iterator[Batch[T]]:
        """Take out what is under way."""
        for batch in self._under_way:
            if self._breaker is not None:
                self._breaker.heard(NotStarted(), now)
            yield batch
        self._under_way.clear()

    def _is_down(self, now: float) -> bool:
        if now >= self._down_until:
            self._down_until = 0.0
        return self._down_until > 0

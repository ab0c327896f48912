"""How items come into a run: how many are read ahead, and what is known of each."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import chain
from typing import Generic, TypeVar

from batchkit._core.agenda import Job
from batchkit._running.plan import Plan, Terms

T = TypeVar("T")


class Intake(Generic[T]):
    """Items in, jobs out.

    Attributes:
        taken: items read or submitted.
        finished: those of them that have their outcome.
        exhausted: whether the input is at its end.
        open: whether items may be submitted although there is no other work.
        unknown: jobs that are to be looked up in the checkpoint.
        asked: those that are being looked up.
        window: items taken whose outcomes were not read, at most.
    """

    def __init__(self, plan: Plan, terms: Terms) -> None:
        self.taken = 0
        self.finished = 0
        self.exhausted = False
        self.open = terms.keep_open
        self.unknown: list[Job[T]] = []
        self.asked: list[Job[T]] = []
        self._plan = plan
        self.window = terms.window
        self._reach = plan.reach
        self._size = plan.sizes.most
        self._ahead = plan.reach if plan.looks_ahead else self._size
        asked = (plan.weight, plan.group_by, plan.deadline, plan.key)
        self._alike = not callable(plan.priority) and all(function is None for function in asked)
        self._twins: dict[Hashable, list[Job[T]]] = {}  # those with the key of a job that came before

    def read_ahead(self) -> None:
        """Somebody else than the workers reads: a batch for each call at once is to be there for them."""
        self._ahead = max(self._ahead, self._size * self._plan.concurrency[1])

    def wants(self, waiting: int, delivered: int, barrier_room: float) -> int:
        """How many items are to be read now.

        Args:
            waiting: jobs that stand in no batch yet.
            delivered: outcomes that were read.
            barrier_room: items that may start before a barrier.
        """
        waiting += len(self.unknown) + len(self.asked)
        if self.exhausted or waiting >= self._ahead:
            return 0
        if self._plan.checkpoint is not None and 2 * waiting > self._ahead:
            return 0  # look-ups of many at once
        unread = self.window - self.taken + delivered
        room = min(unread, self._reach - self.taken + self.finished)
        if room <= 0:
            return 0
        wanted = min(self._ahead, max(barrier_room, 1)) - waiting
        return max(0, int(min(wanted, max(room, self._size))))

    def job(self, item: T, now: float, priority: int | None = None) -> Job[T]:
        """Take an item in.

        Raises:
            Exception: what a function of an item raised.
        """
        plan = self._plan
        job = self.taken_as(self.taken, item, now)
        self.taken += 1
        if self._alike and priority is None:  # for speed
            return job
        if priority is None:
            priority = plan.priority(item) if callable(plan.priority) else plan.priority
        job.priority = priority
        if plan.weight is not None:
            job.weight = plan.weight(item)
        if plan.group_by is not None:
            job.group = plan.group_by(item)
        if plan.deadline is not None:
            job.deadline = now + (plan.deadline(item) if callable(plan.deadline) else plan.deadline)
        if plan.key is not None:
            job.key = plan.key(item)
        return job

    def taken_as(self, index: int, item: T, came: float) -> Job[T]:
        """An item that has its number, where all are alike."""
        priority = self._plan.priority
        return Job(index, item, None, came, 0 if callable(priority) else priority)

    def is_twin(self, job: Job[T]) -> bool:
        """Whether one with the same key is there already: one call is enough for both."""
        if job.key is None:
            return False
        twins = self._twins.get(job.key)
        if twins is None:
            self._twins[job.key] = []
            return False
        twins.append(job)
        return True

    def twins_of(self, job: Job[T]) -> list[Job[T]]:
        """Those who waited for a job that is done now."""
        return [] if job.key is None else self._twins.pop(job.key, [])

    @property
    def looks_up(self) -> bool:
        """Whether some jobs may be known to the checkpoint."""
        return bool(self.unknown or self.asked)

    def clear(self) -> list[Job[T]]:
        """Take out all that never came on the agenda."""
        jobs = [*self.asked, *self.unknown, *chain.from_iterable(self._twins.values())]
        self.asked, self.unknown, self._twins = [], [], {}
        return jobs

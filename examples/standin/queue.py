"""A queue of jobs as fal has one: any number wait, so many are in progress at once. Pure.

Every function is told what time it is, and first brings the queue up to that moment; so nothing has to run
while nobody asks, and a job ends at its own time, however late that is noticed.
"""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar


@dataclass(slots=True, eq=False)
class Job:
    """One job. Times are service seconds."""

    seconds: Fraction | None  # that it takes; None: for ever
    started: Fraction | None = None  # None while it waits
    ended: Fraction | None = None  # None until it ends or is cancelled
    cancelled: bool = False

    @property
    def end(self) -> Fraction | None:
        """When it will end, as far as that is known."""
        return None if self.started is None or self.seconds is None else self.started + self.seconds


J = TypeVar("J", bound=Job)


class Queue(Generic[J]):
    """The jobs of one account, first come first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[J] = deque()
        self._running: list[J] = []

    def submit(self, job: J, now: Fraction) -> list[J]:
        """Take a job; returned are those that have ended in the meantime, in order."""
        ended = self.look(now)
        self._waiting.append(job)
        self._start(now)
        return ended

    def cancel(self, job: J, now: Fraction) -> list[J]:
        """Cancel a job that has not ended; returned are those that have ended in the meantime, and it."""
        ended = self.look(now)
        if job.ended is None:
            (self._waiting if job.started is None else self._running).remove(job)
            job.ended, job.cancelled = now, True
            ended.append(job)
            self._start(now)
        return ended

    def change(self, limit: int, now: Fraction) -> list[J]:
        """Go on with another limit; jobs in progress are not stopped."""
        ended = self.look(now)
        self._limit = limit
        self._start(now)
        return ended

    def look(self, now: Fraction) -> list[J]:
        """Those that have ended since the last look, in order."""
        ended: list[J] = []
        while (end := self.next_end()) is not None and end <= now:
            job = next(job for job in self._running if job.end == end)
            self._running.remove(job)
            job.ended = end
            ended.append(job)
            self._start(end)
        return ended

    def next_end(self) -> Fraction | None:
        """When the next job will end, if nobody cancels anything; None if none will."""
        return min((job.end for job in self._running if job.end is not None), default=None)

    def position(self, job: J) -> int:
        """How many jobs wait before this one, which waits."""
        return self._waiting.index(job)

    def _start(self, now: Fraction) -> None:
        while self._waiting and len(self._running) < self._limit:
            job = self._waiting.popleft()
            job.started = now
            self._running.append(job)

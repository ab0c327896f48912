"""What may start at `now`: jobs that wait for their batch, batches that are to be called again, and in which
order.

Rules
-----
1. Who is most urgent goes first. A job's place is the moment at which it came, less `priority * patience`:
   a constant, so that ageing costs nothing and low priorities move, too.
2. Jobs of one group share a batch. A batch is cut when it is called and not before, so that who comes
   meanwhile is in it.
3. A batch that is not full waits for further jobs, as long as some can come, but no longer than `max_wait`
   seconds, and not once `passes` jobs of other groups went past its first one: so a rare group is not held
   back for ever.
4. A batch that was put back keeps the place of its first job, and goes as it is, once it is due.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from math import inf
from typing import Any, Generic, TypeVar

from attrs import define, frozen

from batchkit._core.batching import halves

T = TypeVar("T")
Place = tuple[float, int]  # when it came, less what its priority is worth; its number


@define(eq=False)
class Job(Generic[T]):
    """An item on its way.

    Attributes:
        index: its number in the input.
        item: the item.
        key: by which it is known again, or None.
        came: the moment at which it was read, or submitted.
        priority: higher goes first.
        group: whom it may share a batch with.
        weight: what it weighs in its batch.
        deadline: the moment by which it must have its outcome.
        attempts: calls that it took part in so far.
        error: what the last of them ended with, while another one is to come.
        watch: what keeps its value, if there is a cache.
    """

    index: int
    item: T
    key: Hashable = None
    came: float = 0.0
    priority: int = 0
    group: Hashable = None
    weight: float = 1.0
    deadline: float = inf
    attempts: int = 0
    error: Exception | None = None
    watch: Any = None


@define(eq=False)
class Batch(Generic[T]):
    """Jobs of one call.

    Attributes:
        jobs: the most urgent one first.
        place: where the first of them stands.
        tries: how often these jobs, and no others, were taken up so far, a call or not.
        began: the moment of the first try; None before.
        until: the moment at which the call under way is over; infinite if it may take its time.
        calling: whether a call is under way.
    """

    jobs: list[Job[T]]
    place: Place = (0.0, 0)
    tries: int = 0
    began: float | None = None
    until: float = inf
    calling: bool = False

    @property
    def priority(self) -> int:
        """That of its most urgent job."""
        jobs = self.jobs
        return jobs[0].priority if len(jobs) == 1 else max([job.priority for job in jobs])

    @property
    def deadline(self) -> float:
        """The moment at which the time of all its jobs is over."""
        jobs = self.jobs
        return jobs[0].deadline if len(jobs) == 1 else max([job.deadline for job in jobs])


@frozen
class Sizes:
    """How large a batch may be.

    Attributes:
        least, most: items; where they differ, those who wait are spread over the calls that can begin.
        weight: weight at most; what is heavier stands alone.
    """

    least: int = 1
    most: int = 1
    weight: float = inf

    def at(self, depth: int, slots: int) -> int:
        """Items of a batch while so many wait, and so many calls can begin."""
        return min(self.most, max(self.least, -(-depth // slots)))


class _Group(Generic[T]):
    """Jobs that may share a batch."""

    __slots__ = ("jobs", "mark", "weight")

    def __init__(self, mark: int) -> None:
        self.jobs: list[tuple[Place, Job[T]]] = []
        self.weight = 0.0
        self.mark = mark  # jobs that had gone when its first one became the first

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def first(self) -> Job[T]:
        return self.jobs[0][1]

    @property
    def place(self) -> Place:
        return self.jobs[0][0]


class Agenda(Generic[T]):
    """Jobs in, batches out.

    Args:
        sizes: how large a batch may be.
        max_wait: seconds that a job waits for its batch to be filled at most.
        passes: jobs that may go past one whose batch is not full.
        patience: seconds of waiting that outweigh one step of priority.

    Attributes:
        waiting: jobs that stand in no batch yet.
    """

    def __init__(
        self, sizes: Sizes, *, max_wait: float = inf, passes: float = inf, patience: float = 10.0
    ) -> None:
        self.waiting = 0
        self._sizes = sizes
        self._max_wait = max_wait
        self._passes = passes
        self._patience = patience
        self._groups: dict[Hashable, _Group[T]] = {}
        self._ready: list[tuple[Place, Batch[T]]] = []
        self._later: list[tuple[float, Place, Batch[T]]] = []
        self._gone = 0

    def __bool__(self) -> bool:
        return bool(self.waiting or self._ready or self._later)

    @property
    def put_back_ones(self) -> int:
        """Batches that are to be called again, now or later."""
        return len(self._ready) + len(self._later)

    def add(self, job: Job[T]) -> None:
        """Take a job in."""
        group = self._groups.get(job.group)
        if group is None:
            group = self._groups[job.group] = _Group(self._gone)
        heappush(group.jobs, ((job.came - job.priority * self._patience, job.index), job))
        group.weight += job.weight
        self.waiting += 1

    def put_back(self, batch: Batch[T], due: float | None = None) -> None:
        """Have a batch called (again), as soon as there is room for it, or not before a moment."""
        if due is None:
            heappush(self._ready, (batch.place, batch))
        else:
            heappush(self._later, (due, batch.place, batch))

    def next(self, now: float, *, more: bool = False, slots: int = 1, fresh: bool = True) -> Batch[T] | None:
        """What is to be called now, if there is something.

        Args:
            now: the moment.
            more: whether further jobs can come before one of these goes.
            slots: calls that can begin.
            fresh: whether jobs may go that did not go before.
        """
        while self._later and self._later[0][0] <= now:
            _, place, batch = heappop(self._later)
            heappush(self._ready, (place, batch))
        group = self._chosen(now, more, slots) if fresh else None
        if self._ready and (group is None or self._ready[0][0] < group.place):
            return heappop(self._ready)[1]
        return None if group is None else self._cut(group, slots)

    def due(self, *, more: bool) -> float:
        """The moment at which `next` may say something else although nobody came."""
        due = self._later[0][0] if self._later else inf
        if more and self._max_wait < inf:
            for group in self._groups.values():
                due = min(due, group.first.came + self._max_wait)
        return due

    def clear(self) -> Iterator[Job[T]]:
        """Take out all that is left."""
        batches = [*(batch for _, batch in self._ready), *(batch for *_, batch in self._later)]
        groups, self._groups, self._ready, self._later, self.waiting = self._groups, {}, [], [], 0
        for batch in batches:
            yield from batch.jobs
        for group in groups.values():
            yield from (job for _, job in group.jobs)

    def _chosen(self, now: float, more: bool, slots: int) -> _Group[T] | None:
        """The most urgent group that has a batch which may go."""
        size = self._sizes.at(self.waiting, slots)
        chosen: _Group[T] | None = None
        for group in self._groups.values():
            goes = not more or self._is_due(group, size, now)
            if goes and (chosen is None or group.place < chosen.place):
                chosen = group
        return chosen

    def _is_due(self, group: _Group[T], size: int, now: float) -> bool:
        return (
            len(group) >= size
            or group.weight >= self._sizes.weight
            or now >= group.first.came + self._max_wait
            or self._gone - group.mark >= self._passes
        )

    def _cut(self, group: _Group[T], slots: int) -> Batch[T]:
        size, most = self._sizes.at(self.waiting, slots), self._sizes.weight
        waiting, place, name = group.jobs, group.place, group.first.group
        jobs = [heappop(waiting)[1]]
        weight = jobs[0].weight
        while waiting and len(jobs) < size and weight + waiting[0][1].weight <= most:
            jobs.append(heappop(waiting)[1])
            weight += jobs[-1].weight
        group.weight -= weight
        self._gone += len(jobs)
        self.waiting -= len(jobs)
        group.mark = self._gone
        if not waiting:
            del self._groups[name]
        return Batch(jobs, place)


def in_parts(batch: Batch[T]) -> Iterator[Batch[T]]:
    """The halves of a failed batch of two or more, each to be called on its own."""
    for jobs in halves(batch.jobs):
        yield Batch([*jobs], (batch.place[0], jobs[0].index))

"""One run of an executor: workers that pull items, and a reader that takes outcomes.

The workers live in a task group of their own in the background, so that the stream of outcomes can be an
ordinary iterator object: an async generator with a task group around its `yield` breaks when its reader
raises or stops early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

import anyio
from attrs import define, frozen

from batchkit._background import Cancellable, spawn
from batchkit._core.batching import InOrder, halves, values_in_order
from batchkit._core.bottleneck import Spent, bottleneck
from batchkit._dispatch import AnyDispatch, Attempt
from batchkit._events import BatchSplit, Event, Hook, ItemFinished, RunFinished, RunStarted, emit
from batchkit._feed import Feed
from batchkit._parking import Parker
from batchkit._values import Outcome, RunReport
from batchkit.abc import Clock
from batchkit.exceptions import BatchFailed

T = TypeVar("T")
R = TypeVar("R")


@frozen
class Plan:
    """What an executor hands to each of its runs.

    Attributes:
        name: the executor's.
        whole_batches: whether the function takes a list of items.
        batch_size: items in a batch at most.
        concurrency: calls at once at most.
        pause: with a barrier, seconds between the end of a batch and the start of the next; None without one.
        hooks, clock: the executor's.
    """

    name: str
    whole_batches: bool
    batch_size: int
    concurrency: int
    pause: float | None
    hooks: tuple[Hook, ...]
    clock: Clock


@define(eq=False)
class _Job(Generic[T]):
    """An item on its way.

    Attributes:
        index: its number in the input.
        item: the item.
        attempts: calls that it took part in so far.
    """

    index: int
    item: T
    attempts: int = 0


class Run(Generic[T, R]):
    """The state that the workers and the reader of one run share; all in one event loop."""

    def __init__(
        self,
        plan: Plan,
        dispatch: AnyDispatch,
        items: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool,
        window: float,
    ) -> None:
        self._plan = plan
        self._dispatch = dispatch
        self._feed: Feed[T] = Feed(items)
        self._window = window
        self._in_order: InOrder[Outcome[T, R]] | None = InOrder() if ordered else None
        self._outbox: deque[Outcome[T, R]] = deque()
        self._readers: list[Parker] = []
        self._held_up: deque[Parker] = deque()
        self._host: Cancellable | None = None
        self._taken = 0
        self._delivered = 0
        self._in_batch = 0
        self._under_way = 0
        self._succeeded = 0
        self._failed = 0
        self._splits = 0
        self._input_wait = 0.0
        self._output_wait = 0.0
        self._barrier_wait = 0.0
        self._started = 0.0
        self._finished: float | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Set the workers to work, once."""
        if self._host is None:
            self._started = self._plan.clock.now()
            self._emit(RunStarted(self._plan.name, self._feed.total))
            self._host = spawn(self._work_together, self._end)

    def stop(self) -> None:
        """Ask the workers to stop; what is under way is cancelled."""
        if self._host is not None and self._finished is None:
            self._host.cancel()

    async def stopped(self) -> None:
        """Stop the workers, and return when the last one has."""
        self.stop()
        with anyio.CancelScope(shield=True):
            while self._host is not None and self._finished is None:
                await self._read_wait()

    async def read(self) -> Outcome[T, R] | None:
        """The next outcome, or None after the last."""
        self.start()
        while not self._outbox:
            if self._finished is not None:
                if self._failure is not None:
                    raise self._failure
                return None
            await self._read_wait()
        self._delivered += 1
        if self._held_up and self._has_room():
            self._held_up.popleft().unpark()
        return self._outbox.popleft()

    def report(self, outcomes: Sequence[Outcome[T, R]]) -> RunReport[T, R]:
        """The figures so far."""
        clock, calls = self._plan.clock, self._dispatch
        seconds = (clock.now() if self._finished is None else self._finished) - self._started
        spent = Spent(
            calling=calls.seconds,
            quota=calls.quota_wait,
            pace=calls.pace_wait,
            barrier=self._barrier_wait,
            input=self._input_wait,
            output=self._output_wait,
        )
        limited_by, advice = bottleneck(
            spent, calls=calls.calls, seconds=seconds, concurrency=self._plan.concurrency
        )
        return RunReport(
            name=self._plan.name,
            outcomes=outcomes,
            succeeded=self._succeeded,
            failed=self._failed,
            calls=calls.calls,
            splits=self._splits,
            seconds=seconds,
            latency=calls.seconds / calls.calls if calls.calls else 0.0,
            concurrency=self._plan.concurrency,
            limited_by=limited_by,
            advice=advice,
        )

    async def _work_together(self) -> None:
        try:
            async with anyio.create_task_group() as workers:
                for _ in range(self._plan.concurrency):
                    workers.start_soon(self._work)
        except BaseExceptionGroup as group:
            _, self._failure = group.split(anyio.get_cancelled_exc_class())
            if self._failure is None:
                raise

    def _end(self) -> None:
        self._finished = self._plan.clock.now()
        if self._feed.error is not None and self._failure is None:
            self._failure = self._feed.error
        self._emit(RunFinished(self._plan.name, self.report(())))
        self._wake_readers()

    async def _work(self) -> None:
        while batch := await self._take():
            if self._plan.whole_batches:
                await self._call_batch(batch)
            else:
                await self._call_item(batch[0])
            self._under_way -= len(batch)
            if self._plan.pause is not None:
                await self._turn_batch(self._plan.pause)

    async def _take(self) -> list[_Job[T]]:
        """The next items for one call; none when the input is at its end."""
        while not (self._has_room() and self._is_turn()):
            await self._wait_for_room_and_turn()
        size = self._plan.batch_size if self._plan.whole_batches else 1
        self._book(size)
        if self._feed.at_once:
            items = self._feed.take_now(size)
        else:
            started = self._plan.clock.now()
            items = await self._feed.take(size)
            self._input_wait += self._plan.clock.now() - started
        self._book(len(items) - size)
        if not items:
            self._release()  # those who are held up find the end, too
        jobs = [_Job(self._taken + n, item) for n, item in enumerate(items)]
        self._taken += len(jobs)
        return jobs

    def _book(self, items: int) -> None:
        self._in_batch += items
        self._under_way += items

    def _has_room(self) -> bool:
        return self._taken - self._delivered < self._window

    def _is_turn(self) -> bool:
        return self._plan.pause is None or self._in_batch < self._plan.batch_size

    async def _wait_for_room_and_turn(self) -> None:
        parker = self._plan.clock.parker()
        self._held_up.append(parker)
        started, for_room = self._plan.clock.now(), self._is_turn()
        await parker.park()
        waited = self._plan.clock.now() - started
        if for_room:
            self._output_wait += waited
        else:
            self._barrier_wait += waited

    async def _turn_batch(self, pause: float) -> None:
        """With a barrier: when the last item of a batch is done, pause, and let the next batch begin."""
        if self._is_turn() or self._under_way:
            return
        if not await self._feed.at_end():
            await self._plan.clock.sleep(pause)
        self._in_batch = 0
        self._release()

    def _release(self) -> None:
        while self._held_up:
            self._held_up.popleft().unpark()

    async def _call_item(self, job: _Job[T]) -> None:
        attempt = await self._dispatch.attempt(job.item)
        self._put(
            Outcome(job.index, job.item, attempt.value, attempt.error, int(attempt.made), attempt.seconds)
        )

    async def _call_batch(self, batch: Sequence[_Job[T]]) -> None:
        """Call for a batch; where it fails, for its halves, until each bad item stands alone."""
        parts = [batch]
        while parts:
            part = parts.pop()
            attempt = await self._dispatch.attempt([job.item for job in part], len(part))
            values, error = self._values(attempt, len(part))
            for job in part:
                job.attempts += attempt.made
            if error is None or len(part) == 1:
                self._put_all(part, values, error, attempt.seconds)
            else:
                self._splits += 1
                self._emit(BatchSplit(self._plan.name, len(part), error))
                parts.extend(reversed(halves(part)))

    def _values(self, attempt: Attempt[Any], size: int) -> tuple[list[Any], Exception | None]:
        if attempt.error is not None:
            return [None] * size, attempt.error
        try:
            return values_in_order(attempt.value, size), None
        except ValueError as error:
            return [None] * size, BatchFailed(f"{self._plan.name}: {error}")

    def _put_all(
        self, part: Sequence[_Job[T]], values: list[Any], error: Exception | None, seconds: float
    ) -> None:
        for job, value in zip(part, values, strict=True):
            its_error = value if isinstance(value, Exception) else error
            its_value = cast(R | None, None if its_error is not None else value)
            self._put(Outcome(job.index, job.item, its_value, its_error, job.attempts, seconds))

    def _put(self, outcome: Outcome[T, R]) -> None:
        if outcome.ok:
            self._succeeded += 1
        else:
            self._failed += 1
        if self._plan.hooks:
            self._emit(ItemFinished(self._plan.name, outcome))
        if self._in_order is None:
            self._outbox.append(outcome)
        else:
            self._outbox.extend(self._in_order.put(outcome.index, outcome))
        if self._outbox:
            self._wake_readers()

    async def _read_wait(self) -> None:
        parker = self._plan.clock.parker()
        self._readers.append(parker)
        await parker.park()

    def _wake_readers(self) -> None:
        readers, self._readers = self._readers, []
        for parker in readers:
            parker.unpark()

    def _emit(self, event: Event) -> None:
        emit(self._plan.hooks, event)

"""One run of an executor in an event loop, as its reader and whoever submits items or drains it see it.

The workers live in a task group of their own in the background, so that the stream of outcomes can be an
ordinary iterator object: an async generator with a task group around its `yield` breaks when its reader
raises or stops early. The twin for plain threads is in `threads`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import anyio

from batchkit._background import Cancellable, spawn
from batchkit._dispatch import AnyDispatch
from batchkit._running.archiving import Archiving
from batchkit._running.desk import Desk
from batchkit._running.feed import Feed
from batchkit._running.lobby import Lobby
from batchkit._running.plan import Plan, Terms
from batchkit._running.reading import Reading
from batchkit._running.workers import Helper, Workers
from batchkit._values import Outcome, RunReport

T = TypeVar("T")
R = TypeVar("R")


class Run(Generic[T, R]):
    """The tasks of one run; all in one event loop."""

    def __init__(
        self, plan: Plan, dispatch: AnyDispatch, items: Iterable[T] | AsyncIterable[T], terms: Terms
    ) -> None:
        self.desk: Desk[T, R] = Desk(plan, terms)
        self._plan = plan
        self._feed: Feed[T] = Feed(items)
        self._lobby = Lobby()
        fills = plan.whole_batches and (terms.keep_open or not self._feed.at_once)  # a batch may have to wait
        straight = plan.straight and not fills
        self._reading: Reading[T] | None = None
        if not self._feed.at_once:
            self._reading = Reading(plan, self._feed, self.desk, self._lobby, straight=straight)
        self._workers: Workers[T, R] = Workers(
            plan, dispatch, self._feed, self.desk, self._lobby, straight=straight, reading=self._reading
        )
        self._archiving: Archiving[T, R] | None = None
        if (archive := self.desk.delivery.archive) is not None:
            self._archiving = Archiving(
                archive,
                self.desk,
                self._lobby,
                plan.clock,
                heard=self._heard,
                failed=self._workers.stop_if_failed,
            )
        self._host: Cancellable | None = None

    # For readers

    def start(self) -> None:
        """Set the workers to work, once."""
        if self._host is None:
            self.desk.start(self._feed.total, self._plan.clock.now())
            self._host = spawn(self._work_together, self._end)

    def stop(self) -> None:
        """Ask the workers to stop; what is under way is cancelled."""
        if self._host is not None and not self.desk.ending.is_over:
            self._host.cancel()

    async def stopped(self) -> None:
        """Stop the workers, and return when the last one has."""
        self.desk.ending.abandoned = True
        self.stop()
        with anyio.CancelScope(shield=True):
            while self._host is not None and not self.desk.ending.is_over:
                await self._wait_in(self._lobby.last)

    async def read(self) -> Outcome[T, R] | None:
        """The next outcome, or None after the last."""
        self.start()
        while (outcome := self.read_now()) is None:
            if self.desk.ending.is_over:
                self.desk.ending.raise_failure()
                return None
            await self._wait_in(self._lobby.readers)
        return outcome

    def read_now(self) -> Outcome[T, R] | None:
        """The next outcome, if it is there."""
        outbox, lobby = self.desk.delivery.outbox, self._lobby
        if not outbox.ready:
            return None
        outbox.delivered += 1
        if lobby.idle or lobby.helpers:
            lobby.stir()
        if lobby.stockers and self._reading is not None:
            self._reading.go_on()
        return outbox.ready.popleft()

    async def read_all(self) -> list[Outcome[T, R]]:
        """All outcomes, when the run is over."""
        self.desk.intake.window = inf
        self.start()
        self._lobby.stir()
        self._lobby.tell_stockers()
        while not self.desk.ending.is_over:
            await self._wait_in(self._lobby.last)
        return self.desk.all_outcomes()

    def report(self, outcomes: Sequence[Outcome[T, R]] = ()) -> RunReport[T, R]:
        """The figures so far."""
        return self.desk.report(self._plan.clock.now(), outcomes)

    @property
    def waiting(self) -> int:
        """Items that were read, or submitted, and have not started."""
        return self.desk.waiting + len(self._feed.stock)

    # For everybody

    def submit(self, item: T, priority: int | None) -> None:
        """Take in an item that is not from the input."""
        self.desk.ending.check_open()
        self._here(partial(self._admit, item, priority))

    def end_input(self) -> None:
        """No further item is submitted: the run ends with the last one."""
        self._here(self._close_input)

    def drain(self, grace: float) -> None:
        """Start nothing new, and cancel after `grace` seconds what is under way."""
        self._here(partial(self._drain, grace))

    def _here(self, act: Callable[[], object]) -> None:
        """Do something in the loop of this run."""
        if self._host is None:
            act()
        else:
            self._host.call(act)

    def _admit(self, item: T, priority: int | None) -> None:
        self.desk.admit([item], self._plan.clock.now(), priority)
        self._lobby.stir()

    def _close_input(self) -> None:
        self.desk.intake.open = False
        self._lobby.stir()

    def _drain(self, grace: float) -> None:
        cut = self._plan.clock.now() + grace
        self.desk.ending.drain(cut)
        self._lobby.stir()
        self._workers.stop_at(cut)

    # The tasks

    async def _work_together(self) -> None:
        try:
            if self._archiving is not None:
                await self._archiving.open(self._plan.name)
            await self._workers.work(self._helpers())
        except BaseExceptionGroup as group:
            _, others = group.split(anyio.get_cancelled_exc_class())
            if others is None:
                raise
            self.desk.ending.fails(others)
        except Exception as error:
            self.desk.ending.fails(error)
        finally:
            if self._archiving is not None:
                await self._archiving.close()

    def _helpers(self) -> list[Helper]:
        helpers: list[Helper] = []
        if self._archiving is not None:
            helpers.append(self._archiving.tend)
        if self._reading is not None:
            helpers.append(self._reading.read)
        return helpers

    def _end(self) -> None:
        rest = self._feed.rest(all_of_it=self.desk.ending.draining)
        self.desk.close(rest, self._feed.error, self._plan.clock.now())
        self._lobby.tell_all()

    def _heard(self) -> None:
        self._workers.tell_reader()
        self._lobby.stir()

    async def _wait_in(self, parkers: list[Any]) -> None:
        parker = self._plan.clock.parker()
        parkers.append(parker)
        await parker.park()

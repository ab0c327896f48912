"""One run of an executor in an event loop: workers pull what may start, a reader takes outcomes.

The workers live in a task group of their own in the background, so that the stream of outcomes can be an
ordinary iterator object: an async generator with a task group around its `yield` breaks when its reader
raises or stops early. The twin for plain threads is in `threads`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskGroup

from batchkit._background import Cancellable, spawn
from batchkit._call import RUNNING
from batchkit._core.agenda import Batch
from batchkit._dispatch import AnyDispatch
from batchkit._running.alarms import Alarms
from batchkit._running.caller import Caller
from batchkit._running.desk import Desk
from batchkit._running.feed import Feed
from batchkit._running.lobby import Lobby
from batchkit._running.plan import Plan, Terms
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
        self._dispatch = dispatch
        self._feed: Feed[T] = Feed(items)
        self._straight = plan.straight and dispatch.plain and self._feed.at_once
        if not self._feed.at_once:
            self.desk.intake.read_ahead()
        self._alarms = Alarms(plan.clock)
        self._lobby = Lobby()
        self._host: Cancellable | None = None
        self._group: TaskGroup | None = None
        self._scopes: list[tuple[Caller, anyio.CancelScope]] = []
        self._workers = 0
        self._over = False

    # For readers

    def start(self) -> None:
        """Set the workers to work, once."""
        if self._host is None:
            self.desk.start(self._feed.total, self._plan.clock.now())
            self._host = spawn(self._work_together, self._end)

    def stop(self) -> None:
        """Ask the workers to stop; what is under way is cancelled."""
        if self._host is not None and not self.desk.is_over:
            self._host.cancel()

    async def stopped(self) -> None:
        """Stop the workers, and return when the last one has."""
        self.desk.abandoned = True
        self.stop()
        with anyio.CancelScope(shield=True):
            while self._host is not None and not self.desk.is_over:
                await self._wait_in(self._lobby.last)

    async def read(self) -> Outcome[T, R] | None:
        """The next outcome, or None after the last."""
        self.start()
        while (outcome := self.read_now()) is None:
            if self.desk.is_over:
                self.desk.raise_failure()
                return None
            await self._wait_in(self._lobby.readers)
        return outcome

    def read_now(self) -> Outcome[T, R] | None:
        """The next outcome, if it is there."""
        outbox, lobby = self.desk.outbox, self._lobby
        if not outbox.ready:
            return None
        outbox.delivered += 1
        if lobby.idle or lobby.helpers:
            lobby.stir()
        return outbox.ready.popleft()

    async def read_all(self) -> list[Outcome[T, R]]:
        """All outcomes, when the run is over."""
        self.desk.intake.window = inf
        self.start()
        self._lobby.stir()
        while not self.desk.is_over:
            await self._wait_in(self._lobby.last)
        return self.desk.all_outcomes()

    def report(self, outcomes: Sequence[Outcome[T, R]] = ()) -> RunReport[T, R]:
        """The figures so far."""
        return self.desk.report(self._plan.clock.now(), outcomes)

    # For everybody

    def submit(self, item: T, priority: int | None) -> None:
        """Take in an item that is not from the input."""
        self.desk.check_open()
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
        self._straight = False
        self.desk.admit([item], self._plan.clock.now(), priority)
        self._lobby.stir()

    def _close_input(self) -> None:
        self.desk.intake.open = False
        self._lobby.stir()

    def _drain(self, grace: float) -> None:
        self._straight = False
        cut = self._plan.clock.now() + grace
        self.desk.drain(cut)
        self._lobby.stir()
        for worker, scope in self._scopes:
            if worker.waits:
                scope.cancel()
        if self._group is not None:
            self._alarms.at(cut, self._group.cancel_scope.cancel)

    def _run_out(self) -> None:
        """The time of the run is over."""
        self._straight = False
        self.desk.drain(self.desk.ends)
        if self._group is not None:
            self._group.cancel_scope.cancel()

    # The tasks

    async def _work_together(self) -> None:
        try:
            await self._open()
            async with anyio.create_task_group() as self._group:
                self._start_helpers(self._group)
                self._workers = self._plan.concurrency[1]
                for _ in range(self._workers):
                    self._group.start_soon(self._work)
        except BaseExceptionGroup as group:
            _, others = group.split(anyio.get_cancelled_exc_class())
            if others is None:
                raise
            self.desk.fails(others)
        except Exception as error:
            self.desk.fails(error)
        finally:
            await self._close()

    def _start_helpers(self, group: TaskGroup) -> None:
        if self.desk.archive is not None:
            group.start_soon(self._tend_archive)
        if not self._feed.at_once:
            group.start_soon(self._read_ahead)
        group.start_soon(self._alarms.keep)
        if self.desk.ends < inf:
            self._alarms.at(self.desk.ends, self._run_out)

    def _end(self) -> None:
        self.desk.close(self._feed.rest(), self._feed.error, self._plan.clock.now())
        self._lobby.tell_all()

    async def _work(self) -> None:
        caller = self.desk.caller()
        RUNNING.set(caller.tell)
        with anyio.CancelScope() as scope:
            self._scopes.append((caller, scope))
            await self._work_off(caller)
        self._workers -= 1
        if self._workers == 0 and self._group is not None:
            self._group.cancel_scope.cancel()  # the helpers

    async def _work_off(self, caller: Caller) -> None:
        while True:
            if self._straight and self.desk.has_room:
                await self._pull(caller)
            batch = await self._next()
            if batch is None:
                return
            await self._call(batch, caller)

    async def _pull(self, caller: Caller) -> None:
        """Where nothing but concurrency is asked for: straight from the input to the outbox."""
        caller.batch = None
        desk, function, now, lobby = self.desk, self._dispatch.function, self._plan.clock.now, self._lobby
        intake, outbox = desk.intake, desk.outbox
        for item in self._feed.items:
            caller.index = index = intake.taken
            intake.taken = index + 1
            started, error = now(), None
            try:
                value = await function(item)
            except BaseException as raised:
                value, error = None, self._explained(index, item, raised)
            seconds = now() - started
            desk.finish_plainly(Outcome(index, item, value, error, 1, seconds), seconds)
            if lobby.readers:
                lobby.tell_readers()
            if not self._straight or intake.taken - outbox.delivered >= intake.window:
                return
        intake.exhausted = True

    def _explained(self, index: int, item: T, raised: BaseException) -> Exception:
        try:
            return self._dispatch.explained(raised)
        except BaseException:
            self.desk.cut_off(index, item)
            raise

    async def _next(self) -> Batch[T] | None:
        """What is to be called next; waits for it. None when the run is over."""
        desk, lobby = self.desk, self._lobby
        while not self._over:
            now = self._plan.clock.now()
            if self._feed.at_once and (wanted := desk.wants()):
                desk.feed(self._feed.take_now(wanted), wanted, now)
                lobby.stir_helpers()
            batch = desk.take(now)
            self._tell()
            if batch is not None:
                lobby.stir()
                return batch
            if desk.nothing_left and len(lobby.idle) + 1 == self._workers:
                self._over = True
            elif self._feed.at_once and desk.wants():  # what was read needs no call
                await anyio.lowlevel.checkpoint()
            else:
                await self._be_idle(now)
        lobby.tell_all()
        return None

    async def _be_idle(self, now: float) -> None:
        reason = self.desk.idle_reason()
        parker = self._plan.clock.parker()
        until = self.desk.due() if self._lobby.enter(parker) else inf
        try:
            await parker.park(until)
        finally:
            self._lobby.leave(parker)
        self.desk.ledger.idled(reason, self._plan.clock.now() - now)

    async def _call(self, batch: Batch[T], caller: Caller) -> None:
        caller.batch = batch
        attempt = await self._dispatch.attempt(
            self.desk.argument(batch),
            len(batch.jobs),
            priority=batch.priority,
            until=batch.deadline,
            begin=partial(self._begin, batch),
        )
        caller.batch = None
        self.desk.settle(batch, attempt, self._plan.clock.now())
        self._tell()
        self._lobby.stir()
        self._stop_if_failed()

    def _stop_if_failed(self) -> None:
        if self.desk.has_failed and self._group is not None:
            self._group.cancel_scope.cancel()

    def _begin(
        self, batch: Batch[T], function: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Any], Awaitable[Any]]:
        """A call begins, unless the run ends: what is to be awaited."""
        until = self.desk.begins(batch, self._plan.clock.now())
        return function if until == inf else partial(self._alarms.within, until, function)

    # Helpers

    async def _read_ahead(self) -> None:
        """Read an async input, as far as there is room."""
        desk = self.desk
        while not desk.intake.exhausted:
            if desk.wants():
                desk.feed(await self._feed.next(), 1, self._plan.clock.now())
                self._lobby.stir()
            else:
                await self._wait_in(self._lobby.helpers)

    async def _tend_archive(self) -> None:
        """Look up what an earlier run left, and keep what is done."""
        try:
            while True:
                await self._look_up()
                await self._commit()
                if not self.desk.has_paperwork:
                    await self._wait_in(self._lobby.helpers)
        except Exception as error:
            self.desk.fails(error)
            self._stop_if_failed()

    async def _look_up(self) -> None:
        archive, jobs = self.desk.archive, self.desk.take_unknown()
        if jobs and archive is not None:
            self.desk.place_known(jobs, await anyio.to_thread.run_sync(archive.find, jobs))
            self._tell()
            self._lobby.stir()

    async def _commit(self) -> None:
        """Keep what is done, and then deliver it."""
        archive = self.desk.archive
        while archive is not None and archive.pending:
            with anyio.CancelScope(shield=True):
                self.desk.deliver(await anyio.to_thread.run_sync(archive.keep, archive.take()))
            self._tell()
            self._lobby.stir()

    async def _open(self) -> None:
        if self.desk.archive is not None:
            await anyio.to_thread.run_sync(self.desk.archive.open, self._plan.name)

    async def _close(self) -> None:
        archive = self.desk.archive
        if archive is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await self._commit()
            except Exception as error:
                self.desk.fails(error)
            await anyio.to_thread.run_sync(archive.close)

    def _tell(self) -> None:
        if self._lobby.readers and self.desk.outbox.ready:
            self._lobby.tell_readers()

    async def _wait_in(self, parkers: list[Any]) -> None:
        parker = self._plan.clock.parker()
        parkers.append(parker)
        await parker.park()

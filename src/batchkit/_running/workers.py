"""The workers of a run in an event loop: each pulls what may start, calls it, and says how that ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from batchkit._call import RUNNING
from batchkit._core.agenda import Batch
from batchkit._dispatch import AnyDispatch, Attempt, Begin
from batchkit._running.alarms import Alarms
from batchkit._running.caller import Caller
from batchkit._running.desk import Desk
from batchkit._running.feed import Feed
from batchkit._running.lobby import Lobby
from batchkit._running.plan import Plan
from batchkit._running.reading import Reading
from batchkit._values import outcome_of

T = TypeVar("T")
R = TypeVar("R")
Function = Callable[[Any], Awaitable[Any]]
Helper = Callable[[], Coroutine[Any, Any, None]]


class Workers(Generic[T, R]):
    """As many tasks as there may be calls at once.

    An item goes *straight*, from the input to the function to the reader, as long as nothing else has to go
    before it, and for as long as all goes well. Whatever needs a decision goes by way of the desk's agenda.

    Args:
        plan, dispatch, feed, desk, lobby: the run's.
        straight: whether items may go straight in this run.
        reading: who reads the input ahead, if that has to be awaited.
    """

    def __init__(
        self,
        plan: Plan,
        dispatch: AnyDispatch,
        feed: Feed[T],
        desk: Desk[T, R],
        lobby: Lobby,
        *,
        straight: bool,
        reading: Reading[T] | None,
    ) -> None:
        self._plan = plan
        self._dispatch = dispatch
        self._feed = feed
        self._desk = desk
        self._lobby = lobby
        self._straight = straight
        self._reading = reading
        self._takes = straight or feed.at_once  # or else somebody else feeds the desk
        self._size = plan.sizes.most
        self._plainly = dispatch.plain and plan.is_plain
        self._now = plan.clock.now
        self._alarms = Alarms(plan.clock)
        self._group: TaskGroup | None = None
        self._scopes: list[tuple[Caller, anyio.CancelScope]] = []
        self._left = plan.concurrency[1]
        self._over = False

    async def work(self, helpers: Iterable[Helper]) -> None:
        """Work until the run is over, with the help of those who feed the desk or keep its journal."""
        async with anyio.create_task_group() as self._group:
            for help_ in (*helpers, self._alarms.keep):
                self._group.start_soon(help_)
            if self._desk.ending.ends < inf:
                self._alarms.at(self._desk.ending.ends, self._run_out)
            for _ in range(self._left):
                self._group.start_soon(self._work)

    def stop(self) -> None:
        """Cancel what is under way."""
        if self._group is not None:
            self._group.cancel_scope.cancel()

    def stop_if_failed(self) -> None:
        """The same, if the run does not go on."""
        if self._desk.ending.has_failed:
            self.stop()

    def stop_at(self, moment: float) -> None:
        """Cancel what is under way at that moment, and now what waits for its permits."""
        for caller, scope in self._scopes:
            if caller.waits:
                scope.cancel()
        if self._group is not None:
            self._alarms.at(moment, self.stop)

    def tell_reader(self) -> None:
        """There may be outcomes."""
        if self._lobby.readers and self._desk.delivery.outbox.ready:
            self._lobby.tell_readers()

    def _run_out(self) -> None:
        """The time of the run is over."""
        self._desk.ending.drain(self._desk.ending.ends)
        self.stop()

    async def _work(self) -> None:
        caller = self._desk.caller()
        RUNNING.set(caller.tell)
        with anyio.CancelScope() as scope:
            self._scopes.append((caller, scope))
            await self._work_off(caller, partial(self._begin, caller))
            self._lobby.tell_all()
        self._left -= 1
        self._lobby.stir()
        if self._left == 0:
            self.stop()  # the helpers

    async def _work_off(self, caller: Caller, begin: Begin) -> None:
        while not self._over:
            if self._straight and self._feed.has_some and self._desk.goes_straight():
                await (self._pull_plainly(caller) if self._plainly else self._pull(caller, begin))
                continue
            now = self._now()
            batch = self._take(now)
            if batch is not None:
                await self._call(batch, caller, begin)
            elif self._desk.nothing_left and len(self._lobby.idle) + 1 == self._left:
                self._over = True
            elif self._takes and self._feed.has_some and self._desk.wants():  # what was read needs no call
                await anyio.lowlevel.checkpoint()
            else:
                await self._be_idle(now)

    async def _pull(self, caller: Caller, begin: Begin) -> None:
        """Call what comes first, as long as it goes straight."""
        desk, lobby, whole_batches = self._desk, self._lobby, self._plan.whole_batches
        intake, ending, scheduler, outbox = desk.intake, desk.ending, desk.scheduler, desk.delivery.outbox
        attempt_at, waits = self._way(begin)
        caller.batch, caller.size, size = None, 1, 1
        at_hand: Iterator[Any] = self._feed.batches(self._size) if whole_batches else self._feed.items()
        for argument in at_hand:
            caller.first = first = intake.taken
            if whole_batches:
                caller.size = size = len(argument)
            intake.taken = first + size
            caller.waits = waits
            if lobby.idle or lobby.stockers:
                self._tell_of_room()
            try:
                attempt = await attempt_at(argument, size)
            except BaseException:
                desk.take_up(first, argument, self._now(), calling=not caller.waits)
                raise
            if not desk.went_well(first, argument, attempt):
                self._settle(desk.batch_of(first, argument, attempt, self._now()), attempt)
                del attempt  # as in `_call`
            if lobby.readers:
                self.tell_reader()
            if intake.taken - outbox.delivered >= intake.window or scheduler.has_work or ending.draining:
                break
        intake.exhausted = self._feed.is_empty
        lobby.stir()

    async def _pull_plainly(self, caller: Caller) -> None:
        """`_pull`, where a call is nothing but the function with one item: for speed."""
        desk, lobby, function, now = self._desk, self._lobby, self._dispatch.function, self._now
        intake, ending, scheduler, outbox = desk.intake, desk.ending, desk.scheduler, desk.delivery.outbox
        called_well = desk.delivery.called_well
        caller.batch, caller.size, caller.waits = None, 1, False
        for item in self._feed.items():
            caller.first = first = intake.taken
            intake.taken = first + 1
            if lobby.idle or lobby.stockers:
                self._tell_of_room()
            started = now()
            try:
                value = await function(item)
            except BaseException as error:
                self._failed(first, item, error, now() - started)
            else:
                called_well(outcome_of(first, item, value, None, 1, now() - started))
            if lobby.readers:
                self.tell_reader()
            if intake.taken - outbox.delivered >= intake.window or scheduler.has_work or ending.draining:
                break
        intake.exhausted = self._feed.is_empty
        lobby.stir()

    def _failed(self, first: int, item: T, error: BaseException, seconds: float) -> None:
        try:
            attempt: Attempt[Any] = Attempt(None, self._dispatch.explained(error), seconds)
        except BaseException:
            self._desk.take_up(first, item, self._now() - seconds, calling=True)
            raise
        self._settle(self._desk.batch_of(first, item, attempt, self._now()), attempt)

    def _way(self, begin: Begin) -> tuple[Callable[[Any, int], Awaitable[Attempt[Any]]], bool]:
        """How a call is made that goes straight, and whether it may have to wait for permits."""
        dispatch, plan = self._dispatch, self._plan
        if not dispatch.plain:
            priority = None if callable(plan.priority) else plan.priority
            return partial(dispatch.attempt, priority=priority, begin=begin), True
        if plan.timeout is not None:
            return partial(dispatch.bare, begin=begin), False
        return dispatch.bare, False

    def _tell_of_room(self) -> None:
        """Something was taken from what is at hand."""
        if self._lobby.idle and self._feed.has_some:
            self._lobby.stir()
        if self._reading is not None and self._lobby.stockers:
            self._reading.go_on()

    def _take(self, now: float) -> Batch[T] | None:
        """What is to be called next."""
        desk, feed = self._desk, self._feed
        if self._takes and (wanted := desk.wants()):
            desk.feed(feed.take(wanted), now, ended=feed.is_empty)
            self._lobby.stir_helpers()
        batch = desk.take(now)
        self.tell_reader()
        return batch

    async def _be_idle(self, now: float) -> None:
        reason = self._desk.idle_reason()
        parker = self._plan.clock.parker()
        until = self._desk.due() if self._lobby.enter(parker) else inf
        try:
            await parker.park(until)
        finally:
            self._lobby.leave(parker)
        self._desk.delivery.ledger.idled(reason, self._now() - now)

    async def _call(self, batch: Batch[T], caller: Caller, begin: Begin) -> None:
        self._lobby.stir()
        caller.batch, caller.waits = batch, True
        attempt = await self._dispatch.attempt(
            self._desk.argument(batch),
            len(batch.jobs),
            priority=batch.priority,
            until=batch.deadline,
            begin=begin,
        )
        caller.waits = False
        self._settle(batch, attempt)
        del attempt, batch  # an error's traceback leads here: together they would wait for the collector
        self.tell_reader()
        self._lobby.stir()

    def _settle(self, batch: Batch[T], attempt: Attempt[Any]) -> None:
        self._desk.settle(batch, attempt, self._now())
        self.stop_if_failed()

    def _begin(self, caller: Caller, function: Function) -> Function:
        """A call begins, unless the run ends: what is to be awaited."""
        until = self._desk.begins(caller, self._now())
        return function if until == inf else partial(self._alarms.within, until, function)

"""One run of an executor in plain threads, without an event loop: the twin of `tasks`.

Nobody can stop a thread. So whoever ends a run early waits for the calls under way, or, when their grace is
over, goes on without them: their threads end with their calls, or with the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

from batchkit._call import RUNNING
from batchkit._core.agenda import Batch
from batchkit._dispatch import AnyDispatch
from batchkit._running.archiving import ThreadArchiving
from batchkit._running.caller import Caller
from batchkit._running.desk import Desk
from batchkit._running.feed import Feed
from batchkit._running.lobby import AnyParker, Lobby
from batchkit._running.plan import Plan, Terms
from batchkit._values import Outcome, RunReport

T = TypeVar("T")
R = TypeVar("R")


class ThreadRun(Generic[T, R]):
    """The threads of one run, which come to its desk one at a time."""

    def __init__(self, plan: Plan, dispatch: AnyDispatch, items: Iterable[T], terms: Terms) -> None:
        self.desk: Desk[T, R] = Desk(plan, terms)
        self._plan = plan
        self._dispatch = dispatch
        self._feed: Feed[T] = Feed(items)
        self.desk.intake.read_ahead()
        self._lobby = Lobby()
        self._lock = threading.RLock()  # a stream may be dropped by the garbage collector anywhere
        self._archiving: ThreadArchiving[T, R] | None = None
        if (archive := self.desk.delivery.archive) is not None:
            self._archiving = ThreadArchiving(
                archive, self.desk, self._lock, heard=self._heard, failed=self._lobby.tell_all
            )
        self._started = False
        self._finishing = False
        self._over = False
        self._workers = 0

    # For readers

    def start(self) -> None:
        """Set the workers to work, once."""
        if self._started:
            return
        self._started = True
        if self._archiving is not None:
            self._archiving.open(self._plan.name)
            self._spawn(partial(self._tend_archive, self._archiving), "archive")
        self.desk.start(self._feed.total, self._plan.clock.now())
        self._workers = self._plan.concurrency[1]
        for number in range(self._workers):
            self._spawn(self._work, str(number))
        self._spawn(self._read_ahead, "input")

    def stop(self) -> None:
        """Ask the workers to stop."""
        with self._lock:
            self.desk.ending.abandoned = True
            self.desk.ending.drain()
            self._lobby.tell_all()

    def stopped(self) -> None:
        """Stop the workers, and return when no call is under way."""
        self.stop()
        while self._started and not self._is_over():
            self._wait_in(self._lobby.last)

    def read(self) -> Outcome[T, R] | None:
        """The next outcome, or None after the last."""
        self.start()
        while True:
            over = self._is_over()
            with self._lock:
                if self.desk.delivery.outbox.ready:
                    outcome = self.desk.delivery.outbox.take()
                    self._lobby.stir()
                    return outcome
            if over:
                self.desk.ending.raise_failure()
                return None
            self._wait_in(self._lobby.readers)

    def read_all(self) -> list[Outcome[T, R]]:
        """All outcomes, when the run is over."""
        with self._lock:
            self.desk.intake.window = inf
            self._lobby.stir()  # it may have started with a window
        self.start()
        while not self._is_over():
            self._wait_in(self._lobby.last)
        return self.desk.all_outcomes()

    @property
    def waiting(self) -> int:
        """Items that were read, or submitted, and have not started."""
        return self.desk.waiting

    def report(self, outcomes: Sequence[Outcome[T, R]] = ()) -> RunReport[T, R]:
        """The figures so far."""
        return self.desk.report(self._plan.clock.now(), outcomes)

    def _is_over(self) -> bool:
        """Whether the run is over; ends it, if it is to end and nothing is under way or to be waited for."""
        with self._lock:
            ending, now = self.desk.ending, self._plan.clock.now()
            ending.look_at_clock(now)
            ends = ending.draining and (not self.desk.scheduler.calls_under_way or now >= ending.cut)
        if ends:
            self._finish()
        return self.desk.ending.is_over

    def _wait_in(self, parkers: list[AnyParker]) -> None:
        with self._lock:
            if self.desk.ending.is_over or (
                parkers is self._lobby.readers and self.desk.delivery.outbox.ready
            ):
                return
            parker = self._plan.clock.parker_sync()
            parkers.append(parker)
        parker.park_sync(min(self.desk.ending.cut, self.desk.ending.ends))

    # For everybody

    def submit(self, item: T, priority: int | None) -> None:
        """Take in an item that is not from the input."""
        with self._lock:
            self.desk.submit(item, self._plan.clock.now(), priority)
            self._heard()

    def end_input(self) -> None:
        """No further item is submitted: the run ends with the last one."""
        with self._lock:
            self.desk.intake.open = False
            self._lobby.stir()

    def drain(self, grace: float) -> None:
        """Start nothing new, and wait no longer than `grace` seconds for what is under way."""
        with self._lock:
            self.desk.ending.drain(self._plan.clock.now() + grace)
            self._lobby.tell_all()

    # The threads

    def _spawn(self, work: Callable[[], None], name: str) -> None:
        run = partial(copy_context().run, work)
        threading.Thread(target=run, name=f"batchkit {self._plan.name} {name}", daemon=True).start()

    def _work(self) -> None:
        caller = self.desk.caller()
        RUNNING.set(caller.tell)
        try:
            while (batch := self._next()) is not None:
                self._call(batch, caller)
        except BaseException as error:
            with self._lock:
                self.desk.ending.fails(error)
                self._lobby.tell_all()
        with self._lock:
            self._workers -= 1
            last = self._workers == 0
        if last:
            self._finish()

    def _next(self) -> Batch[T] | None:
        """What is to be called next; waits for it. None when the run is over."""
        desk, lobby = self.desk, self._lobby
        while True:
            with self._lock:
                now = self._plan.clock.now()
                batch = desk.take(now)
                self._tell()
                if batch is not None:
                    lobby.stir()
                    return batch
                if self._ends():
                    self._over = True
                    lobby.tell_all()
                    return None
                reason = desk.idle_reason()
                parker = self._plan.clock.parker_sync()
                until = desk.due() if lobby.enter(parker) else inf
            parker.park_sync(until)
            with self._lock:
                lobby.leave(parker)
                desk.delivery.ledger.idled(reason, self._plan.clock.now() - now)

    def _ends(self) -> bool:
        """Whether this worker need not wait for work: none comes from the input, or from the others."""
        others_idle = len(self._lobby.idle) + 1 == self._workers
        return self._over or self.desk.ending.draining or (self.desk.nothing_left and others_idle)

    def _call(self, batch: Batch[T], caller: Caller) -> None:
        caller.batch = batch
        attempt = self._dispatch.attempt_sync(
            self.desk.argument(batch),
            len(batch.jobs),
            priority=batch.priority,
            until=batch.deadline,
            begin=partial(self._begin, caller),
        )
        with self._lock:
            if not self.desk.ending.is_over:
                self.desk.settle(batch, attempt, self._plan.clock.now())
                self._heard()
        del attempt, batch  # an error's traceback leads here: together they would wait for the collector

    def _begin(self, caller: Caller, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A call begins, unless the run ends: what is to be called."""
        with self._lock:
            self.desk.begins(caller, self._plan.clock.now())
        return function

    def _read_ahead(self) -> None:
        """Read the input, as far as there is room."""
        desk = self.desk
        while True:
            with self._lock:
                if desk.intake.exhausted or desk.ending.draining or self._over:
                    return
                wanted = desk.wants()
                if wanted and self._feed.total is not None:  # it makes nobody wait
                    items = self._feed.take(wanted)
                    desk.feed(items, self._plan.clock.now(), ended=self._feed.ended)
                    self._heard()
                    continue
            if wanted:
                self._read_one()
            else:
                self._wait_for(lambda: self._over or desk.ending.draining or desk.wants() > 0)

    def _wait_for(self, is_there: Callable[[], bool]) -> None:
        """Until something happens at the desk, unless what is waited for is there already."""
        with self._lock:
            if is_there():
                return
            parker = self._plan.clock.parker_sync()
            self._lobby.helpers.append(parker)
        parker.park_sync()

    def _read_one(self) -> None:
        items = self._feed.take(1)
        with self._lock:
            if not self.desk.ending.is_over:
                self.desk.feed(items, self._plan.clock.now(), ended=self._feed.ended)
                self._heard()

    def _tend_archive(self, archiving: ThreadArchiving[T, R]) -> None:
        """Look up what an earlier run left, and keep what is done, until the run is over."""
        while not self._finishing and not self.desk.ending.has_failed:
            archiving.tend()
            self._wait_for(lambda: self._finishing or self.desk.has_paperwork)

    def _finish(self) -> None:
        """The end of the run: whoever comes first sees to it."""
        with self._lock:
            if self._finishing or not self._started:
                return
            self._finishing = True
        if self._archiving is not None:
            self._archiving.close()
        with self._lock:
            rest = self._feed.rest(all_of_it=self.desk.ending.draining)
            self.desk.close(rest, self._feed.error, self._plan.clock.now())
            self._lobby.tell_all()

    def _heard(self) -> None:
        self._tell()
        self._lobby.stir()
        if self.desk.ending.draining:  # since an item failed
            self._lobby.tell_all()

    def _tell(self) -> None:
        if self._lobby.readers and self.desk.delivery.outbox.ready:
            self._lobby.tell_readers()

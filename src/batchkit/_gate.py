"""Lock, clock and wake-ups around the pure line and store of `_core`: what every local limiter stands on.

One object serves threads and event loops at the same time. Every decision is made by `_core`, by one caller
at a time, in about a microsecond and never across a wait; what is left to do (waking others) is done after
that.

While it is quiet (nobody waits, no pause) the store lies on a table, a list of at most one. A caller
that is to go picks it up, takes its permits and lays it back: list methods are atomic, and a quarter of the
cost of a lock. Whoever finds the table empty, or too few permits, goes through the lock, under which the
store is picked up, too, and laid back only if it is quiet again. So nobody passes those who wait. An
exception that strikes from outside (Ctrl-C) finds the store on the table, or off it while the lock is
free, which costs the next caller the way through the lock and nothing else.

A decision about several limits is made with all of their locks, taken in the order in which the gates were
made, so that no two callers wait for each other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from itertools import count
from math import inf
from typing import Any, ClassVar, Final, Generic, TypeVar, TypeVarTuple, cast

from batchkit._clock import give_way
from batchkit._core.line import Line
from batchkit._core.place import Place, State
from batchkit._core.store import Store
from batchkit._events import Hook, Paused, Waited, emit
from batchkit._forks import FORKS
from batchkit._numbers import checked_seconds, span
from batchkit._parking import Parker, SyncParker, unpark_all
from batchkit._values import Decision
from batchkit._waiting import Waiters
from batchkit.abc import Clock
from batchkit.exceptions import AcquireTimeout, CostExceedsBurst, InvalidCost

Arguments = TypeVarTuple("Arguments")
R = TypeVar("R")
S = TypeVar("S", bound=Store)

_log = logging.getLogger("batchkit")

GO: Final = Decision(True)
_numbers: Final = count()
_AMID: Final[dict[int, Gate[Any]]] = {}  # the threads that are amid a decision, and whose
FORKS.then(_AMID.clear)


def key_of(parker: Parker | SyncParker) -> Hashable:
    """The party of a call: a thread comes on its own, a task with its event loop."""
    return cast(Hashable, parker) if parker.domain is None else parker.domain


class Gate(Generic[S]):
    """A line before a store of permits.

    Args:
        store: what permits are taken from.
        name: what the limiter is called in events and errors.
        hooks: called with each event.
        patience: seconds of waiting that outweigh one step of priority.
        clock: what time it is.

    Attributes:
        table: where the store lies while it is quiet; always the same list.
        number: in which order several gates are locked.
        waits, waited, timeouts: calls that waited and went, their seconds, and calls that timed out.
        seat: the same for gates whose permits come in together for a call of several; None for most.
        lays_out: whether the store is ever on the table.
    """

    seat: Hashable = None
    lays_out: ClassVar[bool] = True

    def __init__(
        self,
        store: S,
        *,
        name: str,
        hooks: Iterable[Hook],
        patience: float,
        clock: Clock,
    ) -> None:
        self.store = store
        self.name = name
        self.hooks = tuple(hooks)
        self.clock = clock
        self.number = next(_numbers)
        self.table = [store]
        self.waits: int = 0
        self.waited: float = 0.0
        self.timeouts = 0
        self._now = clock.now
        self._patience = checked_seconds("patience", patience)
        self._settlers: dict[int, int] = {}  # by process: the thread that starts anew there
        self._start_anew()

    _laid: bool

    def beside(self, store: S) -> Gate[S]:
        """Another gate like this one, before a store of its own."""
        return Gate(store, name=self.name, hooks=self.hooks, patience=self._patience, clock=self.clock)

    def alone(self, decide: Callable[[float, *Arguments], R], *args: *Arguments) -> R:
        """Decide something at this moment, with line and store in hand and nobody else about.

        Raises:
            RuntimeError: this thread is amid a decision. The garbage collector ran somebody's code there.
        """
        thread = threading.get_ident()
        if thread in _AMID:
            raise RuntimeError(f"{self.name} was asked while this thread decided something: by __del__?")
        self.settle()
        try:
            _AMID[thread] = self
            with self._lock:
                if self._laid:
                    self._pick_up()
                now = self._now()
                try:
                    decided = decide(now, *args)
                finally:
                    to_wake = self._lay_back(now)
            del _AMID[thread]
            if to_wake:
                self._wake(to_wake)
            if self._notes:
                self._take_notes()
        except BaseException:
            self._recover()
            raise
        return decided

    def meet(self, gates: Iterable[Gate[Any]]) -> None:
        """There are calls that need permits of this gate and of those."""

    def sits_with(self, gate: Gate[Any]) -> bool:
        """Whether what a call gets of this gate and of another one comes in together."""
        return self.seat is not None and gate is not self and gate.seat == self.seat

    def check_open(self) -> None:
        """Raise an error if nobody is let go by this gate for now, and that is to be told."""

    def worth_asking(self, now: float) -> bool:
        """Whether a newcomer for whom no permits are there could have some if somebody else is asked."""
        return False

    def note(self, decide: Callable[[float], object]) -> None:
        """Decide something that nobody waits for. The garbage collector may close a coroutine, which gives
        its place up, while this thread is amid a decision, of this gate or of another one: it is done right
        after that.
        """
        amid = _AMID.get(threading.get_ident())
        if amid is None:
            self.alone(decide)
        else:
            amid._notes.append(partial(self.alone, decide))

    def settle(self) -> None:
        """Start anew if this is another process than before."""
        if FORKS.count != self._process:
            self._settle_in_a_fork()

    def attempt(self, cost: int) -> Decision:
        """Go now, or not at all."""
        if cost > self.store.burst:
            raise self.refusal(cost)
        place = Place(cost)
        try:
            return self.alone(self._attempt, place)
        except BaseException:
            self.abandon(place)
            raise

    def change(self, now: float, rate: float, burst: int) -> None:
        """Go on at another rate and burst; those who wait are told."""
        self.waiters.to_wake += self.line.change(rate, burst, now)
        self.waiters.look(now)

    def pause(self, seconds: float, reason: str) -> None:
        """Let nobody go for so long."""
        self.alone(self._pause, checked_seconds("a pause", seconds))
        emit(self.hooks, Paused(self.name, seconds, reason))

    def place(self, cost: int, priority: int, timeout: float | None, parker: Parker | SyncParker) -> Place:
        """A place for a call that has to wait."""
        if cost > self.store.burst:
            raise self.refusal(cost)
        return Place(cost, parker, key_of(parker), priority, inf if timeout is None else timeout)

    def come(self, place: Place) -> float | None:
        """The owner of a place is here: None if it goes, or the moment until which it waits for a wake-up."""
        until = self.alone(self._go, place)
        if until is None:
            self.tell(place)
        elif place.state is not State.WAITING and place.ended:
            raise self.ending(place)
        return until

    def leave(self, place: Place) -> None:
        """The owner of a place gives it up; nothing happens if it went."""
        self.note(partial(self.depart, place=place))

    def abandon(self, place: Place) -> None:
        """An exception struck the owner of a place: it does not go, whatever was taken for it by then."""
        self.note(partial(self._abandon, place=place))

    def depart(self, now: float, place: Place) -> None:
        """A place is given up."""
        self.line.leave(place)
        self.waiters.quit(place)
        self.waiters.look(now)

    def count(self, place: Place, now: float, *, alone: bool = False) -> None:
        """A place that waited is gone; `alone`: which changes nothing for the others."""
        self.waits += 1
        self.waited += place.waited
        self.waiters.quit(place)
        if not alone:
            self.waiters.look(now)

    def tell(self, place: Place) -> None:
        """Send the event of a place that is gone, if it had to wait."""
        if place.state is State.GONE and self.hooks:
            emit(self.hooks, Waited(self.name, place.cost, place.waited))

    def refusal(self, cost: int) -> Exception:
        """Why a cost can never be granted."""
        if cost.__class__ is not int or cost < 1:
            return InvalidCost(f"a cost is a whole number of permits, 1 or more, not {cost!r}")
        return CostExceedsBurst(
            f"cost {cost} exceeds {self.store.bound} {self.store.burst} of {self.name}: it could never be "
            f"granted; raise {self.store.bound}, or split the call"
        )

    def ending(self, place: Place) -> Exception:
        """Why a place ended before it went."""
        if place.state is State.REFUSED:
            return self.refusal(place.cost)
        retry_after = self.alone(self.hope, place.cost)
        hope = (
            "a call has to end first" if retry_after == inf else f"they could be there in {retry_after:.3g} s"
        )
        timeout = 0 if place.once else place.timeout
        return AcquireTimeout(
            f"{place.cost} permits of {self.name} do not come in within {timeout:g} s ({self.store}); {hope}",
            retry_after=retry_after,
        )

    def hope(self, now: float, cost: int) -> float:
        """Seconds after which a newcomer could go if nobody ahead leaves; infinite if nobody can say."""
        return span(now, self.line.estimate(cost, now))

    def _go(self, now: float, place: Place) -> float | None:
        if place.state is State.NEW:
            if self.line.take(place.cost, now):
                place.taken = True
                return None
            self.waiters.enter(place)
            if not self.line.join(place, now):
                return inf
        alone = place.state is State.GRANTED and not self.line.clogged
        if self.line.go(place, now):
            self.count(place, now, alone=alone)
            return None
        self.waiters.look(now, here=place)
        self.timeouts += place.state is State.EXPIRED
        return self.waiters.until(place)

    def _attempt(self, now: float, place: Place) -> Decision:
        if not self.line.quiet(now):
            self.waiters.look(now)
        if self.line.take(place.cost, now):
            place.taken = True
            return GO
        return Decision(False, self.hope(now, place.cost))

    def _abandon(self, now: float, place: Place) -> None:
        if place.taken:
            self.store.charge(-place.cost, now)
            place.taken = False
        if place.owner is not None:  # or it was a try, which stands nowhere
            self.depart(now, place)

    def _pause(self, now: float, seconds: float) -> None:
        self.line.pause(now + seconds)
        self.waiters.look(now)

    def _wake(self, places: list[Place]) -> None:
        """Wake the owners of places; one whose event loop is closed never comes, so it hands on at once."""
        if len(places) == 1:
            if not places[0].owner.unpark():
                self.alone(self.depart, places[0])
        elif closed := unpark_all([place.owner for place in places]):
            for place in places:
                if place.owner in closed:
                    self.alone(self.depart, place)

    def _pick_up(self) -> None:
        while self._laid:
            try:
                self.table.pop()
                self._laid = False
            except IndexError:  # a caller has it, and is about to lay it back
                give_way()
            except BaseException:
                self.table.append(self.store)
                raise

    def _lay_back(self, now: float) -> list[Place]:
        """The decision is made; those returned are to be woken."""
        to_wake = self.waiters.to_wake
        if to_wake:
            self.waiters.to_wake = []
        if self.lays_out and self.line.quiet(now):
            self._laid = True
            self.table.append(self.store)
        return to_wake

    def _take_notes(self) -> None:
        while self._notes:
            try:
                note = self._notes.pop()
            except IndexError:  # another thread took it
                return
            try:
                note()
            except Exception:  # the fault of who left the note, not of who happens to read it
                _log.exception("what a finalizer asked of %s failed", self.name)

    def _recover(self) -> None:
        """Line and waiters agree again, after an exception from outside (Ctrl-C) struck amid a change."""
        thread = threading.get_ident()
        _AMID[thread] = self
        with self._lock:
            to_wake = self.waiters.recount()
        del _AMID[thread]
        self._wake(to_wake)
        self._take_notes()

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._notes: list[Callable[[], object]] = []
        self.line = Line(self.store, patience=self._patience)
        self.waiters = Waiters(self.line)
        # on the table, or in the hands of a caller that is about to lay it back
        self._laid = self.lays_out and self.line.quiet(self._now())
        self.table[:] = [self.store] if self._laid else []
        self._process: int = FORKS.count

    def _settle_in_a_fork(self) -> None:
        """The parent's waiters are not here, and its lock may never be free: leave them behind."""
        process, thread = FORKS.count, threading.get_ident()
        if self._settlers.setdefault(process, thread) == thread:
            self.store.fork()
            self._start_anew()
        while self._process != process:
            give_way()

    @classmethod
    def together(cls, gates: Sequence[Gate[Store]], decide: Callable[[float], R]) -> R:
        """Decide something about several gates, which come in order of their numbers, with all of them in
        hand.
        """
        thread, first = threading.get_ident(), gates[0]
        if thread in _AMID:
            raise RuntimeError(f"{first.name} was asked while this thread decided something: by __del__?")
        to_wake: list[tuple[Gate[Store], list[Place]]] = []
        for gate in gates:
            gate.settle()
        try:
            _AMID[thread] = first
            decided = cls._with_locks(gates, decide, to_wake)
            del _AMID[thread]
            for gate, places in to_wake:
                gate._wake(places)
            first._take_notes()
        except BaseException:
            for gate in gates:
                gate._recover()
            raise
        return decided

    @classmethod
    def _with_locks(
        cls,
        gates: Sequence[Gate[Store]],
        decide: Callable[[float], R],
        to_wake: list[tuple[Gate[Store], list[Place]]],
        held: int = 0,
    ) -> R:
        if held == len(gates):
            now = gates[0]._now()
            try:
                decided = decide(now)
            finally:
                to_wake += [(gate, gate._lay_back(now)) for gate in gates]
            return decided
        gate = gates[held]
        with gate._lock:  # a `with` for each: Ctrl-C never strikes between it and its lock
            if gate._laid:
                gate._pick_up()
            # not returned from inside, where Ctrl-C would find the lock behind it and not yet free
            decided = cls._with_locks(gates, decide, to_wake, held + 1)
        return decided  # noqa: RET504

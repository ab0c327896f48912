"""Who makes the calls of a batcher, and where.

Rules
-----
1. A call belongs to none of those who wait for it: in an event loop it is a task of its own. It is stopped
   when nobody wants any of its keys any more. In threads, one of those who wait makes it for all, to its end.
2. The keys of all event loops and threads gather in one place. Each event loop whose tasks have keys there
   has a *gatherer*, a call that has no keys yet, and all threads together have one. The first that finds a
   batch due takes it. So no event loop depends on another one that stands still.
3. When a call ends, and keys wait that need not wait for another one, it hands on: to a gatherer in each
   event loop that is known, and to a thread that waits.
4. When a call ends before its time, since its event loop does, those who wait are told. They ask again, where
   they are.
5. Decisions are made under the lock of the keys; what they lead to, such as waking others, is done after it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from math import inf
from typing import Any, Final, Generic, TypeVar

from batchkit._background import call_in, later, runs, spawn, turn
from batchkit._batching.calls import Calls, Rules
from batchkit._batching.keys import Keys
from batchkit._batching.loads import Call
from batchkit._batching.rooms import Room, Rooms
from batchkit._batching.waiters import Order, Waiting, give
from batchkit._clock import give_way
from batchkit._dispatch import AnyDispatch
from batchkit._parking import SyncParker

K = TypeVar("K", bound=Hashable)

Then = Callable[[], object]
TURN: Final = -inf  # until when a gatherer waits that gives the tasks that are ready their turn


class Gatherers(Generic[K]):
    """The gatherers of one batcher.

    Args:
        rules: what its calls are like.
        keys: what they are to load.
        rooms: where those come in.
    """

    def __init__(self, rules: Rules, keys: Keys[K], rooms: Rooms[K]) -> None:
        self._rules = rules
        self._keys = keys
        self._rooms = rooms
        self._calls = Calls(rules, keys)
        self._gathering = keys.gathering
        self._threads: dict[SyncParker, None] = {}  # that wait, and may be asked to make a call

    def start_anew(self) -> None:
        """In the child of a fork."""
        self._threads.clear()

    def rouse(self, room: Room[K]) -> None:
        """A first key came into the room of the event loop that runs here: somebody is to see to it."""
        with self._keys.lock:
            gatherer = room.gatherer
            if gatherer is not None:
                then: Then = gatherer.wake
            elif self._gathering.has_room:
                then = self._new_gatherer(room)
            else:  # until a call ends there is nothing to gather for; but others may have the key on its way
                then = partial(later, room.domain, partial(self._take_in, room))
        room.roused = True
        then()

    def gather_in(self, room: Room[K]) -> Then | None:
        """Have the event loop that runs here gather; returns what to do once the lock is free."""
        gatherer = room.gatherer
        if gatherer is not None:
            return gatherer.wake if gatherer.parks and self._gathering.presses else None
        return None if self._due() == inf else self._new_gatherer(room)

    def admit_from(self, room: Room[K], now: float) -> list[tuple[K, Waiting, Any]]:
        """Put what came into the room of the event loop that runs here to the keys of all."""
        came = room.take()
        return self._keys.admit(came, self._rules.priority, now, room.domain) if came else []

    def lead(self, order: Order, parker: SyncParker) -> Call[K] | None:
        """A thread waits for an order; returns a gatherer if the thread is to be one."""
        with self._keys.lock:
            room = self._rooms.of_threads
            if order.done() or room.gatherer is not None or self._due() == inf:
                self._threads[parker] = None
                return None
            self._threads.pop(parker, None)
            gatherer = room.gatherer = Call(room, parker=parker)
            return gatherer

    def withdraw(self, parker: SyncParker) -> None:
        """A thread waits no more. If it was asked to make a call just now, another one does."""
        with self._keys.lock:
            was_asked = parker not in self._threads
            self._threads.pop(parker, None)
        if was_asked:
            self._hand_on(self._rooms.of_threads)

    def work_sync(self, call: Call[K], dispatch: AnyDispatch) -> None:
        """Gather the keys of a call, and make it, in this thread."""
        try:
            while (until := self._look(call)) is not None:
                give_way() if until == TURN else call.parker.park_sync(until)
            self._calls.make_sync(call, dispatch)
        finally:
            self.end(call)

    async def _work(self, call: Call[K]) -> None:
        """The twin of `work_sync`, in a task."""
        if call.task is not None:  # it is None where tasks are eager
            call.task.ends_itself()
        try:
            while (until := self._look(call)) is not None:
                if until == TURN:
                    await turn()
                elif call.parker is None:
                    call.parker = self._rules.clock.parker()
                else:
                    await call.parker.park(until)
            await self._calls.make(call)
        finally:
            self.end(call)

    def end(self, call: Call[K]) -> None:
        """A call is over, or a gatherer found no keys, or its event loop ended; told twice, it is once."""
        if call.over:
            return
        with self._keys.lock:
            if call.over:
                return
            call.over = True
            if call.room.gatherer is call:
                call.room.gatherer = None
            took = call.batch is not None
            lost = self._keys.end(call)
            call.task, call.waits_for = None, ()
        if lost:
            give(lost)
        if call.room.came:  # it was to see to those, too
            later(call.room.domain, partial(self._take_in, call.room))
        if self._gathering.waiting and (took or not call.done):
            self._hand_on(call.room, struck=not call.done)

    def begin_anywhere(self) -> bool:
        """Have an event loop see to the keys that wait; false if none runs."""
        rooms = [*reversed(self._rooms.by_loop.values())]
        return any(runs(room.domain) and self._begin(room) for room in rooms)

    def look_after(self, order: Order) -> None:
        """An event loop that ends may take a call, and never make it: a thread looks after its order."""
        with self._keys.lock:
            rooms = [*self._rooms.by_loop.values()]
            calls = self._keys.calls_of(order.wanted, order)
        for call in [*calls, *(room.gatherer for room in rooms if room.gatherer is not None)]:
            if not runs(call.room.domain):
                self.end(call)
        if not any(runs(room.domain) for room in rooms):
            self.lose(order)

    def _due(self) -> float:
        return self._gathering.due(self._rules.clock.now())

    def _take_in(self, room: Room[K]) -> None:
        with self._keys.lock:
            given = self.admit_from(room, self._rules.clock.now())
            then = self.gather_in(room)
        give(given)
        if then is not None:
            then()

    def _new_gatherer(self, room: Room[K]) -> Then:
        room.gatherer = Call(room, stoppable=self._rules.dispatch_sync is None)
        return partial(self._launch, room.gatherer)

    def _launch(self, gatherer: Call[K]) -> None:
        """Start a gatherer in the event loop that runs here."""
        gatherer.task = spawn(partial(self._work, gatherer), partial(self.end, gatherer))

    def _look(self, gatherer: Call[K]) -> float | None:
        """A gatherer looks at what waits.

        Returns:
            Until when it waits before it looks again, `TURN` for a turn of the event loop; or None: it has
            its keys, or there are none for it.
        """
        now = self._rules.clock.now()
        with self._keys.lock:
            given = self.admit_from(gatherer.room, now)
            until, then = self._decide(gatherer, now)
        if given:
            give(given)
        if then is not None:
            then()
        return until

    def _decide(self, gatherer: Call[K], now: float) -> tuple[float | None, Then | None]:
        gathering = self._gathering
        if gatherer.over:
            return None, None
        if gathering.arrivals != gatherer.seen and gathering.settles(now):
            gatherer.seen = gathering.arrivals
            return TURN, None
        due = gathering.due(now)
        if now < due < inf:
            gatherer.parks = gatherer.parker is not None
            gatherer.seen = -1
            return due, None
        return None, self._stop_gathering(gatherer, take=due <= now and self._may_take(gatherer))

    def _may_take(self, gatherer: Call[K]) -> bool:
        """Whether a batch is for this gatherer. An event loop none of whose tasks waits may be about to end:
        what it begins then is never finished.
        """
        here = gatherer.room.domain
        return here is None or len(self._rooms.by_loop) == 1 or self._keys.has_keys_of(here)

    def _stop_gathering(self, gatherer: Call[K], *, take: bool) -> Then | None:
        if gatherer.room.gatherer is gatherer:
            gatherer.room.gatherer = None
        if not take:
            return None
        self._keys.take(gatherer)
        return partial(self._hand_on, gatherer.room) if self._gathering.waiting else None

    def _hand_on(self, here: Room[K], *, struck: bool = False) -> None:
        """Have somebody see to the keys that wait, if there are any that need not wait for a call.

        Args:
            here: the room that comes first.
            struck: whether it comes last, as it may be about to end.
        """
        if not struck and self._is_alone(here):
            self._begin_here(here)
            return
        with self._keys.lock:
            if self._due() == inf:
                return
            rooms = self._rooms.in_order(here)
        # all of them: one that is about to end may say yes, and not do it
        begun = [room for room in (rooms[1:] if struck else rooms) if self._begin(room)]
        if not begun and not (struck and self._begin(here)):
            self.lose()

    def _is_alone(self, room: Room[K]) -> bool:
        """Whether an event loop is the only one that is known, and no thread waits. Asked without the lock:
        who comes just now looks itself whether there is something to do.
        """
        rooms = self._rooms
        return len(rooms.by_loop) == 1 and room.domain in rooms.by_loop and not self._threads

    def _begin_here(self, room: Room[K]) -> None:
        """Have the event loop that runs here see to the keys that wait, if there are any."""
        then: Then | None = None
        with self._keys.lock:
            if self._due() < inf:
                then = self._new_gatherer(room) if room.gatherer is None else room.gatherer.wake
        if then is not None:
            then()

    def lose(self, order: Order | None = None) -> None:
        """Nobody brings what waits, of an order or of all: whoever wants it asks again."""
        with self._keys.lock:
            lost = self._keys.lose(None if order is None else order.wanted)
        give(lost)

    def _begin(self, room: Room[K]) -> bool:
        """Have an event loop, or a thread, see to the keys that wait; false if nobody is there."""
        with self._keys.lock:
            if self._due() == inf:
                return True
            if room.gatherer is not None:
                then: Then = room.gatherer.wake
            elif room.domain is not None:
                then = self._new_gatherer(room)
            elif self._threads:
                parker = next(iter(self._threads))
                del self._threads[parker]
                then = parker.unpark
            else:
                return False
        if room.domain is None:
            then()
            return True
        if call_in(room.domain, then):
            return True
        with self._keys.lock:
            room.gatherer = None  # it can only be the one of a closed event loop
        return False

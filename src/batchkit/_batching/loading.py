"""Those who ask a batcher for keys: from tasks, from threads, from within its loader."""

from __future__ import annotations

from asyncio import Future
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

from batchkit._background import domain, runs_loop
from batchkit._batching.calls import Rules
from batchkit._batching.gatherers import Gatherers
from batchkit._batching.keys import Keys
from batchkit._batching.loads import CALL, Call, Wish, calling
from batchkit._batching.rooms import Room, Rooms
from batchkit._batching.waiters import AsyncFuture, Blocked, Order, Parked, Waiter, give, join, waiter
from batchkit._core.gathering import PRESSING
from batchkit._dispatch import AnyDispatch
from batchkit._forks import FORKS
from batchkit.exceptions import LoadFailed

K = TypeVar("K", bound=Hashable)

LOOK_AFTER: Final = 0.1  # seconds after which a thread looks whether the event loop it waits for still runs


class Loading(Generic[K]):
    """The loads of one batcher.

    Args:
        rules: what its calls are like.
        keys: what they are to load.
    """

    def __init__(self, rules: Rules, keys: Keys[K]) -> None:
        self._rules = rules
        self._keys = keys
        self._rooms: Rooms[K] = Rooms()
        self._gatherers = Gatherers(rules, keys, self._rooms)
        self._places = keys.places  # these two are looked at without the lock
        self._room_of = self._rooms.by_loop.get
        FORKS.tell(self)

    def ask(self, key: K, priority: int | None) -> AsyncFuture:
        """Ask for a key from a task; returns what is to be awaited for its answer.

        Raises:
            LoadFailed: the caller is part of a call that would wait for itself.
        """
        loop = running_loop()
        room = self._room_of(loop)
        if (
            room is None
            or not room.roused
            or priority is not None
            or key in self._places
            or CALL.get() is not None
        ):
            return self._ask_first(key, priority)
        # a task of trio that is a guest of this loop comes here, too, and finds out: see `is_guest`
        future: AsyncFuture = Future(loop=loop)
        if room.came.setdefault(key, future) is not future:
            join(room.came, key, future)
        return future

    def ask_all(self, keys: Sequence[K], priority: int | None) -> Order:
        """Ask for distinct keys from a task.

        Raises:
            LoadFailed: as `ask` does.
        """
        here = domain()
        order = Order(waiter(here), keys)
        self._order(order, keys, priority, here)
        return order

    def ask_all_sync(self, keys: Sequence[K], priority: int | None) -> Order:
        """Ask for distinct keys from a thread.

        Raises:
            LoadFailed: as `ask` does.
            RuntimeError: the loader is async, and there is no event loop that could run it; or one runs in
                this thread, and would be blocked.
        """
        if runs_loop():
            raise RuntimeError(
                f"{self._rules.name}: to wait here would block the event loop of this thread: await the twin "
                "without _sync"
            )
        is_plain = self._rules.dispatch_sync is not None
        order = Order(Parked(self._rules.clock.parker_sync()) if is_plain else Blocked(), keys)
        self._order(order, keys, priority, None)
        return order

    def wait_sync(self, order: Order) -> None:
        """Wait for an order in a thread, which may have to make a call meanwhile."""
        if isinstance(order.bell, Parked) and self._rules.dispatch_sync is not None:
            self._wait_or_lead(order, order.bell, self._rules.dispatch_sync)
        elif isinstance(order.bell, Blocked):
            self._wait_for_a_loop(order, order.bell)

    def leave(self, keys: Sequence[K], waiter: Waiter) -> None:
        """Somebody does not want these any more."""
        parent = calling()
        with self._keys.lock:
            if (room := self._room_of(waiter.get_loop())) is not None:
                room.leave(keys, waiter)
            unwanted = self._keys.leave(keys, waiter)
            if parent is not None:
                parent.waits_for = [wish for wish in parent.waits_for if wish.waiter is not waiter]
        for call in unwanted:
            call.cancel()

    def prime(self, key: K, value: Any) -> None:
        """A value is known: it is kept, and who waits for the key has it."""
        with self._keys.lock:
            given, unwanted = self._keys.prime(key, value)
        give(given)
        if unwanted is not None:
            unwanted.cancel()

    def outdate(self, keys: Iterable[K] | None, forget: Callable[[], object]) -> None:
        """What is known of some keys, or of all, is old; `forget` drops it from the cache."""
        with self._keys.lock:
            forget()
            self._keys.outdate(keys)

    def forked(self) -> None:
        """The child of a fork begins with nothing under way."""
        self._keys.start_anew()
        self._rooms.clear()
        self._gatherers.start_anew()
        CALL.set(None)

    def _ask_first(self, key: K, priority: int | None) -> AsyncFuture:
        """Ask for a key that may be the first of a turn, or on its way already, or is a matter of its own."""
        here = domain()
        future = waiter(here)
        room = self._room_of(here)
        if room is None or priority is not None or CALL.get() is not None:
            self._order(future, (key,), priority, here)
            return future
        if key in self._places:
            if not self._joins(room, key, future):
                self._order(future, (key,), priority, here)
            return future
        if room.came.setdefault(key, future) is not future:
            join(room.came, key, future)
        if not room.roused:
            self._gatherers.rouse(room)
        return future

    def _joins(self, room: Room[K], key: K, future: AsyncFuture) -> bool:
        """Wait with others for a key; false if it just came, or if nobody here sees to it."""
        with self._keys.lock:
            cohort = self._places.get(key)
            if cohort is None or (cohort.call is None and room.gatherer is None):
                return False
            self._keys.join(key, future, self._rules.priority, room.domain)
            return True

    def _order(self, waiter: Waiter, keys: Sequence[K], priority: int | None, here: Hashable) -> None:
        """Ask for keys, with the lock in hand."""
        parent = calling()
        rank = PRESSING if parent else self._rules.priority if priority is None else priority
        now = self._rules.clock.now()
        with self._keys.lock:
            room = None if here is None else self._rooms.of(here)
            given = [] if room is None else self._gatherers.admit_from(room, now)
            given += self._keys.admit(dict.fromkeys(keys, waiter), rank, now, here)
            then = None if room is None else self._gatherers.gather_in(room)
        if given:
            give(given)
        if then is not None:
            then()
        if parent is not None:
            self._wait_within(parent, keys, waiter)

    def _wait_within(self, parent: Call[Any], keys: Sequence[K], waiter: Waiter) -> None:
        """A loader asks for keys itself."""
        wish = Wish(waiter, partial(self._keys.calls_of, keys, waiter))
        parent.waits_for = [wish, *(wish for wish in parent.waits_for if not wish.waiter.done())]
        if wish.needs(parent):  # of two that close a circle at the same time, one sees the other
            self.leave(keys, waiter)
            raise LoadFailed(
                f"{self._rules.name}: the loader asks for a key that it is loading: it would wait for itself"
            )

    def _wait_or_lead(self, order: Order, bell: Parked, dispatch: AnyDispatch) -> None:
        try:
            while not order.done():
                if (call := self._gatherers.lead(order, bell.parker)) is None:
                    bell.parker.park_sync()
                else:
                    self._gatherers.work_sync(call, dispatch)
        finally:
            self._gatherers.withdraw(bell.parker)

    def _wait_for_a_loop(self, order: Order, bell: Blocked) -> None:
        """An event loop that ends may take a call, and never make it: so look after it now and then."""
        if not self._gatherers.begin_anywhere():
            self.leave(order.wanted, order)
            raise RuntimeError(
                f"{self._rules.name}: the loader is async, and no event loop that uses this batcher is there "
                "to run it: load in a task, or make the loader a plain function"
            )
        while not order.done():
            if not bell.wait(LOOK_AFTER):
                self._gatherers.look_after(order)

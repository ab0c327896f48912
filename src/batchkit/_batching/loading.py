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

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Final, Generic, TypeVar

from batchkit._background import call_in, is_open, runs, runs_loop, spawn, turn
from batchkit._batching.calls import Calls, Rules
from batchkit._batching.keys import Keys
from batchkit._batching.loads import CALL, PENDING, Call, Load, calling, needs
from batchkit._batching.waiters import ThreadWaiter, Waiter, ring
from batchkit._clock import give_way
from batchkit._core.gathering import PRESSING
from batchkit._dispatch import AnyDispatch
from batchkit._forks import FORKS
from batchkit._parking import SyncParker
from batchkit.exceptions import LoadFailed

K = TypeVar("K", bound=Hashable)

Then = Callable[[], object]
LOOK_AFTER: Final = 0.1  # seconds after which a thread looks whether the event loop it waits for still runs
TURN: Final = -inf  # until when a gatherer waits that gives the tasks that are ready their turn


class Loading(Generic[K]):
    """The calls of one batcher.

    Args:
        rules: what they are like.
        keys: what they are to load.
    """

    def __init__(self, rules: Rules, keys: Keys[K]) -> None:
        self._rules = rules
        self._keys = keys
        self._calls = Calls(rules, keys)
        self._gathering = keys.gathering
        self._gatherers: dict[Hashable, Call[K]] = {}
        self._loops: dict[Hashable, None] = {}  # whose tasks asked for keys, the newest one last
        self._threads: dict[SyncParker, None] = {}  # that wait, and may be asked to make a call
        self._process = FORKS.count

    # those who ask

    def ask(self, key: K, priority: float, here: Hashable, ringing: Waiter) -> Load[K]:
        """Ask for a key from a task of the event loop `here`, which waits with `ringing` if it has to.

        Raises:
            LoadFailed: the caller is part of a call that would wait for itself.
        """
        if self._process != FORKS.count:
            self._start_anew()
        if CALL.get() is not None and (parent := calling()) is not None:
            return self._ask_within(parent, key, here, ringing)
        with self._keys.lock:
            load = self._keys.want(key, priority, here, ringing)
            gatherer = self._gatherers.get(here)
            if not load.gathers or (gatherer is not None and not gatherer.parks):
                return load
            then = self._gather_in(here)
        if then is not None:
            then()
        return load

    def ask_all(
        self, keys: Sequence[K], priority: float, here: Hashable
    ) -> tuple[dict[K, Any], list[Load[K]]]:
        """Ask for distinct keys from a task.

        Returns:
            The values that the cache has, and the loads of the other keys, in their order.

        Raises:
            LoadFailed: as `ask` does.
        """
        parent = self._calling()
        with self._keys.lock:
            values, loads = self._keys.want_all(keys, PRESSING if parent else priority, here)
            then = self._gather_in(here) if any(load.gathers for load in loads) else None
        if then is not None:
            then()
        if parent is not None:
            self._wait_within(parent, loads)
        return values, loads

    def ask_all_sync(self, keys: Sequence[K], priority: float) -> tuple[dict[K, Any], list[Load[K]]]:
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
        parent = self._calling()
        with self._keys.lock:
            values, loads = self._keys.want_all(keys, PRESSING if parent else priority, None)
        if self._rules.dispatch_sync is None and any(load.gathers for load in loads):
            self._have_a_loop_gather(loads)
        if parent is not None:
            self._wait_within(parent, loads)
        return values, loads

    def wait_sync(self, load: Load[K]) -> None:
        """Wait for a load in a thread, which may have to make a call meanwhile."""
        if self._rules.dispatch_sync is None:
            self._wait_for_a_loop(load)
        else:
            self._wait_or_lead(load, self._rules.dispatch_sync)

    def _wait_or_lead(self, load: Load[K], dispatch: AnyDispatch) -> None:
        parker = self._rules.clock.parker_sync()
        load.waiters.append(parker)
        try:
            while load.answer is PENDING:
                if (call := self._lead(load, parker)) is None:
                    parker.park_sync()
                else:
                    self._work_sync(call, dispatch)
        finally:
            self._withdraw(parker)

    def _wait_for_a_loop(self, load: Load[K]) -> None:
        """An event loop that ends may take a call, and never make it: so look after it now and then."""
        ringing = ThreadWaiter()
        load.waiters.append(ringing)
        while load.answer is PENDING:
            if not ringing.wait(LOOK_AFTER):
                with self._keys.lock:
                    calls = [*self._gatherers.values()] if load.call is None else [load.call]
                for call in calls:
                    if call.domain is not None and not runs(call.domain):
                        self._end(call)
                if not any(map(runs, self._loops)):
                    self._lose([load])

    def leave(self, loads: Iterable[Load[K]]) -> None:
        """Somebody does not want these any more."""
        parent = calling()
        with self._keys.lock:
            unwanted = [call for load in loads if (call := self._keys.leave(load)) is not None]
            if parent is not None:
                parent.waits_for = [load for load in parent.waits_for if load not in loads]
        for call in unwanted:
            call.cancel()

    def prime(self, key: K, value: Any) -> None:
        """A value is known: it is kept, and who waits for the key has it."""
        self._calling()
        with self._keys.lock:
            load = self._keys.prime(key, value)
        if load is not None:
            ring(load.waiters)
            if load.call is not None and not load.call.wanted:
                load.call.cancel()

    def outdate(self, keys: Iterable[K] | None, forget: Then) -> None:
        """What is known of some keys, or of all, is old; `forget` drops it from the cache."""
        self._calling()
        with self._keys.lock:
            forget()
            self._keys.outdate(keys)

    def _calling(self) -> Call[Any] | None:
        """The call that the caller is part of, if there is one; in this process."""
        if self._process != FORKS.count:
            self._start_anew()
        return calling()

    def _start_anew(self) -> None:
        """The child of a fork begins with nothing under way."""
        self._process = FORKS.count
        self._keys.start_anew()
        for held in (self._gatherers, self._loops, self._threads):
            held.clear()
        CALL.set(None)

    def _ask_within(self, parent: Call[Any], key: K, here: Hashable, ringing: Waiter) -> Load[K]:
        with self._keys.lock:
            load = self._keys.want(key, PRESSING, here, ringing)
            then = self._gather_in(here) if load.gathers else None
        if then is not None:
            then()
        self._wait_within(parent, [load])
        return load

    def _wait_within(self, parent: Call[Any], loads: list[Load[K]]) -> None:
        """A loader asks for keys itself."""
        if any(needs(load, parent) for load in loads):
            self.leave(loads)
            raise LoadFailed(
                f"{self._rules.name}: the loader asks for a key that it is loading: it would wait for itself"
            )
        parent.waits(loads)

    # those who gather

    def _gather_in(self, here: Hashable) -> Then | None:
        """Have the event loop that runs here gather; returns what to do once the lock is free."""
        gatherer = self._gatherers.get(here)
        if gatherer is not None:
            return gatherer.wake if gatherer.parks and self._gathering.presses else None
        if here not in self._loops:
            self._loops = dict.fromkeys([*filter(is_open, self._loops), here])
        return None if self._keys.due() == inf else self._new_gatherer(here)

    def _new_gatherer(self, place: Hashable) -> Then:
        gatherer = self._gatherers[place] = Call(place, stoppable=self._rules.dispatch_sync is None)
        return partial(self._launch, gatherer)

    def _launch(self, gatherer: Call[K]) -> None:
        """Start a gatherer in the event loop that runs here."""
        gatherer.task = spawn(partial(self._work, gatherer), partial(self._end, gatherer))

    def _lead(self, load: Load[K], parker: SyncParker) -> Call[K] | None:
        """A thread waits for a load; returns a gatherer if the thread is to be one."""
        with self._keys.lock:
            if load.answer is not PENDING or None in self._gatherers or self._keys.due() == inf:
                self._threads[parker] = None
                return None
            self._threads.pop(parker, None)
            gatherer = self._gatherers[None] = Call(None, parker=parker)
            return gatherer

    def _withdraw(self, parker: SyncParker) -> None:
        """A thread waits no more. If it was asked to make a call just now, another one does."""
        with self._keys.lock:
            was_asked = parker not in self._threads
            self._threads.pop(parker, None)
        if was_asked:
            self._hand_on(None)

    def _have_a_loop_gather(self, loads: list[Load[K]]) -> None:
        if not any(runs(loop) and self._begin(loop) for loop in reversed([*self._loops])):
            self.leave(loads)
            raise RuntimeError(
                f"{self._rules.name}: the loader is async, and no event loop that uses this batcher is there "
                "to run it: load in a task, or make the loader a plain function"
            )

    def _look(self, gatherer: Call[K]) -> float | None:
        """A gatherer looks at what waits.

        Returns:
            Until when it waits before it looks again, `TURN` for a turn of the event loop; or None: it has
            its keys, or there are none for it.
        """
        now = self._rules.clock.now()
        with self._keys.lock:
            gathering = self._gathering
            if gatherer.over:
                return None
            if gathering.arrivals != gatherer.seen and gathering.settles(now):
                gatherer.seen = gathering.arrivals
                return TURN
            due = gathering.due(now)
            if now < due < inf:
                gatherer.parks = gatherer.parker is not None
                gatherer.seen = -1
                return due
            then = self._stop_gathering(gatherer, take=due <= now and self._may_take(gatherer))
        if then is not None:
            then()
        return None

    def _may_take(self, gatherer: Call[K]) -> bool:
        """Whether a batch is for this gatherer. An event loop none of whose tasks waits may be about to end:
        what it begins then is never finished.
        """
        here = gatherer.domain
        return here is None or len(self._loops) == 1 or self._keys.has_keys_of(here)

    def _stop_gathering(self, gatherer: Call[K], *, take: bool) -> Then | None:
        if self._gatherers.get(gatherer.domain) is gatherer:
            del self._gatherers[gatherer.domain]
        if not take:
            return None
        self._keys.take(gatherer)
        return None if self._keys.due() == inf else partial(self._hand_on, gatherer.domain)

    async def _work(self, call: Call[K]) -> None:
        """Gather the keys of a call, and make it."""
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
            self._end(call)

    def _work_sync(self, call: Call[K], dispatch: AnyDispatch) -> None:
        """The blocking twin of `_work`."""
        try:
            while (until := self._look(call)) is not None:
                give_way() if until == TURN else call.parker.park_sync(until)
            self._calls.make_sync(call, dispatch)
        finally:
            self._end(call)

    def _end(self, call: Call[K]) -> None:
        """A call is over, or a gatherer found no keys, or its event loop ended; told twice, it is once."""
        if call.over:
            return
        with self._keys.lock:
            if call.over:
                return
            call.over = True
            if self._gatherers.get(call.domain) is call:
                del self._gatherers[call.domain]
            if took := bool(call.loads):
                self._gathering.come_back()
            lost = self._keys.lose(call.loads)
            call.loads, call.task = [], None  # circles would wait for the garbage collector
        if lost:
            ring([waiting for load in lost for waiting in load.waiters])
        if self._gathering.waiting and (took or not call.done):
            self._hand_on(call.domain, struck=not call.done)

    def _hand_on(self, here: Hashable, *, struck: bool = False) -> None:
        """Have somebody see to the keys that wait, if there are any that need not wait for a call.

        Args:
            here: the event loop that comes first; None for threads.
            struck: whether it comes last, as it may be about to end.
        """
        with self._keys.lock:
            if self._keys.due() == inf:
                return
            others = [*self._gatherers, *reversed(self._loops), None]
        # all of them: one that is about to end may say yes, and not do it
        places = dict.fromkeys([*others] if struck else [here, *others])
        if struck:
            places.pop(here, None)
        begun = [place for place in places if self._begin(place)]
        if not begun and not (struck and self._begin(here)):
            self._lose()

    def _lose(self, loads: Iterable[Load[K]] | None = None) -> None:
        """Nobody brings these, or any that wait: whoever wants them asks again."""
        with self._keys.lock:
            lost = self._keys.lose(self._gathering.all_waiting() if loads is None else loads)
        ring([waiting for load in lost for waiting in load.waiters])

    def _begin(self, place: Hashable) -> bool:
        """Have an event loop, or a thread, see to the keys that wait; false if nobody is there."""
        with self._keys.lock:
            if self._keys.due() == inf:
                return True
            gatherer = self._gatherers.get(place)
            if gatherer is not None:
                then: Then = gatherer.wake
            elif place is not None:
                then = self._new_gatherer(place)
            elif self._threads:
                parker = next(iter(self._threads))
                del self._threads[parker]
                then = parker.unpark
            else:
                return False
        if place is None:
            then()
            return True
        if call_in(place, then):
            return True
        with self._keys.lock:
            self._gatherers.pop(place, None)  # it can only be the one of a closed event loop
        return False

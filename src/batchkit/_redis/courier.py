"""The courier: one thread that asks Redis for all who wait in this process, on whatever event loop or thread.

redis-py's blocking client serves asyncio, trio and threads alike from there; callers that are cancelled leave
no reply behind on a connection, and those who come while a question is under way share the next one.
"""

from __future__ import annotations

import logging
import random
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Hashable, Iterable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final
from weakref import WeakSet, WeakValueDictionary, ref

from batchkit._events import emit
from batchkit._forks import FORKS
from batchkit._parking import SyncParker
from batchkit._redis.asking import AnyGate
from batchkit._redis.errand import Errand, errands_of
from batchkit._redis.link import APART, ERRORS, Link, bare, link_to
from batchkit._redis.watch import Watches
from batchkit.abc import Clock

# By where Redis is: limiters that go there share a thread and a connection, so that what is asked for several
# of them at the same time is asked in one round trip.
_COURIERS: Final[WeakValueDictionary[tuple[Hashable, int, float], Courier]] = WeakValueDictionary()

_log = logging.getLogger("batchkit")

_STALLED: Final = 0.01  # seconds after which an event loop that was to read an answer is taken for stalled
_ATTENTIVE: Final = 0.1  # seconds for which the thread looks that often
_IDLE: Final = 5.0  # seconds after which the thread and the connection are given up
_AT_ONCE: Final = 256  # questions in one pipeline
_FIRST_RETRY: Final = 0.05  # seconds
_LONGEST_RETRY: Final = 0.4
_SHORT_PROBE: Final = 0.4  # of the timeout; every other one is that short, so that a return is noticed soon


def courier_of(target: object, clock: Clock, timeout: float) -> Courier:
    """Who asks the Redis of that URL or client.

    Raises:
        ValueError, TypeError: as `link_to` does.
    """
    link = link_to(target)
    where = (link.address, id(clock), timeout)
    courier = _COURIERS.get(where)
    if courier is None:
        courier = _COURIERS[where] = Courier(link, clock, timeout)
    return courier


class Courier:
    """Asks Redis when it is time to.

    Args:
        link: the way to Redis.
        clock: what time it is.
        timeout: seconds within which Redis has to answer.
    """

    def __init__(self, link: Link, clock: Clock, timeout: float) -> None:
        self._link = link
        self._clock = clock
        self._timeout = timeout
        self._gates: WeakSet[AnyGate] = WeakSet()
        self._start_anew()

    def _start_anew(self) -> None:
        self._process = FORKS.count
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # held by whoever asks, until the answer is there
        self._sent: list[list[Errand]] = []  # what is under way, for whoever reads the answer; at most one
        self._overdue = inf  # when the thread is to read it, if nobody has by then
        self._active = -inf  # when somebody asked last
        self._until = -inf  # when the thread wakes up
        self._watches = Watches(self._readable)
        self._inbox: deque[tuple[float, float, AnyGate]] = deque()
        # when to look, a number, and which gate to ask for if that was planned for such a moment or before
        self._agenda: list[tuple[float, int, float, ref[AnyGate]]] = []
        self._serial = count()
        self._parker: SyncParker | None = None
        self._thread: threading.Thread | None = None
        self._parked = False
        self._blocked = False  # whether the thread waits for the turn
        self._closing = False
        self._failures = 0
        self._down: Exception | None = None
        self._down_until = -inf
        self._link.forget()

    def call(self, gate: AnyGate, moment: float) -> None:
        """Ask for a gate at that moment; may be called by anybody, at any time."""
        if FORKS.count != self._process:
            self._start_anew()
        self._inbox.append((moment, moment, gate))
        if self._parker is None:
            self._start()
        else:
            self._wake()

    def hurry(self, gate: AnyGate, *, here: bool, loop: AbstractEventLoop | None = None) -> None:
        """Ask for a gate at once, from the thread of the caller who waits.

        Args:
            gate: which.
            here: the caller reads the answer, since it has to wait anyway.
            loop: the running event loop, which is told when the answer is there. Without either, the
                courier's thread wakes up and reads it.
        """
        now = self._clock.now()
        if FORKS.count != self._process or not self._turn.acquire(blocking=False):
            self.call(gate, now + _STALLED if gate.crowded else now)  # or the loop would never be first again
            return
        handed_on = False
        try:
            if self._thread is None or self._down is not None or not self._link.ready:
                self.call(gate, now)
            elif asked := self._questions([gate]):
                self._link.send([errand.command for errand in asked], self._timeout)
                self._active = now
                if here:
                    self._read(asked, self._timeout)
                else:
                    handed_on = True
                    self._hand_on(asked, now, loop)
        except ERRORS:
            self._ask_again(gate)
        except BaseException:  # Ctrl-C, say
            if not handed_on:
                self._ask_again(gate)
            raise
        finally:
            if not handed_on:
                self._pass_on()

    def _ask_again(self, gate: AnyGate) -> None:
        """A question was cut short: the thread asks for the answer, under the same number."""
        self._link.close()
        self._ask_soon(gate)

    def _ask_soon(self, gate: AnyGate) -> None:
        gate.planned = now = self._clock.now()
        self.call(gate, now)

    def hurry_in(self, loop: AbstractEventLoop, gate: AnyGate, *, soon: bool) -> None:
        """Ask for a gate from the running event loop. `soon`: when those have run who are about to, so that
        one question is about all of them.
        """
        if soon:
            now = self._clock.now()
            self._inbox.append((now + _STALLED, now, gate))  # in case that the loop stops now
            loop.call_soon(partial(self.hurry, gate, here=False, loop=loop))
        else:
            self.hurry(gate, here=False, loop=loop)

    def _hand_on(self, asked: list[Errand], now: float, loop: AbstractEventLoop | None) -> None:
        """Leave the answer to the event loop, or, if that is not there in time, to the thread."""
        wire = self._link.wire if loop is not None else None
        told = loop is not None and wire is not None and self._watches.add(loop, *wire)
        self._overdue = now + _STALLED if told else now
        self._sent.append(asked)
        if self._until > self._overdue + _STALLED or not told:
            self._wake()

    def _readable(self, loop: AbstractEventLoop) -> None:
        """The event loop was told that there is something to read."""
        wire = self._link.wire
        if wire is None or not self._watches.of(loop, wire[0]) or not self._sent:
            self._watches.remove(loop)
            return
        try:
            asked = self._sent.pop()
        except IndexError:  # the thread was faster
            return
        self._finish(asked, loop)
        for gate in _gates(asked):
            if gate.take_hurry():
                self.hurry_in(loop, gate, soon=True)

    def _wake(self) -> None:
        parker = self._parker
        if self._parked and parker is not None:
            parker.unpark()

    def leave(self, gates: Iterable[AnyGate]) -> None:
        """Ask no more for some gates, and stop when there is none left, once what they held is handed
        back.
        """
        for gate in gates:
            self._gates.discard(gate)
        thread, parker = self._thread, self._parker
        if self._gates or thread is None or parker is None:
            return
        self._closing = True
        parker.unpark()
        if thread is not threading.current_thread():
            thread.join(self._timeout)

    def enter(self, gate: AnyGate) -> None:
        """A gate that may ask."""
        self._gates.add(gate)
        self._closing = False

    def _start(self) -> None:
        with self._lock:
            if self._parker is None:
                self._parker = self._clock.parker_sync()
                name = "batchkit-courier"
                self._thread = threading.Thread(
                    target=self._run, args=(self._parker,), name=name, daemon=True
                )
                self._thread.start()

    def _run(self, parker: SyncParker) -> None:
        self._active = self._clock.now()
        while True:
            self._parked = False
            now = self._clock.now()
            if self._sent and now >= self._overdue:
                self._take_over()
            elif due := self._due(now):
                self._active = now
                self._serve(due, now)
            elif self._is_done(now) and self._leave():
                return
            else:
                self._park(parker, now)

    def _is_done(self, now: float) -> bool:
        if self._closing:
            gates = (gate() for *_, gate in self._agenda)
            return not any(gate is not None and gate.planned < inf for gate in gates)
        return not self._agenda and now >= self._active + _IDLE

    def _park(self, parker: SyncParker, now: float) -> None:
        until = self._agenda[0][0] if self._agenda else self._active + _IDLE
        if now < self._active + _ATTENTIVE:
            until = min(until, now + _STALLED)
        if sent := bool(self._sent):
            until = min(until, self._overdue)
        self._until = until
        self._parked = True
        if not self._inbox and bool(self._sent) == sent:  # or somebody came just now, and woke nobody
            parker.park_sync(until)

    def _take_over(self) -> None:
        try:
            asked = self._sent.pop()
        except IndexError:  # the event loop was faster
            return
        self._finish(asked)

    def _leave(self) -> bool:
        """Stop, unless somebody came just now."""
        with self._lock:
            if self._inbox or not self._turn.acquire(blocking=False):
                return False
            self._parker = self._thread = None
        self._link.close()
        self._turn.release()
        return True

    def _due(self, now: float) -> list[AnyGate]:
        """The gates to be asked for now."""
        agenda = self._agenda
        while self._inbox:
            moment, planned, caller = self._inbox.popleft()
            heappush(agenda, (moment, next(self._serial), planned, ref(caller)))
        due: dict[AnyGate, None] = {}
        while agenda and agenda[0][0] <= now and len(due) < _AT_ONCE:
            _, _, planned, known = heappop(agenda)
            if (gate := known()) is not None and gate.planned <= planned:
                due[gate] = None
        return list(due)

    def _serve(self, due: list[AnyGate], now: float) -> None:
        if self._down is not None and now < self._down_until:
            for gate in due:
                self._lose(gate, self._down)
            return
        if not self._turn.acquire(blocking=False):
            self._put_off(due, now)  # and come again
            return
        try:
            if asked := self._questions(due):
                probes = self._down is not None
                self._read(asked, self._timeout * (_SHORT_PROBE if probes and self._failures % 2 else 1.0))
        except Exception as error:
            self._fail(due, error)
        finally:
            self._turn.release()

    def _put_off(self, due: list[AnyGate], now: float) -> None:
        """Somebody else asks just now. The thread does not wait for the turn as such, since what that one
        asked may be the thread's to read.
        """
        self._inbox.extend((now, now, gate) for gate in due)
        self._blocked = self._parked = True
        parker = self._parker
        if self._turn.locked() and not self._sent and parker is not None:
            parker.park_sync(now + _STALLED)
        self._blocked = False

    def _pass_on(self) -> None:
        """Give the turn back."""
        self._turn.release()
        if self._blocked:
            self._wake()

    def _finish(self, asked: list[Errand], loop: AbstractEventLoop | None = None) -> None:
        """Read the answers to what somebody sent, and give the turn back. `loop`: the event loop that does
        so.
        """
        try:
            self._read(asked, self._timeout, loop)
        except Exception as error:
            self._fail(_gates(asked), error)
        finally:
            self._pass_on()

    def _fail(self, gates: list[AnyGate], error: Exception) -> None:
        """A fault of ours: those who wait are told, and it is tried again."""
        _log.error("the courier failed", exc_info=error)
        self._give_up(gates, error)

    def _questions(self, gates: list[AnyGate]) -> list[Errand]:
        if len(gates) == 1:
            return errands_of(gates[0])
        return list(dict.fromkeys(errand for gate in gates for errand in errands_of(gate)))

    def _read(self, asked: list[Errand], timeout: float, loop: AbstractEventLoop | None = None) -> None:
        try:
            replies = self._link.exchange([errand.command for errand in asked], timeout)
        except ERRORS as error:
            self._give_up(_gates(asked), error)
            return
        self._down, self._failures = None, 0
        for errand, reply in zip(asked, replies, strict=True):
            if isinstance(reply, APART) and errand.part():
                for gate in errand.gates:
                    self._ask_soon(gate)
            elif isinstance(reply, Exception):
                for gate in errand.gates:
                    self._lose(gate, reply)
            else:
                errand.answered(reply, loop)

    def _give_up(self, gates: list[AnyGate], error: Exception) -> None:
        """Redis is not there: all who wait for it are told."""
        self._failures += 1
        wait = min(_FIRST_RETRY * 2**self._failures, _LONGEST_RETRY)
        self._down = bare(error)
        self._down_until = self._clock.now() + wait * random.uniform(0.75, 1.0)
        for gate in gates:
            self._lose(gate, error)

    def _lose(self, gate: AnyGate, error: Exception) -> None:
        again = max(self._down_until, self._clock.now() + _FIRST_RETRY)
        event = gate.alone(gate.lose, error, again)
        if not gate.over:  # what a closed one held is lost
            self.call(gate, again)
        if event is not None:
            emit(gate.hooks, event)


def _gates(asked: list[Errand]) -> list[AnyGate]:
    return [gate for errand in asked for gate in errand.gates]

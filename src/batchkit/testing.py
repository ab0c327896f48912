"""For tests, ours and users': a clock that is moved by hand, a hook that records, a call that is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Generator, Hashable
from contextlib import contextmanager
from heapq import heappop, heappush
from math import inf, isfinite
from typing import TypeVar

import anyio

from batchkit import _parking
from batchkit._background import spawn
from batchkit._call import RUNNING, CallInfo
from batchkit._parking import Parker, SyncParker, ThreadParker
from batchkit.abc import Event

__all__ = ["ManualClock", "RecordingHook", "as_call"]

T = TypeVar("T")
E = TypeVar("E", bound=Event)


class ManualClock:
    """A clock that stands still until it is moved, and that drives what waits for it: on asyncio, trio and
    threads alike.

    Args:
        start: seconds that it shows at first.

    Example:
        ```python
        clock = ManualClock()
        bucket = TokenBucket(rate=2, burst=5, clock=clock)
        assert bucket.try_acquire(cost=5)
        assert bucket.try_acquire().retry_after == 0.5
        clock.advance(0.5)
        assert bucket.try_acquire()
        ```
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._serial = 0

    def now(self) -> float:
        """Seconds that it shows."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Jump ahead, and wake all whose moment has come; they find the new time, as after a stall.

        Raises:
            ValueError: the seconds are negative or not finite: a clock never goes back.
        """
        if not (isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a clock moves ahead by a finite time, not by {seconds}")
        self._jump_to(self._now + seconds)

    async def run_for(self, seconds: float) -> None:
        """Move ahead from moment to moment, so that each task that waits goes on at its own time.

        The caller's event loop is given time to settle at each moment; tasks that wait for something real
        (a socket, a thread) are not waited for.
        """
        end = self._now + seconds
        await settle()
        while (moment := self._next_alarm()) <= end:
            self._jump_to(moment)
            await settle()
        self._jump_to(end)
        await settle()

    async def run(self, work: Awaitable[T]) -> T:
        """Await `work` while the clock jumps to the next moment whenever every task waits: hours pass in
        milliseconds.
        """
        driver = spawn(self._jump_whenever_idle, on_end=lambda: None)
        try:
            return await work
        finally:
            driver.cancel()

    async def sleep(self, seconds: float) -> None:
        """Wait in a task until the clock has moved that far."""
        moment = self._now + max(0.0, seconds)
        parker = self.parker()
        await anyio.lowlevel.checkpoint()
        while self._now < moment:
            await parker.park(moment)

    def sleep_sync(self, seconds: float) -> None:
        """Wait in a thread until the clock was moved that far by another one."""
        moment = self._now + max(0.0, seconds)
        parker = self.parker_sync()
        while self._now < moment:
            parker.park_sync(moment)

    def parker(self) -> Parker:
        """What a task waits with; its moment is this clock's."""
        return _ManualParker(self, _parking.parker(self.now))

    def parker_sync(self) -> SyncParker:
        """What a thread waits with; its moment is this clock's."""
        return _ManualSyncParker(self, ThreadParker(self.now))

    def _jump_to(self, moment: float) -> None:
        due: list[Alarm] = []
        with self._lock:
            self._now = max(self._now, moment)
            while self._alarms and self._alarms[0][0] <= self._now:
                due.append(heappop(self._alarms)[2])
        for alarm in due:
            alarm.ring()

    def _next_alarm(self) -> float:
        with self._lock:
            while self._alarms and self._alarms[0][2].off:
                heappop(self._alarms)
            return self._alarms[0][0] if self._alarms else inf

    async def _jump_whenever_idle(self) -> None:
        while True:
            await settle()
            if (moment := self._next_alarm()) < inf:
                self._jump_to(moment)
            else:  # all tasks wait for something real, which only real time brings
                await anyio.sleep(0.001)

    def set_alarm(self, moment: float, parker: Parker | SyncParker) -> Alarm:
        """Have a parker woken at that moment, or at once if it is over; `off` takes the alarm back."""
        alarm = Alarm(parker)
        with self._lock:
            if moment > self._now:
                self._serial += 1
                heappush(self._alarms, (moment, self._serial, alarm))
                return alarm
        alarm.ring()
        return alarm


class Alarm:
    """A wake-up that a clock owes.

    Attributes:
        off: set to true to take it back.
    """

    __slots__ = ("_parker", "off")

    def __init__(self, parker: Parker | SyncParker) -> None:
        self._parker = parker
        self.off = False

    def ring(self) -> None:
        """Wake the parker."""
        if not self.off:
            self._parker.unpark()


class _ManualParker:
    """Parks without a timer; the clock's alarm is the timer."""

    def __init__(self, clock: ManualClock, parker: Parker) -> None:
        self._clock = clock
        self._parker = parker

    @property
    def domain(self) -> Hashable:
        return self._parker.domain

    def unpark(self) -> bool:
        return self._parker.unpark()

    async def park(self, until: float = inf) -> None:
        alarm = None if until == inf else self._clock.set_alarm(until, self._parker)
        try:
            await self._parker.park()
        finally:
            if alarm is not None:
                alarm.off = True


class _ManualSyncParker:
    """The blocking twin of `_ManualParker`."""

    domain: Hashable = None

    def __init__(self, clock: ManualClock, parker: SyncParker) -> None:
        self._clock = clock
        self._parker = parker

    def unpark(self) -> bool:
        return self._parker.unpark()

    def park_sync(self, until: float = inf) -> None:
        alarm = None if until == inf else self._clock.set_alarm(until, self._parker)
        try:
            self._parker.park_sync()
        finally:
            if alarm is not None:
                alarm.off = True


async def settle() -> None:
    """Return when every other task of this event loop waits for something."""
    if _parking.in_trio():
        import trio.testing

        await trio.testing.wait_all_tasks_blocked()
        return
    rounds = 0
    while rounds < 2:  # a callback may be under way between two tasks: it needs a round of its own
        await asyncio.sleep(0)
        rounds = rounds + 1 if _others_wait() else 0


def _others_wait() -> bool:
    # what a task waits for is not public; anyio's own wait_all_tasks_blocked reads the same attribute
    this = asyncio.current_task()
    for task in asyncio.all_tasks():
        waits_for = getattr(task, "_fut_waiter", None)
        if task is not this and (waits_for is None or waits_for.done()):
            return False
    return True


@contextmanager
def as_call(info: CallInfo) -> Generator[None]:
    """Let `current_call` answer with `info` in a block, as if an executor ran it."""
    token = RUNNING.set(lambda: info)
    try:
        yield
    finally:
        RUNNING.reset(token)


class RecordingHook:
    """A hook that keeps every event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

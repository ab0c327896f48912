"""Calls that stand in no line: one question is about all of them, and one decision lets them go.

They are calls without a wish (no priority, no timeout), all of one event loop or all of threads. Whom the
answer does not let go (since it is not enough, or is read by somebody else than their event loop), and who
comes while others stand in line, stands in line from then on, at the place of its arrival.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Hashable, Iterable
from functools import partial
from itertools import islice, takewhile
from math import inf
from typing import Generic, TypeVar

from attrs import define

from batchkit._core.line import Line
from batchkit._core.place import Place
from batchkit._core.store import Store
from batchkit._events import Waited, emit
from batchkit._gate import Gate, key_of
from batchkit._parking import Parker, SyncParker, unpark_all, wait_at, wait_at_sync

S = TypeVar("S", bound=Store)


@define(eq=False)
class Call:
    """A call that stands in no line.

    Attributes:
        cost: permits.
        owner: what it waits with.
        since: moment at which it came; infinite before.
        went: moment at which its permits were taken; infinite before.
        until: moment until which those are good.
        place: where it stands, once it stands in line.
        left: whether it was given up.
    """

    cost: int
    owner: Parker | SyncParker
    since: float = inf
    went: float = inf
    until: float = inf
    place: Place | None = None
    left: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is neither let go nor in line."""
        return self.went == inf and self.place is None


class Crowd:
    """Those calls. They come without a lock; all else is up to whoever decides something.

    Attributes:
        domain: the event loop in which all of them wait; None for threads.
        asked: those that a question is about, until its answer is there.
    """

    __slots__ = ("_came", "asked", "domain")

    def __init__(self) -> None:
        self.domain: Hashable = None
        self.asked: list[Call] = []
        self._came: deque[Call] = deque()

    def __len__(self) -> int:
        return len(self.asked) + len(self._came)

    @property
    def grew(self) -> bool:
        """Whether somebody came who is not asked for."""
        return bool(self._came)

    def admits(self, domain: Hashable) -> bool:
        """Whether a call of that event loop may come."""
        if domain is not self.domain:
            if self:
                return False
            self.domain = domain
        return True

    def come(self, call: Call) -> None:
        """A call is here."""
        self._came.append(call)

    def ask(self, most: int) -> list[Call]:
        """Those that came are to be asked for, but no more than so many."""
        came = self._came
        self.asked = list(islice(came, most))
        for _ in self.asked:
            came.popleft()
        return [call for call in self.asked if not call.left]

    def serve(self, line: Line, now: float, until: float) -> list[Call]:
        """Let those go who were asked for, in order, as far as permits are there."""
        waiting = [call for call in self.asked if call.waits and not call.left]
        served = waiting
        if not line.take(sum([call.cost for call in waiting]), now):
            served = list(takewhile(lambda call: line.take(call.cost, now), waiting))
        for call in served:
            call.went, call.until = now, until
        self.asked = waiting[len(served) :]
        return served

    def break_up(self) -> list[Call]:
        """Those who wait, in order: they are to stand in line."""
        calls: list[Call] = self.asked
        self.asked = []
        while self._came:
            calls.append(self._came.popleft())
        return [call for call in calls if call.waits and not call.left]


class CrowdGate(Gate[S], ABC, Generic[S]):
    """A line, and a crowd beside it.

    Attributes:
        crowd: those who wait for an answer and stand in no line.
    """

    def _start_anew(self) -> None:
        self.crowd = Crowd()
        self._served: list[Parker | SyncParker] = []  # they are told when the decision is made
        super()._start_anew()

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self.waiters) + len(self.crowd)

    # what is to be known of an answer

    @abstractmethod
    def _is_asking(self) -> bool:
        """Whether whoever comes now may hope for an answer."""

    @abstractmethod
    def _expect(self, call: Call) -> None:
        """See to it that a call is asked for that came just now."""

    @abstractmethod
    def _restore(self, now: float, call: Call) -> None:
        """A call does not use the permits that were taken for it."""

    def _good_until(self, now: float) -> float:
        """Until when permits are good that are taken now."""
        return now + self.store.grace

    def _goes_late(self, now: float, call: Call) -> bool:
        """Whether a call may go with permits that were taken a while ago."""
        return False

    # the calls

    async def wait(self, cost: int, priority: int, timeout: float | None) -> None:
        """Return when a call may go."""
        parker = self.clock.parker()
        if (priority or timeout is not None) or not self._admits(cost, parker.domain):
            await wait_at(self.place(cost, priority, timeout, parker), parker, self.come, self.abandon)
        else:
            await wait_at(Call(cost, parker), parker, self._come_along, self._abandon_call)

    def wait_sync(self, cost: int, priority: int, timeout: float | None) -> None:
        """The blocking twin of `wait`."""
        parker = self.clock.parker_sync()
        if (priority or timeout is not None) or not self._admits(cost, parker.domain):
            wait_at_sync(self.place(cost, priority, timeout, parker), parker, self.come, self.abandon)
        else:
            wait_at_sync(Call(cost, parker), parker, self._come_along, self._abandon_call)

    def _admits(self, cost: int, domain: Hashable) -> bool:
        """Whether a call may come to the crowd."""
        self.settle()
        there = cost <= self.store.burst and self._is_asking()
        return (
            there and (domain is None or isinstance(domain, AbstractEventLoop)) and self.crowd.admits(domain)
        )

    def _come_along(self, call: Call) -> float | None:
        """The owner of a call is here: None if it goes, or the moment until which it waits for a wake-up."""
        if call.since == inf:
            call.since = self._now()
            self.crowd.come(call)
            self._expect(call)
        if call.waits:
            return inf
        if call.place is None and self._now() > call.went + self.store.grace:
            self.alone(self._come_late, call)
        if call.place is not None:
            return self.come(call.place)
        if self.hooks:
            emit(self.hooks, Waited(self.name, call.cost, call.went - call.since))
        return None

    def _come_late(self, now: float, call: Call) -> None:
        if not self._goes_late(now, call):
            self._take_back(now, call)
            self._form_line(now, [call])

    def _abandon_call(self, call: Call) -> None:
        """An exception struck the owner of a call: it does not go."""
        self.note(partial(self._give_up, call=call))

    def _give_up(self, now: float, call: Call) -> None:
        call.left = True
        if call.place is not None:
            self._abandon(now, call.place)
        elif call.went < inf:
            self._take_back(now, call)

    def _take_back(self, now: float, call: Call) -> None:
        """A call does not go with what was taken for it."""
        self.waits -= 1
        self.waited -= call.went - call.since
        self._restore(now, call)
        call.went = inf

    # the crowd

    def _serve(self, now: float) -> None:
        """Let those go who were asked for, as far as permits are there."""
        served = self.crowd.serve(self.line, now, self._good_until(now))
        self.waits += len(served)
        self.waited += sum([now - call.since for call in served])
        self._served += [call.owner for call in served]

    def tell_served(self) -> None:
        """Wake those who were let go."""
        if served := self._served:
            self._served = []
            unpark_all(served)

    def _disperse(self, now: float) -> None:
        """All stand in line from now on."""
        if calls := self.crowd.break_up():
            self._form_line(now, calls)

    def _form_line(self, now: float, calls: Iterable[Call]) -> None:
        for call in calls:
            place = call.place = Place(call.cost, call.owner, key_of(call.owner))
            self.waiters.enter(place)
            self.line.join(place, call.since)
            if place.ended:  # the burst was lowered below its cost
                self.waiters.to_wake.append(place)
        self.waiters.look(now)

    def _recover(self) -> None:
        self._served += [call.owner for call in self.crowd.asked]
        super()._recover()
        self.alone(self._disperse)
        self.tell_served()

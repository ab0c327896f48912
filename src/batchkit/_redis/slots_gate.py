"""The gate of a fleet's slots: heartbeats, and who is told of a slot that is free."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final

from attrs import evolve, frozen

from batchkit._core.place import Place
from batchkit._core.store import Store
from batchkit._events import Event, LimitChanged
from batchkit._forks import FORKS
from batchkit._redis.asking import AskingGate
from batchkit._redis.questions import Header, Question, Terms
from batchkit._redis.scripts import SLOTS
from batchkit._redis.slots import Holding, Share, SlotsAnswer, SlotsAsk
from batchkit._redis.wire import Calls, Orders

_BEATS: Final = 3  # questions within a lease
_KEPT: Final = 0.05  # seconds for which a slot is kept for the own calls while no other process waits
_NEWS: Final = 0.25  # seconds after which a process that uses its slots again hears whether others wait

# The limiters that have slots: these are kept, or handed back, also where nobody holds the limiter.
_IN_USE: Final[dict[SlotsGate, object]] = {}
FORKS.then(_IN_USE.clear)


@frozen
class SlotsTerms(Terms):
    """What a limiter of calls at once agreed with its user.

    Attributes:
        limit: as configured.
        lease: seconds of silence after which the slots of a process are free.
    """

    limit: int
    lease: float


class SlotsGate(AskingGate[Holding, SlotsTerms, SlotsAsk, SlotsAnswer]):
    """A line before the slots that a process holds of the fleet's.

    Attributes:
        limiter: the limiter that it is of, or None if that is gone.
    """

    kind = ";slots"
    script = SLOTS
    limiter: Callable[[], Any] = staticmethod(lambda: None)

    def order_change(self, limit: int) -> None:
        """Have the fleet go on with another limit, and those of its keys that are used from now on."""
        self.terms = evolve(self.terms, limit=limit)
        self.alone(lambda now: self.store.orders.add(Orders(size=(0.0, limit))))

    @property
    def over(self) -> bool:
        """Whether it was closed and the last of its calls has ended."""
        return self.closed and not self.store.taken

    def _start_anew(self) -> None:
        self._asked_at = -inf  # the moment of the last question that was answered
        self._idle_since = inf  # since when a slot is held that no call uses or waits for
        super()._start_anew()

    def _lay_back(self, now: float) -> list[Place]:
        if self.store.taken or self.store.told:
            _IN_USE[self] = self.limiter()
        else:
            _IN_USE.pop(self, None)
        return super()._lay_back(now)

    def _due(self, now: float, wanted: int) -> float:
        store = self.store
        store.lapse(now)
        if store.taken > store.told:
            return now  # more than it was granted: somebody charged it, or went while Redis was away
        moment = inf
        if store.told:
            moment = self._asked_at + self.terms.lease / _BEATS
            if store.ended:
                moment = min(moment, self._asked_at + _NEWS)
        if store.told <= store.taken + min(store.total, wanted):
            self._idle_since = inf
        else:
            self._idle_since = min(self._idle_since, now)
            moment = min(moment, now if store.contended or self.closed else self._idle_since + _KEPT)
        return max(now, moment)

    def _prepare(self, now: float, wanted: int) -> None:
        store = self.store
        store.lapse(now)
        if store.contended or self.closed or now >= self._idle_since + _KEPT:
            store.hand_back(wanted)
        store.held = max(store.held, store.taken)

    def _has_news(self, now: float, calls: list[Calls]) -> bool:
        store = self.store
        if store.orders or store.held != store.told:
            return True
        silent = now - self._asked_at
        return bool(store.held and silent >= (_NEWS if store.ended else self.terms.lease / _BEATS))

    def _phrase(self, now: float, header: Header, calls: list[Calls], *, stands: bool) -> SlotsAsk:
        store, terms = self.store, self.terms
        orders, store.orders = store.orders, Orders()
        ended, store.ended = store.ended, 0
        if terms.cold:
            closes = terms.lease
        elif now - self._asked_at < terms.lease:  # Redis lost its data: let the others say what they hold
            closes = terms.lease / 2  # each of them beats within that time
        else:
            closes = 0.0
        return SlotsAsk(*header, terms.limit, closes, terms.lease, store.held, ended, orders, stands, calls)

    def _take_in(
        self, now: float, moment: float, question: Question[SlotsAsk], answer: SlotsAnswer
    ) -> list[Event]:
        store, before = self.store, self.store.burst
        self._asked_at = question.sent
        store.feed(question.ask, answer, moment, question.sent + self.terms.lease)
        if calls := question.ask.calls:
            self.short = sum(run.count * run.cost for run in calls) > answer.granted
        if answer.limit == before or store.orders.size is not None:
            return []
        self.change(now, 0.0, answer.limit)
        return [LimitChanged(self.name, answer.limit, before, "changed by the fleet")]

    def _local_share(self, now: float) -> Store:
        return Share(max(1, self.store.burst // self.members), self.store)

"""The gate of a fleet's token bucket: bookings, leases, and the rate that the fleet agrees on."""

from __future__ import annotations

from math import inf
from typing import Final

from attrs import evolve, frozen

from batchkit._core.bucket import Bucket
from batchkit._core.store import Store
from batchkit._events import Event, Paused, RateChanged
from batchkit._numbers import span
from batchkit._parking import running_loop
from batchkit._redis.asking import AskingGate
from batchkit._redis.crowd import Call
from batchkit._redis.learning import Learning
from batchkit._redis.questions import Header, Question, Terms
from batchkit._redis.ration import Lease, Ration
from batchkit._redis.scripts import BUCKET, BUCKETS
from batchkit._redis.wire import Answer, Ask, Calls, Orders

_TIDY: Final = 0.01  # seconds; what lapsed is handed back about so late
_SPAN: Final = 0.05  # seconds over which the demand is measured, and for which it is met in advance
_SMOOTHING: Final = 0.3  # the weight of the last of several figures
_SLACK: Final = 1.5  # times the delay of answers that is usual, for which permits are good beyond their time
_MOST_SLACK: Final = 1.0  # seconds


@frozen
class BucketTerms(Terms):
    """What a limiter of a rate agreed with its user.

    Attributes:
        rate, burst: as configured.
        horizon: seconds that may be booked ahead.
        lease: whether to ask for more than is waited for, where there is plenty.
    """

    rate: float
    burst: int
    horizon: float
    lease: bool


class BucketGate(AskingGate[Ration, BucketTerms, Ask, Answer]):
    """A line before what a process holds of the fleet's permits.

    Attributes:
        leases: where the lease lies, if there is one and nobody is taking from it.
        learning: what a controller of the fleet's rate has to say, if there is one.
    """

    script = BUCKET
    joint_script = BUCKETS
    learning: Learning | None = None
    _version: int | None = None

    def order_change(self, rate: float, burst: int) -> None:
        """Have the fleet go on at another rate and burst, and those of its keys that are used from now on."""
        self.terms = evolve(self.terms, rate=rate, burst=burst)
        self.alone(lambda now: self.store.orders.add(Orders(size=(rate, burst))))

    @property
    def granted(self) -> int:
        """Permits let go, less those given back."""
        return self.store.granted + self._used_up + sum(lease.size - lease.left for lease in self.leases)

    def hope(self, now: float, cost: int) -> float:
        """Seconds after which so much could be had, by what was heard last."""
        if self.lost is not None:
            return super().hope(now, cost)
        return span(now, self.store.expected(cost + self.line.demand, now))

    def renew(self, lease: Lease) -> None:
        """A lease is about to be used up: ask for the next one."""
        lease.low = 0
        self._renews = True
        self.planned = min(self.planned, self._now())
        self._courier.hurry(self, here=False, loop=running_loop())

    def _start_anew(self) -> None:
        self._delays = [0.0] * 3  # of the last answers, beyond that of the fastest
        self._round_trip = 0.0  # seconds
        self._used = 0  # permits, up to the last answer
        self._used_at = -inf
        self._demand = 0.0  # permits a second
        self.leases: list[Lease] = []
        self._lease: Lease | None = None
        self._renews = False
        self._extra = 0  # permits to ask for beyond those that are waited for
        self._used_up = 0  # permits of leases that are over
        super()._start_anew()

    def _due(self, now: float, wanted: int) -> float:
        ration = self.store
        ration.lapse(now)
        moment = max(ration.lapses, now + _TIDY)
        if self.learning is not None:
            moment = min(moment, max(now, self.learning.due))
        if wanted < ration.total:
            moment = min(moment, max(now, ration.comes_in) + ration.grace)
        if self._lease is not None:
            moment = min(moment, self._lease.until)
        return moment

    def _prepare(self, now: float, wanted: int) -> None:
        ration = self.store
        ration.lapse(now)
        if now >= ration.comes_in + ration.grace and (surplus := ration.surplus(wanted, now)):
            ration.hand_back(surplus, now)
        self._end_leases(now)

    def _has_news(self, now: float, calls: list[Calls]) -> bool:
        more = self.terms.lease and (bool(calls) or self._renews) and now >= self.store.look
        self._extra = int(self._demand * _SPAN) if more else 0
        self._renews = False
        learned = self.learning is not None and self.learning.due <= now
        return bool(self.store.orders) or self._extra > 0 or learned

    def _phrase(self, now: float, header: Header, calls: list[Calls], *, stands: bool) -> Ask:
        ration, terms = self.store, self.terms
        ration.orders.went += self._went(now)
        orders, ration.orders = ration.orders, Orders()
        opinion = None if self.learning is None else self.learning.opinion(self._skew)
        return Ask(
            *header,
            terms.rate,
            terms.burst,
            terms.cold,
            terms.horizon,
            orders,
            self._extra,
            stands,
            calls,
            opinion,
        )

    def _take_in(self, now: float, moment: float, question: Question[Ask], answer: Answer) -> list[Event]:
        ration, ask = self.store, question.ask
        events: list[Event] = []
        adjustment = None
        if self.learning is not None and ask.opinion is not None:
            adjustment = self.learning.heard(answer, self._skew, now)
        if changed := self._follow(now, answer, "" if adjustment is None else adjustment.reason):
            events.append(changed)
        if adjustment is not None and adjustment.pause:
            events.append(Paused(self.name, adjustment.pause, adjustment.reason))
        self._delays = [*self._delays[1:], now - moment]
        self._round_trip += _SMOOTHING * (now - question.sent - self._round_trip)
        slack = min(_SLACK * sorted(self._delays)[1], _MOST_SLACK)
        ration.feed(answer, ask.calls, moment, slack)
        ration.look -= min(self._round_trip, self.terms.horizon / 2)  # or the answer would come too late
        if answer.leased:
            self._end_leases(inf)
            self._lease = Lease.of(answer, moment)
            self.leases.append(self._lease)
        if self.terms.lease:
            self._measure(now)
        if ask.calls:
            self.short = question.wanted > answer.granted or ration.comes_in > moment
        return events

    def _unheard(self, now: float) -> None:
        if self.learning is not None:
            self.learning.unheard(now)

    def _good_until(self, now: float) -> float:
        return max(now + self.store.grace, self.store.lapses) if self.store.instead is None else inf

    def _goes_late(self, now: float, call: Call) -> bool:
        good = self.store.closed_until <= now <= call.until
        if good:
            self.store.goes_late(call.cost, call.went)
        return good

    def _restore(self, now: float, call: Call) -> None:
        self.store.restore(call.cost, call.went, call.until)

    def _local_share(self, now: float) -> Store:
        ration = self.store
        share = Bucket(ration.rate / self.members, max(1, ration.burst // self.members), now)
        share.drain(now)
        return share

    def _settle_up(self, now: float, instead: Store) -> None:
        """What a local share let go and what has not come in since is charged."""
        if isinstance(instead, Bucket):
            self.store.orders.charge += max(0, round(instead.burst - instead.available(now)))

    def _went(self, now: float) -> int:
        went = self.store.went(now)
        if (lease := self._lease) is not None and now <= lease.until:
            used = lease.size - lease.left
            went += used - lease.told
            lease.told = used
        return went

    def _end_leases(self, now: float) -> None:
        """Hand back what is left of the leases that are over."""
        for lease in list(self.leases):
            if lease.until < now:
                try:
                    self.leases.remove(lease)
                except ValueError:  # somebody has it, and lays it back: next time
                    continue
                self._used_up += lease.size - lease.left
                if lease.left:
                    self.store.orders.add(Orders(back=lease.left, back_since=lease.since))
        if self._lease not in self.leases:
            self._lease = None

    def _follow(self, now: float, answer: Answer, reason: str) -> RateChanged | None:
        """Go on at the fleet's rate and burst."""
        ration = self.store
        known, self._version = self._version, answer.version
        size = (answer.rate, answer.burst)
        if ration.orders.size is not None or size == (ration.rate, ration.burst):
            return None
        before = (ration.rate, ration.burst)
        self.change(now, *size)
        if known is None and answer.version == 0:
            return None
        return RateChanged(self.name, *size, *before, reason=reason or "changed by the fleet")

    def _measure(self, now: float) -> None:
        """How many permits a second are used."""
        used, elapsed = self.granted, now - self._used_at
        if elapsed > _SPAN:
            self._demand = (used - self._used) / elapsed
        elif elapsed > 0:
            self._demand += (used - self._used) / _SPAN - self._demand * elapsed / _SPAN
        self._used, self._used_at = used, now

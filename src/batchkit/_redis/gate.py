"""The gate of a limiter whose permits come from Redis: when to ask, for what, and what the answer changes.

Those who call stand in the process's own line, before what the process holds (`ration`). After each decision
it is settled when Redis has to be asked next, and the courier, a thread, is told that moment. It asks for all
who wait in one go; they wait for it as they would wait for a bucket.
"""

from __future__ import annotations

import secrets
from asyncio import AbstractEventLoop
from collections.abc import Iterable
from math import inf
from typing import Final, Protocol

from attrs import define, evolve, frozen

from batchkit._core.bucket import Bucket
from batchkit._core.place import Place, State
from batchkit._core.store import Store
from batchkit._events import Event, Hook, Paused, RateChanged, Reconnected, Unavailable
from batchkit._gate import GO, Gate
from batchkit._numbers import span
from batchkit._parking import Parker, SyncParker, running_loop, wait_at_sync
from batchkit._redis.learning import Learning
from batchkit._redis.names import names
from batchkit._redis.ration import Lease, Nothing, Ration, Unlimited
from batchkit._redis.skew import Skew
from batchkit._redis.wire import Answer, Ask, Calls, Orders, TooLate
from batchkit._values import Decision
from batchkit.abc import Clock
from batchkit.exceptions import AcquireTimeout, LimiterClosed, LimiterUnavailable

_MOST_PLACES: Final = 256  # that one question is about
_MOST_RUNS: Final = 24
_TIDY: Final = 0.01  # seconds; what lapsed is handed back about so late
_SPAN: Final = 0.05  # seconds over which the demand is measured, and for which it is met in advance
_FIRST: Final = 0.005  # seconds that the thread leaves to an event loop in which many come
_SMOOTHING: Final = 0.3  # the weight of the last of several figures
_SLACK: Final = 1.5  # times the delay of answers that is usual, for which permits are good beyond their time
_MOST_SLACK: Final = 1.0  # seconds
_PRESENCE: Final = 5.0  # seconds; Redis takes a process for gone after six times that


class Caller(Protocol):
    """Who asks Redis."""

    def enter(self, gate: FleetGate) -> None:
        """A gate that may ask."""
        ...

    def call(self, gate: FleetGate, moment: float) -> None:
        """Ask for a gate at that moment."""
        ...

    def hurry(self, gate: FleetGate, *, here: bool, loop: AbstractEventLoop | None = None) -> None:
        """Ask for a gate at once; `here`: and wait for the answer; or have the running event loop read it."""
        ...

    def hurry_in(self, loop: AbstractEventLoop, gate: FleetGate, *, soon: bool) -> None:
        """Ask for a gate from the running event loop, at once or when those have run who are about to."""
        ...


@frozen
class Terms:
    """What a limiter agreed with its user.

    Attributes:
        prefix, key, tag: what it is called in Redis.
        rate, burst: as configured.
        cold: whether a bucket that Redis does not know starts empty.
        horizon: seconds that may be booked ahead.
        timeout: seconds within which Redis has to answer.
        on_unavailable: what happens while it does not: "raise", "deny", "allow" or "local".
        lease: whether to ask for more than is waited for, where there is plenty.
    """

    prefix: str
    key: str
    tag: str | None
    rate: float
    burst: int
    cold: bool
    horizon: float
    timeout: float
    on_unavailable: str
    lease: bool


@define(eq=False)
class Question:
    """A question that is under way.

    Attributes:
        ask: what is asked.
        sent: the moment of the own clock before it was sent.
        tries: places that do not wait for more than its answer.
    """

    ask: Ask
    keys: tuple[str, str, str]
    sent: float
    tries: list[Place]

    @property
    def command(self) -> tuple[tuple[str, str, str], tuple[str, bytes]]:
        """What is sent."""
        return self.keys, self.ask.words()


class FleetGate(Gate[Ration]):
    """A line before what a process holds of the permits in Redis.

    Attributes:
        keys: of the bucket, the line and the processes.
        planned: the moment at which the courier is to ask; infinite if it was not told to.
        members: processes that were here lately, as last heard.
        asked: questions so far.
        crowded: whether the last question was about several calls of an event loop.
        short: whether those who asked last had to wait for permits to come in.
        leases: where the lease lies, if there is one and nobody is taking from it.
        learning: what a controller of the fleet's rate has to say, if there is one.
        lost: why Redis cannot be asked, or None.
    """

    def __init__(
        self,
        ration: Ration,
        *,
        terms: Terms,
        courier: Caller,
        name: str,
        hooks: Iterable[Hook],
        patience: float,
        clock: Clock,
    ) -> None:
        self.keys = names(terms.prefix, terms.key, terms.tag, ration.key)
        self.terms = terms
        self.closed = False
        self.learning: Learning | None = None
        self._courier = courier
        self._version: int | None = None
        self.members = 1
        self.asked = 0
        super().__init__(ration, name=name, hooks=hooks, patience=patience, clock=clock)
        courier.enter(self)

    def beside(self, store: Ration) -> FleetGate:
        """Another gate like this one, for another key of the family."""
        gate = FleetGate(
            store,
            terms=self.terms,
            courier=self._courier,
            name=self.name,
            hooks=self.hooks,
            patience=self._patience,
            clock=self.clock,
        )
        gate.closed = self.closed
        return gate

    def _pause(self, now: float, seconds: float) -> None:
        super()._pause(now, seconds)
        self.store.orders.add(Orders(pause=seconds))

    def order_change(self, rate: float, burst: int) -> None:
        """Have the fleet go on at another rate and burst, and those of its keys that are used from now on."""
        self.terms = evolve(self.terms, rate=rate, burst=burst)
        self.alone(lambda now: self.store.orders.add(Orders(size=(rate, burst))))

    def _start_anew(self) -> None:
        self._process_name = secrets.token_hex(6)
        self._serial = 0
        self._question: Question | None = None
        self.planned = inf
        self.short = False
        self._outside: list[Place] = []  # those that are let in with the next question
        self.crowded = False
        self._coming = False  # whether the decision is that of a caller who can ask Redis itself
        self._hurries = False  # whether it has to
        self._tries: dict[Place, None] = {}
        self._told = -inf  # the order in line that Redis knows of
        self._present = -inf
        self._known = False  # whether Redis knows the terms
        self._skew = Skew()
        self._delays = [0.0] * 3  # of the last answers, beyond that of the fastest
        self._round_trip = 0.0  # seconds
        self._used = 0  # permits, up to the last answer
        self._used_at = -inf
        self._demand = 0.0  # permits a second
        self.leases: list[Lease] = []
        self._lease: Lease | None = None
        self._renews = False
        self._used_up = 0  # permits of leases that are over
        self.lost: Exception | None = None
        self._lost_at = -inf
        self.store.instead = None
        super()._start_anew()

    # decisions of those who call

    def attempt(self, cost: int) -> Decision:
        """Go now, or not at all, after at most one question."""
        decision = super().attempt(cost)
        if decision.allowed or not self.alone(self._worth_asking):
            return decision
        parker = self.clock.parker_sync()
        place = self.place(cost, 0, 0.0, parker)
        try:
            wait_at_sync(place, parker, self.come, self.abandon)
        except AcquireTimeout as error:
            return Decision(False, error.retry_after)
        return GO

    def place(self, cost: int, priority: int, timeout: float | None, parker: Parker | SyncParker) -> Place:
        """A place for a call that has to wait; without patience, for one answer."""
        place = super().place(cost, priority, timeout or None, parker)
        if timeout == 0:
            place.once = True  # whatever was heard last; the answer, or that there is none, ends it
            self._tries[place] = None
        return place

    def come(self, place: Place) -> float | None:
        """The owner of a place is here. If Redis has to be asked at once, its thread does so."""
        if place.state is State.GONE:  # handed over
            if self._now() > place.owned_until:
                return self.alone(self._come_late, place)
            self.tell(place)
            return None
        if self.crowded and place.state is State.NEW and self._waits_outside(place):
            return inf
        until = super().come(place)
        if not self.take_hurry():
            return until
        domain = place.owner.domain
        if isinstance(domain, AbstractEventLoop):
            self._courier.hurry_in(domain, self, soon=self.crowded)
            return until
        here = until is not None and domain is None and place.timeout >= self.terms.timeout
        self._courier.hurry(self, here=here)
        return super().come(place) if here else until

    def _waits_outside(self, place: Place) -> bool:
        """Where many come at once in one event loop, they are let in together when the next question is
        asked.
        """
        loop = place.owner.domain
        simple = place.timeout == inf and not place.priority and self.lost is None and not self.closed
        if not (simple and isinstance(loop, AbstractEventLoop)):
            return False
        self._outside.append(place)
        now = self._now()
        if self.planned > now:
            self.planned = now
            self._courier.hurry_in(loop, self, soon=True)
        return True

    def _let_in(self, now: float) -> None:
        outside, self._outside = self._outside, []
        for place in outside:
            if place.state is State.NEW:  # or its owner gave up
                self.waiters.enter(place)
                self.line.join(place, now)

    def _come_late(self, now: float, place: Place) -> float:
        """It was handed its permits, and did not come in time: they are handed back, and it waits on."""
        self.store.restore(place.cost, now)
        self.waits -= 1
        self.waited -= place.waited
        self.waiters.enter(place)
        self.line.rejoin(place)
        self.waiters.look(now, here=place)
        return self.waiters.until(place)

    def _abandon(self, now: float, place: Place) -> None:
        if place.state is State.NEW:
            place.state = State.LEFT
        if place.taken:  # others of this process may use it
            self.store.restore(place.cost, now)
            place.taken = False
        super()._abandon(now, place)

    def take_hurry(self) -> bool:
        """Whether the one who decided last is to ask Redis itself; said once."""
        hurries, self._hurries = self._hurries, False
        return hurries

    def ending(self, place: Place) -> Exception:
        """Why a place ended before it went."""
        if place.state is State.REFUSED and place.cost <= self.store.burst:
            if self.closed:
                return LimiterClosed(f"{self.name} was closed")
            if self.lost is not None:
                return self._unavailable(self.lost)
        return super().ending(place)

    def _go(self, now: float, place: Place) -> float | None:
        self._check_open()
        self._coming = True
        in_vain = place in self._tries and place.state is State.NEW and not self._worth_asking(now)
        until = super()._go(now, place)
        if in_vain:
            self._tries.pop(place, None)
            self._refuse([place])
        return until

    def _attempt(self, now: float, place: Place) -> Decision:
        self._check_open()
        return super()._attempt(now, place)

    def _check_open(self) -> None:
        if self.closed:
            raise LimiterClosed(f"{self.name} was closed")
        if self.lost is not None and self.terms.on_unavailable == "raise":
            raise self._unavailable(self.lost)

    def _unavailable(self, cause: Exception) -> LimiterUnavailable:
        error = LimiterUnavailable(f"{self.name} cannot ask Redis ({_told(cause)})")
        error.__cause__ = cause
        return error

    def hope(self, now: float, cost: int) -> float:
        """Seconds after which so much could be had, by what was heard last."""
        if self.lost is not None:
            return super().hope(now, cost)
        return span(now, self.store.expected(cost + self.line.demand, now))

    def _worth_asking(self, now: float) -> bool:
        """Whether a newcomer could be let go by an answer."""
        quiet = not (self.line.waiting or self.line.reserved) and now >= self.store.closed_until
        return quiet and self.lost is None and now >= self.store.look

    # when to ask

    def _lay_back(self, now: float) -> list[Place]:
        if self._question is None and self.planned > now:
            moment = self._next_question(now)
            if moment < self.planned:
                hurries = moment <= now and self._coming
                if self.crowded and not hurries:  # an event loop, in which many come, is the first to ask
                    moment = max(moment, now + _FIRST)
                self.planned = moment
                if hurries:
                    self._hurries = True
                else:
                    self._courier.call(self, moment)
            elif self._hurries and not self._coming:  # Ctrl-C struck who was to do so
                self._hurries = False
                self._courier.call(self, now)
        self._coming = False
        return super()._lay_back(now)

    def _next_question(self, now: float) -> float:
        ration, line = self.store, self.line
        if self.lost is not None:
            return inf  # the courier comes on its own
        ration.lapse(now)
        wanted = line.demand
        moment = inf if self.learning is None else max(now, self.learning.due)
        if orders := ration.orders:
            urgent = orders.pause or orders.drain is not None or orders.size
            moment = now if urgent else now + ration.grace
        if self._tries or self._outside:
            return now
        if wanted > ration.total:
            moment = now if ration.look <= now or self._overtakes() else min(moment, ration.look)
        elif wanted < ration.total:
            moment = min(moment, max(now, ration.comes_in) + ration.grace)
        if self._lease is not None:
            moment = min(moment, self._lease.until)
        return min(moment, max(ration.lapses, now + _TIDY))

    def _overtakes(self) -> bool:
        """Whether the first in line stands before the place that Redis knows of."""
        if self.store.total:
            return False
        first = self.line.upcoming(1)
        return bool(first) and first[0].order[0] < self._told

    # questions and answers: the courier's

    def ask(self, now: float) -> Question | None:
        """What is to be asked now; None if there is nothing."""
        self.planned = inf
        self._let_in(now)
        if self._question is not None:  # its answer was lost: it is asked again, and answered once
            self._question.sent = now
            self._question.ask = evolve(self._question.ask, deadline=self._deadline(now))
            return self._question
        ration, line = self.store, self.line
        ration.lapse(now)
        wanted = line.demand
        if now >= ration.comes_in + ration.grace and (surplus := ration.surplus(wanted, now)):
            ration.hand_back(surplus, now)
        calls = self._calls(now)
        if not calls and wanted > ration.total:  # by those only who are not there to be called
            ration.look = now + ration.grace
        self._end_leases(now)
        extra = 0
        if self.terms.lease and (calls or self._renews) and now >= ration.look:
            extra = int(self._demand * _SPAN)
        self._renews = False
        tries, self._tries = [place for place in self._tries if place.state is State.WAITING], {}
        in_vain = now < ration.look and not tries and not self._overtakes()
        learned = self.learning is not None and self.learning.due <= now
        if not ((calls and not in_vain) or ration.orders or extra or learned or self.lost):
            return None
        opinion = None if self.learning is None else self.learning.opinion(self._skew)
        presence = 2 if not self._known else 1 if now - self._present > _PRESENCE else 0
        self._present = now if presence else self._present
        self._serial += 1
        self.asked += 1
        ration.orders.went += self._went(now)
        orders, ration.orders = ration.orders, Orders()
        stands = any(place not in tries for place in line.upcoming(_MOST_PLACES))
        first = line.upcoming(1)
        in_a_loop = bool(first) and isinstance(first[0].key, AbstractEventLoop)
        self.crowded = in_a_loop and sum(run.count for run in calls) > 1
        self._told = now - calls[0].age if calls and stands else -inf
        terms = self.terms
        ask = Ask(
            self._process_name,
            self._serial,
            self._deadline(now),
            presence,
            terms.rate,
            terms.burst,
            terms.cold,
            terms.horizon,
            orders,
            extra,
            stands,
            calls,
            opinion,
        )
        self._question = Question(ask, self.keys, now, tries)
        return self._question

    def answered(
        self, now: float, answer: Answer | TooLate, loop: AbstractEventLoop | None = None
    ) -> list[Event]:
        """Take in an answer; returned are the events to be sent. `loop`: the event loop that runs this; it
        asks for what is wanted next.
        """
        self._coming = loop is not None
        question, self._question = self._question, None
        if question is None:
            return []
        ration, ask = self.store, question.ask
        events: list[Event] = [] if self.lost is None else [self._found(now)]
        if isinstance(answer, TooLate):
            self._skew.hear(answer.now, question.sent, now)
            ask.orders.add(ration.orders)
            ration.orders = ask.orders
            self._tries.update(dict.fromkeys(question.tries))
            if self.learning is not None:
                self.learning.unheard(now)
            return events
        if not answer.again:
            self._skew.hear(answer.now, question.sent, now)
        adjustment = None
        if self.learning is not None and ask.opinion is not None:
            adjustment = self.learning.heard(answer, self._skew, now)
        self._known = True
        self.members = answer.members or self.members
        moment = min(now, self._skew.here(answer.now))  # rounding must not put it off
        self._delays = [*self._delays[1:], now - moment]
        self._round_trip += _SMOOTHING * (now - question.sent - self._round_trip)
        if changed := self._follow(now, answer, "" if adjustment is None else adjustment.reason):
            events.append(changed)
        if adjustment is not None and adjustment.pause:
            events.append(Paused(self.name, adjustment.pause, adjustment.reason))
        slack = min(_SLACK * sorted(self._delays)[1], _MOST_SLACK)
        ration.feed(answer, ask.calls, moment, slack)
        ration.look -= min(self._round_trip, self.terms.horizon / 2)  # or the answer would come too late
        if answer.leased:
            self._end_leases(inf)
            self._lease = Lease.of(answer, moment)
            self.leases.append(self._lease)
        self._measure(now)
        if ask.calls:
            unserved = sum(calls.count * calls.cost for calls in ask.calls) - answer.at_once - answer.later
            self.short = unserved > 0 or ration.comes_in > moment
            if not unserved:
                self._told = -inf
        if loop is not None:
            for place in self.line.hand_over(loop, now):
                self.waits += 1
                self.waited += place.waited
                self.waiters.quit(place)
                self.waiters.to_wake.append(place)
        self.waiters.look(now)
        self._refuse(question.tries)
        return events

    def renew(self, lease: Lease) -> None:
        """A lease is about to be used up: ask for the next one."""
        lease.low = 0
        self._renews = True
        self.planned = min(self.planned, self._now())
        self._courier.hurry(self, here=False, loop=running_loop())

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

    def _refuse(self, tries: Iterable[Place]) -> None:
        """Those that wanted one answer, and were not let go by it, end."""
        for place in tries:
            if place.state is State.WAITING:
                self.line.expire(place)
                self.waiters.to_wake.append(place)

    def lose(self, now: float, cause: Exception, again: float) -> Unavailable | None:
        """Redis cannot be asked before some moment: go on as agreed. Returned is the event to be sent, if
        that is news.
        """
        self._let_in(now)
        news = self.lost is None
        self.lost, self.planned = cause, again
        policy = self.terms.on_unavailable
        if news:
            self._lost_at = now
            self.store.instead = self._substitute(now)
        if policy == "raise":
            self.waiters.to_wake += self.line.refuse()
        elif policy == "deny":
            self._refuse([*self._tries, *(self._question.tries if self._question else ())])
        self._tries.clear()
        self.waiters.look(now)
        return Unavailable(self.name, policy, _told(cause)) if news else None

    def end(self, now: float) -> None:
        """Nobody goes any more; what is held is handed back."""
        self._let_in(now)
        self.closed, self.planned = True, inf  # from now on only to hand back what is held
        self.waiters.to_wake += self.line.refuse()

    def _deadline(self, now: float) -> float:
        return self._skew.there(now + self.terms.timeout)

    def _substitute(self, now: float) -> Store:
        policy, ration = self.terms.on_unavailable, self.store
        if policy == "allow":
            return Unlimited(ration.burst)
        if policy == "local":
            share = Bucket(ration.rate / self.members, max(1, ration.burst // self.members), now)
            share.drain(now)
            return share
        return Nothing(ration.burst)

    def _found(self, now: float) -> Reconnected:
        """Redis is there again: what a local share let go and what has not come in since is charged to it."""
        instead, self.store.instead = self.store.instead, None
        self.lost = None
        let_go = 0
        if isinstance(instead, Bucket):
            let_go = instead.granted
            self.store.orders.charge += max(0, round(instead.burst - instead.available(now)))
        elif isinstance(instead, Unlimited):
            let_go = instead.taken
        return Reconnected(self.name, now - self._lost_at, let_go)

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

    @property
    def granted(self) -> int:
        """Permits let go, less those given back."""
        return self.store.granted + self._used_up + sum(lease.size - lease.left for lease in self.leases)

    def _measure(self, now: float) -> None:
        """How many permits a second are used."""
        used, elapsed = self.granted, now - self._used_at
        if elapsed > _SPAN:
            self._demand = (used - self._used) / elapsed
        elif elapsed > 0:
            self._demand += (used - self._used) / _SPAN - self._demand * elapsed / _SPAN
        self._used, self._used_at = used, now

    def _calls(self, now: float) -> list[Calls]:
        """Those that wait for more than what is held, in runs of the same cost. A run is cut where it
        doubles, so that the age of whoever is first in what is left of it is known about.
        """
        covered = self.store.total
        runs: list[Calls] = []
        cost, age, count, so_far = 0, 0.0, 0, 0
        for place in self.line.upcoming(_MOST_PLACES):
            if place.cost <= covered:
                covered -= place.cost
                continue
            wants, covered = place.cost - covered, 0
            if wants == cost and count < max(1, so_far - count):
                count += 1
                so_far += 1
                continue
            if count:
                runs.append(Calls(count, cost, age))
                if len(runs) == _MOST_RUNS:
                    return runs
            so_far = so_far + 1 if wants == cost else 1
            cost, age, count = wants, now - place.order[0], 1
        if count:
            runs.append(Calls(count, cost, age))
        return runs


def _told(cause: Exception) -> str:
    return f"{type(cause).__name__}: {cause}"

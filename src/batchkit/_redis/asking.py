"""A gate whose permits come from Redis: when to ask, who asks, and what becomes of those who wait.

Those who call stand in the process's own line, before what the process holds. After each decision it is
settled when Redis has to be asked next. Where a caller is there who can ask, it does so; else the courier, a
thread, is told that moment. One question is about all who wait; they wait for its answer as they would wait
for a bucket.

What is asked for, and what an answer changes, is up to the kind of limiter: `BucketGate`, `SlotsGate`.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from asyncio import AbstractEventLoop
from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeAlias, TypeVar

from batchkit._core.place import Place, State
from batchkit._core.store import Store
from batchkit._events import Event, Hook, Reconnected, Unavailable, emit
from batchkit._gate import GO, Gate
from batchkit._parking import Parker, SyncParker, wait_at_sync
from batchkit._redis.crowd import Call, CrowdGate
from batchkit._redis.names import name as name_of
from batchkit._redis.questions import Asked, Header, Question, Remote, Reply, Terms, cut_up
from batchkit._redis.scripts import Command, Script
from batchkit._redis.skew import Skew
from batchkit._redis.substitutes import Nothing, Unlimited
from batchkit._redis.wire import Calls, Orders, TooLate
from batchkit._values import Decision
from batchkit.abc import Clock
from batchkit.exceptions import AcquireTimeout, LimiterClosed, LimiterUnavailable

MOST_PLACES: Final = 256  # that one question is about
_FIRST: Final = 0.005  # seconds that the thread leaves to an event loop in which many come
_PRESENCE: Final = 5.0  # seconds; Redis takes a process for gone after six times that


class Caller(Protocol):
    """Who asks Redis."""

    def enter(self, gate: AnyGate) -> None:
        """A gate that may ask."""
        ...

    def call(self, gate: AnyGate, moment: float) -> None:
        """Ask for a gate at that moment."""
        ...

    def hurry(self, gate: AnyGate, *, here: bool, loop: AbstractEventLoop | None = None) -> None:
        """Ask for a gate at once; `here`: and wait for the answer; or have the running event loop read it."""
        ...

    def hurry_in(self, loop: AbstractEventLoop, gate: AnyGate, *, soon: bool) -> None:
        """Ask for a gate from the running event loop, at once or when those have run who are about to."""
        ...


S = TypeVar("S", bound=Remote)
T = TypeVar("T", bound=Terms)
Q = TypeVar("Q", bound=Asked)
A = TypeVar("A", bound=Reply)
P = TypeVar("P", Place, Call)


class AskingGate(CrowdGate[S], Generic[S, T, Q, A]):
    """A line before what a process holds of what Redis grants.

    Attributes:
        kind: what the names of its keys end with, so that limiters of two kinds never share one.
        script: what answers its questions.
        keys: of the limiter in Redis.
        terms: what was agreed.
        planned: the moment at which the courier is to ask; infinite if it was not told to.
        members: processes that were here lately, as last heard.
        asked: questions so far.
        crowded: whether the last question was about several calls of an event loop.
        short: whether those who asked last had to wait for permits to come in.
        lost: why Redis cannot be asked, or None.
        joins: whether there are calls that need another gate, too, which can be asked in the same command.
    """

    lays_out = False  # nobody goes without a look at the answers
    kind: ClassVar[str] = ""
    script: Script
    joint_script: Script | None = None  # what answers questions of several gates at once

    def __init__(
        self,
        store: S,
        *,
        terms: T,
        courier: Caller,
        name: str,
        hooks: Iterable[Hook],
        patience: float,
        clock: Clock,
    ) -> None:
        self.keys = (name_of(terms.prefix, terms.key, terms.tag, store.key) + self.kind,)
        self.terms = terms
        self.closed = False
        self._courier = courier
        self.members = 1
        self.asked = 0
        self.joins = False
        if self.joint_script is not None and terms.tag is not None:
            self.seat = courier, self.joint_script, terms.tag
        super().__init__(store, name=name, hooks=hooks, patience=patience, clock=clock)
        courier.enter(self)

    def beside(self, store: S) -> Self:
        """Another gate like this one, for another key of the family."""
        gate = type(self)(
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

    @property
    def over(self) -> bool:
        """Whether it was closed, and nothing has to be looked after any more."""
        return self.closed

    def _start_anew(self) -> None:
        self._process_name = secrets.token_hex(6)
        self._serial = 0
        self._question: Question[Q] | None = None
        self.planned = inf
        self.short = False
        self.crowded = False
        self._coming = False  # whether the decision is that of a caller who can ask Redis itself
        self._hurries = False  # whether it has to
        self._tries: dict[Place, None] = {}
        self._told = -inf  # the order in line that Redis knows of
        self._present = -inf
        self._known = False  # whether Redis knows the terms
        self._skew = Skew()
        self.lost: Exception | None = None
        self._lost_at = -inf
        self.store.instead = None
        super()._start_anew()

    # what a kind of limiter asks for, and what an answer changes

    @abstractmethod
    def _due(self, now: float, wanted: int) -> float:
        """When to ask for other reasons than that somebody waits."""

    @abstractmethod
    def _prepare(self, now: float, wanted: int) -> None:
        """Put in order what is held, before a question."""

    @abstractmethod
    def _has_news(self, now: float, calls: list[Calls]) -> bool:
        """Whether Redis is to be told or asked anything beside what those calls want."""

    @abstractmethod
    def _phrase(self, now: float, header: Header, calls: list[Calls], *, stands: bool) -> Q:
        """The question."""

    @abstractmethod
    def _take_in(self, now: float, moment: float, question: Question[Q], answer: A) -> list[Event]:
        """Take in an answer that was true at a moment of the own clock."""

    @abstractmethod
    def _local_share(self, now: float) -> Store:
        """What permits are taken from where this process goes on alone."""

    def _unheard(self, now: float) -> None:
        """Redis did not take in what the last question told it."""

    def _settle_up(self, now: float, instead: Store) -> None:
        """Redis is there again: tell it what was let go without it."""

    # decisions of those who call

    def _pause(self, now: float, seconds: float) -> None:
        super()._pause(now, seconds)
        self.store.orders.add(Orders(pause=seconds))

    def attempt(self, cost: int) -> Decision:
        """Go now, or not at all, after at most one question."""
        decision = super().attempt(cost)
        if decision.allowed or not self.alone(self.worth_asking):
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
        self.check_open()
        self._coming = True
        in_vain = place in self._tries and place.state is State.NEW and not self.worth_asking(now)
        until = super()._go(now, place)
        if in_vain:
            self._tries.pop(place, None)
            self._refuse([place])
        return until

    def _attempt(self, now: float, place: Place) -> Decision:
        self.check_open()
        return super()._attempt(now, place)

    def check_open(self) -> None:
        """Raise an error if it is closed, or Redis away and that is to be told."""
        if self.closed:
            raise LimiterClosed(f"{self.name} was closed")
        if self.lost is not None and self.terms.on_unavailable == "raise":
            raise self._unavailable(self.lost)

    def _unavailable(self, cause: Exception) -> LimiterUnavailable:
        error = LimiterUnavailable(f"{self.name} cannot ask Redis ({_told(cause)})")
        error.__cause__ = cause
        return error

    def worth_asking(self, now: float) -> bool:
        """Whether a newcomer could be let go by an answer."""
        quiet = not (self.line.waiting or self.line.reserved) and now >= self.store.closed_until
        return quiet and self.lost is None and now >= self.store.look

    # the crowd

    def _is_asking(self) -> bool:
        return self.lost is None and not self.closed

    def _expect(self, call: Call) -> None:
        if self._question is None and self.planned > call.since:
            self.planned = call.since
            domain = call.owner.domain
            if isinstance(domain, AbstractEventLoop):
                self._courier.hurry_in(domain, self, soon=self.crowded)
            else:
                self._courier.hurry(self, here=True)

    def _restore(self, now: float, call: Call) -> None:
        self.store.restore(call.cost, now)

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
        store = self.store
        if self.lost is not None:
            return inf  # the courier comes on its own
        if self._tries or self.crowd.grew:
            return now
        wanted = self.line.demand
        moment = self._due(now, wanted)
        if orders := store.orders:
            urgent = orders.pause or orders.drain is not None or orders.size
            moment = now if urgent else min(moment, now + store.grace)
        if wanted > store.total:
            moment = now if store.look <= now or self._overtakes() else min(moment, store.look)
        elif self._told > -inf:  # they gave up, and stand in the way of others
            moment = min(moment, now + store.grace)
        return moment

    def _overtakes(self) -> bool:
        """Whether the first in line stands before the place that Redis knows of."""
        if self.store.total:
            return False
        first = self.line.upcoming(1)
        return bool(first) and first[0].order[0] < self._told

    # questions and answers: the courier's

    def ask(self, now: float) -> Question[Q] | None:
        """What is to be asked now; None if there is nothing."""
        self.planned = inf
        if (question := self._question) is not None:  # its answer was lost: asked again, and answered once
            question.sent = now
            question.ask = question.ask.by(self._deadline(now))
            question.command = self._command(question.ask)
            return question
        if self.line.demand:
            self._disperse(now)
        crowd = self.crowd.ask(MOST_PLACES)
        self._prepare(now, self.line.demand + sum([call.cost for call in crowd]))
        wishes = self.wishes(crowd) if crowd else self.wishes(self.line.upcoming(MOST_PLACES))
        calls = [Calls(*run) for run in cut_up(now, [(who.since, permits) for who, permits in wishes])]
        if crowd and not self._asks(now, calls):
            self._disperse(now)
        if not self.has_something(now, calls):
            self.pass_over()
            return None
        return self.put(now, calls, wishes[0][0].since if wishes else inf)

    # for calls of several gates: see errand.py

    @property
    def under_way(self) -> Question[Q] | None:
        """What was asked, and not answered yet."""
        return self._question

    def meet(self, gates: Iterable[Gate[Any]]) -> None:
        """Calls of this gate and of those can be asked for together."""
        self.joins = self.joins or any(self.sits_with(gate) for gate in gates)

    def joined(self, now: float) -> list[Any]:
        """The gates that its calls need, too, and that can be asked in the same command."""
        places = [*self.line.upcoming(MOST_PLACES), *self.line.passed]
        gates = (gate for place in places if place.joint for gate in place.owner.call.gates)
        return [gate for gate in dict.fromkeys(gates) if self.sits_with(gate)]

    def prepare(self, now: float) -> None:
        """It is about to ask."""
        self.planned = inf
        self._disperse(now)
        self._prepare(now, self.line.demand)

    def has_something(self, now: float, calls: list[Calls]) -> bool:
        """Whether there is something to ask for or to say; to be asked once before each question."""
        store = self.store
        if not calls and self.line.demand > store.total:  # by those only who are not there to be called
            store.look = now + store.grace
        news = self._has_news(now, calls) or (self._told > -inf and not calls)
        return news or self._asks(now, calls) or self.lost is not None

    def pass_over(self) -> None:
        """Nothing is asked, so that nobody waits for one answer."""
        self._tries.clear()

    def _asks(self, now: float, calls: list[Calls]) -> bool:
        return bool(calls) and (now >= self.store.look or bool(self._trying()) or self._overtakes())

    def _trying(self) -> list[Place]:
        return [place for place in self._tries if place.state is State.WAITING]

    def put(self, now: float, calls: list[Calls], first: float) -> Question[Q]:
        """Ask for some of those who wait, in order. `first`: the order of the first that stands in this line,
        as it is, since the age of a run may be off by one bit; infinite if none does.
        """
        line, crowd = self.line, self.crowd
        tries = self._trying()
        self._tries.clear()
        upcoming = line.upcoming(MOST_PLACES)
        stands = bool(crowd.asked) or any(place not in tries for place in (*upcoming, *line.passed))
        domain = crowd.domain if crowd.asked else upcoming[0].key if upcoming else None
        self.crowded = isinstance(domain, AbstractEventLoop) and sum([run.count for run in calls]) > 1
        self._told = first if first < inf and stands else -inf
        self.asked += 1
        ask = self._phrase(now, self._header(now), calls, stands=stands)
        wants = sum([run.count * run.cost for run in calls])
        self._question = Question(ask, wants, self._command(ask), now, tries)
        return self._question

    def _command(self, ask: Q) -> Command:
        return self.script, self.keys, ask.words()

    def _header(self, now: float) -> Header:
        presence = 2 if not self._known else 1 if now - self._present > _PRESENCE else 0
        self._present = now if presence else self._present
        self._serial += 1
        return Header(self._process_name, self._serial, self._deadline(now), presence)

    def _deadline(self, now: float) -> float:
        return self._skew.there(now + self.terms.timeout)

    def hear(self, answer: A | TooLate, loop: AbstractEventLoop | None) -> None:
        """An answer is here: those go whom it lets go, and events are sent. `loop`: as for `answered`."""
        try:
            events = self.alone(self.answered, answer, loop)
        finally:
            self.tell_served()
        for event in events:
            emit(self.hooks, event)

    def answered(self, now: float, answer: A | TooLate, loop: AbstractEventLoop | None = None) -> list[Event]:
        """Take in an answer; returned are the events to be sent. `loop`: the event loop that runs this; it
        asks for what is wanted next.
        """
        self._coming = loop is not None
        question, self._question = self._question, None
        if question is None:
            return []
        events: list[Event] = [] if self.lost is None else [self._found(now)]
        if isinstance(answer, TooLate):
            self._skew.hear(answer.now, question.sent, now)
            self._put_back(now, question)
            return events
        if not answer.again:
            self._skew.hear(answer.now, question.sent, now)
        self._known = True
        self.members = answer.members or self.members
        moment = min(now, self._skew.here(answer.now))  # rounding must not put it off
        events += self._take_in(now, moment, question, answer)
        if question.wanted == answer.granted:
            self._told = -inf
        if self.crowd.asked and loop is self.crowd.domain:
            self._serve(now)
        if self.crowd.asked:
            self._disperse(now)
        if self.waiters:
            self.waiters.look(now)
            self._refuse(question.tries)
        return events

    def _put_back(self, now: float, question: Question[Q]) -> None:
        """What a question said, and whom it was about, is said and asked for again."""
        orders = question.ask.orders
        orders.add(self.store.orders)
        self.store.orders = orders
        self._tries.update(dict.fromkeys(question.tries))
        self._disperse(now)
        self._unheard(now)

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
        self._disperse(now)
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
        self._disperse(now)
        self.closed, self.planned = True, inf  # from now on only to hand back what is held
        self.waiters.to_wake += self.line.refuse()

    def _substitute(self, now: float) -> Store:
        policy = self.terms.on_unavailable
        if policy == "allow":
            return Unlimited(self.store.burst)
        if policy == "local":
            return self._local_share(now)
        return Nothing(self.store.burst)

    def _found(self, now: float) -> Reconnected:
        """Redis is there again."""
        instead, self.store.instead = self.store.instead, None
        self.lost = None
        let_go = 0
        if instead is not None:
            let_go = instead.granted
            self._settle_up(now, instead)
        return Reconnected(self.name, now - self._lost_at, let_go)

    def wishes(self, waiting: Iterable[P]) -> list[tuple[P, int]]:
        """Of those who wait, in order, who wants more than what is held, and how many more permits."""
        covered = self.store.total
        if not covered:
            return [(who, who.cost) for who in waiting]
        wishes: list[tuple[P, int]] = []
        for who in waiting:
            if who.cost <= covered:
                covered -= who.cost
            else:
                wishes.append((who, who.cost - covered))
                covered = 0
        return wishes


def _told(cause: Exception) -> str:
    return f"{type(cause).__name__}: {cause}"


AnyGate: TypeAlias = AskingGate[Any, Any, Any, Any]

"""The slots that a process holds of a fleet's, and what it and Redis say about them. Pure.

A process says with every question how many slots it holds in all. So a question that comes twice, or whose
answer was lost, is answered as if nothing had been. Rules:

1. Slots that no call uses may be used again by the own calls, as long as Redis knows of them: it hears of
   the process at least three times within a lease. A process that was stalled for longer starts from the
   slots in which its calls are under way.
2. Where calls of other processes wait, a slot whose call ended is nobody's: Redis says who is next. The same
   counts where own calls wait and other processes are there, whose calls may have come meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from struct import pack, unpack
from typing import Final

from attrs import evolve, frozen

from batchkit._core.slots import Slots
from batchkit._core.store import Store
from batchkit._redis.substitutes import Unlimited
from batchkit._redis.wire import MICROSECONDS, Calls, Orders, TooLate

_LATE: Final = 1


@frozen
class SlotsAsk:
    """One question of a process about the slots of a fleet.

    Attributes:
        process: who asks.
        serial: number of the question; one that comes after a later one is not answered.
        deadline: the moment of the server's clock (microseconds) after which it is not to be answered; 0 for
            never.
        presence: 2 with the first question, which says what is configured.
        limit: as configured.
        closes: seconds for which nobody is to go if Redis knows nothing of these slots.
        lease: seconds of silence after which the slots of this process are free.
        holds: slots that it holds.
        ended: slots whose calls ended since it asked last.
        orders: what there is to say beside that: a pause, another limit.
        stands: whether the process is to have a place in line for what is not granted.
        calls: those that wait, in order.
    """

    process: str
    serial: int
    deadline: float
    presence: int
    limit: int
    closes: float
    lease: float
    holds: int
    ended: int
    orders: Orders
    stands: bool
    calls: Sequence[Calls] = ()

    def words(self) -> tuple[str, bytes]:
        """The arguments of the script."""
        _, new_limit = self.orders.size or (0.0, 0)
        numbers: list[float] = [
            self.serial,
            self.deadline,
            self.presence,
            self.limit,
            self.closes * MICROSECONDS,
            self.lease * MICROSECONDS,
            self.holds,
            self.ended,
            self.orders.pause * MICROSECONDS,
            new_limit,
            self.stands,
        ]
        for calls in self.calls:
            numbers += calls.count, calls.cost, round(calls.age * MICROSECONDS)
        return self.process, pack(f">{len(numbers)}d", *numbers)

    def by(self, deadline: float) -> SlotsAsk:
        """The same, with another deadline."""
        return evolve(self, deadline=deadline)

    def read(self, answer: bytes) -> SlotsAnswer | TooLate:
        """What the script answered."""
        kind, now, *rest = unpack(f">{len(answer) // 8}d", answer)
        if kind == _LATE:
            return TooLate(now)
        version, limit, granted, closed, look, others_want, members, free = rest
        return SlotsAnswer(
            now,
            int(version),
            int(limit),
            int(granted),
            closed / MICROSECONDS,
            look / MICROSECONDS,
            int(others_want),
            int(members),
            int(free),
        )


@frozen
class SlotsAnswer:
    """What Redis says about the slots of a fleet.

    Attributes:
        now: the moment of the server's clock, in microseconds.
        version: how often the limit was changed.
        limit: as it is.
        granted: slots that the process holds beyond what it said.
        closed: seconds for which nobody goes.
        look: seconds before which it is in vain to ask for more; 0 if nobody here waits.
        others_want: slots that calls of other processes wait for.
        members: processes that were here lately.
        free: slots that nobody holds; below zero where more are held than may be.
    """

    now: float
    version: int
    limit: int
    granted: int
    closed: float
    look: float
    others_want: int
    members: int
    free: int

    @property
    def again(self) -> bool:
        """False: whatever is asked again is answered anew."""
        return False


class Holding(Slots):
    """The slots that a process holds.

    Attributes:
        key: which one of its family it is of, in words; empty if it is of none.
        held: slots that are this process's, those included in which its calls are under way.
        told: slots that Redis takes for this process's.
        good_until: moment until which slots in which no call is under way may be used.
        free: slots of the fleet that nobody held, as last heard.
        contended: whether calls of other processes wait for a slot, or may do so beside the own ones, as last
            heard.
        ended: slots whose calls ended since Redis was asked.
        orders: what is to be said to Redis with the next question.
        look: moment before which it is in vain to ask for more.
        instead: what slots are taken from while Redis is away; None while it is there.
    """

    __slots__ = (
        "contended",
        "ended",
        "free",
        "good_until",
        "held",
        "instead",
        "key",
        "look",
        "orders",
        "told",
    )

    def __init__(self, limit: int, key: str = "") -> None:
        super().__init__(limit)
        self.key = key
        self.instead: Store | None = None
        self._empty()

    def _empty(self) -> None:
        self.held: int = 0
        self.told: int = 0
        self.good_until = -inf
        self.free: int = self.burst
        self.contended = False
        self.ended: int = 0
        self.orders = Orders()
        self.look = -inf

    @property
    def total(self) -> int:
        """Slots held in which no call is under way."""
        return max(0, self.held - self.taken)

    def lapse(self, now: float) -> None:
        """Redis may have given to others what was not used in time."""
        if now > self.good_until:
            self.held = min(self.held, self.taken)

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take `cost` slots if they are held, or whatever counts while Redis is away lets them go."""
        if self.instead is not None:
            taken = self.instead.take(cost, now, reserved)
        else:
            taken = self.holds(cost + reserved, now)
        if taken:
            self.taken += cost
            self.granted += cost
        return taken

    def holds(self, permits: int, now: float) -> bool:
        """Whether so many slots are there for calls that have none."""
        if self.instead is not None:
            return self.instead.holds(permits, now)
        self.lapse(now)
        return self.total >= permits

    def available(self, now: float) -> float:
        """Slots of the fleet that are free, by what was heard last."""
        return self.free + self.total

    def restore(self, permits: int, now: float) -> None:
        """Take slots back that were taken and not used: whoever waits here may have them."""
        self.granted -= permits
        self.taken -= permits
        if self.instead is not None:
            self.instead.charge(-permits, now)

    def give_back(self, slots: int) -> bool:
        """A call has ended; false if so many were not out."""
        before = self.taken
        if not super().give_back(slots):
            return False
        freed = before - self.taken
        self.ended += freed
        if self.contended:
            self.held = max(self.taken, self.held - freed)
        return True

    def hand_back(self, wanted: int) -> None:
        """Hold no more than what is in use or wanted; what is in use is held, whatever was granted."""
        self.held = self.taken + min(self.total, wanted)

    def feed(self, ask: SlotsAsk, answer: SlotsAnswer, moment: float, good_until: float) -> None:
        """Take in what was granted, at a moment of the own clock."""
        self.held += answer.granted
        self.told = ask.holds + answer.granted
        self.good_until = good_until
        self.free = answer.free
        unserved = sum(calls.count * calls.cost for calls in ask.calls) > answer.granted
        self.contended = answer.others_want > 0 or (unserved and answer.members > 1)
        self.look = moment + answer.look if answer.look else -inf
        if answer.closed:
            self.closed_until = max(self.closed_until, moment + answer.closed)

    def adds_to(self, new: Slots, now: float) -> bool:
        """Whether it says anything that Redis does not know, or has to be looked after."""
        return bool(self.taken or self.told or self.held or self.orders or self.instead is not None)

    def fork(self) -> None:
        """This is a new process now, in which no call is under way."""
        super().fork()
        self._empty()


class Share(Unlimited):
    """What slots are taken from where a process goes on with its part of the limit while Redis is away: so
    many, those included in which its calls are under way.
    """

    def __init__(self, part: int, holding: Holding) -> None:
        super().__init__(part)
        self._holding = holding

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take them if so many are free."""
        return self.holds(cost + reserved, now) and super().take(cost, now, reserved)

    def holds(self, permits: int, now: float) -> bool:
        """Whether so many are free."""
        return self._holding.taken + permits <= self.burst

    def due(self, permits: int, now: float) -> float:
        """`now` if so many are free; else nobody can say."""
        return now if self.holds(permits, now) else inf

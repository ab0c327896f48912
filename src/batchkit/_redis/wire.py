"""What is said to Redis, and what it answers: from values to words and back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct, pack, unpack
from typing import Final

from attrs import define, evolve, frozen

MICROSECONDS: Final = 1e6
_HEADING: Final = Struct(">18d")
_RUN: Final = Struct(">3d")
_SAID: Final = Struct(">18d")
_AGAIN: Final = 2
_ASIDE: Final = 1_000_000


@define
class Calls:
    """Calls of one cost that wait one after the other.

    Attributes:
        count: how many.
        cost: permits of each.
        age: seconds since the first of them came, more by its priority.
    """

    count: int
    cost: int
    age: float


@define
class Orders:
    """What a process has to say about a limiter, beside what it wants.

    Attributes:
        back: permits that it did not use.
        back_since: when the oldest of them was granted, in microseconds of the server's clock.
        went: permits that might go at once, and went then or were handed back.
        charge: permits that calls cost beyond what they took; less, below zero.
        pause: seconds for which nobody is to go.
        drain: permits that are to be left at most.
        size: the new rate and burst.
    """

    back: int = 0
    back_since: float = 0.0
    went: int = 0
    charge: int = 0
    pause: float = 0.0
    drain: int | None = None
    size: tuple[float, int] | None = None

    def __bool__(self) -> bool:
        return bool(self.back or self.charge or self.pause or self.size) or self.drain is not None

    def add(self, later: Orders) -> None:
        """Say that, too, as if it had been said after this."""
        if later.back:
            self.back_since = min(self.back_since, later.back_since) if self.back else later.back_since
            self.back += later.back
        if self.drain is not None:  # which Redis does last
            self.drain = max(0, self.drain + later.back - later.charge)
        self.went += later.went
        self.charge += later.charge
        self.pause = max(self.pause, later.pause)
        if later.drain is not None:
            self.drain = later.drain if self.drain is None else min(self.drain, later.drain)
        self.size = later.size or self.size


@frozen
class Opinion:
    """What a controller of the rate says that a process has for the fleet.

    Attributes:
        edition: the number of what it knew before.
        rate: permits a second.
        pause: seconds for which nobody is to go.
        memory: what it knows now; empty if it only wants to know what the others do.
    """

    edition: int
    rate: float = 0.0
    pause: float = 0.0
    memory: Sequence[float] = ()

    def numbers(self) -> list[float]:
        """Part of the argument of the script."""
        return [self.edition, self.rate, self.pause * MICROSECONDS, *self.memory]


@define
class Ask:
    """One question of a process about one limiter.

    Attributes:
        process: who asks.
        serial: number of the question; the same one is answered once.
        deadline: the moment of the server's clock (microseconds) after which it is not to be answered; 0 for
            never.
        presence: 2 with the first question, 1 to be counted among those who are here, 0 otherwise.
        rate, burst: as configured.
        cold: whether a bucket that is not known starts empty.
        horizon: seconds that may be booked ahead.
        orders: what there is to say.
        extra: permits beyond those that calls wait for.
        stands: whether the process is to have a place in line for what is not granted.
        calls: those that wait, in order.
        opinion: what a controller of the rate says; None without one.
    """

    process: str
    serial: int
    deadline: float
    presence: int
    rate: float
    burst: int
    cold: bool
    horizon: float
    orders: Orders
    extra: int
    stands: bool
    calls: Sequence[Calls]
    opinion: Opinion | None = None

    def words(self) -> tuple[str, bytes, bytes]:
        """The arguments of the script, if it is asked about this limiter only."""
        runs = [_RUN.pack(calls.count, round(calls.age * MICROSECONDS), calls.cost) for calls in self.calls]
        return *self.heading(), b"".join(runs)

    def heading(self) -> tuple[str, bytes]:
        """Those that are about this limiter."""
        orders = self.orders
        rate, burst = orders.size or (0.0, 0)
        opinion = [] if self.opinion is None else self.opinion.numbers()
        heading = _HEADING.pack(
            self.serial,
            self.deadline,
            self.presence,
            self.rate,
            self.burst,
            self.cold,
            self.horizon * MICROSECONDS,
            orders.back,
            orders.back_since,
            orders.went,
            orders.charge,
            orders.pause * MICROSECONDS,
            -1 if orders.drain is None else orders.drain,
            rate,
            burst,
            self.extra,
            self.stands,
            len(opinion),
        )
        return self.process, heading + pack(f">{len(opinion)}d", *opinion) if opinion else heading

    def by(self, deadline: float) -> Ask:
        """The same, with another deadline."""
        return evolve(self, deadline=deadline)

    def read(self, answer: bytes) -> Answer | TooLate:
        """What the script answered."""
        return read(answer)


def runs(calls: Iterable[tuple[int, float, Sequence[int]]]) -> bytes:
    """Those who wait, in order, in numbers: how many calls, seconds since the first of them came, and the
    permits that each of them needs of each limiter that is asked about.
    """
    return b"".join(
        [pack(f">{2 + len(costs)}d", count, round(age * MICROSECONDS), *costs) for count, age, costs in calls]
    )


@define
class Answer:
    """What Redis says about one limiter.

    Attributes:
        again: whether this was said before, and the question came twice.
        now: the moment of the server's clock, in microseconds.
        version: how often rate or burst were changed.
        rate, burst: as they are.
        at_once: permits that may go now.
        later: further permits granted, of which the k-th comes in when `start + k` have (below zero: now).
        start: permits that are to come in before those.
        leased: permits to go now, or in the time of a lease.
        closed: seconds for which nobody goes.
        look: seconds before which it is in vain to ask for more.
        owed: permits that are to come in until the bucket is full.
        gone: permits let go by all processes.
        members: processes that were here lately; 0 if nobody asked.
        lasts: seconds for which a permit that may go at once, or a lease, is good.
        heard: whether the opinion was taken over.
        edition: the number of what the controller of the fleet knows.
        memory: that.
        served: how many of each run of calls were served, if several limiters were asked about at once;
            else the permits are for the first ones.
        aside: whether those that were not served do not stand in line here, for each run: another limiter
            holds them up.
    """

    again: bool
    now: float
    version: int
    rate: float
    burst: int
    at_once: int
    later: int
    start: float
    leased: int
    closed: float
    look: float
    owed: float
    gone: int
    members: int
    lasts: float
    heard: bool = False
    edition: int = 0
    memory: tuple[float, ...] = ()
    served: tuple[int, ...] = ()
    aside: tuple[bool, ...] = ()

    @property
    def granted(self) -> int:
        """Permits that it brings to those who wait."""
        return self.at_once + self.later


@frozen
class TooLate:
    """The question was not answered: it came after its deadline, or after a later one."""

    now: float


def read(answer: bytes) -> Answer | TooLate:
    """What the script answered."""
    if len(answer) < _SAID.size:
        return TooLate(unpack(">2d", answer)[1])
    (
        kind,
        now,
        version,
        rate,
        burst,
        at_once,
        later,
        start,
        leased,
        closed,
        look,
        owed,
        gone,
        members,
        lasts,
        heard,
        edition,
        runs,
    ) = _SAID.unpack_from(answer)
    said = Answer(
        kind == _AGAIN,
        now,
        int(version),
        rate,
        int(burst),
        int(at_once),
        int(later),
        start,
        int(leased),
        closed / MICROSECONDS,
        look / MICROSECONDS,
        owed,
        int(gone),
        int(members),
        lasts / MICROSECONDS,
        heard > 0,
        int(edition),
    )
    if len(answer) > _SAID.size:
        more = unpack(f">{(len(answer) - _SAID.size) // 8}d", answer[_SAID.size :])
        served, said.memory = more[: int(runs)], more[int(runs) :]
        said.served = tuple(int(count) % _ASIDE for count in served)
        said.aside = tuple(count < 0 for count in served)
    return said

"""What a gate and who asks for it tell each other, whatever the kind of limiter: terms, question, answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, NamedTuple, Protocol, Self, TypeVar, cast

from attrs import define, frozen

from batchkit._core.place import Place
from batchkit._core.store import Store
from batchkit._redis.scripts import Command, Word
from batchkit._redis.wire import Calls, Orders

_MOST_RUNS: Final = 24


class Remote(Store, Protocol):
    """What a process holds of what Redis grants.

    Attributes:
        key: which one of its family it is of, in words; empty if it is of none.
        orders: what is to be said to Redis with the next question.
        look: moment before which it is in vain to ask for more.
        instead: what permits are taken from while Redis is away; None while it is there.
    """

    key: str
    orders: Orders
    look: float
    instead: Store | None

    @property
    def total(self) -> int:
        """Permits held, those included that are not due yet."""
        ...

    def restore(self, permits: int, now: float) -> None:
        """Take permits back that were taken and not used."""
        ...


class Reply(Protocol):
    """What Redis says to a question.

    Attributes:
        again: whether this was said before, and the question came twice.
        now: the moment of the server's clock, in microseconds.
        members: processes that were here lately; 0 if nobody asked.
    """

    @property
    def again(self) -> bool: ...
    @property
    def now(self) -> float: ...
    @property
    def members(self) -> int: ...
    @property
    def granted(self) -> int:
        """Permits that it brings to those who wait."""
        ...


class Header(NamedTuple):
    """What each question starts with.

    Attributes:
        process: who asks.
        serial: number of the question; the same one is answered once.
        deadline: the moment of the server's clock (microseconds) after which it is not to be answered; 0 for
            never.
        presence: 2 with the first question, 1 to be counted among those who are here, 0 otherwise.
    """

    process: str
    serial: int
    deadline: float
    presence: int


class Asked(Protocol):
    """What is asked."""

    @property
    def calls(self) -> Iterable[Calls]: ...
    @property
    def orders(self) -> Orders: ...
    def words(self) -> tuple[Word, ...]:
        """The arguments of the script."""
        ...

    def by(self, deadline: float) -> Self:
        """The same, with another deadline."""
        ...

    def read(self, answer: bytes) -> Any:
        """What the script answered, or `TooLate`."""
        ...


@frozen
class Terms:
    """What a limiter agreed with its user.

    Attributes:
        prefix, key, tag: what it is called in Redis.
        cold: whether what Redis does not know lets nobody go at first.
        timeout: seconds within which Redis has to answer.
        on_unavailable: what happens while it does not: "raise", "deny", "allow" or "local".
    """

    prefix: str
    key: str
    tag: str | None
    cold: bool
    timeout: float
    on_unavailable: str


Q = TypeVar("Q", bound=Asked)
W = TypeVar("W")


@define(eq=False)
class Question(Generic[Q]):
    """A question that is under way.

    Attributes:
        ask: what is asked.
        wanted: permits that it asks for.
        command: what is sent.
        sent: the moment of the own clock before it was sent.
        tries: places that do not wait for more than its answer.
        errand: what it is asked with.
    """

    ask: Q
    wanted: int
    command: Command
    sent: float
    tries: list[Place]
    errand: Any = None


def cut_up(
    now: float, wishes: Iterable[tuple[float, W]], most: int = _MOST_RUNS
) -> Iterator[tuple[int, W, float]]:
    """Calls, by their order in line and by what they want, in runs that want the same: how many, what, and
    the age of the first. A run is cut where it doubles, so that the age of whoever is first in what is left
    of it is known about.
    """
    wanted: W | None = None
    age, count, so_far, runs = 0.0, 0, 0, 0
    for order, wants in wishes:
        if wants == wanted and count < max(1, so_far - count):
            count += 1
            so_far += 1
            continue
        if count:
            yield count, cast(W, wanted), age
            runs += 1
            if runs == most:
                return
        so_far = so_far + 1 if wants == wanted else 1
        wanted, age, count = wants, now - order, 1
    if count:
        yield count, cast(W, wanted), age

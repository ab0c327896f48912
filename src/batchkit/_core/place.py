"""A waiting call's place in a line, and who can only come together with it."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto
from math import inf
from typing import Any, Final

from attrs import define, field


class State(Enum):
    """Where a place stands: from NEW it comes to WAITING, and ends as GONE, LEFT, EXPIRED or REFUSED."""

    NEW = auto()  # not in line yet
    WAITING = auto()
    GRANTED = auto()
    HELD = auto()  # its call waits for another limit; passed, but not at the cost of what is kept for it
    ASIDE = auto()  # its party did not come in time; not served before it comes
    GONE = auto()
    LEFT = auto()
    EXPIRED = auto()  # its deadline passed, or is certain to pass
    REFUSED = auto()  # the burst was lowered below its cost


STANDING: Final = (State.WAITING, State.GRANTED, State.HELD, State.ASIDE)  # a set would hash them, slowly


def _no_places() -> list[Place]:
    return []


@define(eq=False)
class Party:
    """The owners who can only come together, such as those in one event loop.

    Attributes:
        standing: places of theirs in the line.
        waiting: those of them that wait.
        is_aside: whether they did not come in time, and are passed until they do.
        aside: their places that are passed.
    """

    standing: int = 0
    waiting: int = 0
    is_aside: bool = False
    aside: list[Place] = field(factory=_no_places)


_NOWHERE: Final = Party()  # of those who stand in no line yet; never counted


@define(eq=False)
class Place:
    """One waiting call's place in the line.

    Attributes:
        cost: permits.
        owner: what the caller knows the place by; not looked at here.
        key: the party of its owner, by name.
        priority: higher goes first.
        timeout: seconds after which it does not want to go any more.
        joined: moment at which it joined.
        deadline: moment after which it does not want to go any more.
        order: rank in the line; lower goes first.
        party: that of its owner, once it stands in line.
        owned_until: moment until which its grant, if it has one, is its own.
        taken: whether its permits are taken: it goes, unless Ctrl-C strikes before its owner knows.
        waited: seconds that it waited, once it is gone.
        absent: whether its owner is not there to be called yet.
        joint: whether its call has places in other lines, too, so that a grant here does not yet let it go.
        kept_for: moment at which its permits are to be there while it is held; infinite if nothing is kept.
        once: whether its owner waits for one answer only.
        queued: whether it stands in the heap of those who wait, which may hold places that no longer do.
    """

    cost: int
    owner: Any = None
    key: Hashable = None
    priority: int = 0
    timeout: float = inf
    joined: float = inf
    deadline: float = inf
    order: tuple[float, int] = (inf, 0)
    party: Party = _NOWHERE
    state: State = State.NEW
    owned_until: float = inf
    taken: bool = False
    waited: float = 0.0
    absent: bool = False
    joint: bool = False
    kept_for: float = inf
    queued: bool = False
    once: bool = False

    @property
    def since(self) -> float:
        """Since when it waits; earlier by its priority."""
        return self.order[0]

    @property
    def ended(self) -> bool:
        """Whether it stands in line no more."""
        return self.state not in STANDING and self.state is not State.NEW

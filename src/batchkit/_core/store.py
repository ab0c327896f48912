"""What a line asks of the store that it stands before."""

from __future__ import annotations

from typing import ClassVar, Protocol, Self


class Store(Protocol):
    """What permits are taken from: a `Bucket`, or `Slots`.

    Attributes:
        burst: permits that it holds at most.
        bound: what that is called.
        keeps: whether permits may be kept for a call until it can go; slots are too dear to stand free.
        grace: seconds for which a grant is its owner's alone.
        closed_until: the moment before which nobody is to be let go; the line sees to that.
    """

    burst: int
    bound: ClassVar[str]
    keeps: ClassVar[bool]
    grace: float
    closed_until: float

    @property
    def granted(self) -> int:
        """Permits let go so far."""
        ...

    def take(self, cost: int, now: float, reserved: int = 0) -> bool:
        """Take `cost` permits if they are there beside `reserved` ones."""
        ...

    def holds(self, permits: int, now: float) -> bool:
        """Whether that many permits are there at `now`."""
        ...

    def refills(self, permits: int, by: float, now: float) -> bool:
        """Whether that many permits, in all, can be taken until `by`."""
        ...

    def due(self, permits: int, now: float) -> float:
        """The first moment at which that many permits will be there; infinite if nobody can say."""
        ...

    def earliest(self, permits: int, now: float) -> float:
        """The moment before which that many permits are certainly not there."""
        ...

    def charge(self, permits: int, now: float) -> None:
        """Take so many more whether they are there or not; below zero, give some back."""
        ...

    def change(self, rate: float, burst: int, now: float) -> None:
        """Go on at another rate and burst."""
        ...

    def adds_to(self, new: Self, now: float) -> bool:
        """Whether it says anything that a new one would not."""
        ...

    def fork(self) -> None:
        """This is a new process now."""
        ...

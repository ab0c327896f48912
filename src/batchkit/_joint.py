"""A call that needs several limits, and how it waits.

It stands in the line of each, at the place of its arrival. It goes in the one moment in which every line lets
it go, and takes everything in that moment, or nothing.

While it waits, it stands up for itself only where it has to: in the line that keeps it longest, and where
others are before it. In the other lines its place is held: others pass it, as long as its permits are there
at the moment at which it could go elsewhere. So a call that waits an hour for the day's quota blocks nobody's
seconds, and one that waits for a second does not find its permits gone. Nobody waits for anybody who waits
for him: whoever is held is in nobody's way but of what is kept for him, and things are kept for the
first in line only, by one order of arrival.

A slot of a `ConcurrencyLimiter` is never kept, since nobody knows for how long that would be.

The functions decide something at a moment, with all the gates of the call in hand (`Gate.together`).
"""

from __future__ import annotations

from math import inf
from typing import Any

from attrs import define

from batchkit._core.place import Place, State
from batchkit._core.store import Store
from batchkit._gate import GO, Gate
from batchkit._parking import Parker, SyncParker
from batchkit._values import Decision


@define(eq=False)
class JointCall:
    """A call and its places.

    Attributes:
        parts: each gate with the place of the call in its line, in the order in which the gates are locked.
    """

    parts: list[tuple[Gate[Store], Place]]

    @property
    def gates(self) -> list[Gate[Store]]:
        """Those of its parts."""
        return [gate for gate, _ in self.parts]

    @property
    def ended(self) -> tuple[Gate[Store], Place] | None:
        """The part that ended before the call went."""
        return next((part for part in self.parts if part[1].ended), None)

    def pass_by(self, gate: Gate[Any], *, aside: bool) -> None:
        """Its place in the line of a gate is passed by others, and nothing kept for it; or it waits there."""
        for own, place in self.parts:
            if own is gate and aside:
                gate.line.hold(place, inf)
            elif own is gate:
                gate.line.wait(place)

    def leave(self) -> None:
        """Its owner gives up, or is gone."""
        for gate, place in self.parts:
            gate.leave(place)

    def abandon(self) -> None:
        """An exception struck its owner: it does not go, whatever was taken for it by then."""
        for gate, place in self.parts:
            gate.abandon(place)


class JointOwner:
    """What the places of a call are known by: it wakes their owner, or gives all of them up."""

    __slots__ = ("_parker", "call", "domain")

    def __init__(self, call: JointCall, parker: Parker | SyncParker) -> None:
        self.call = call
        self._parker = parker
        self.domain = parker.domain

    def unpark(self) -> bool:
        """Wake the owner. If its event loop is closed, its places are given up here, and all is said."""
        if not self._parker.unpark():
            self.call.leave()
        return True


def come(call: JointCall, now: float) -> float | None:
    """The owner of a call is here. It goes, with everything taken, by returning None; or it stands in the
    lines as it has to, until a moment.
    """
    news = False
    for gate, _ in call.parts:
        gate.check_open()
    in_vain = [part for part in call.parts if part[1].once and _is_in_vain(*part, now)]
    for gate, place in call.parts:
        if place.state is State.NEW:
            gate.waiters.enter(place)
            news |= gate.line.join(place, now)
        else:
            gate.line.arrive(place)
            news = True
    for gate, place in in_vain:
        gate.line.expire(place)
    if not news:  # behind others in every line
        return inf
    if call.ended is None:
        if all(gate.line.may_go(place, now) for gate, place in call.parts):
            _go(call, now)
            return None
        _stand(call, now)
        for gate, place in call.parts:
            gate.waiters.look(now, here=place)
    for gate, place in call.parts:
        gate.timeouts += place.state is State.EXPIRED
    return min(gate.waiters.until(place) for gate, place in call.parts)


def _is_in_vain(gate: Gate[Store], place: Place, now: float) -> bool:
    """Whether a place that has just come, and waits for one answer only, need not wait for it."""
    if place.state is not State.NEW or gate.line.passes(place.cost, now):
        return False
    return not gate.worth_asking(now)


def _stand(call: JointCall, now: float) -> None:
    """Wait where it has to be waited, and let others pass where it has not."""
    moments = [gate.line.moment(place, now) for gate, place in call.parts]
    last = max(moments)
    first = all(gate.line.is_next(place, now) for gate, place in call.parts)
    awaited = [gate for gate, moment in zip(call.gates, moments, strict=True) if moment == inf]
    for (gate, place), moment in zip(call.parts, moments, strict=True):
        comes_with = any(gate.sits_with(other) for other in awaited)
        if moment == last == inf and comes_with and place.state is State.HELD:
            continue  # it stands elsewhere for what comes in here, too
        if moment == last:
            gate.line.wait(place)
            if now <= place.deadline < moment < inf:
                gate.line.expire(place)
        elif last < inf:
            gate.line.hold(place, last)
        else:  # a slot has to come back first; or others are ahead, and then nothing is kept here
            gate.line.hold(place, moment if first and not comes_with else inf)


def _go(call: JointCall, now: float) -> None:
    for gate, place in call.parts:
        gate.line.go(place, now)
        gate.count(place, now)


def take_all(call: JointCall, now: float) -> list[Gate[Store]]:
    """Take everything, or nothing; returned are the gates that do not let the call go."""
    for gate, _ in call.parts:
        gate.check_open()
    held_up = [gate for gate, place in call.parts if not gate.line.passes(place.cost, now)]
    if not held_up:
        for gate, place in call.parts:
            gate.line.take(place.cost, now)
            place.taken = True
    return held_up


def is_worth_asking(call: JointCall, now: float) -> bool:
    """Whether a call that was not let go just now could be, for a question to somebody else."""
    held_up = (part for part in call.parts if not part[0].line.passes(part[1].cost, now))
    return all(gate.worth_asking(now) for gate, _ in held_up)


def attempt(call: JointCall, now: float) -> Decision:
    """Go now, or not at all."""
    for gate, _ in call.parts:
        if not gate.line.quiet(now):
            gate.waiters.look(now)
    if not take_all(call, now):
        return GO
    return Decision(False, max(gate.hope(now, place.cost) for gate, place in call.parts))

"""Those who wait for a limiter, by event loop: whom to wake, and who has the timer.

In each event loop (and among all threads together) one of those who wait is the *keeper*: it alone has a
timer, looks at the line when it rings, and wakes whoever may go, wherever that is. It is the one that
joined last, who has the longest to wait, so that the office changes hands seldom.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from attrs import define

from batchkit._core.line import Line
from batchkit._core.place import Place, State
from batchkit._parking import ABSENT, Parker, SyncParker


@define(eq=False)
class _Room:
    """Those who wait in one event loop, or in threads.

    Attributes:
        keeper: who has the timer.
        places: all of them, in the order in which they joined.
        until: when the keeper's timer rings.
    """

    keeper: Place
    places: dict[Place, None]
    until: float = inf


class Waiters:
    """The owners of the places of a line. Not safe for threads: its user sees to that.

    Attributes:
        to_wake: places whose owners are to be woken when the decision is made.
    """

    __slots__ = ("_line", "_rooms", "to_wake")

    def __init__(self, line: Line) -> None:
        self.to_wake: list[Place] = []
        self._line = line
        self._rooms: dict[Hashable, _Room] = {}

    def __len__(self) -> int:
        return sum(len(room.places) for room in self._rooms.values())

    def enter(self, place: Place) -> None:
        """A place that is about to join the line waits from now on."""
        domain = place.owner.domain
        room = self._rooms.get(domain)
        if room is None:
            self._rooms[domain] = _Room(place, {place: None})
        else:
            room.places[place] = None

    def move(self, place: Place, owner: Parker | SyncParker) -> None:
        """A place that nobody waited at has an owner from now on."""
        absent = self._rooms.get(place.owner.domain)
        place.owner, place.absent = owner, False
        self.enter(place)
        if absent is not None:
            absent.places.pop(place, None)
            if not absent.places:
                del self._rooms[ABSENT.domain]
            elif absent.keeper is place:
                absent.keeper = next(iter(absent.places))

    def quit(self, place: Place) -> None:
        """It waits no more; its room may need another keeper."""
        domain = place.owner.domain
        room = self._rooms.get(domain)
        if room is not None and place in room.places:
            del room.places[place]
            if not room.places:
                del self._rooms[domain]
            elif room.keeper is place:
                room.keeper = next(reversed(room.places))
                room.until = -inf  # it finds out itself, as soon as it is awake
                self.to_wake.append(room.keeper)

    def look(self, now: float, here: Place | None = None) -> None:
        """Look at the line: to be woken are those who may go, and the keepers whose timers ring too late. The
        owner of `here` is awake.
        """
        self.to_wake += self._line.look(now)
        moment = self._line.next_look(now)
        for room in self._rooms.values():
            if room.keeper is here:
                room.until = moment
            elif moment < room.until:
                room.until = -inf
                self.to_wake.append(room.keeper)

    def recount(self) -> list[Place]:
        """Line and rooms agree again, after an exception from outside (Ctrl-C) struck amid a change; those
        returned are to be woken: the keepers, and all who may have been granted.
        """
        rooms = [room for room in self._rooms.values() if room.places]
        self._line.recount(place for room in rooms for place in room.places)
        self._rooms = {room.keeper.owner.domain: room for room in rooms}
        for room in rooms:
            room.keeper = next(reversed(room.places))
            room.until = -inf
        self.to_wake = []
        return [
            place
            for room in rooms
            for place in room.places
            if place is room.keeper or place.state is not State.WAITING
        ]

    def until(self, place: Place) -> float:
        """Until when a waiting place may sleep: the keeper of a room has its timer, the others have none."""
        room = self._rooms.get(place.owner.domain)
        return room.until if room is not None and room.keeper is place else inf

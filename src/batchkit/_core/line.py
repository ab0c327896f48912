"""Who waits for a bucket, in which order; who may go at `now`; when to look again.

Rules
-----
1. First come, first served within a priority. Only the head of the line is served: a call of cost 8 is not
   overtaken by calls of cost 1, and a newcomer never passes those who wait or who were called and are about
   to go.
2. A higher priority goes first, but who has waited long enough goes next: a step of priority is worth
   `patience` seconds of waiting. (Arrival less priority x patience is a constant of each place, so that a
   heap keeps the order.)
3. A grant is not yet a go. Who is granted is woken, and takes the permits when it comes; until then they
   stand in the bucket, reserved. So a permit counts at the moment its owner goes, also after the owner's
   loop or machine stalled.
4. A stalled, dead or absent group holds up nobody. The owners in one event loop stand and fall together, so
   they are a group. If one of them has not come within a `moment` of its grant while other groups wait, its
   whole group is set aside: the others pass it. As soon as one of the group comes, or a newcomer joins it,
   all of them stand at their old places again. Who is known to be absent is set aside whoever waits.
5. Whoever leaves (cancelled, timed out) hands on what it was granted.
6. While the line is paused nobody goes; permits come in all the same, up to the burst.

A place stands in line from `join` on, until `go` returns true, or until `leave`. Between the two the owner
waits for its wake-up. `look` says whom to wake; `next_look` says when somebody has to look again, if
nobody comes before.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final

from attrs import define

from batchkit._core.bucket import Bucket

_COMPACT_ABOVE: Final = 64


class State(Enum):
    """Where a place stands: from NEW it comes to WAITING, and ends as GONE, LEFT, EXPIRED or REFUSED."""

    NEW = auto()  # not in line yet
    WAITING = auto()
    GRANTED = auto()
    ASIDE = auto()  # its group did not come in time; not served before it comes
    GONE = auto()
    LEFT = auto()
    EXPIRED = auto()  # its deadline passed, or is certain to pass
    REFUSED = auto()  # the burst was lowered below its cost


_STANDING: Final = frozenset({State.WAITING, State.GRANTED, State.ASIDE})


@define(eq=False)
class Place:
    """One waiting call's place in the line.

    Attributes:
        cost: permits.
        owner: what the caller knows the place by; not looked at here.
        group: who can only come together with it.
        priority: higher goes first.
        timeout: seconds after which it does not want to go any more.
        joined: moment at which it joined.
        deadline: moment after which it does not want to go any more.
        order: rank in the line; lower goes first.
        owned_until: moment until which its grant, if it has one, is its own.
        waited: seconds that it waited, once it is gone.
        absent: whether its owner is not there to be called yet.
    """

    cost: int
    owner: Any = None
    group: Hashable = None
    priority: int = 0
    timeout: float = inf
    joined: float = inf
    deadline: float = inf
    order: tuple[float, int] = (inf, 0)
    state: State = State.NEW
    owned_until: float = inf
    waited: float = 0.0
    absent: bool = False

    @property
    def ended(self) -> bool:
        """Whether it stands in line no more."""
        return self.state not in _STANDING and self.state is not State.NEW


class Line:
    """The line before one bucket.

    Args:
        bucket: what the line waits for.
        patience: seconds of waiting that outweigh one step of priority.
        moment: seconds for which a grant is its owner's alone.
    """

    __slots__ = (
        "_aside",
        "_deadlines",
        "_granted",
        "_heap",
        "_moment",
        "_patience",
        "_serial",
        "_standing",
        "_waiting",
        "bucket",
        "paused_until",
        "reserved",
        "waiting",
        "wanted",
    )

    def __init__(self, bucket: Bucket, *, patience: float = 10.0, moment: float = 0.01) -> None:
        self.bucket = bucket
        self.waiting = 0  # places that wait to be granted
        self.wanted = 0  # permits that those places want
        self.reserved = 0  # permits granted and not yet taken
        self.paused_until = -inf  # the moment before which nobody goes
        self._patience = patience
        self._moment = moment
        self._serial = 0
        self._heap: list[tuple[tuple[float, int], Place]] = []  # may hold places that no longer wait
        self._granted: deque[Place] = deque()  # in order of owned_until; may hold places that are gone
        self._deadlines: list[tuple[float, int, Place]] = []  # may hold places that no longer wait
        self._standing: dict[Hashable, int] = {}  # places of each group
        self._waiting: dict[Hashable, int] = {}  # those of them that wait
        self._aside: dict[Hashable, list[Place]] = {}  # the places of groups that did not come

    def quiet(self, now: float) -> bool:
        """Whether a newcomer has only the bucket to ask: nobody waits, nobody who was called is about to go,
        and there is no pause.
        """
        return not self.waiting and not self.reserved and self._open(now)

    def take(self, cost: int, now: float) -> bool:
        """Go at once, without a place in line, if it is quiet."""
        return self.quiet(now) and self.bucket.take(cost, now)

    def estimate(self, cost: int, now: float) -> float:
        """The first moment at which a newcomer of that cost could go if nobody ahead leaves."""
        return self._due(cost + self.wanted + self.reserved, now)

    def join(self, place: Place, now: float) -> bool:
        """Stand in line from now on; true if that may change what a look finds, or when the next one has to
        be. It does not for most: who stands behind others of its group, without a deadline.
        """
        group = place.group
        news = place.timeout < inf or group not in self._standing or group in self._aside
        self._return(group)
        self._serial += 1
        place.joined = now
        place.deadline = now + place.timeout
        place.order = (now - place.priority * self._patience, self._serial)
        self._standing[group] = self._standing.get(group, 0) + 1
        self._enter(place)
        return news or self._head() is place or place.ended

    def pause(self, until: float) -> None:
        """Let nobody go before that moment; a longer pause is not cut short by it."""
        self.paused_until = max(self.paused_until, until)

    def go(self, place: Place, now: float) -> bool:
        """The owner is here: it takes its permits and goes, or is told to wait on (or that its place has
        ended).
        """
        self._return(place.group)
        if place.state is State.GRANTED:
            went = self._open(now) and self.bucket.take(place.cost, now, self.reserved - place.cost)
            if not went:  # since the grant the rate or the burst fell, a debt was charged, or a pause began
                self.reserved -= place.cost
                self._enter(place)
        else:
            next_to_go = place.state is State.WAITING and not self.reserved and self._head() is place
            went = next_to_go and self._open(now) and self.bucket.take(place.cost, now)
        if went:
            place.waited = now - place.joined
            self._end(place, State.GONE)
        return went

    def leave(self, place: Place) -> None:
        """The owner gives up, or is gone for good."""
        if place.state in _STANDING:
            self._end(place, State.LEFT)

    def look(self, now: float) -> list[Place]:
        """Settle what is due at `now`; those returned are to be woken: granted or expired."""
        self._set_aside(now)
        woken = self._serve(now)
        while expired := self._expire(now):  # whoever leaves may have been what the next one waited behind
            woken += expired + self._serve(now)
        return woken

    def next_look(self, now: float) -> float:
        """The moment of the next `look` if nothing happens before; infinite when nobody waits."""
        first = self._first_deadline()
        moment = inf if first is None else first.deadline
        if (head := self._head()) is None:
            return moment
        due = self._due(head.cost + self.reserved, now)
        if due <= now:
            due = inf  # the permits are there, but not the room: those granted come first
        if self.reserved and len(self._standing) > 1:  # or they are set aside
            held_up = (place.owned_until for place in self._granted if self._holds_up_others(place))
            due = min(due, min(held_up, default=inf))
        return min(moment, due)

    def change(self, rate: float, burst: int, now: float) -> list[Place]:
        """Go on at another rate and burst; those returned are to be woken: their cost exceeds the burst
        for good.
        """
        self.bucket.change(rate, burst, now)
        refused = [place for _, place in self._heap if place.cost > burst and place.state is State.WAITING]
        for place in refused:
            self._end(place, State.REFUSED)
        return refused

    def recount(self, places: Iterable[Place]) -> None:
        """Stand as those places say: an exception from outside (Ctrl-C) may have left a change half done."""
        standing = [place for place in places if place.state in _STANDING]
        waiting = [place for place in standing if place.state is State.WAITING]
        granted = [place for place in standing if place.state is State.GRANTED]
        self.waiting = len(waiting)
        self.wanted = sum(place.cost for place in waiting)
        self.reserved = sum(place.cost for place in granted)
        self._heap = [(place.order, place) for place in waiting]
        heapify(self._heap)
        self._granted = deque(sorted(granted, key=lambda place: place.owned_until))
        self._deadlines = [
            (place.deadline, place.order[1], place) for place in waiting if place.deadline < inf
        ]
        heapify(self._deadlines)
        self._standing = dict(Counter(place.group for place in standing))
        self._waiting = dict(Counter(place.group for place in waiting))
        self._aside = {}
        for place in standing:
            if place.state is State.ASIDE:
                self._aside.setdefault(place.group, []).append(place)

    def _open(self, now: float) -> bool:
        return now >= self.paused_until

    def _due(self, permits: int, now: float) -> float:
        return max(self.bucket.due(permits, now), self.paused_until)

    def _enter(self, place: Place) -> None:
        if place.cost > self.bucket.burst:
            place.state = State.REFUSED
            self._drop(place)
            return
        place.state = State.WAITING
        self.waiting += 1
        self.wanted += place.cost
        self._waiting[place.group] = self._waiting.get(place.group, 0) + 1
        heappush(self._heap, (place.order, place))
        if place.deadline < inf:
            self._serial += 1
            heappush(self._deadlines, (place.deadline, self._serial, place))

    def _stop_waiting(self, place: Place) -> None:
        self.waiting -= 1
        self.wanted -= place.cost
        self._waiting[place.group] -= 1
        if not self._waiting[place.group]:
            del self._waiting[place.group]

    def _grant(self, head: Place, now: float) -> None:
        heappop(self._heap)
        self._stop_waiting(head)
        head.owned_until = now + self._moment
        head.state = State.GRANTED
        self.reserved += head.cost
        self._granted.append(head)

    def _end(self, place: Place, state: State) -> None:
        if place.state is State.WAITING:
            self._stop_waiting(place)
        elif place.state is State.GRANTED:
            self.reserved -= place.cost
        place.state = state
        self._drop(place)

    def _drop(self, place: Place) -> None:
        """Forget an ended place."""
        self._standing[place.group] -= 1
        if not self._standing[place.group]:
            del self._standing[place.group]
            self._aside.pop(place.group, None)
        self._compact()

    def _head(self) -> Place | None:
        heap = self._heap
        while heap:
            place = heap[0][1]
            if place.state is State.WAITING:
                if place.group not in self._aside:
                    return place
                self._put_aside(place)
            heappop(heap)
        return None

    def _first_deadline(self) -> Place | None:
        heap = self._deadlines
        while heap and heap[0][2].state is not State.WAITING:
            heappop(heap)
        return heap[0][2] if heap else None

    def _holds_up_others(self, place: Place) -> bool:
        """Whether a place is granted and not gone while somebody of another group waits."""
        return place.state is State.GRANTED and self.waiting > self._waiting.get(place.group, 0)

    def _passable(self, place: Place) -> bool:
        return place.absent or self._holds_up_others(place)

    def _serve(self, now: float) -> list[Place]:
        """Grant from the head of the line as far as the permits go."""
        served: list[Place] = []
        while (head := self._head()) is not None:
            if head.deadline < now:
                self._end(head, State.EXPIRED)
            elif self._open(now) and self.bucket.holds(head.cost + self.reserved, now):
                self._grant(head, now)
            else:
                break
            served.append(head)
        return served

    def _set_aside(self, now: float) -> None:
        """Set the groups aside that did not come within a moment of a grant, if that helps anybody."""
        granted = self._granted
        while granted and granted[0].state is not State.GRANTED:
            granted.popleft()
        if not granted or granted[0].owned_until > now:
            return
        late = {place.group for place in granted if place.owned_until <= now and self._passable(place)}
        for place in granted:
            if place.state is State.GRANTED and place.group in late:
                self.reserved -= place.cost
                place.state = State.ASIDE
                self._aside.setdefault(place.group, []).append(place)

    def _put_aside(self, head: Place) -> None:
        self._stop_waiting(head)
        head.state = State.ASIDE
        self._aside[head.group].append(head)

    def _return(self, group: Hashable) -> None:
        """A group is here again: all its places stand where they stood."""
        if self._aside and group in self._aside:
            for place in self._aside.pop(group):
                if place.state is State.ASIDE:
                    self._enter(place)

    def _expire(self, now: float) -> list[Place]:
        """End the places whose deadline passed, or will pass even if everybody ahead of them leaves."""
        expired: list[Place] = []
        while (place := self._first_deadline()) is not None:
            if now < place.deadline and self._due(place.cost, now) <= place.deadline:
                break
            self._end(place, State.EXPIRED)
            expired.append(place)
        return expired

    def _compact(self) -> None:
        """Drop what is left of ended places, so that memory follows those who wait, not those who gave up."""
        if len(self._heap) > _COMPACT_ABOVE + 2 * self.waiting:
            self._heap = [entry for entry in self._heap if entry[1].state is State.WAITING]
            heapify(self._heap)
        if len(self._deadlines) > _COMPACT_ABOVE + 2 * self.waiting:
            self._deadlines = [entry for entry in self._deadlines if entry[2].state is State.WAITING]
            heapify(self._deadlines)

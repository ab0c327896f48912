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
4. A stalled, dead or absent party holds up nobody. The owners in one event loop stand and fall together, so
   they are a party. If one of them has not come within the store's `grace` while other parties wait, its
   whole party is set aside: the others pass it. As soon as one of the party comes, or a newcomer joins it,
   all of them stand at their old places again. Who is known to be absent is set aside whoever waits.
5. Whoever leaves (cancelled, timed out) hands on what it was granted.
6. While the line is paused nobody goes; permits come in all the same, up to the burst.
7. A call that needs several limits has a place in the line of each. Where another one holds it up, its place
   is held: the others pass it, as long as its permits are there at the moment for which they are kept. (The
   "backfilling" of batch schedulers: D. Lifka, "The ANL/IBM SP scheduling system", 1995.)

A place stands in line from `join` on, until `go` returns true, or until `leave`. Between the two the owner
waits for its wake-up. `look` says whom to wake; `next_look` says when somebody has to look again, if
nobody comes before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from heapq import heapify, heappop, heappush
from math import inf

from batchkit._core.held import COMPACT_ABOVE, Held
from batchkit._core.place import STANDING, Party, Place, State
from batchkit._core.store import Store


class Line:
    """The line before one store of permits.

    Args:
        store: what the line waits for.
        patience: seconds of waiting that outweigh one step of priority.

    Attributes:
        waiting: places that wait to be granted.
        wanted: permits that those places want.
        reserved: permits granted and not yet taken.
    """

    __slots__ = (
        "_deadlines",
        "_granted",
        "_heap",
        "_held",
        "_joint",
        "_jointly",
        "_parties",
        "_patience",
        "_serial",
        "reserved",
        "store",
        "waiting",
        "wanted",
    )

    def __init__(self, store: Store, *, patience: float = 10.0) -> None:
        self.store = store
        self.waiting = 0
        self.wanted = 0
        self.reserved = 0
        self._patience = patience
        self._serial = 0
        self._heap: list[tuple[tuple[float, int], Place]] = []  # may hold places that no longer wait
        self._granted: deque[Place] = deque()  # in order of owned_until; may hold places that are gone
        self._deadlines: list[tuple[float, int, Place]] = []  # may hold places that no longer wait
        self._joint: list[tuple[tuple[float, int], int, Place]] = []  # granted, likewise
        self._jointly = 0  # permits of those, out of the reserved ones
        self._parties: dict[Hashable, Party] = {}
        self._held = Held()

    def quiet(self, now: float) -> bool:
        """Whether a newcomer has only the store to ask: nobody waits, nobody who was called is about to go,
        nothing is kept for anybody, and there is no pause.
        """
        return not (self.waiting or self.reserved or self._held) and self._open(now)

    def take(self, cost: int, now: float) -> bool:
        """Go at once, without a place in line, if a newcomer may."""
        return self._lets_pass(cost, now) and self.store.take(cost, now)

    def passes(self, cost: int, now: float) -> bool:
        """Whether a newcomer of that cost may go at once."""
        return self._lets_pass(cost, now) and self.store.holds(cost, now)

    def estimate(self, cost: int, now: float) -> float:
        """The first moment at which a newcomer of that cost could go if nobody ahead leaves; infinite if
        nobody can say.
        """
        ahead = self.wanted + self.reserved
        if (kept := self._in_the_way(cost + ahead, (now, self._serial + 1), now)) is not None:
            ahead += kept.cost
        return self._due(cost + ahead, now)

    def join(self, place: Place, now: float) -> bool:
        """Stand in line from now on; true if that may change what a look finds, or when the next one has to
        be. It does not for most: who stands behind others of its party, without a deadline.
        """
        party = self._parties.get(place.key)
        news = place.timeout < inf or party is None
        if party is None:
            party = self._parties[place.key] = Party()
        elif party.is_aside:
            news = True
            self._return(party)
        self._serial += 1
        place.joined = now
        place.deadline = now + place.timeout
        place.order = (now - place.priority * self._patience, self._serial)
        place.party = party
        party.standing += 1
        stands = self._enter(place)
        return news or not stands or self._head() is place

    def pause(self, until: float) -> None:
        """Let nobody go before that moment; a longer pause is not cut short by it."""
        self.store.closed_until = max(self.store.closed_until, until)

    def go(self, place: Place, now: float) -> bool:
        """The owner is here: it takes its permits and goes, or is told to wait on (or that its place has
        ended).
        """
        self.arrive(place)
        if place.state is State.GRANTED:
            went = self._open(now) and self.store.take(place.cost, now, self._promised(place))
            if not went:  # since the grant the rate or the burst fell, a debt was charged, or a pause began
                self.wait(place)
        else:
            next_to_go = self.is_next(place, now) and self._open(now)
            went = next_to_go and self.store.take(place.cost, now, self._promised(place))
        if went:
            place.taken = True
            place.waited = now - place.joined
            self._end(place, State.GONE)
        return went

    def is_next(self, place: Place, now: float) -> bool:
        """Whether a place has nobody but the store to wait for."""
        if place.state is State.GRANTED:
            return True
        if place.state not in (State.WAITING, State.HELD) or (self.reserved and not place.joint):
            return False
        head = self._head()
        first = head is None or head is place or place.order < head.order
        return first and self._spares(place.cost, place.order, now)

    def may_go(self, place: Place, now: float) -> bool:
        """Whether a place may go at `now`."""
        there = self._open(now) and self.store.holds(place.cost + self._promised(place), now)
        return there and self.is_next(place, now)

    def moment(self, place: Place, now: float) -> float:
        """When a place may go; infinite if nobody can say: others come first, or are to give permits back."""
        if not self.is_next(place, now):
            return inf
        return self._due_at_once(place.cost + self._promised(place), now)

    @property
    def clogged(self) -> bool:
        """Whether the first in line cannot go before somebody who is granted has gone."""
        head = self._head()
        return head is not None and head.cost + self.reserved > self.store.burst

    def arrive(self, place: Place) -> None:
        """The owner is here, which says that its whole party is."""
        if place.party.is_aside:
            self._return(place.party)

    def hold(self, place: Place, until: float) -> None:
        """Let others pass a place whose call waits for another limit, as long as its permits are there at
        `until` (infinite: whatever they take).
        """
        if place.state in (State.WAITING, State.GRANTED, State.HELD):
            self._give_up_turn(place)
            self._held.add(place, until if self.store.keeps else inf)

    def wait(self, place: Place) -> None:
        """Have a place wait its turn here: it is not held any more, or has not yet used its grant."""
        if place.state in (State.HELD, State.GRANTED):
            self._give_up_turn(place)
            self._enter(place)

    def expire(self, place: Place) -> None:
        """End a place whose deadline is certain to pass."""
        self._end(place, State.EXPIRED)

    def leave(self, place: Place) -> None:
        """The owner gives up, or is gone for good."""
        if place.state in STANDING:
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
        due = self._due_at_once(head.cost + self.reserved, now)
        if due <= now and (kept := self._in_the_way(head.cost, head.order, now)):
            due = self._due_at_once(head.cost + self.reserved + kept.cost, now)
        if self.reserved and len(self._parties) > 1:  # or they are set aside
            due = min(due, self._first_in_the_way())
        return min(moment, due)

    @property
    def demand(self) -> int:
        """Permits that those want who wait, are granted, or are held with something kept for them."""
        return self.wanted + self.reserved + self._held.wanted

    def upcoming(self, places: int) -> list[Place]:
        """About so many of those that are to go, in order: the ones that are granted, then some of those that
        wait, the first of them for certain, and those for whom something is kept.
        """
        if not (self.waiting or self.reserved or self._held.wanted):
            return []
        granted = [place for place in self._granted if place.state is State.GRANTED] if self.reserved else []
        self._head()
        waiting = [entry for entry in self._heap[:places] if entry[1].state is State.WAITING]
        if self._held.wanted:
            waiting += ((place.order, place) for place in self._held.kept)
        waiting.sort()
        return granted + [place for _, place in waiting if not place.party.is_aside]

    @property
    def passed(self) -> list[Place]:
        """Those that are held with nothing kept for them."""
        return self._held.passed

    def refuse(self) -> list[Place]:
        """End all places; those returned are to be woken."""
        granted = [place for place in self._granted if place.state is State.GRANTED]
        waiting = [place for _, place in self._heap if place.state is State.WAITING]
        aside = [place for party in self._parties.values() for place in party.aside]
        refused = granted + waiting + [place for place in aside if place.state is State.ASIDE]
        for place in refused:
            self._end(place, State.REFUSED)
        return refused

    def change(self, rate: float, burst: int, now: float) -> list[Place]:
        """Go on at another rate and burst; those returned are to be woken: their cost exceeds the burst
        for good.
        """
        self.store.change(rate, burst, now)
        waiting = [place for _, place in self._heap if place.state is State.WAITING and place.cost > burst]
        refused = [*waiting, *self._held.above(burst)]
        for place in refused:
            self._end(place, State.REFUSED)
        return refused

    def recount(self, places: Iterable[Place]) -> None:
        """Stand as those places say: an exception from outside (Ctrl-C) may have left a change half done."""
        standing = [place for place in places if place.state in STANDING]
        waiting = [place for place in standing if place.state is State.WAITING]
        granted = [place for place in standing if place.state is State.GRANTED]
        self.waiting = len(waiting)
        self.wanted = sum(place.cost for place in waiting)
        self.reserved = sum(place.cost for place in granted)
        self._heap = [(place.order, place) for place in waiting]
        heapify(self._heap)
        self._held = Held(place for place in standing if place.state is State.HELD)
        self._granted = deque(sorted(granted, key=lambda place: place.owned_until))
        self._joint = [(place.order, 0, place) for place in granted if place.joint]
        heapify(self._joint)
        self._jointly = sum(place.cost for _, _, place in self._joint)
        self._deadlines = [
            (place.deadline, place.order[1], place) for place in waiting if place.deadline < inf
        ]
        heapify(self._deadlines)
        self._parties = {}
        for place in standing:
            self._count(place)

    def _count(self, place: Place) -> None:
        """Count a place among its party, whatever was counted before."""
        party = place.party = self._parties.setdefault(place.key, Party())
        party.standing += 1
        place.queued = place.state is State.WAITING
        party.waiting += place.queued
        if place.state is State.ASIDE:
            party.is_aside = True
            party.aside.append(place)

    def _lets_pass(self, cost: int, now: float) -> bool:
        """Whether a newcomer has only the store to ask."""
        if self.waiting or self.reserved or not self._open(now):
            return False
        return not self._held or self._spares(cost, (now, self._serial + 1), now)

    def _open(self, now: float) -> bool:
        return now >= self.store.closed_until

    def _due(self, permits: int, now: float) -> float:
        return max(self.store.due(permits, now), self.store.closed_until)

    def _due_at_once(self, permits: int, now: float) -> float:
        """When so many will be there in one moment: never, if some of them have to go first."""
        return self._due(permits, now) if permits <= self.store.burst else inf

    def _promised(self, place: Place) -> int:
        """Permits that others were granted and that are not for this place to take.

        The first of all joint places passes the grants of the others: or two calls that were each granted
        something would make way for each other for ever.
        """
        own = place.cost if place.state is State.GRANTED else 0
        if self._jointly and place.joint and self._comes_first(place):
            return self.reserved - self._jointly
        return self.reserved - own

    def _comes_first(self, place: Place) -> bool:
        """Whether no joint place that stands before this one is granted anything."""
        heap = self._joint
        while heap and heap[0][2].state is not State.GRANTED:
            heappop(heap)
        return not heap or place.order <= heap[0][0]

    def _earliest(self, permits: int, now: float) -> float:
        return max(self.store.earliest(permits, now), self.store.closed_until)

    def _spares(self, cost: int, order: tuple[float, int], now: float) -> bool:
        """Whether somebody at that place may go without taking what is kept for a held place before it."""
        return not self._held or self._in_the_way(cost, order, now) is None

    def _in_the_way(self, cost: int, order: tuple[float, int], now: float) -> Place | None:
        """The held place whose permits somebody at that place would take."""
        first = self._held.first()
        if first is None or order <= first.order or first.party.is_aside:
            return None
        enough = self.store.refills(cost + self.reserved + first.cost, first.kept_for, now)
        return None if enough else first

    def _enter(self, place: Place) -> bool:
        """Stand where it stood; false if that is in vain, since its cost exceeds the burst by now."""
        if place.cost > self.store.burst:
            place.state = State.REFUSED
            self._drop(place)
            return False
        place.state = State.WAITING
        self.waiting += 1
        self.wanted += place.cost
        place.party.waiting += 1
        if not place.queued:
            place.queued = True
            heappush(self._heap, (place.order, place))
        if place.deadline < inf:
            self._serial += 1
            heappush(self._deadlines, (place.deadline, self._serial, place))
        return True

    def _give_up_turn(self, place: Place) -> None:
        """What a standing place counts for is undone; its next state says what it counts for from now on."""
        if place.state is State.WAITING:
            self.waiting -= 1
            self.wanted -= place.cost
            place.party.waiting -= 1
        elif place.state is State.GRANTED:
            self.reserved -= place.cost
            self._jointly -= place.cost if place.joint else 0
        elif place.state is State.HELD:
            self._held.remove(place)

    def _grant(self, head: Place, now: float) -> None:
        heappop(self._heap)
        head.queued = False
        self._give_up_turn(head)
        head.owned_until = now + self.store.grace
        head.state = State.GRANTED
        self.reserved += head.cost
        self._granted.append(head)
        if head.joint:
            self._jointly += head.cost
            self._serial += 1
            heappush(self._joint, (head.order, self._serial, head))

    def _end(self, place: Place, state: State) -> None:
        self._give_up_turn(place)
        place.state = state
        self._drop(place)

    def _drop(self, place: Place) -> None:
        """Forget an ended place."""
        place.party.standing -= 1
        if not place.party.standing:
            del self._parties[place.key]
        self._compact()

    def _head(self) -> Place | None:
        heap = self._heap
        while heap:
            place = heap[0][1]
            if place.state is State.WAITING:
                if not place.party.is_aside:
                    return place
                self._put_aside(place)
            heappop(heap)
            place.queued = False
        return None

    def _first_deadline(self) -> Place | None:
        heap = self._deadlines
        while heap and heap[0][2].state is not State.WAITING:
            heappop(heap)
        return heap[0][2] if heap else None

    def _holds_up_others(self, place: Place) -> bool:
        """Whether a place is granted and not gone while somebody of another party waits."""
        return place.state is State.GRANTED and self.waiting > place.party.waiting

    def _first_in_the_way(self) -> float:
        """When the first grant ends that holds up others."""
        for place in self._granted:
            if self._holds_up_others(place):
                return place.owned_until
        return inf

    def _passable(self, place: Place) -> bool:
        return place.absent or self._holds_up_others(place)

    def _serve(self, now: float) -> list[Place]:
        """Grant from the head of the line as far as the permits go."""
        served: list[Place] = []
        while (head := self._head()) is not None:
            if head.deadline < now:
                self._end(head, State.EXPIRED)
            elif self._may_go(head, now):
                self._grant(head, now)
            else:
                break
            served.append(head)
        return served

    def _may_go(self, head: Place, now: float) -> bool:
        there = self._open(now) and self.store.holds(head.cost + self.reserved, now)
        return there and self._spares(head.cost, head.order, now)

    def _set_aside(self, now: float) -> None:
        """Set the parties aside that did not come within the grace of a grant, if that helps anybody."""
        granted = self._granted
        while granted and granted[0].state is not State.GRANTED:
            granted.popleft()
        if not granted or granted[0].owned_until > now:
            return
        if len(self._parties) == 1 and not granted[0].absent:
            return  # nobody else is there to be helped
        late = {place.key for place in granted if place.owned_until <= now and self._passable(place)}
        for place in granted:
            if place.state is State.GRANTED and place.key in late:
                self._put_aside(place)

    def _put_aside(self, place: Place) -> None:
        self._give_up_turn(place)
        place.state = State.ASIDE
        place.party.is_aside = True
        place.party.aside.append(place)

    def _return(self, party: Party) -> None:
        """A party is here again: all its places stand where they stood."""
        places, party.aside = party.aside, []
        party.is_aside = False
        for place in places:
            if place.state is State.ASIDE:
                self._enter(place)

    def _expire(self, now: float) -> list[Place]:
        """End the places whose deadline passed, or will pass even if everybody ahead of them leaves."""
        expired: list[Place] = []
        while (place := self._first_deadline()) is not None:
            if now < place.deadline and self._earliest(place.cost, now) <= place.deadline:
                break
            self._end(place, State.EXPIRED)
            expired.append(place)
        return expired

    def _compact(self) -> None:
        """Drop what is left of ended places, so that memory follows those who wait, not those who gave up."""
        if len(self._heap) > COMPACT_ABOVE + 2 * self.waiting:
            for _, place in self._heap:
                place.queued = place.state is State.WAITING
            self._heap = [entry for entry in self._heap if entry[1].queued]
            heapify(self._heap)
        if len(self._deadlines) > COMPACT_ABOVE + 2 * self.waiting:
            self._deadlines = [entry for entry in self._deadlines if entry[2].state is State.WAITING]
            heapify(self._deadlines)

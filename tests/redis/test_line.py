"""The line of processes: who goes next, when each looks again, and that nothing is left lying about."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

import pytest
from attrs import define, field

from batchkit._redis.wire import Calls, Orders
from tests.redis.virtual import Fleet, dues, one, worst_excess
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

PATIENCE = 10.0  # seconds that a step of priority is worth
LONGEST = 0.28  # seconds until the next look
LATE = 0.1  # seconds after which a process that does not come is passed over
ROUND = 1e-6


@define(eq=False)
class Worker:
    """A process whose callers come again as soon as they went; it asks when it is told to.

    Attributes:
        name: what the server knows it by.
        callers: how many.
        cost: of each call.
        waiting: the moments at which those came who wait.
        coming: the moments at which the others will.
        went: for each call, when it came and when it went.
        looks: when it asked and had to wait, and for how long.
    """

    name: str
    callers: int
    cost: int = 1
    begins: float = 0.0
    waiting: deque[float] = field(factory=deque)
    coming: deque[float] = field(factory=deque)
    went: list[tuple[float, float]] = field(factory=list)
    looks: list[tuple[float, float]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.coming.extend([self.begins] * self.callers)

    def runs(self, now: float) -> list[Calls]:
        """Those who wait, in runs that double."""
        runs: list[Calls] = []
        first = 0
        while first < len(self.waiting) and len(runs) < 24:
            count = min(max(1, first), len(self.waiting) - first)
            runs.append(Calls(count, self.cost, now - self.waiting[first]))
            first += count
        return runs

    def ask(self, fleet: Fleet) -> float:
        """Ask for all who wait; returned is when to do so again."""
        now = fleet.seconds
        while self.coming and self.coming[0] <= now + ROUND / 2:
            self.waiting.append(self.coming.popleft())
        calls = self.runs(now)
        answer = fleet.ask(self.name, calls)
        for due, _ in dues(answer, calls):
            self.went.append((self.waiting.popleft(), due))
            self.coming.append(due)
        if self.waiting:
            self.looks.append((now, answer.look))
            return now + answer.look
        return max(now + answer.look, self.coming[0])


def simulate(fleet: Fleet, workers: Sequence[Worker], seconds: float) -> None:
    """Let the workers come whenever they are told to."""
    agenda = [(worker.begins, number) for number, worker in enumerate(workers)]
    heapify(agenda)
    while agenda[0][0] < seconds:
        moment, number = heappop(agenda)
        fleet.at(max(moment, fleet.seconds))
        heappush(agenda, (max(workers[number].ask(fleet), fleet.seconds + ROUND), number))


def gone(workers: Iterable[Worker]) -> list[tuple[float, int]]:
    return [(moment, worker.cost) for worker in workers for _, moment in worker.went]


def overtaken(workers: Iterable[Worker]) -> Counter[int]:
    """How many calls were overtaken by so many that came later."""
    calls = sorted(call for worker in workers for call in worker.went)
    return Counter(
        sum(later_went < went for later_came, later_went in calls[number + 1 :] if later_came > came)
        for number, (came, went) in enumerate(calls)
    )


@pytest.mark.parametrize(
    ("rate", "burst", "seconds", "callers", "processes"),
    [
        (2, 5, 60, 1, 1),
        (2, 5, 60, 1, 4),
        (2, 5, 60, 1, 20),
        (50, 5, 20, 8, 1),
        (50, 5, 20, 8, 4),
        (50, 5, 20, 8, 20),
        (500, 20, 6, 50, 1),
        (500, 20, 6, 50, 4),
        (500, 20, 6, 50, 20),
        (5000, 50, 2, 200, 1),
        (5000, 50, 2, 200, 4),
        (5000, 50, 2, 200, 20),
    ],
)
def test_demand_that_does_not_end_gets_all_there_is_for_few_commands(
    valkey: Server, rate: float, burst: int, seconds: float, callers: int, processes: int
) -> None:
    fleet = Fleet(valkey, rate, burst, horizon=0.05)
    workers = [
        Worker(f"p{number}", callers, begins=number * 0.7 * fleet.horizon / processes)
        for number in range(processes)
    ]
    simulate(fleet, workers, seconds)
    permits = sum(moment <= seconds for moment, _ in gone(workers))
    full = permits / int(rate * seconds + burst)
    excess = worst_excess(gone(workers), rate, burst)
    per_permit = fleet.asked / permits
    shares = sorted(len(worker.went) for worker in workers)
    print(
        f"\n{rate}/s, {processes} processes: {full:.1%} full, excess {excess:.2g}, "
        f"{per_permit:.3f} commands a permit, {fleet.asked / seconds / processes:.1f} a second and process, "
        f"{shares[0]} to {shares[-1]} permits each"
    )
    assert full >= 0.99
    assert excess <= 0.001
    assert shares[0] >= 0.9 * shares[-1] - 2 * callers - burst
    # What fits into the horizon is had for one command, and a quarter of it goes by until the next.
    each = min(1.0, max(0.25, 1.25 / max(fleet.reach, 1.0)))
    assert fleet.asked <= each * permits + 4 * seconds * processes


def test_calls_of_twenty_processes_go_in_the_order_in_which_they_came(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1, horizon=0.05)
    workers = [Worker(f"p{number}", 1, begins=number * 0.01) for number in range(20)]
    simulate(fleet, workers, 25)
    counts = overtaken(workers)
    print(f"\novertaken by so many, so often: {dict(sorted(counts.items()))}")
    assert max(counts) <= 2


def test_who_waits_unserved_looks_about_four_times_a_second_and_never_later(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1, horizon=0.05)
    workers = [Worker(f"p{number}", 3, begins=number * 0.01) for number in range(20)]
    simulate(fleet, workers, 20)
    looks = [look for worker in workers for _, look in worker.looks]
    assert max(looks) <= LONGEST + ROUND
    for worker in workers:
        assert len(worker.looks) <= 4 * (20 - worker.begins) + len(worker.went)
    assert all(
        later - moment <= LONGEST + ROUND
        for worker in workers
        for (moment, _), (later, _) in pairwise(worker.looks)
    )


def test_who_does_not_wait_looks_again_as_soon_however_much_is_owed(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1, horizon=0.05)
    assert fleet.ask("a", orders=Orders(charge=1000)).look == LONGEST  # others may give something back


def test_a_pause_is_waited_for_in_one_go(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1, horizon=0.05)
    fleet.ask("a", orders=Orders(pause=3.0))
    assert 2.9 <= fleet.ask("b", one()).look <= 3.0
    fleet.ask("a", orders=Orders(pause=3600.0))
    assert fleet.ask("b", one()).look == 5.0  # but who waits is not forgotten


def test_a_higher_priority_goes_next(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1, horizon=0.05)
    fleet.ask("first", cold=True)
    for number in range(5):
        fleet.ask(f"p{number}", one())
    urgent = fleet.ask("urgent", one(age=PATIENCE))
    fleet.advance(urgent.look)
    while not (answer := fleet.ask("urgent", one(age=fleet.seconds + PATIENCE))).at_once + answer.later:
        assert fleet.seconds < 1
        for number in range(5):
            answer = fleet.ask(f"p{number}", one(age=fleet.seconds))
            assert not answer.at_once + answer.later
        fleet.advance(0.01)
    assert fleet.seconds <= 0.5
    assert [moment for moment, _ in dues(answer, one())] == [pytest.approx(0.5, abs=0.01)]


def test_who_died_is_passed_over_a_tenth_of_a_second_after_its_promised_look(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1, horizon=0.05)
    fleet.ask("first", cold=True)
    fleet.at(0.3)
    dead = fleet.ask("dead", one())
    promised = fleet.seconds + dead.look
    assert 0.48 <= promised <= 0.5
    moment = 0.31
    while moment < 2:
        fleet.at(moment)
        answer = fleet.ask("b", one(age=moment - 0.31))
        if answer.at_once + answer.later:
            break
        moment += answer.look
    assert promised + LATE < moment <= promised + LATE + 0.006
    assert fleet.standing() == []


def test_those_who_come_later_get_what_is_left_when_the_first_ones_have_theirs(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 100, 20)
    ahead = fleet.ask("a", one(count=7), cold=True)
    assert (ahead.at_once + ahead.later, ahead.look) == (2, 0.03)
    fleet.advance(0.09)
    later = fleet.ask("b", one(count=10, age=0.01))
    assert later.at_once + later.later == 2
    first = fleet.ask("a", one(count=5, age=0.09))
    assert first.at_once + first.later == 5


def test_whoever_is_first_takes_its_share_in_one_go(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 200, 1, horizon=0.05)
    fleet.ask("x", cold=True)
    alone = fleet.ask("a", one(count=30))
    assert alone.at_once + alone.later == fleet.reach
    fleet.ask("b", one(count=30))
    fleet.advance(0.06)
    shared = fleet.ask("a", one(count=18, age=0.06))
    assert shared.at_once + shared.later == fleet.reach / 2
    nothing = fleet.ask("c", one(count=20))
    assert nothing.at_once + nothing.later == 0


def test_who_is_fully_served_or_gives_up_leaves_the_line(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1)
    fleet.ask("x", cold=True)
    fleet.ask("a", one())
    fleet.ask("b", one())
    assert fleet.standing() == ["a", "b"]
    fleet.advance(0.3)
    fleet.ask("a", one(age=0.3))
    fleet.ask("b", one(age=0.3))
    fleet.advance(0.2)
    fleet.ask("a", one(age=0.5))
    assert fleet.standing() == ["b"]
    fleet.ask("b", [])
    assert fleet.standing() == []


def test_who_does_not_stand_leaves_no_place(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 1)
    fleet.ask("x", cold=True)
    assert not fleet.takes("a")
    assert fleet.standing() == []


def test_a_call_of_cost_8_is_not_starved_by_calls_of_cost_1(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 50, 8, horizon=0.05)
    large = Worker("large", 1, cost=8)
    small = [Worker(f"p{number}", 4, begins=number * 0.01) for number in range(4)]
    simulate(fleet, [large, *small], 20)
    waits = [went - came for came, went in large.went]
    print(f"\ncalls of cost 8: {len(waits)}, the longest wait {max(waits):.2f} s")
    # Of 16 calls of cost 1 and one of cost 8 that take turns, all have gone after 24 permits.
    assert max(waits) <= 2 * 24 / 50 + LONGEST
    assert worst_excess(gone([large, *small]), 50, 8) <= 0.001

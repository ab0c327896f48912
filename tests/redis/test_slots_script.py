"""The script of a fleet's slots, on real servers and a clock that the test moves: who has how many, and who
is next.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import pytest
from attrs import define, field
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from batchkit._redis.scripts import SLOTS
from batchkit._redis.slots import Holding, SlotsAnswer, SlotsAsk
from batchkit._redis.wire import Calls, Orders, TooLate
from tests.redis.virtual import NO_ORDERS, Virtual, virtual_script
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

LEASE: Final = 10.0
HOUR: Final = 3600.0
LATE: Final = 0.1  # seconds after which a process that does not come is passed over
LONGEST: Final = 0.25  # seconds until the next look


class Fleet(Virtual):
    """One limiter in a server, as its processes see it."""

    def __init__(self, server: Server, limit: int) -> None:
        super().__init__(server, virtual_script(SLOTS.text))
        self.limit = limit

    def question(
        self,
        process: str,
        holds: int = 0,
        calls: Sequence[Calls] = (),
        *,
        serial: int | None = None,
        deadline: float = 0.0,
        presence: int = 0,
        limit: int | None = None,
        closes: float = 0.0,
        ended: int = 0,
        orders: Orders = NO_ORDERS,
        stands: bool = True,
    ) -> SlotsAsk:
        """A question; each one of a process has a number of its own unless one is given."""
        serial = self.serial(process) if serial is None else serial
        limit = limit or self.limit
        return SlotsAsk(
            process, serial, deadline, presence, limit, closes, LEASE, holds, ended, orders, stands, calls
        )

    def put(self, ask: SlotsAsk) -> SlotsAnswer | TooLate:
        """Have the script answer a question."""
        return ask.read(self.run("EVALSHA", self.sha, 1, self.key, *ask.words(), str(self.now)))

    def ask(
        self, process: str, holds: int = 0, wants: int = 0, age: float = 0.0, **kwargs: Any
    ) -> SlotsAnswer:
        """Put a question of calls that cost 1 and came so many seconds ago, which is not too late."""
        answer = self.put(self.question(process, holds, one(wants, age), **kwargs))
        assert isinstance(answer, SlotsAnswer)
        return answer


def one(count: int, age: float = 0.0) -> list[Calls]:
    return [Calls(count, 1, age)] if count else []


@pytest.fixture
def three(redis_server: Server) -> Fleet:
    """A fleet of three slots."""
    return Fleet(redis_server, 3)


class TestShares:
    def test_all_processes_together_have_no_more_than_the_limit(self, three: Fleet) -> None:
        assert three.ask("a", wants=2).granted == 2
        assert three.ask("b", wants=2).granted == 1
        assert three.ask("c", wants=1).granted == 0
        assert three.ask("a", holds=2).free == 0

    def test_who_hands_back_makes_room(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        assert three.ask("b", wants=1).granted == 0
        answer = three.ask("a", holds=2)
        assert (answer.granted, answer.free, answer.others_want) == (0, 1, 1)
        assert three.ask("b", wants=1).granted == 1

    def test_what_is_asked_twice_is_granted_once(self, three: Fleet) -> None:
        first = three.question("a", 0, one(2))
        assert three.put(first) == three.put(first)
        assert three.ask("b", wants=3).granted == 1

    def test_a_lost_answer_costs_nothing(self, three: Fleet) -> None:
        three.ask("a", wants=3)  # whose answer was lost: the process gave its calls up, and says so
        assert three.ask("a", holds=0).free == 3

    def test_an_earlier_question_that_comes_late_is_not_answered(self, three: Fleet) -> None:
        early = three.question("a", 0, one(3))
        three.ask("a", holds=0)
        assert three.put(early) == TooLate(three.now)
        assert three.ask("b", wants=3).granted == 3

    def test_a_question_after_its_deadline_is_not_answered(self, three: Fleet) -> None:
        assert three.put(three.question("a", 0, one(3), deadline=three.now - 1)) == TooLate(three.now)
        assert three.ask("b", wants=3).granted == 3

    def test_a_dear_call_is_not_overtaken_by_cheap_ones(self, three: Fleet) -> None:
        three.ask("a", wants=2)
        dear = [Calls(1, 3, 0.01)]
        assert three.put(three.question("b", 0, dear)) == three.put(three.question("b", 0, dear))
        assert three.ask("c", wants=1).granted == 0
        three.ask("a", holds=0)
        answer = three.put(three.question("b", 0, dear))
        assert isinstance(answer, SlotsAnswer)
        assert answer.granted == 3

    def test_a_process_may_say_that_it_has_more_than_it_was_granted(self, three: Fleet) -> None:
        assert three.ask("a", holds=5).free == -2
        assert three.ask("b", wants=1).granted == 0
        three.ask("a", holds=2)
        assert three.ask("b", wants=1).granted == 1


class TestOrder:
    def test_who_came_first_goes_first(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        three.ask("b", wants=1, age=0.02)
        three.ask("c", wants=1, age=0.03)
        three.ask("a", holds=2)
        assert three.ask("b", wants=1, age=0.02).granted == 0
        assert three.ask("c", wants=1, age=0.03).granted == 1

    def test_a_priority_is_worth_seconds_of_age(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        three.ask("b", wants=2, age=5.0)
        three.ask("urgent", wants=1, age=10.0)
        three.ask("a", holds=2)
        assert three.ask("b", wants=2, age=5.0).granted == 0
        assert three.ask("urgent", wants=1, age=10.0).granted == 1

    def test_more_than_those_before_it_want_is_for_who_comes_next(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        three.ask("b", wants=2, age=0.02)
        three.ask("a", holds=0)
        assert three.ask("c", wants=3, age=0.01).granted == 1

    def test_who_does_not_come_is_passed_over(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        answer = three.ask("b", wants=1, age=0.02)
        three.ask("a", holds=2)
        three.advance(answer.look + LATE * 0.9)
        assert three.ask("c", wants=1).granted == 0
        three.advance(LATE * 0.2)
        assert three.ask("c", wants=1).granted == 1

    def test_who_gives_up_stands_in_nobodys_way(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        three.ask("b", wants=1, age=0.02)
        three.ask("b")
        assert three.ask("a", holds=2).others_want == 0
        assert three.ask("c", wants=1).granted == 1

    def test_a_try_does_not_stand_in_line(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        assert three.ask("b", wants=1, stands=False).look == 0
        assert three.ask("a", holds=3).others_want == 0


class TestLooks:
    def test_who_is_first_looks_often_for_the_time_of_a_call(self, three: Fleet) -> None:
        for _ in range(10):  # calls of one second
            three.ask("a", wants=3)
            three.advance(1.0)
            three.ask("a", ended=3)
        three.ask("a", wants=3)
        assert three.ask("b", wants=1, age=0.01).look == pytest.approx(0.02, rel=0.2)

    def test_the_others_look_when_their_turn_may_come(self, three: Fleet) -> None:
        for _ in range(20):  # calls of 0.3 s: ten a second
            three.ask("a", wants=3)
            three.advance(0.3)
            three.ask("a", ended=3)
        three.ask("a", wants=3)
        three.ask("b", wants=2, age=0.02)
        assert 0.1 < three.ask("c", wants=1, age=0.01).look < 0.2
        assert three.ask("d", wants=1).look <= LONGEST

    def test_who_has_all_slots_only_looks_whether_others_came(self, three: Fleet) -> None:
        assert three.ask("a", wants=5).look == LONGEST

    def test_nobody_looks_for_nothing(self, three: Fleet) -> None:
        assert three.ask("a", wants=3).look == 0


class TestLeases:
    def test_the_slots_of_who_died_are_free_after_the_lease(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        for _ in range(4):
            three.advance(LEASE / 4)
            assert three.ask("b", wants=1).granted == 0
        three.advance(LEASE / 100)
        assert three.ask("b", wants=1).granted == 1

    def test_who_lives_keeps_them_however_long_its_calls_take(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        for _ in range(30):
            three.advance(LEASE / 3)
            three.ask("a", holds=3)
            assert three.ask("b", wants=1).granted == 0

    def test_who_comes_back_after_its_lease_holds_what_it_says(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        for _ in range(5):
            three.advance(LEASE / 4)
            three.ask("b", holds=0)
        assert three.ask("b", wants=2).granted == 2
        assert three.ask("a", holds=3).free == -2
        assert three.ask("b", holds=2, wants=1).granted == 0

    def test_where_nobody_was_heard_of_all_have_another_lease(self, three: Fleet) -> None:
        """As after a server that stood still, so that nobody could say anything."""
        three.ask("a", wants=3)
        three.advance(LEASE * 1.5)
        assert three.ask("b", wants=1).granted == 0
        three.advance(LEASE * 0.9)
        assert three.ask("b", wants=1).granted == 0
        three.advance(LEASE * 0.2)
        assert three.ask("b", wants=1).granted == 1

    @pytest.mark.parametrize("jump", [HOUR, -HOUR])
    def test_a_clock_that_was_set_takes_nothing_away_and_holds_nobody_up(
        self, three: Fleet, jump: float
    ) -> None:
        three.ask("a", wants=3)
        three.ask("b", wants=1, age=0.01)
        three.advance(jump)
        assert three.ask("b", wants=1, age=0.02).granted == 0
        three.ask("a", holds=2)
        assert three.ask("b", wants=1, age=0.03).granted == 1

    def test_a_clock_that_was_set_back_does_not_keep_the_dead_in_line(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        three.ask("dead", wants=1, age=0.01)
        three.advance(-HOUR)
        three.ask("a", holds=2)
        three.advance(2 * LATE + 0.01)
        assert three.ask("b", wants=1).granted == 1

    def test_the_dead_are_forgotten(self, three: Fleet) -> None:
        for process in ("a", "b", "c"):
            three.ask(process)
        assert three.ask("d").members == 4
        for _ in range(13):
            three.advance(LEASE / 4)
            three.ask("d")
        assert three.ask("d").members == 1
        assert three.run("HLEN", three.key) == 2

    def test_all_of_it_is_forgotten_in_the_end(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        assert 2 * LEASE < three.run("PTTL", three.key) / 1000 <= 3 * LEASE


class TestOrders:
    def test_another_limit_counts_for_all(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        answer = three.ask("a", holds=3, orders=Orders(size=(0.0, 5)))
        assert (answer.limit, answer.version, answer.free) == (5, 1, 2)
        answer = three.ask("b", wants=5)
        assert (answer.limit, answer.granted) == (5, 2)

    def test_nobody_goes_while_more_are_held_than_may_be(self, three: Fleet) -> None:
        three.ask("a", wants=3)
        assert three.ask("a", holds=3, orders=Orders(size=(0.0, 1))).free == -2
        three.ask("a", holds=1)
        assert three.ask("b", wants=1).granted == 0
        three.ask("a")
        assert three.ask("b", wants=1).granted == 1

    def test_what_the_last_one_that_starts_says_counts(self, three: Fleet) -> None:
        three.ask("a", presence=2)
        assert three.ask("b", presence=2, limit=7).limit == 7
        assert three.ask("a", presence=1).limit == 7
        three.ask("a", orders=Orders(size=(0.0, 4)))
        assert three.ask("c", presence=2, limit=7).limit == 4, "it is configured as it was"
        assert three.ask("d", presence=2, limit=3).limit == 3

    def test_a_pause_is_for_all(self, three: Fleet) -> None:
        three.ask("a", orders=Orders(pause=2.0))
        answer = three.ask("b", wants=1)
        assert (answer.granted, answer.closed) == (0, 2.0)
        assert answer.look == LONGEST
        three.advance(1.9)
        answer = three.ask("b", wants=1)
        assert answer.look == answer.closed == pytest.approx(0.1)
        three.advance(0.1)
        assert three.ask("b", wants=1).granted == 1

    def test_where_nothing_is_known_nobody_may_go_for_a_while(self, three: Fleet) -> None:
        assert three.ask("a", wants=1, closes=LEASE).granted == 0
        three.advance(LEASE * 0.99)
        assert three.ask("a", wants=1, closes=LEASE).granted == 0
        three.advance(LEASE * 0.01)
        assert three.ask("a", wants=1, closes=LEASE).granted == 1
        assert three.ask("b", wants=1, closes=LEASE).granted == 1


# what processes do with it

Step: TypeAlias = tuple[Literal["call", "end", "ask", "lose", "die", "wait"], int]
WHAT: Final = ["call", "call", "end", "ask", "ask", "lose", "die", "wait"]


@define(eq=False)
class Process:
    """A process, with the store that it really has.

    Attributes:
        name: what the script knows it by.
        holding: its slots.
        waiting: when its calls came.
        sent: a question whose answer was lost.
        asked_at: when it was answered last.
    """

    name: str
    holding: Holding
    waiting: deque[float] = field(factory=deque)
    sent: SlotsAsk | None = None
    asked_at: float = 0.0

    def go(self, now: float) -> None:
        """Let calls go as far as the slots suffice."""
        while self.waiting and self.holding.take(1, now):
            self.waiting.popleft()

    def ask(self, fleet: Fleet, *, lost: bool = False) -> None:
        """Say what is held and ask for what is waited for; `lost`: the answer does not come."""
        now, holding = fleet.seconds, self.holding
        if self.sent is None:
            holding.lapse(now)
            holding.hand_back(len(self.waiting))
            wants = len(self.waiting) - holding.total
            age = now - self.waiting[0] if self.waiting else 0.0
            self.sent = fleet.question(self.name, holding.held, one(wants, age), ended=holding.ended)
            holding.ended = 0
        asked_at, answer = now, fleet.put(self.sent)
        assert isinstance(answer, SlotsAnswer)
        if lost:
            return
        holding.feed(self.sent, answer, now, asked_at + LEASE)
        self.sent, self.asked_at = None, now
        self.go(now)


@settings(
    max_examples=80,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    limit=st.integers(1, 5),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["call", "call", "end", "ask", "ask", "lose", "die", "wait"]), st.integers(0, 3)
        ),
        max_size=60,
    ),
)
def test_whatever_happens_no_more_calls_are_under_way_than_may_be(
    valkey: Server, limit: int, steps: list[Step]
) -> None:
    """Calls come and end, answers are lost and processes die, in any order. Whoever died keeps its slots for
    a lease. In the end all who still live get theirs.
    """
    fleet = Fleet(valkey, limit)
    numbers = itertools.count()

    def born() -> Process:
        return Process(f"p{next(numbers)}", Holding(limit))

    alive = [born() for _ in range(4)]
    dead: list[Process] = []

    def check() -> None:
        lately = [process for process in dead if fleet.seconds - process.asked_at < LEASE]
        assert sum(process.holding.taken for process in [*alive, *lately]) <= limit

    for what, which in steps:
        process = alive[which]
        if what == "call":
            process.waiting.append(fleet.seconds)
            process.go(fleet.seconds)
        elif what == "end" and process.holding.taken:
            process.holding.give_back(1)
            process.go(fleet.seconds)
        elif what == "ask":
            process.ask(fleet)
        elif what == "lose":
            process.ask(fleet, lost=True)
        elif what == "die":
            dead.append(process)
            alive[which] = born()
        elif what == "wait":
            fleet.advance(LEASE / 7 * (which + 1) / 2)
            for beating in alive:
                if fleet.seconds - beating.asked_at > LEASE / 3:
                    beating.ask(fleet)
        check()

    for _ in range(100):
        fleet.advance(LEASE / 5)
        for process in alive:
            process.ask(fleet)
            check()
            process.holding.give_back(process.holding.taken)
    assert not any(process.waiting for process in alive), "somebody starves"

"""The line, by rows of time, action, expectation, and against a model in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchkit._core.bucket import Bucket
from batchkit._core.line import Line
from batchkit._core.place import Place, State


class Score:
    """A line, and its places by letter."""

    def __init__(self, rate: float, burst: int) -> None:
        self.bucket = Bucket(rate, burst, 0.0)
        self.line = Line(self.bucket, patience=10.0)
        self.places: dict[str, Place] = {}

    def join(
        self,
        name: str,
        now: float,
        cost: int = 1,
        *,
        party: str = "loop",
        priority: int = 0,
        deadline: float = inf,
    ) -> None:
        self.places[name] = Place(cost, name, party, priority, timeout=deadline - now)
        self.line.join(self.places[name], now)

    def look(self, now: float) -> str:
        """The names of those that are woken, in order."""
        return "".join(place.owner for place in self.line.look(now))

    def go(self, name: str, now: float) -> bool:
        return self.line.go(self.places[name], now)

    def leave(self, name: str) -> None:
        self.line.leave(self.places[name])

    def state(self, name: str) -> State:
        return self.places[name].state


@pytest.fixture
def score() -> Score:
    """Rate 2/s, burst 2, and its two permits are taken at 0."""
    score = Score(rate=2, burst=2)
    assert score.line.take(2, 0)
    return score


def test_first_come_first_served(score: Score) -> None:
    for name in "abc":
        score.join(name, 0.0)
    assert score.look(0.4) == ""
    assert score.line.next_look(0.4) == 0.5
    assert score.look(0.5) == "a"
    assert score.go("a", 0.5)
    assert not score.go("c", 0.9)
    assert score.look(1.0) == "b"
    assert score.go("b", 1.0)
    assert score.look(1.5) == "c"


class TestForAFleet:
    """What a limiter needs whose permits come from elsewhere."""

    def test_those_who_want_something_are_told_in_order(self, score: Score) -> None:
        for name, priority in ("a", 0), ("b", 0), ("c", 1):
            score.join(name, 0.0, priority=priority)
        assert score.look(0.5) == "c"
        assert [place.owner for place in score.line.upcoming(10)] == ["c", "a", "b"]
        assert [place.owner for place in score.line.upcoming(0)] == ["c"]
        assert score.line.demand == 3

    def test_who_is_held_wants_what_is_kept_for_it(self, score: Score) -> None:
        score.join("a", 0.0, cost=2)
        score.join("b", 0.0)
        score.line.hold(score.places["a"], inf)
        assert score.line.demand == 1
        score.line.hold(score.places["a"], 5.0)
        assert [place.owner for place in score.line.upcoming(10)] == ["a", "b"]
        assert score.line.demand == 3
        score.line.wait(score.places["a"])
        assert score.line.demand == 3
        score.leave("a")
        assert score.line.demand == 1

    def test_who_is_set_aside_is_not_among_them(self, score: Score) -> None:
        score.join("a", 0.0, party="stalled")
        score.join("b", 0.0, party="here")
        assert score.look(0.5) == "a"
        score.look(1.0)
        assert score.state("a") is State.ASIDE
        assert [place.owner for place in score.line.upcoming(10)] == ["b"]

    def test_all_can_be_refused(self, score: Score) -> None:
        score.join("a", 0.0, party="stalled")
        score.join("b", 0.0, party="stalled")
        score.join("c", 0.0, party="here")
        assert score.look(0.5) == "a"
        score.look(0.9)
        score.join("d", 0.9, party="here")
        assert score.state("a") is score.state("b") is State.ASIDE
        refused = score.line.refuse()
        assert sorted(place.owner for place in refused) == list("abcd")
        assert {place.state for place in refused} == {State.REFUSED}
        assert score.line.demand == 0

    def test_a_line_is_clogged_by_grants_that_fill_the_burst(self, score: Score) -> None:
        score.join("a", 0.0)
        score.join("b", 0.0, cost=2)
        assert not score.line.clogged
        assert score.look(0.5) == "a"
        assert score.line.clogged
        assert score.go("a", 0.5)
        assert not score.line.clogged


def test_nobody_has_to_look_while_nobody_waits(score: Score) -> None:
    assert score.line.next_look(0.0) == inf


def test_who_comes_when_it_is_its_turn_goes_without_being_woken(score: Score) -> None:
    score.join("a", 0.0)
    score.join("b", 0.0)
    assert not score.go("b", 0.5)
    assert score.go("a", 0.5)


def test_a_newcomer_passes_nobody(score: Score) -> None:
    score.join("a", 0.0, cost=2)
    assert not score.line.take(1, 0.5)  # one permit is there, and kept for the head of the line
    assert score.look(1.0) == "a"
    assert not score.line.take(1, 1.0)  # who was called is about to go
    assert score.go("a", 1.0)
    assert score.line.take(1, 1.5)


def test_a_large_cost_is_not_starved_by_small_ones(score: Score) -> None:
    score.join("L", 0.0, cost=2)
    for name in "abc":
        score.join(name, 0.1)
    assert score.look(0.9) == ""
    assert score.look(1.0) == "L"


def test_a_higher_priority_goes_first(score: Score) -> None:
    score.join("a", 0.0)
    score.join("b", 0.1, priority=1)
    assert score.look(0.5) == "b"


def test_who_has_waited_long_enough_goes_before_a_higher_priority() -> None:
    score = Score(rate=0.1, burst=1)
    score.line.take(1, 0)
    score.join("a", 0.0)
    score.join("b", 9.9, priority=1)
    score.join("c", 10.1, priority=1)
    order = ""
    for turn in (10.0, 20.0, 30.0):
        name = score.look(turn)
        assert score.go(name, turn)
        order += name
    assert order == "bac"


def test_a_stall_lets_no_backlog_go(score: Score) -> None:
    for name in "abcdef":
        score.join(name, 0.0)
    assert score.look(100.0) == "ab"
    assert score.go("a", 100.0)
    assert score.go("b", 100.0)
    assert score.look(100.0) == ""
    assert score.look(100.5) == "c"


def test_a_grant_that_is_not_taken_stands_in_the_bucket(score: Score) -> None:
    for name in "abcd":
        score.join(name, 0.0)
    assert score.look(0.5) == "a"
    assert score.look(50.0) == "b"  # all of one loop: nobody is passed over, and a's permit is still a's
    assert score.look(60.0) == ""
    assert score.line.next_look(60.0) == inf
    assert score.go("a", 60.0)
    assert score.go("b", 60.0)
    assert score.look(60.0) == ""


def test_who_leaves_hands_on_what_it_was_granted(score: Score) -> None:
    score.join("a", 0.0)
    score.join("b", 0.0)
    assert score.look(0.5) == "a"
    score.leave("a")
    assert score.look(0.5) == "b"
    score.leave("a")  # twice is once
    assert score.line.reserved == 1


def test_those_who_leave_cost_the_next_one_nothing(score: Score) -> None:
    for number in range(20):
        score.join(f"{number}", 0.0)
    for number in range(20):
        score.leave(f"{number}")
    score.join("a", 0.1)
    assert score.line.next_look(0.1) == 0.5
    assert score.look(0.5) == "a"


def test_a_party_that_does_not_come_is_set_aside_and_keeps_its_places(score: Score) -> None:
    for name in "abc":
        score.join(name, 0.0, party="stalled")
    score.join("x", 0.0, party="other")
    score.join("y", 0.0, party="other")
    assert score.look(0.5) == "a"
    assert score.line.next_look(0.5) == 0.51
    assert score.look(1.0) == "xy"  # a's grant is over, b and c would not come either
    assert score.go("x", 1.0)
    assert score.go("y", 1.0)
    assert score.state("b") is State.ASIDE
    assert not score.go("a", 1.1)  # here again, and first in line
    assert score.look(1.5) == "a"
    assert score.go("a", 1.5)
    assert score.look(2.0) == "b"


@pytest.mark.parametrize(("rate", "grace"), [(2.0, 0.01), (500.0, 0.006), (20_000.0, 0.002)])
def test_a_stalled_party_holds_up_others_by_a_few_permits_time(rate: float, grace: float) -> None:
    score = Score(rate, burst=1)
    score.line.take(1, 0.0)
    score.join("a", 0.0, party="stalled")
    score.join("x", 0.0, party="other")
    due = score.line.next_look(0.0)
    assert score.look(due) == "a"
    assert score.line.next_look(due) == due + grace
    assert score.look(due + grace) == "x"
    assert score.go("x", due + grace)


def test_only_the_party_that_is_late_is_set_aside() -> None:
    score = Score(rate=200, burst=2)
    score.line.take(2, 0.0)
    for name in "abx":
        score.join(name, 0.0, party=name)
    assert score.look(0.005) == "a"
    assert score.look(0.01) == "b"
    assert score.look(0.015) == "x"
    assert [score.state(name) for name in "abx"] == [State.ASIDE, State.GRANTED, State.GRANTED]
    assert score.go("b", 0.015)


def test_a_newcomer_brings_its_party_back(score: Score) -> None:
    score.join("a", 0.0, party="stalled")
    score.join("x", 0.0, party="other")
    assert score.look(0.5) == "a"
    assert score.look(0.6) == "x"
    assert score.go("x", 0.6)
    score.join("d", 0.7, party="stalled")
    assert score.look(1.0) == "a"


def test_who_leaves_while_its_party_is_aside_does_not_return_with_it(score: Score) -> None:
    score.join("a", 0.0, party="stalled")
    score.join("b", 0.0, party="stalled")
    score.join("x", 0.0, party="other")
    assert score.look(0.5) == "a"
    assert score.look(0.6) == "x"
    score.leave("a")
    assert score.go("x", 0.6)
    assert not score.go("b", 0.7)
    assert score.state("a") is State.LEFT
    assert score.look(1.0) == "b"


def test_a_party_that_left_for_good_is_forgotten(score: Score) -> None:
    score.join("a", 0.0, party="dead")
    score.join("b", 0.0, party="dead")
    score.join("x", 0.0, party="other")
    assert score.look(0.5) == "a"
    assert score.look(0.6) == "x"
    score.leave("a")
    score.leave("b")
    assert score.go("x", 0.6)
    assert score.line.take(1, 1.0)


def test_while_room_is_missing_the_next_look_is_when_a_grant_ends() -> None:
    score = Score(rate=100, burst=1)
    score.line.take(1, 0)
    score.join("a", 0.0, party="slow")
    score.join("x", 0.0, party="other")
    assert score.look(0.01) == "a"
    assert score.line.next_look(0.01) == 0.02
    assert score.look(0.02) == "x"


def test_a_deadline_that_passes_ends_the_place(score: Score) -> None:
    score.join("a", 0.0)
    score.join("b", 0.0, deadline=0.75)
    assert score.look(0.5) == "a"
    assert score.line.next_look(0.5) == 0.75
    assert score.look(0.75) == "b"
    assert score.state("b") is State.EXPIRED
    assert not score.go("b", 0.75)


def test_a_deadline_that_no_refill_meets_ends_the_place_at_once(score: Score) -> None:
    score.join("a", 0.0, cost=2, deadline=0.9)
    assert score.look(0.0) == "a"
    assert score.state("a") is State.EXPIRED


def test_a_deadline_at_the_very_moment_is_met(score: Score) -> None:
    score.join("a", 0.0, deadline=0.5)
    assert score.look(0.5) == "a"
    assert score.state("a") is State.GRANTED


def test_a_look_after_the_deadline_does_not_grant(score: Score) -> None:
    score.join("a", 0.0, deadline=0.5)
    assert score.look(0.6) == "a"
    assert score.state("a") is State.EXPIRED


def test_a_deadline_survives_a_stay_aside(score: Score) -> None:
    score.join("a", 0.0, party="stalled", deadline=0.9)
    score.join("x", 0.0, party="other")
    assert score.look(0.5) == "a"
    assert score.look(0.6) == "x"
    assert score.go("x", 0.6)
    assert not score.go("a", 0.7)
    assert score.look(0.8) == "a"
    assert score.state("a") is State.EXPIRED  # the next permit comes at 1.0


def test_a_lower_burst_refuses_those_who_could_never_go(score: Score) -> None:
    score.join("a", 0.0, cost=2)
    score.join("b", 0.0)
    assert [place.owner for place in score.line.change(2, 1, 0.0)] == ["a"]
    assert score.state("a") is State.REFUSED
    assert score.look(0.5) == ""
    assert score.look(1.0) == "b"


def test_a_grant_that_a_lower_burst_overtakes_is_refused_when_its_owner_comes(score: Score) -> None:
    score.join("a", 0.0, cost=2)
    assert score.look(1.0) == "a"
    score.line.change(2, 1, 1.0)
    assert not score.go("a", 1.0)
    assert score.state("a") is State.REFUSED


def test_a_grant_that_a_debt_overtakes_waits_on(score: Score) -> None:
    score.join("a", 0.0)
    assert score.look(0.5) == "a"
    score.bucket.charge(1, 0.5)
    assert not score.go("a", 0.5)
    assert score.look(1.0) == "a"


def test_a_place_without_its_owner_is_kept_free_for_a_moment_only(score: Score) -> None:
    score.join("a", 0.0)
    score.places["a"].absent = True
    assert not score.line.take(1, 0.5)
    assert score.look(0.5) == "a"
    assert not score.line.take(1, 0.505)
    assert score.look(0.51) == ""
    assert score.line.take(1, 0.51)
    assert not score.go("a", 0.52)
    assert score.look(1.0) == "a"
    assert score.go("a", 1.0)


def test_most_who_join_change_nothing_for_the_others(score: Score) -> None:
    def news(**named: Any) -> bool:
        return score.line.join(Place(1, **named), 0.0)

    assert news(key="loop")  # the first of its party
    assert not news(key="loop")
    assert news(key="loop", timeout=9.0)
    assert news(key="loop", priority=1)  # it is the head now
    assert news(key="other")


def test_in_a_pause_nobody_goes_and_permits_come_in(score: Score) -> None:
    score.join("a", 0.0)
    score.line.pause(2.0)
    score.line.pause(1.0)  # does not cut the longer one short
    assert score.look(0.5) == ""
    assert score.line.next_look(0.5) == 2.0
    assert score.line.estimate(1, 0.5) == 2.0
    assert not score.go("a", 1.9)
    assert score.look(2.0) == "a"
    assert score.go("a", 2.0)
    assert score.line.take(1, 2.0)
    assert not score.line.take(1, 2.0)


def test_a_pause_stops_a_newcomer_and_who_was_granted(score: Score) -> None:
    score.join("a", 0.0)
    assert score.look(0.5) == "a"
    score.line.pause(3.0)
    assert not score.go("a", 0.5)
    assert not score.line.take(1, 2.9)
    assert score.go("a", 3.0)


def test_a_pause_beyond_the_deadline_ends_it_at_once(score: Score) -> None:
    score.join("a", 0.0, deadline=1.0)
    score.line.pause(2.0)
    assert score.look(0.0) == "a"
    assert score.state("a") is State.EXPIRED


def test_a_recount_stands_as_the_places_say(score: Score) -> None:
    score.join("a", 0.0, party="stalled")
    score.join("b", 0.0, party="stalled")
    score.join("x", 0.0, party="other", deadline=9.0)
    score.join("y", 0.0, party="other", cost=2)
    assert score.look(0.5) == "a"
    assert score.look(0.6) == "x"  # a is set aside, and b with it
    before = (score.line.waiting, score.line.wanted, score.line.reserved)
    score.line.waiting = score.line.wanted = score.line.reserved = 99
    score.line.recount(score.places.values())
    assert (score.line.waiting, score.line.wanted, score.line.reserved) == before
    assert score.go("x", 0.6)
    assert score.go("a", 1.0)
    assert score.look(1.5) == "b"
    assert score.go("b", 1.5)
    assert score.look(2.5) == "y"


def test_the_estimate_counts_those_ahead(score: Score) -> None:
    score.join("a", 0.0, cost=2)
    assert score.line.estimate(1, 0.0) == 1.5
    assert score.look(1.0) == "a"
    assert score.line.estimate(1, 1.0) == 1.5


def test_memory_follows_those_who_wait(score: Score) -> None:
    score.join("first", 0.0)
    for _ in range(10_000):
        score.join("a", 0.0, deadline=100.0)
        score.leave("a")
    assert len(score.line._heap) < 100
    assert len(score.line._deadlines) < 100


class TestJoint:
    """Places of calls that need other limits, too."""

    def join(self, score: Score, name: str, now: float, cost: int = 1) -> Place:
        score.places[name] = Place(cost, name, "loop", joint=True)
        score.line.join(score.places[name], now)
        return score.places[name]

    def test_others_pass_one_that_is_held_and_leave_what_is_kept_for_it(self, score: Score) -> None:
        held = self.join(score, "a", 0.0)
        score.join("b", 0.0)
        score.line.hold(held, 1.0)  # it could go elsewhere then
        assert score.look(0.5) == "b"
        assert score.go("b", 0.5)
        score.join("c", 0.6)
        assert score.look(1.0) == ""  # one permit is there: a's
        assert not score.line.take(1, 1.0)
        assert score.line.estimate(1, 1.0) == 2.0
        assert score.line.next_look(1.0) == 1.5
        assert score.line.may_go(held, 1.0)
        assert score.go("a", 1.0)
        assert score.look(1.5) == "c"

    def test_nothing_is_kept_for_one_that_is_held_for_nobody_knows_how_long(self, score: Score) -> None:
        held = self.join(score, "a", 0.0)
        score.line.hold(held, inf)
        assert score.line.take(1, 0.5)
        assert score.line.moment(held, 0.5) == 1.0
        score.line.wait(held)
        assert score.look(1.0) == "a"

    def test_one_that_does_not_use_its_grant_waits_on_or_is_held(self, score: Score) -> None:
        place = self.join(score, "a", 0.0)
        assert score.look(0.5) == "a"
        score.line.wait(place)
        assert score.line.reserved == 0
        assert score.look(0.5) == "a"
        score.line.hold(place, 3.0)
        assert score.line.reserved == 0
        score.line.hold(place, 4.0)
        assert place.kept_for == 4.0
        assert score.line.take(1, 0.5)  # it has come in again by then

    def test_the_first_one_passes_what_those_behind_it_were_granted(self, score: Score) -> None:
        first, second = self.join(score, "a", 0.0, cost=2), self.join(score, "b", 0.0)
        score.line.hold(first, inf)
        assert score.look(0.5) == "b"  # waits for another limit, with a grant here
        assert not score.line.may_go(first, 0.9)
        assert score.line.moment(first, 0.9) == 1.0
        assert score.line.moment(second, 0.9) == 0.9
        assert score.go("a", 1.0)
        assert not score.go("b", 1.0)
        assert second.state is State.WAITING
        assert score.look(1.5) == "b"

    def test_a_grant_that_is_given_back_is_in_nobodys_way(self, score: Score) -> None:
        first, second = self.join(score, "a", 0.0), self.join(score, "b", 0.0)
        score.line.hold(first, inf)
        assert score.look(0.5) == "b"
        score.line.hold(second, inf)
        assert score.line.may_go(first, 0.5)
        score.line.wait(second)
        assert score.look(0.5) == "b"
        score.line.wait(first)
        assert not score.line.may_go(score.places["b"], 0.4)
        assert score.go("a", 0.5)
        assert second.state is State.GRANTED
        assert not score.go("b", 0.5)

    def test_one_that_gave_its_grant_back_is_not_the_first_that_is_granted(self, score: Score) -> None:
        first, second, _ = (self.join(score, name, 0.0) for name in "abc")
        score.line.hold(first, inf)
        assert score.look(1.0) == "bc"
        score.line.hold(second, inf)
        assert score.line.may_go(first, 1.0)
        assert score.line.may_go(second, 1.0)

    def test_one_that_is_held_for_an_instant_stands_where_it_stood(self, score: Score) -> None:
        place = self.join(score, "a", 0.0)
        score.join("b", 0.0)
        score.line.hold(place, inf)
        score.line.wait(place)
        assert score.look(1.0) == "ab"

    def test_a_place_that_ended_is_neither_held_nor_waits(self, score: Score) -> None:
        place = self.join(score, "a", 0.0)
        score.leave("a")
        score.line.hold(place, 1.0)
        score.line.wait(place)
        assert place.ended
        assert score.line.quiet(9.0)

    def test_who_is_held_while_its_party_is_aside_keeps_nothing(self, score: Score) -> None:
        held = self.join(score, "a", 0.0)
        score.join("b", 0.0)
        score.join("x", 0.0, party="other")
        score.line.hold(held, 60.0)
        assert score.look(0.5) == "b"
        assert score.look(0.51) == "x"  # b did not come: its loop is stalled
        assert score.go("x", 0.51)
        assert score.line.take(1, 60.0)
        assert score.line.take(1, 60.0)
        score.line.leave(held)
        score.leave("b")
        assert score.line.quiet(60.0)

    def test_a_lower_burst_refuses_one_that_is_held(self, score: Score) -> None:
        held = self.join(score, "a", 0.0, cost=2)
        score.line.hold(held, 5.0)
        assert score.line.change(2, 1, 0.0) == [held]
        assert held.state is State.REFUSED
        assert score.line.moment(held, 0.0) == inf

    def test_one_whose_deadline_is_certain_to_pass_elsewhere_ends_here(self, score: Score) -> None:
        place = self.join(score, "a", 0.0)
        score.line.expire(place)
        assert place.state is State.EXPIRED
        assert score.line.quiet(9.0)

    def test_a_recount_knows_those_that_are_held_and_granted(self, score: Score) -> None:
        held, granted = self.join(score, "a", 0.0), self.join(score, "b", 0.0)
        score.line.hold(held, 2.0)
        assert score.look(0.5) == "b"
        score.line.recount([held, granted])
        assert score.line.reserved == 1
        assert not score.line.take(1, 0.5)
        assert score.go("b", 0.5)
        assert score.go("a", 2.0)
        assert score.line.quiet(2.0)


class LineMachine(RuleBasedStateMachine):
    """Random joins, looks, comings, cancels and stalls, against what the rules say in exact fractions."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.standing: list[Place] = []
        self.gone: list[tuple[float, int]] = []
        self.credit: list[tuple[float, Fraction]] = []  # moment, permits that may have gone by then

    @initialize(rate=st.sampled_from([0.1, 1 / 3, 1.0, 2.0, 1000.0]), burst=st.integers(1, 6))
    def start(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.line = Line(Bucket(rate, burst, 0.0))

    @rule(
        cost=st.integers(1, 6), priority=st.integers(0, 2), party=st.integers(0, 2), seconds=st.floats(0, 20)
    )
    def join(self, cost: int, priority: int, party: int, seconds: float) -> None:
        timeout = inf if seconds > 15 else seconds
        place = Place(min(cost, self.burst), key=party, priority=priority, timeout=timeout)
        self.line.join(place, self.now)
        self.standing.append(place)

    @rule(cost=st.integers(1, 6))
    def newcomer(self, cost: int) -> None:
        waits = any(place.state in (State.WAITING, State.GRANTED) for place in self.standing)
        if self.line.take(min(cost, self.burst), self.now):
            assert not waits
            self.gone.append((self.now, min(cost, self.burst)))

    @rule()
    def look(self) -> None:
        for place in self.line.look(self.now):
            assert place.state in (State.GRANTED, State.EXPIRED)
        after = self.line.next_look(self.now)
        assert after > self.now
        assert (
            after < inf
            or not any(place.state is State.WAITING for place in self.standing)
            or self.line.reserved
        )

    @rule(number=st.integers(0, 30))
    def come(self, number: int) -> None:
        if self.standing:
            place = self.standing[number % len(self.standing)]
            ahead = [
                other
                for other in self.standing
                if other.order < place.order and other.state is State.WAITING and other.key == place.key
            ]
            was_waiting = place.state is State.WAITING
            if self.line.go(place, self.now):
                assert not (was_waiting and ahead)
                self.gone.append((self.now, place.cost))

    @rule(number=st.integers(0, 30))
    def cancel(self, number: int) -> None:
        if self.standing:
            self.line.leave(self.standing[number % len(self.standing)])

    @rule(seconds=st.floats(0, 10) | st.sampled_from([0.01, 0.5, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.line.next_look(self.now) < inf)
    @rule()
    def on_time(self) -> None:
        self.now = max(self.now, self.line.next_look(self.now))
        self.look()

    @invariant()
    def counts_agree(self) -> None:
        self.standing = [place for place in self.standing if not place.ended]
        waiting = [place for place in self.standing if place.state is State.WAITING]
        assert self.line.waiting == len(waiting)
        assert self.line.wanted == sum(place.cost for place in waiting)
        assert self.line.reserved == sum(
            place.cost for place in self.standing if place.state is State.GRANTED
        )

    @invariant()
    def never_over(self) -> None:
        for first in range(len(self.gone)):
            permits = 0
            begin = self.gone[first][0]
            for end, cost in self.gone[first:]:
                permits += cost
                assert permits <= (Fraction(end) - Fraction(begin)) * Fraction(self.rate) + self.burst

    def teardown(self) -> None:
        """Whoever still stands gets its turn: nobody is lost."""
        if not hasattr(self, "line"):
            return
        for place in self.standing:
            place.deadline = inf
        for _ in range(20 * len(self.standing)):
            for place in self.standing:
                self.line.go(place, self.now)
            self.line.look(self.now)
            self.now = min(max(self.now, self.line.next_look(self.now)), self.now + 100)
        assert all(place.ended for place in self.standing)


TestLineMachine = LineMachine.TestCase
TestLineMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

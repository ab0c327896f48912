"""The slots that a process holds of a fleet's: what its own calls may use, and what it has to say."""

from __future__ import annotations

from math import inf
from struct import pack

import pytest

from batchkit._redis.slots import Holding, Share, SlotsAnswer, SlotsAsk
from batchkit._redis.substitutes import Nothing, Unlimited
from batchkit._redis.wire import Calls, Orders, TooLate

LIMIT = 5
GOOD_UNTIL = 10.0


def ask(holds: int = 0, wants: int = 0) -> SlotsAsk:
    calls = [Calls(wants, 1, 0.0)] if wants else []
    return SlotsAsk("me", 1, 0.0, 0, LIMIT, 0.0, 10.0, holds, 0, Orders(), True, calls)


def answer(granted: int = 0, *, others_want: int = 0, members: int = 1, **more: float) -> SlotsAnswer:
    figures = {"closed": 0.0, "look": 0.0} | more
    return SlotsAnswer(
        0.0, 0, LIMIT, granted, others_want=others_want, members=members, free=LIMIT - granted, **figures
    )


def holding(granted: int, wants: int | None = None, **more: int) -> Holding:
    """What was granted of what was wanted."""
    slots = Holding(LIMIT)
    slots.feed(ask(0, granted if wants is None else wants), answer(granted, **more), 0.0, GOOD_UNTIL)
    return slots


def test_what_is_granted_may_be_used_again_and_again() -> None:
    slots = holding(2)
    for _ in range(3):
        assert slots.take(2, 1.0)
        assert not slots.take(1, 1.0)
        assert slots.due(1, 1.0) == inf
        assert slots.give_back(2)
    assert (slots.held, slots.total, slots.taken, slots.granted, slots.ended) == (2, 2, 0, 6, 6)
    assert slots.available(1.0) == LIMIT


def test_what_is_reserved_is_not_for_others() -> None:
    slots = holding(2)
    assert not slots.take(1, 0.0, reserved=2)
    assert slots.take(1, 0.0, reserved=1)


def test_who_stood_still_does_not_use_what_others_may_have_by_now() -> None:
    slots = holding(3)
    slots.take(1, 0.0)
    assert slots.holds(2, GOOD_UNTIL)
    assert not slots.take(1, GOOD_UNTIL + 0.01)
    assert (slots.held, slots.taken, slots.told) == (1, 1, 3)
    assert slots.give_back(1)
    assert not slots.take(1, GOOD_UNTIL + 0.02)


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, 2),
        ({"others_want": 1}, 1),
        ({"members": 2}, 2),
        ({"wants": 3}, 2),
        ({"members": 2, "wants": 3}, 1),
    ],
    ids=["alone", "others wait", "others are there", "own calls wait", "own calls wait, others may"],
)
def test_a_slot_whose_call_ended_is_kept_unless_it_may_be_anothers_turn(
    more: dict[str, int], kept: int
) -> None:
    slots = holding(2, **more)
    slots.take(2, 0.0)
    slots.give_back(1)
    assert slots.held == kept


def test_what_nobody_wants_is_handed_back() -> None:
    slots = holding(4)
    slots.take(1, 0.0)
    slots.hand_back(wanted=1)
    assert slots.held == 2
    slots.hand_back(wanted=9)
    assert slots.held == 2


def test_what_was_taken_and_not_used_may_be_used() -> None:
    slots = holding(1)
    slots.take(1, 0.0)
    slots.restore(1, 0.0)
    assert (slots.granted, slots.ended) == (0, 0)
    assert slots.take(1, 0.0)


def test_a_call_that_costs_more_holds_more() -> None:
    slots = holding(1)
    slots.take(1, 0.0)
    slots.charge(2, 0.0)
    assert (slots.taken, slots.total) == (3, 0)
    assert not slots.give_back(4)


def test_a_slot_given_back_while_redis_was_asked_stays_given_back() -> None:
    slots = holding(2, others_want=1)
    slots.take(2, 0.0)
    question = ask(holds=2, wants=1)
    slots.give_back(1)
    slots.feed(question, answer(1, others_want=1), 0.0, GOOD_UNTIL)
    assert (slots.held, slots.told) == (2, 3)


def test_a_fork_has_none_and_may_end_the_calls_of_its_parent() -> None:
    slots = holding(2)
    slots.take(2, 0.0)
    slots.fork()
    assert (slots.held, slots.taken, slots.told) == (0, 0, 0)
    assert not slots.take(1, 0.0)
    assert slots.give_back(2)
    assert (slots.held, slots.ended) == (0, 0)
    assert not slots.give_back(1)


def test_what_counts_while_redis_is_away() -> None:
    slots = holding(2)
    slots.take(2, 0.0)
    slots.instead = Nothing(LIMIT)
    assert not slots.take(1, 0.0)
    slots.instead = Unlimited(LIMIT)
    assert slots.take(7, 0.0)
    assert slots.taken == 9
    share = slots.instead = Share(2, slots)
    assert not slots.take(1, 0.0)
    assert slots.due(1, 0.0) == inf
    slots.give_back(8)
    assert slots.due(1, 0.0) == 0.0
    assert slots.take(1, 0.0), "one of the two is under way"
    assert not slots.take(1, 0.0)
    slots.restore(1, 0.0)
    assert share.granted == 0


def test_what_there_is_to_look_after() -> None:
    new = Holding(LIMIT)
    assert not new.adds_to(new, 0.0)
    assert holding(1).adds_to(new, 0.0)
    paused = Holding(LIMIT)
    paused.orders.add(Orders(pause=1.0))
    assert paused.adds_to(new, 0.0)


def test_an_answer_says_when_to_look_and_until_when_nobody_goes() -> None:
    slots = Holding(LIMIT)
    slots.feed(ask(0, 1), answer(look=0.25, closed=2.0), 1.0, GOOD_UNTIL)
    assert (slots.look, slots.closed_until) == (1.25, 3.0)
    slots.feed(ask(), answer(), 2.0, GOOD_UNTIL)
    assert (slots.look, slots.closed_until) == (-inf, 3.0)


def test_an_answer_may_come_too_late() -> None:
    assert ask().read(pack(">2d", 1, 7.0)) == TooLate(7.0)

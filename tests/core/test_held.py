"""Places that another limit holds up: whose permits are kept, and that memory follows them."""

from __future__ import annotations

from math import inf

from batchkit._core.held import Held
from batchkit._core.place import Place, State


def place(number: int, cost: int = 1) -> Place:
    return Place(cost, order=(0.0, number))


def test_something_is_kept_for_the_first_in_line_only() -> None:
    held, first, second, third = Held(), place(1), place(2), place(3)
    assert not held
    assert held.first() is None
    held.add(second, 5.0)
    held.add(third, 1.0)
    held.add(first, inf)  # nothing is kept for it
    assert held
    assert first.state is State.HELD
    assert held.first() is second
    held.remove(second)
    second.state = State.GONE
    assert held.first() is third


def test_one_that_is_held_anew_is_kept_for_its_new_moment() -> None:
    held, one = Held(), place(1)
    held.add(one, 5.0)
    held.remove(one)
    held.add(one, 7.0)
    assert held.first() is one
    assert one.kept_for == 7.0
    held.remove(one)
    held.add(one, inf)
    assert held.first() is None


def test_those_that_cost_more() -> None:
    held, cheap, dear = Held(), place(1, cost=2), place(2, cost=3)
    held.add(cheap, 1.0)
    held.add(dear, inf)
    assert held.above(2) == [dear]


def test_made_of_places_it_knows_what_is_kept() -> None:
    one, two = place(1), place(2)
    for each in (one, two):
        each.state, each.kept_for = State.HELD, 4.0
    assert Held([two, one]).first() is one


def test_memory_follows_those_that_are_held() -> None:
    held, first = Held(), place(0)
    held.add(first, 1.0)
    for number in range(1, 10_000):
        one = place(number)
        held.add(one, 1.0)
        held.remove(one)
        one.state = State.GONE
    assert len(held._kept) < 100
    assert held.first() is first

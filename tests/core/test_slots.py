"""Slots: how many calls are under way at once."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from batchkit._core.slots import Slots


def test_a_slot_is_free_again_when_its_call_ends() -> None:
    slots = Slots(3)
    assert slots.take(2, 0.0)
    assert not slots.take(2, 0.0)
    assert slots.take(1, 0.0)
    assert slots.give_back(2)
    assert slots.take(2, 5.0)
    assert slots.granted == 5


def test_what_others_were_granted_is_not_free() -> None:
    slots = Slots(3)
    assert not slots.take(2, 0.0, reserved=2)
    assert slots.take(1, 0.0, reserved=2)


@pytest.mark.parametrize(("permits", "there"), [(1, True), (2, True), (3, False)])
def test_it_knows_what_is_free_now_and_nothing_of_later(permits: int, there: bool) -> None:
    slots = Slots(3)
    slots.take(1, 0.0)
    assert slots.holds(permits, 1.0) == there
    assert slots.due(permits, 1.0) == (1.0 if there else inf)
    assert slots.earliest(permits, 1.0) == 1.0  # a call may end just now
    assert slots.refills(permits, 9.0, 1.0)
    assert not slots.keeps
    assert slots.available(1.0) == 2


def test_more_than_is_out_does_not_come_back() -> None:
    slots = Slots(2)
    assert not slots.give_back(1)
    slots.take(1, 0.0)
    assert not slots.give_back(2)
    assert slots.available(0.0) == 1
    assert slots.give_back(1)


def test_a_lower_limit_stops_no_call() -> None:
    slots = Slots(3)
    slots.take(3, 0.0)
    slots.change(0.0, 1, 0.0)
    assert str(slots) == "limit 1"
    assert slots.available(0.0) == -2
    slots.charge(-2, 0.0)
    assert slots.due(1, 0.0) == inf
    slots.charge(-1, 0.0)
    assert slots.due(1, 0.0) == 0.0


def test_a_fork_has_no_call_under_way_and_may_end_those_of_its_parent() -> None:
    slots = Slots(2)
    slots.take(2, 0.0)
    slots.fork()
    assert slots.take(1, 0.0)
    assert slots.give_back(2)  # its own, and one that it left in the middle of
    assert slots.available(0.0) == 2
    assert slots.give_back(1)
    assert not slots.give_back(1)


@pytest.mark.parametrize(
    ("change", "adds"),
    [
        (lambda slots: None, False),
        (lambda slots: slots.take(1, 0.0), True),
        (lambda slots: slots.change(0, 5, 0.0), True),
        (lambda slots: setattr(slots, "closed_until", 1.0), True),
    ],
)
def test_what_is_free_and_unchanged_says_nothing_that_new_ones_would_not(change: Any, adds: bool) -> None:
    slots = Slots(2)
    change(slots)
    assert slots.adds_to(Slots(2), 0.0) is adds

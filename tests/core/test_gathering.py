"""When a batch of keys leaves, and which keys are in it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.gathering import PRESSING, Gathered, Gathering

Key = Gathered[Any]


def gathering(
    max_size: int = 3, max_wait: float = 4.0, max_in_flight: int = 2, patience: float = 10.0
) -> Gathering[Key]:
    return Gathering(max_size, max_wait, max_in_flight, patience)


def came(batch: Gathering[Key], now: float, key: object = None, priority: float = 0) -> Key:
    load = Key(key, priority, now)
    batch.came.append(load)
    return load


def keys(loads: list[Key]) -> list[Any]:
    return [load.key for load in loads]


def busy(calls: int = 1, **options: Any) -> Gathering[Key]:
    """One with calls under way."""
    batch = gathering(**options)
    for _ in range(calls):
        came(batch, 0.0)
        batch.take()
    return batch


def test_there_is_nothing_to_be_due_without_keys() -> None:
    assert gathering().due(1.0) == inf


def test_a_lone_key_is_due_at_once_when_no_call_is_under_way() -> None:
    batch = gathering()
    came(batch, 5.0)
    assert batch.due(5.0) == 5.0


def test_while_calls_are_under_way_a_key_waits_a_quarter_of_max_wait_for_another() -> None:
    batch = busy()
    came(batch, 5.0)
    assert batch.due(5.0) == 6.0
    assert batch.due(6.5) == 6.5  # late is now


def test_each_further_key_prolongs_the_wait_until_the_first_has_waited_for_max_wait() -> None:
    batch = busy(max_size=99)
    for now, due in [(5.0, 6.0), (5.75, 6.75), (6.5, 7.5), (7.25, 8.25), (8.0, 9.0), (8.75, 9.0)]:
        came(batch, now)
        assert batch.due(now) == due


def test_a_full_batch_is_due_at_once() -> None:
    batch = busy()
    for _ in range(2):
        came(batch, 5.0)
        assert not batch.presses
    came(batch, 5.0)
    assert batch.presses
    assert batch.due(5.0) == 5.0


def test_the_rest_is_due_at_once_when_the_last_call_comes_back() -> None:
    batch = busy()
    came(batch, 5.0)
    batch.come_back()
    assert batch.due(5.25) == 5.25


def test_none_is_due_while_too_many_are_under_way() -> None:
    batch = busy(calls=2)
    for _ in range(5):
        came(batch, 5.0)
    assert batch.due(500.0) == inf
    batch.come_back()
    assert batch.due(500.0) == 500.0


def test_what_a_call_waits_for_is_due_however_many_are_under_way() -> None:
    batch = busy(calls=2)
    came(batch, 5.0, "bulk")
    awaited = came(batch, 5.0, "awaited", PRESSING)
    assert batch.presses
    assert batch.due(5.0) == 5.0
    batch.discard(awaited)
    assert batch.due(5.0) == inf


def test_it_is_worth_a_turn_to_see_if_more_keys_come_unless_the_batch_is_full_or_late() -> None:
    batch = gathering(max_size=2, max_wait=4.0)
    assert not batch.settles(5.0)
    came(batch, 5.0)
    assert batch.settles(5.0)
    assert not batch.settles(9.0)
    came(batch, 5.0)
    assert not batch.settles(5.0)


def test_a_batch_takes_what_fits_in_order_of_arrival() -> None:
    batch = gathering(max_size=3)
    for key in "abcde":
        came(batch, 5.0, key)
    assert keys(batch.take()) == ["a", "b", "c"]
    assert (batch.waiting, batch.under_way, batch.arrivals) == (2, 1, 5)
    assert keys(batch.take()) == ["d", "e"]
    assert batch.waiting == 0


def test_higher_priorities_leave_first_and_age_lifts_the_low_ones() -> None:
    batch = gathering(max_size=2, patience=10.0)
    came(batch, 0.0, "old bulk", -1)
    came(batch, 8.0, "bulk", -1)
    came(batch, 9.0, "user", 0)
    came(batch, 10.5, "late user", 0)
    assert keys(batch.take()) == ["user", "old bulk"]
    assert keys(batch.take()) == ["late user", "bulk"]


def test_a_key_that_waits_is_wanted_sooner() -> None:
    batch = gathering(max_size=2)
    loads = {key: came(batch, 5.0, key) for key in "abcd"}
    batch.promote(loads["c"], 1)
    batch.promote(loads["d"], -1)
    assert keys(batch.take()) == ["c", "a"]
    assert keys(batch.take()) == ["b", "d"]


def test_keys_that_nobody_wants_are_not_taken() -> None:
    batch = gathering(max_size=2)
    loads = {key: came(batch, 5.0, key) for key in "abc"}
    batch.discard(loads["a"])
    assert batch.waiting == 2
    assert keys(batch.all_waiting()) == ["b", "c"]
    assert keys(batch.take()) == ["b", "c"]


def test_keys_that_left_are_forgotten_in_the_end() -> None:
    batch = busy(calls=2)
    stays = came(batch, 0.0)
    for number in range(10_000):
        batch.discard(came(batch, number, number, number % 7))
    assert sum(map(len, batch._lanes.values())) < 100
    assert batch.all_waiting() == [stays]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(-2, 2)),
        st.tuples(st.just("discard"), st.integers(0, 20)),
        st.tuples(st.just("promote"), st.integers(0, 20)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 30)),
    ),
    max_size=60,
)


@given(steps)
def test_it_takes_what_a_simple_list_would(steps: list[tuple[str, int]]) -> None:
    """A key that is promoted stands behind those that had its new priority before."""
    batch = gathering(max_size=4, max_in_flight=99)
    waiting: list[Key] = []
    now = 0.0
    for step, number in steps:
        match step:
            case "come":
                waiting.append(came(batch, now, object(), number))
            case "discard" if waiting:
                batch.discard(waiting.pop(number % len(waiting)))
            case "promote" if waiting:
                load = waiting[number % len(waiting)]
                if load.priority < 3:
                    batch.promote(load, 3)
                    waiting.remove(load)
                    waiting.append(load)
            case "take" if waiting:
                expected: list[Key] = []
                while waiting and len(expected) < 4:
                    lanes = dict.fromkeys(load.priority for load in waiting)
                    heads = [next(load for load in waiting if load.priority == lane) for lane in lanes]
                    first = min(heads, key=lambda load: (load.since - 10.0 * load.priority, -load.priority))
                    waiting.remove(first)
                    expected.append(first)
                assert batch.take() == expected
            case "pass":
                now += number
            case _:
                pass
        assert batch.waiting == len(waiting)
        assert (batch.due(now) == inf) == (not waiting)
        assert set(batch.all_waiting()) == set(waiting)


@pytest.mark.parametrize("patience", [0.0, 10.0])
def test_what_a_call_waits_for_goes_first(patience: float) -> None:
    batch = gathering(patience=patience, max_size=2)
    came(batch, 0.0, "old", 5)
    came(batch, 9.0, "awaited", PRESSING)
    assert keys(batch.take()) == ["awaited", "old"]

"""When a batch of keys leaves, and which keys are in it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.gathering import PRESSING, Cohort, Gathering


def gathering(
    max_size: int = 3, max_wait: float = 4.0, max_in_flight: int = 2, patience: float = 10.0
) -> Gathering[Any]:
    return Gathering(max_size, max_wait, max_in_flight, patience)


def came(batch: Gathering[Any], now: float, *keys: object, priority: float = 0) -> Cohort[Any]:
    """Keys come together; one that was not there before, if none is named."""
    cohort = Cohort[Any]({key: [] for key in keys or [object()]}, priority, now)
    batch.add(cohort)
    return cohort


def keys(*cohorts: Cohort[Any]) -> list[Any]:
    return [key for cohort in cohorts for key in cohort.waiting]


def busy(calls: int = 1, **options: Any) -> Gathering[Any]:
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
    awaited = came(batch, 5.0, "awaited", priority=PRESSING)
    assert batch.presses
    assert batch.due(5.0) == 5.0
    batch.discard(awaited, "awaited")
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


@pytest.mark.parametrize("together", [["abcde"], ["ab", "cde"], ["a", "bcd", "e"]])
def test_it_does_not_matter_which_keys_came_together(together: list[str]) -> None:
    batch = gathering(max_size=3)
    for some in together:
        came(batch, 5.0, *some)
    first = batch.take()
    assert keys(first) == ["a", "b", "c"]
    assert first.is_new
    assert batch.waiting == 2
    assert keys(*batch.all_waiting()) == keys(batch.take()) == ["d", "e"]


def test_keys_that_came_together_and_fit_are_the_batch_themselves() -> None:
    batch = gathering(max_size=3)
    cohort = came(batch, 5.0, *"abc")
    came(batch, 6.0, "d")
    assert batch.take() is cohort
    assert not cohort.is_new


@pytest.mark.parametrize(("size", "apart"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])])
def test_more_keys_than_fit_into_a_batch_are_put_apart_in_order(size: int, apart: list[int]) -> None:
    came = {key: f"who waits for {key}" for key in range(size)}
    portions = gathering(max_size=3).portions(dict(came))
    assert [len(portion) for portion in portions] == apart
    assert [item for portion in portions for item in portion.items()] == [*came.items()]


def test_there_is_room_for_so_many_calls() -> None:
    assert busy(calls=1).has_room
    assert not busy(calls=2).has_room


def test_higher_priorities_leave_first_and_age_lifts_the_low_ones() -> None:
    batch = gathering(max_size=2, patience=10.0)
    came(batch, 0.0, "old bulk", priority=-1)
    came(batch, 8.0, "bulk", priority=-1)
    came(batch, 9.0, "user", priority=0)
    came(batch, 10.5, "late user", priority=0)
    first = batch.take()
    assert keys(first) == ["user", "old bulk"]
    assert first.priority == 0
    assert keys(batch.take()) == ["late user", "bulk"]


def test_a_key_that_waits_is_wanted_sooner() -> None:
    batch = gathering(max_size=2)
    cohort = came(batch, 5.0, *"abcd")
    sooner = batch.promote(cohort, "c", 1)
    assert (keys(sooner), sooner.since) == (["c"], 5.0)
    assert keys(batch.take()) == ["c", "a"]
    assert keys(batch.take()) == ["b", "d"]


def test_keys_that_nobody_wants_are_not_taken() -> None:
    batch = gathering(max_size=2)
    cohort = came(batch, 5.0, *"abc")
    batch.discard(cohort, "a")
    assert batch.waiting == 2
    assert keys(*batch.all_waiting()) == ["b", "c"]
    assert keys(batch.take()) == ["b", "c"]


def test_keys_that_left_are_forgotten_in_the_end() -> None:
    batch = busy(calls=2)
    stays = came(batch, 0.0)
    for number in range(10_000):
        batch.discard(came(batch, number, number, priority=number % 7), number)
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
    where: dict[int, Cohort[Any]] = {}  # in order, for each lane
    number_of_keys = 0
    now = 0.0
    for step, number in steps:
        waiting = [*where]
        key = waiting[number % len(waiting)] if waiting else None
        match step:
            case "come":
                together = range(number_of_keys, number_of_keys + number % 3 + 1)
                number_of_keys += len(together)
                where |= dict.fromkeys(together, came(batch, now, *together, priority=number))
            case "discard" if key is not None:
                batch.discard(where.pop(key), key)
            case "promote" if key is not None:
                if (cohort := where[key]).priority < 3:
                    del where[key]
                    where[key] = batch.promote(cohort, key, 3)
            case "take" if waiting:
                expected: list[int] = []
                while where and len(expected) < 4:
                    lanes = dict.fromkeys(cohort.priority for cohort in where.values())
                    heads = [next(key for key in where if where[key].priority == lane) for lane in lanes]
                    first = min(heads, key=lambda key: rank(where[key]))
                    del where[first]
                    expected.append(first)
                assert keys(batch.take()) == expected
            case "pass":
                now += number
            case _:
                pass
        assert batch.waiting == len(where)
        assert (batch.due(now) == inf) == (not where)
        assert set(keys(*batch.all_waiting())) == {*where}


def rank(cohort: Cohort[Any]) -> tuple[float, float]:
    return cohort.since - 10.0 * cohort.priority, -cohort.priority


@pytest.mark.parametrize("patience", [0.0, 10.0])
def test_what_a_call_waits_for_goes_first(patience: float) -> None:
    batch = gathering(patience=patience, max_size=2)
    came(batch, 0.0, "old", priority=5)
    came(batch, 9.0, "awaited", priority=PRESSING)
    assert keys(batch.take()) == ["awaited", "old"]

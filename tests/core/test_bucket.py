"""The bucket's arithmetic, by rows of time, action, expectation, and against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, inf, nextafter
from typing import Any, Literal

import pytest
from attrs import define, field
from hypothesis import example, given
from hypothesis import strategies as st

from batchkit._core.bucket import Bucket

Row = tuple[float, Literal["take", "due", "available", "charge", "drain"], int, bool | float | None]


@pytest.mark.parametrize(
    ("rate", "burst", "rows"),
    [
        pytest.param(
            2,
            5,
            [
                (0, "take", 5, True),
                (0, "take", 1, False),
                (0, "due", 1, 0.5),
                (0, "due", 5, 2.5),
                (0.49, "take", 1, False),
                (0.5, "take", 1, True),
                (1.5, "available", 0, 2.0),
                (1.5, "take", 2, True),
            ],
            id="a burst at once, then one each half second",
        ),
        pytest.param(
            10,
            3,
            [
                (0, "take", 3, True),
                (1000, "available", 0, 3.0),
                (1000, "take", 3, True),
                (1000, "take", 1, False),
            ],
            id="a long quiet time fills it to the burst and no further",
        ),
        pytest.param(
            1,
            10,
            [(0, "take", 8, True), (0, "take", 8, False), (5, "take", 8, False), (6, "take", 8, True)],
            id="all permits of a cost or none",
        ),
        pytest.param(
            2,
            4,
            [(0, "take", 4, True), (0, "charge", 6, None), (0, "available", 0, -6.0), (0, "due", 1, 3.5)],
            id="a debt is paid off before the next call goes",
        ),
        pytest.param(
            2,
            4,
            [(0, "take", 4, True), (0, "charge", -3, None), (0, "take", 3, True), (0, "take", 1, False)],
            id="a refund is exact",
        ),
        pytest.param(
            2,
            4,
            [(0, "take", 2, True), (9, "charge", -2, None), (9, "available", 0, 4.0), (9, "take", 4, True)],
            id="a refund to a full bucket adds nothing",
        ),
        pytest.param(
            2,
            4,
            [(0, "take", 1, True), (0, "drain", 0, None), (0, "due", 1, 0.5), (2, "take", 4, True)],
            id="what is drained comes in again",
        ),
        pytest.param(
            2,
            4,
            [(0, "charge", 9, None), (0, "drain", 0, None), (0, "available", 0, -5.0)],
            id="a drained debt stays a debt",
        ),
        pytest.param(
            0.001,
            1,
            [(0, "take", 1, True), (0, "due", 1, 1000.0), (999, "take", 1, False), (1000, "take", 1, True)],
            id="a slow rate",
        ),
    ],
)
def test_rows(rate: float, burst: int, rows: list[Row]) -> None:
    bucket = Bucket(rate, burst, 0)
    for now, action, permits, expected in rows:
        match action:
            case "take":
                assert bucket.take(permits, now) is expected
            case "due":
                assert bucket.due(permits, now) == expected
            case "available":
                assert bucket.available(now) == expected
            case "charge":
                bucket.charge(permits, now)
            case "drain":
                bucket.drain(now)


def test_a_moment_that_rounding_would_put_too_early_is_not_promised() -> None:
    bucket = Bucket(0.1, 7, 0.1)
    assert bucket.take(7, 0.1)
    assert not bucket.holds(7, 0.1 + 7 / 0.1)
    assert bucket.due(7, 0.1) == nextafter(0.1 + 7 / 0.1, inf)


def test_it_tells_the_same_moment_however_often_it_is_asked_and_another_after_a_change() -> None:
    bucket = Bucket(2, 3, 0.0)
    bucket.take(3, 0.0)
    assert [bucket.due(1, now) for now in (0.0, 0.25, 0.5, 0.75)] == [0.5, 0.5, 0.5, 0.75]
    assert [bucket.due(2, 0.75), bucket.due(3, 0.75), bucket.due(2, 0.75)] == [1.0, 1.5, 1.0]
    bucket.change(1, 3, 0.75)
    assert bucket.due(2, 0.75) == pytest.approx(1.25)
    assert str(bucket) == "rate 1/s, burst 3"


def test_it_counts_what_was_granted_less_what_was_given_back() -> None:
    bucket = Bucket(rate=2, burst=5, now=0)
    assert bucket.take(4, 0)
    assert bucket.take(3, 10)
    bucket.charge(-2, 10)
    bucket.drain(10)
    bucket.change(1, 3, 10.5)
    assert bucket.take(2, 100)
    assert bucket.granted == 4 + 3 - 2 + 2
    bucket.charge(-5, 100)  # more than the bucket has room for
    assert bucket.granted == 2


def test_what_is_reserved_still_stands_in_the_bucket() -> None:
    bucket = Bucket(rate=1, burst=2, now=0)
    assert not bucket.take(1, 0, reserved=2)
    assert bucket.take(1, 0, reserved=1)
    assert not bucket.take(2, 1000, reserved=1)  # a second burst does not build up beside it


def test_more_than_the_burst_is_never_there() -> None:
    bucket = Bucket(rate=1, burst=2, now=0)
    assert not bucket.holds(3, 1000)
    assert bucket.holds(2, 1000)


def test_no_drift_after_ten_million_permits() -> None:
    bucket = Bucket(rate=10.1, burst=1000, now=1e6)
    bucket.take(1000, 1e6)
    bucket.charge(10_000_000, 1e6)
    due = bucket.due(1, 1e6)
    exact = Fraction(1e6) + Fraction(10_000_001) / Fraction(10.1)
    assert abs(Fraction(due) - exact) <= Fraction(2.0**-31)  # four steps of a float of this size


@pytest.mark.parametrize(("rate", "burst"), [(7, 5), (2, 9), (3, 2)])
def test_a_change_mints_nothing_and_loses_less_than_a_millionth(rate: float, burst: int) -> None:
    bucket = Bucket(rate=3, burst=5, now=0)
    bucket.take(5, 0)
    owed = 5 - 3 * 0.7
    bucket.change(rate, burst, 0.7)
    assert burst - owed - 1e-6 <= bucket.available(0.7) <= burst - owed


def test_a_change_of_a_full_bucket_leaves_it_full() -> None:
    bucket = Bucket(rate=3, burst=5, now=0)
    bucket.change(1, 8, 10)
    assert bucket.take(8, 10)
    assert not bucket.take(1, 10)


@define
class Reference:
    """The token bucket of the textbook, in exact fractions."""

    rate: Fraction
    burst: int
    level: Fraction = field(init=False)
    last: Fraction = Fraction(0)

    def __attrs_post_init__(self) -> None:
        self.level = Fraction(self.burst)

    def look(self, now: float) -> Fraction:
        self.level = min(Fraction(self.burst), self.level + (Fraction(now) - self.last) * self.rate)
        self.last = Fraction(now)
        return self.level


rates = st.floats(1e-3, 1e9) | st.sampled_from([1.0, 2.0, 5.0, 0.1, 1 / 3, 55 / 60])
steps = st.lists(
    st.tuples(st.floats(0, 100) | st.just(0.0) | st.just(-1.0), st.integers(1, 20)), min_size=1, max_size=60
)


@given(rate=rates, burst=st.integers(1, 20), start=st.floats(0, 1e7), steps=steps)
@example(rate=0.1, burst=3, start=0.0, steps=[(-1.0, 1)] * 30)
@example(rate=1e9, burst=1, start=1e6, steps=[(-1.0, 1)] * 30)
def test_the_same_as_exact_fractions(
    rate: float, burst: int, start: float, steps: list[tuple[float, int]]
) -> None:
    """A step of -1 goes to the moment at which the call is due, where rounding matters most."""
    bucket = Bucket(rate, burst, start)
    reference = Reference(Fraction(rate), burst, last=Fraction(start))
    now = start
    for step, cost in steps:
        cost = min(cost, burst)
        now = bucket.due(cost, now) if step < 0 else now + step
        level = reference.look(now)
        went = bucket.take(cost, now)
        if went:
            assert level >= cost  # never over, exactly
            reference.level -= cost
        else:
            assert level < cost * (1 + Fraction(2.0**-40))  # never refused but by rounding


@given(rate=rates, burst=st.integers(1, 20), start=st.floats(0, 1e7), steps=steps)
def test_refused_until_the_promised_moment_and_allowed_at_it(
    rate: float, burst: int, start: float, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate, burst, start)
    now = start
    for step, cost in steps:
        cost = min(cost, burst)
        now += max(step, 0.0)
        due = bucket.due(cost, now)
        if due > now:
            assert not bucket.holds(cost, nextafter(due, -inf))
        assert bucket.holds(cost, due)
        assert bucket.take(cost, due)
        now = due


@given(rate=rates, burst=st.integers(1, 20), start=st.floats(0, 1e6), steps=steps)
def test_no_window_sees_more_than_rate_times_seconds_plus_burst(
    rate: float, burst: int, start: float, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate, burst, start)
    now = start
    gone: list[tuple[float, int]] = []
    for step, cost in steps:
        cost = min(cost, burst)
        now = bucket.due(cost, now) if step < 0 else now + step
        if bucket.take(cost, now):
            gone.append((now, cost))
    for first, (begin, _) in enumerate(gone):
        permits = 0
        for end, cost in gone[first:]:
            permits += cost
            assert permits <= (Fraction(end) - Fraction(begin)) * Fraction(rate) + burst


@given(
    burst=st.integers(1, 20),
    changes=st.lists(st.tuples(rates, st.integers(1, 20), st.floats(0, 10)), max_size=10),
)
def test_changes_never_let_more_go_than_the_rates_in_force(
    burst: int, changes: list[tuple[float, int, float]]
) -> None:
    bucket = Bucket(1.0, burst, 0.0)
    rate, now = 1.0, 0.0
    gone = 0
    allowed = Fraction(burst)
    for next_rate, next_burst, step in changes:
        while bucket.take(1, now):
            gone += 1
        now += step
        allowed += Fraction(step) * Fraction(rate) * (1 + Fraction(2.0**-50))
        bucket.change(next_rate, next_burst, now)
        allowed += max(0, next_burst - burst)
        rate, burst = next_rate, next_burst
    while bucket.take(1, now):
        gone += 1
    assert gone <= ceil(allowed)


@pytest.mark.parametrize(
    ("change", "adds"),
    [
        (lambda bucket: None, False),
        (lambda bucket: bucket.take(1, 0.0), True),
        (lambda bucket: bucket.change(3, 5, 0.0), True),
        (lambda bucket: setattr(bucket, "closed_until", 1.0), True),
    ],
)
def test_what_is_full_and_unchanged_says_nothing_that_a_new_one_would_not(change: Any, adds: bool) -> None:
    bucket = Bucket(2, 5, 0.0)
    change(bucket)
    assert bucket.adds_to(Bucket(2, 5, 0.0), 0.0) is adds

"""What is said to Redis and what it answers: there and back, and orders that are said in one go."""

from __future__ import annotations

from struct import pack, unpack

import pytest
from attrs import asdict, evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from batchkit._redis.scripts import BUCKET
from batchkit._redis.wire import Answer, Ask, Calls, Orders, TooLate, read

SERVED, LATE, AGAIN = 0, 1, 2
whole = st.integers(0, 10**12)
seconds = st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e6)

PLAIN = Ask(
    process="a",
    serial=7,
    deadline=1.7e15,
    presence=2,
    rate=2.5,
    burst=5,
    cold=True,
    horizon=0.05,
    orders=Orders(),
    extra=3,
    stands=True,
    calls=(),
)
NO_ORDERS = [0, 0, 0, 0, 0, -1, 0, 0]


def numbers(ask: Ask) -> list[float]:
    _, said, calls = ask.words()
    return list(unpack(f">{len(said + calls) // 8}d", said + calls))


def test_a_question_in_numbers() -> None:
    assert PLAIN.words()[0] == "a"
    assert numbers(PLAIN)[:17] == [7, 1.7e15, 2, 2.5, 5, 1, 50_000, *NO_ORDERS, 3, 1]


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        (Orders(back=2, back_since=1.7e15), [2, 1.7e15, 0, 0, 0, -1, 0, 0]),
        (Orders(charge=-4), [0, 0, 0, -4, 0, -1, 0, 0]),
        (Orders(pause=1.5), [0, 0, 0, 0, 1_500_000, -1, 0, 0]),
        (Orders(drain=0), [0, 0, 0, 0, 0, 0, 0, 0]),
        (Orders(size=(0.1, 3)), [0, 0, 0, 0, 0, -1, 0.1, 3]),
    ],
    ids=["back", "charge", "pause", "drain", "size"],
)
def test_orders_in_numbers(orders: Orders, said: list[float]) -> None:
    assert orders
    assert numbers(evolve(PLAIN, orders=orders))[7:15] == said


def test_nothing_to_say_is_false() -> None:
    assert not Orders()
    assert Orders(drain=0)
    assert not Orders(went=3)  # which is said when there is something else to ask


@given(calls=st.lists(st.builds(Calls, whole, whole, seconds), max_size=24))
def test_calls_are_told_in_order_at_the_end(calls: list[Calls]) -> None:
    said = numbers(evolve(PLAIN, calls=calls))
    rest = said[len(numbers(PLAIN)) :]
    assert [
        Calls(int(count), int(cost), age / 1e6) for count, age, cost in zip(*[iter(rest)] * 3, strict=True)
    ] == calls


@given(
    served=st.sampled_from([SERVED, AGAIN]),
    counts=st.tuples(whole, whole, whole, whole, whole, whole, whole),
    times=st.tuples(seconds, seconds, seconds),
    floats=st.tuples(st.floats(1e-3, 1e9), st.floats(-1e9, 1e9), st.floats(0, 1e9)),
    served_of_each=st.lists(st.integers(0, 999_999), max_size=5),
    memory=st.lists(st.floats(-1e9, 1e9), max_size=5),
)
def test_an_answer_comes_back_as_it_was_meant(
    served: int,
    counts: tuple[int, ...],
    times: tuple[float, ...],
    floats: tuple[float, ...],
    served_of_each: list[int],
    memory: list[float],
) -> None:
    version, burst, at_once, later, leased, gone, members = counts
    closed, look, lasts = times
    rate, start, owed = floats
    meant = Answer(
        again=served == AGAIN,
        now=1.7e15,
        version=version,
        rate=rate,
        burst=burst,
        at_once=at_once,
        later=later,
        start=start,
        leased=leased,
        closed=closed,
        look=look,
        owed=owed,
        gone=gone,
        members=members,
        lasts=lasts,
        memory=tuple(memory),
        served=tuple(served_of_each),
        aside=(False,) * len(served_of_each),
    )
    in_microseconds = {"again": served, "closed": closed * 1e6, "look": look * 1e6, "lasts": lasts * 1e6}
    said = [
        float(value) for value in (asdict(meant) | in_microseconds).values() if not isinstance(value, tuple)
    ]
    said += len(served_of_each), *served_of_each, *memory
    answer = read(pack(f">{len(said)}d", *said))
    assert isinstance(answer, Answer)
    for field in fields(Answer):
        assert getattr(answer, field.name) == pytest.approx(getattr(meant, field.name), abs=1e-9), field.name


def test_what_came_too_late_tells_the_time_only() -> None:
    assert read(pack(">2d", LATE, 1.7e15)) == TooLate(1.7e15)


# orders in one go


@pytest.mark.parametrize(
    ("first", "later", "both"),
    [
        pytest.param(
            Orders(back=2, back_since=5.0),
            Orders(back=1, back_since=3.0),
            Orders(back=3, back_since=3.0),
            id="what goes back is as old as the oldest",
        ),
        pytest.param(
            Orders(),
            Orders(back=1, back_since=3.0),
            Orders(back=1, back_since=3.0),
            id="the first that goes back",
        ),
        pytest.param(
            Orders(back=1, back_since=3.0),
            Orders(),
            Orders(back=1, back_since=3.0),
            id="nothing more goes back",
        ),
        pytest.param(Orders(went=3), Orders(went=2), Orders(went=5), id="what went adds up"),
        pytest.param(Orders(charge=3), Orders(charge=-5), Orders(charge=-2), id="charges add up"),
        pytest.param(Orders(pause=3.0), Orders(pause=2.0), Orders(pause=3.0), id="the longer pause counts"),
        pytest.param(Orders(drain=3), Orders(drain=5), Orders(drain=3), id="the lower level counts"),
        pytest.param(Orders(drain=3), Orders(), Orders(drain=3), id="a level stays"),
        pytest.param(Orders(), Orders(drain=0), Orders(drain=0), id="the first level"),
        pytest.param(
            Orders(drain=5), Orders(charge=2), Orders(charge=2, drain=3), id="a charge after a level"
        ),
        pytest.param(
            Orders(charge=2), Orders(drain=5), Orders(charge=2, drain=5), id="a level after a charge"
        ),
        pytest.param(
            Orders(drain=1),
            Orders(back=2, back_since=3.0),
            Orders(back=2, back_since=3.0, drain=3),
            id="something that goes back after a level",
        ),
        pytest.param(
            Orders(size=(1.0, 2)), Orders(size=(3.0, 4)), Orders(size=(3.0, 4)), id="the last size counts"
        ),
        pytest.param(Orders(size=(1.0, 2)), Orders(), Orders(size=(1.0, 2)), id="a size stays"),
    ],
)
def test_two_orders_in_one(first: Orders, later: Orders, both: Orders) -> None:
    first.add(later)
    assert first == both


orders = st.builds(
    Orders,
    back=st.integers(0, 5),
    back_since=st.integers(0, 9).map(float),
    charge=st.integers(-5, 5),
    pause=st.integers(0, 9).map(float),
    drain=st.none() | st.integers(20, 40),
    size=st.none() | st.tuples(st.just(1.0), st.integers(1, 9)),
)


@given(first=orders, second=orders, third=orders)
def test_it_does_not_matter_which_of_three_orders_are_joined_first(
    first: Orders, second: Orders, third: Orders
) -> None:
    one = evolve(first)
    one.add(second)
    one.add(third)
    two, rest = evolve(first), evolve(second)
    rest.add(third)
    two.add(rest)
    if not (first.back or second.back or third.back):
        one.back_since = two.back_since
    assert one == two


def test_the_script_is_part_of_the_package() -> None:
    assert "redis.call('TIME')" in BUCKET.text

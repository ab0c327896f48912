"""What a process holds: nothing goes before its moment, nor long after it, and nothing is lost."""

from __future__ import annotations

from math import inf
from typing import Literal, TypeAlias

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.bucket import Bucket
from batchkit._redis.ration import Booking, Lease, Ration
from batchkit._redis.substitutes import Nothing, Unlimited
from batchkit._redis.wire import Answer, Calls, Orders


def answer(
    at_once: int = 0,
    later: int = 0,
    *,
    start: float = 0.0,
    now: float = 0.0,
    rate: float = 2.0,
    burst: int = 5,
    leased: int = 0,
    closed: float = 0.0,
    look: float = 0.0,
    owed: float = 0.0,
    lasts: float = 0.05,
) -> Answer:
    return Answer(
        again=False,
        now=now,
        version=0,
        rate=rate,
        burst=burst,
        at_once=at_once,
        later=later,
        start=start,
        leased=leased,
        closed=closed,
        look=look,
        owed=owed,
        gone=0,
        members=1,
        lasts=lasts,
    )


# lumps that are due one after the other

Action: TypeAlias = Literal["there", "moment", "drop", "lapse", "left"]


@pytest.mark.parametrize(
    ("booking", "rows"),
    [
        pytest.param(
            Booking(left=3, due=10.0, step=0.5, lump=1, part=1, late=0.25, since=0.0),
            [
                (9.9, "there", 0, 0),
                (10.0, "there", 0, 1),
                (10.5, "there", 0, 2),
                (99.0, "there", 0, 3),
                (0.0, "moment", 3, 11.0),
                (10.5, "drop", 2, None),
                (10.9, "there", 0, 0),
                (11.0, "there", 0, 1),
            ],
            id="one each half second",
        ),
        pytest.param(
            Booking(left=6, due=10.0, step=1.0, lump=3, part=3, late=0.25, since=0.0),
            [
                (10.0, "there", 0, 3),
                (10.9, "there", 0, 3),
                (0.0, "moment", 3, 10.0),
                (0.0, "moment", 4, 11.0),
                (10.0, "drop", 1, None),
                (10.0, "there", 0, 2),
                (0.0, "moment", 2, 10.0),
                (0.0, "moment", 3, 11.0),
                (11.0, "there", 0, 5),
                (11.0, "drop", 3, None),
                (11.0, "there", 0, 2),
                (0.0, "left", 0, 2),
            ],
            id="all permits of a call are due together",
        ),
        pytest.param(
            Booking(left=6, due=10.0, step=1.0, lump=3, part=3, late=0.25, since=0.0),
            [
                (10.25, "lapse", 0, 0),
                (10.26, "lapse", 0, 3),
                (10.26, "there", 0, 0),
                (11.0, "there", 0, 3),
                (99.0, "lapse", 0, 3),
                (99.0, "lapse", 0, 0),
            ],
            id="what is late lapses, lump by lump",
        ),
        pytest.param(
            Booking(left=6, due=10.0, step=1.0, lump=3, part=3, late=0.25, since=0.0),
            [(10.0, "drop", 2, None), (10.5, "lapse", 0, 1), (11.0, "there", 0, 3)],
            id="the rest of a lump lapses",
        ),
        pytest.param(
            Booking(left=4, due=10.0, step=0.0, lump=2, part=2, late=0.25, since=0.0),
            [
                (9.0, "there", 0, 0),
                (10.0, "there", 0, 4),
                (0.0, "moment", 4, 10.0),
                (10.0, "drop", 3, None),
                (10.0, "there", 0, 1),
                (10.3, "lapse", 0, 1),
            ],
            id="all are due at once",
        ),
    ],
)
def test_rows_of_a_booking(booking: Booking, rows: list[tuple[float, Action, int, float | None]]) -> None:
    for now, action, permits, expected in rows:
        match action:
            case "there":
                assert booking.there(now) == expected
            case "moment":
                assert booking.moment(permits) == expected
            case "drop":
                booking.drop(permits)
            case "lapse":
                assert booking.lapse(now) == expected
            case "left":
                assert booking.left == expected


@define
class Lumps:
    """A booking as a list of its lumps."""

    lumps: list[tuple[float, int]]
    late: float

    def there(self, now: float) -> int:
        return sum(permits for due, permits in self.lumps if due <= now)

    def moment(self, permits: int) -> float:
        return next(due for due, _ in self.lumps if self.there(due) >= permits)

    def drop(self, permits: int) -> None:
        while permits:
            due, there = self.lumps.pop(0)
            if there > permits:
                self.lumps.insert(0, (due, there - permits))
            permits -= min(permits, there)

    def lapse(self, now: float) -> int:
        over = sum(permits for due, permits in self.lumps if due + self.late < now)
        self.lumps = [lump for lump in self.lumps if lump[0] + self.late >= now]
        return over


binary = st.integers(0, 64).map(lambda number: number / 16)  # so that no rounding decides


@given(
    step=st.sampled_from([0.0, 0.125, 0.5, 1.0]),
    lump=st.integers(1, 4),
    count=st.integers(1, 6),
    late=st.sampled_from([0.25, 0.5, 1.0]),
    actions=st.lists(st.tuples(binary, st.booleans(), st.integers(1, 8)), max_size=12),
)
def test_a_booking_is_as_a_list_of_its_lumps(
    step: float, lump: int, count: int, late: float, actions: list[tuple[float, bool, int]]
) -> None:
    booking = Booking(count * lump, 2.0, step, lump, lump, late, 0.0)
    reference = Lumps([(2.0 + number * step, lump) for number in range(count)], late)
    now = 0.0
    for wait, lapses, permits in actions:
        now += wait
        if lapses:
            assert booking.lapse(now) == reference.lapse(now)
        assert booking.there(now) == reference.there(now)
        if taken := min(permits, booking.there(now)):
            booking.drop(taken)
            reference.drop(taken)
        assert booking.left == sum(there for _, there in reference.lumps)
        assert all(
            booking.moment(number) == reference.moment(number) for number in range(1, booking.left + 1)
        )


# what a process holds


def test_what_may_go_at_once_goes_until_it_lapses_and_is_handed_back_then() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(3, now=7.0, lasts=2.0), [Calls(3, 1, 0.0)], 10.0)
    assert ration.holds(3, 10.0)
    assert not ration.holds(4, 10.0)
    assert ration.take(1, 10.0)
    assert ration.lapses == pytest.approx(11.6)
    assert ration.take(1, 11.6)
    assert not ration.take(1, 11.7)
    assert (ration.total, ration.granted) == (0, 2)
    assert ration.orders == Orders(back=1, back_since=7.0)


def test_what_comes_in_later_goes_at_its_moment_and_not_much_later() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(later=3, start=0.5), [Calls(3, 1, 0.0)], 10.0)
    assert ration.comes_in == 10.75
    assert [ration.due(permits, 10.0) for permits in (1, 2, 3, 4)] == [10.75, 11.25, 11.75, inf]
    assert not ration.take(1, 10.74)
    assert ration.take(1, 10.75)
    assert ration.refills(2, 11.75, 10.75)
    assert not ration.refills(2, 11.74, 10.75)
    assert ration.take(1, 11.75)  # half a second late: the time of one permit
    assert ration.take(1, 11.75)
    assert ration.due(1, 11.75) == inf
    assert not ration.orders


@pytest.mark.parametrize(("rate", "late"), [(0.01, 10.0), (0.5, 2.0), (10.0, 0.1), (1000.0, 0.004)])
def test_a_permit_is_good_while_one_comes_in_but_not_for_ever(rate: float, late: float) -> None:
    ration = Ration(rate, 2)
    ration.feed(answer(2, rate=rate, burst=2, lasts=0.0), [Calls(2, 1, 0.0)], 0.0)
    assert ration.take(1, late)
    assert not ration.take(1, late + 0.001)


def test_a_process_that_was_stalled_lets_no_backlog_go() -> None:
    ration = Ration(100.0, 5)
    ration.feed(answer(later=20, now=3.0, rate=100.0), [Calls(20, 1, 0.0)], 0.0)
    assert not ration.holds(3, 0.105)
    assert ration.orders == Orders(back=9, back_since=3.0)
    assert ration.holds(1, 0.105)
    assert ration.total == 11


@pytest.mark.parametrize(
    ("granted", "dues"),
    [
        pytest.param(answer(6, 0), [10.0, 10.0], id="there"),
        pytest.param(answer(0, 6, start=-3.0), [10.0, 11.5], id="half of it is there"),
        pytest.param(answer(0, 6, start=-2.0), [10.5, 12.0], id="a part of the first one is there"),
        pytest.param(
            answer(2, 4, start=0.0), [10.5, 12.0], id="a part of the first one was handed back by others"
        ),
        pytest.param(answer(0, 6, start=4.0), [13.5, 15.0], id="behind what others booked"),
        pytest.param(answer(0, 3, start=0.0), [11.5], id="one of them only"),
        pytest.param(answer(0, 0), [], id="nothing"),
    ],
)
def test_the_permits_of_a_call_are_due_together(granted: Answer, dues: list[float]) -> None:
    ration = Ration(2.0, 5)
    ration.feed(granted, [Calls(2, 3, 0.0)], 10.0)
    assert [ration.due(3 * (number + 1), 0.0) for number in range(len(dues))] == dues or (
        dues == [10.0, 10.0] and ration.holds(6, 10.0)
    )
    assert ration.total == 3 * len(dues)


def test_calls_of_several_costs_are_served_in_order() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(0, 6, start=-1.0), [Calls(2, 1, 0.0), Calls(1, 4, 0.0), Calls(9, 1, 0.0)], 10.0)
    assert [ration.due(permits, 10.0) for permits in (1, 2, 6)] == [10.0, 10.5, 12.5]
    assert ration.due(3, 10.0) == ration.due(6, 10.0)


def test_nobody_goes_before_a_pause_is_over() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(2, 2, closed=3.0), [Calls(4, 1, 0.0)], 10.0)
    assert ration.closed_until == 13.0
    assert [ration.due(permits, 10.0) for permits in (2, 3)] == [13.0, 13.0]
    ration.feed(answer(closed=1.0), [], 10.0)
    assert ration.closed_until == 13.0


def test_what_nobody_wants_is_handed_back_once_it_is_due() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(1, 0, now=5.0), [Calls(1, 1, 0.0)], 10.0)
    ration.feed(answer(0, 4, now=6.0), [Calls(4, 1, 0.0)], 10.0)
    assert [ration.surplus(wanted, 10.0) for wanted in (0, 1, 2)] == [1, 0, 0]
    assert ration.surplus(1, 10.5) == 1
    ration.hand_back(ration.surplus(0, 10.5), 10.5)
    assert ration.total == 3
    assert ration.orders == Orders(back=2, back_since=5.0)
    assert ration.due(1, 10.5) == 11.0


def test_who_was_told_that_permits_are_reserved_leaves_those() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(3), [Calls(3, 1, 0.0)], 10.0)
    assert not ration.take(2, 10.0, reserved=2)
    assert ration.take(1, 10.0, reserved=2)


def test_what_was_taken_and_did_not_go_then_is_not_told_to_have_gone() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(5), [Calls(5, 1, 0.0)], 10.0)
    assert ration.take(5, 10.001)
    ration.goes_late(2, 10.001)
    assert ration.went(10.02) == 3
    ration.goes_late(1, 10.001)  # it was told by then
    assert ration.went(10.02) == 0


def test_what_was_taken_and_not_used_is_good_for_as_long_as_it_was() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(5), [Calls(5, 1, 0.0)], 10.0)
    until = ration.lapses
    assert ration.take(5, 10.0)
    ration.restore(4, 10.0, until)
    assert ration.granted == 1
    assert ration.take(1, until)
    ration.lapse(until + 0.001)
    assert (ration.total, ration.orders.back) == (0, 3)
    assert ration.went(10.02) == 1


def test_what_is_expected_and_what_is_there_by_what_was_heard_last() -> None:
    ration = Ration(2.0, 5)
    assert ration.expected(1, 3.0) == 3.0
    ration.feed(answer(owed=7.0, look=0.75), [], 10.0)
    assert ration.look == 10.75
    assert ration.expected(1, 10.0) == 11.5
    assert ration.earliest(1, 10.0) == 10.5  # what is booked by others may come back
    assert [ration.available(now) for now in (10.0, 11.0, 99.0)] == [-2.0, 0.0, 5.0]
    ration.feed(answer(owed=2.0, closed=3.0), [], 20.0)
    assert ration.expected(1, 20.0) == 23.0


def test_a_changed_rate_counts_for_what_comes_then() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(0, 2, rate=4.0, burst=6), [Calls(2, 1, 0.0)], 10.0)
    assert str(ration) == "rate 4/s, burst 6"
    assert [ration.due(permits, 10.0) for permits in (1, 2)] == [10.25, 10.5]
    ration.change(1.0, 3, 10.0)
    assert (ration.rate, ration.burst, ration.late) == (1.0, 3, 1.0)


def test_a_charge_is_told_to_redis() -> None:
    ration = Ration(2.0, 5)
    ration.charge(3, 0.0)
    ration.charge(-1, 0.0)
    assert (ration.granted, ration.orders) == (2, Orders(charge=2))


def test_a_fork_holds_nothing() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(3), [Calls(3, 1, 0.0)], 10.0)
    ration.charge(3, 0.0)
    ration.fork()
    assert (ration.total, ration.orders, ration.lapses, ration.comes_in) == (0, Orders(), inf, inf)
    assert not ration.holds(1, 10.0)


@given(
    steps=st.lists(
        st.tuples(
            binary,
            st.integers(0, 4),
            st.integers(0, 4),
            st.integers(-2, 3),
            st.integers(1, 3),
            st.integers(0, 6),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_every_permit_goes_in_its_time_or_is_handed_back_or_held(
    steps: list[tuple[float, int, int, int, int, int, bool]],
) -> None:
    """A step is a time, what is granted, what is taken, and whether what is left over is handed back."""
    ration = Ration(2.0, 5)
    reference: list[tuple[float, float]] = []  # when each permit is due, and until when it may go
    now, granted, back = 0.0, 0, 0
    for wait, calls, later_calls, start, cost, takes, hands_back in steps:
        now += wait
        at_once, later = calls * cost, later_calls * cost
        ration.feed(
            answer(at_once, later, start=float(max(0, start))), [Calls(calls + later_calls, cost, 0.0)], now
        )
        granted += at_once + later
        reference += [(now, now + 0.5)] * at_once
        for number in range(later_calls):
            due = now + (max(0, start) + (number + 1) * cost) / 2.0
            reference += [(due, due + 0.5)] * cost
        reference = [entry for entry in reference if entry[1] >= now]
        there = sum(due <= now for due, _ in reference)
        assert ration.holds(there, now)
        assert not ration.holds(there + 1, now)
        if takes and takes <= there:
            assert ration.take(takes, now)
        back, before = ration.orders.back, ration.total
        if hands_back:
            ration.hand_back(ration.surplus(0, now), now)
            assert not ration.holds(1, now)
        assert ration.orders.back - back == before - ration.total
        assert granted == ration.granted + ration.orders.back + ration.total
        reference = permits_of(ration)  # which of those that are due went is the ration's choice


def permits_of(ration: Ration) -> list[tuple[float, float]]:
    """Each permit that is held: when it is due, and until when it may go."""
    return [
        (booking.moment(number), booking.moment(number) + booking.late)
        for booking in ration._bookings
        for number in range(1, booking.left + 1)
    ]


def test_a_lease_is_good_for_less_than_redis_counts_with() -> None:
    lease = Lease.of(answer(leased=9, now=7.0, lasts=0.05), 10.0)
    assert (lease.size, lease.left, lease.low, lease.since) == (9, 9, 4, 7.0)
    assert lease.until == pytest.approx(10.04)


# while Redis is away


def test_all_may_go_and_are_counted() -> None:
    store = Unlimited(5)
    store.change(1.0, 9, 0.0)
    assert store.take(7, 0.0)
    store.charge(-2, 0.0)
    assert store.holds(99, 0.0)
    assert store.refills(99, 0.0, 0.0)
    assert (store.due(99, 3.0), store.earliest(99, 3.0), store.granted, store.burst) == (3.0, 3.0, 5, 9)


def test_nobody_may_go() -> None:
    store = Nothing(5)
    assert not store.take(1, 0.0)
    assert not store.holds(1, 0.0)
    assert not store.refills(1, 9.0, 0.0)
    assert (store.due(1, 3.0), store.granted) == (inf, 0)


def test_a_substitute_is_asked_in_place_of_what_is_held() -> None:
    ration = Ration(2.0, 5)
    ration.feed(answer(5), [Calls(5, 1, 0.0)], 0.0)
    ration.instead = Bucket(1.0, 2, 0.0)
    assert ration.holds(2, 0.0)
    assert not ration.holds(3, 0.0)
    assert ration.take(2, 0.0)
    assert (ration.due(1, 0.0), ration.earliest(1, 0.0), ration.granted) == (1.0, 1.0, 2)
    assert ration.refills(1, 1.0, 0.0)
    ration.charge(1, 0.0)
    assert ration.due(1, 0.0) == 2.0
    assert not ration.orders

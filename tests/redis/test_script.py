"""The script itself, on real servers: the arithmetic of a bucket, and what is remembered for how long."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from struct import unpack
from typing import Final, Literal, TypeAlias

import pytest
from attrs import define
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from batchkit._core.bucket import Bucket
from batchkit._redis.scripts import BUCKET
from batchkit._redis.wire import Answer, Orders, TooLate
from tests.redis.virtual import BEGIN, Fleet, dues, one, virtual_script
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

HOUR: Final = 3600.0
ON_A_SERVER: Final = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def served(answer: Answer) -> int:
    return answer.at_once + answer.later


# the arithmetic

Row: TypeAlias = tuple[
    float, Literal["take", "wait", "owed", "charge", "drain", "pause"], float, bool | float | None
]


@pytest.mark.parametrize(
    ("rate", "burst", "rows"),
    [
        pytest.param(
            2,
            5,
            [
                (0, "take", 5, True),
                (0.1, "take", 1, False),
                (0.1, "wait", 1, 0.4),
                (0.49, "take", 1, False),
                (0.5, "take", 1, True),
                (1.5, "owed", 0, 3.0),
                (1.5, "take", 2, True),
            ],
            id="a burst at once, then one each half second",
        ),
        pytest.param(
            3,
            3,
            [(0, "take", 3, True), (1000, "owed", 0, 0.0), (1000, "take", 3, True), (1000, "take", 1, False)],
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
            [(0, "take", 4, True), (1, "charge", 6, None), (1, "owed", 0, 8.0), (1, "wait", 1, 2.5)],
            id="a debt is paid off before the next call goes",
        ),
        pytest.param(
            2,
            4,
            [(0, "take", 2, True), (9, "charge", -2, None), (9, "owed", 0, 0.0), (9, "take", 4, True)],
            id="a refund to a full bucket adds nothing",
        ),
        pytest.param(
            2,
            4,
            [(0, "take", 1, True), (1, "drain", 0, None), (1, "wait", 1, 0.5), (3, "take", 4, True)],
            id="what is drained comes in again",
        ),
        pytest.param(
            2,
            4,
            [(0, "drain", 3, None), (0, "owed", 0, 1.0), (0, "drain", 3, None), (0, "owed", 0, 1.0)],
            id="as much is left as was said",
        ),
        pytest.param(
            2,
            4,
            [(0, "charge", 9, None), (0, "drain", 0, None), (0, "owed", 0, 9.0)],
            id="a drained debt stays a debt",
        ),
        pytest.param(
            2,
            4,
            [
                (0, "pause", 3, None),
                (1, "pause", 1, None),
                (1, "take", 1, False),
                (1, "wait", 1, 2.0),
                (2.9, "take", 1, False),
                (3, "take", 4, True),
            ],
            id="a pause is not cut short by a shorter one",
        ),
        pytest.param(
            0.01,
            1,
            [(0, "take", 1, True), (0.2, "wait", 1, 99.8), (99, "take", 1, False), (100, "take", 1, True)],
            id="a slow rate",
        ),
        pytest.param(
            2,
            5,
            [(0, "charge", 15, None), (0, "charge", -5, None), (0, "owed", 0, 10.0), (0, "take", 1, False)],
            id="a refund pays off a part of a debt first",
        ),
        pytest.param(
            2,
            5,
            [(0, "charge", 105, None), (0, "charge", -100, None), (0, "owed", 0, 5.0)],
            id="a refund pays off a debt larger than the burst",
        ),
    ],
)
def test_rows(redis_server: Server, rate: float, burst: int, rows: list[Row]) -> None:
    fleet = Fleet(redis_server, rate, burst)
    for number, (seconds, action, value, expected) in enumerate(rows):
        fleet.at(seconds)
        match action:
            case "take":
                assert fleet.takes(cost=int(value)) is expected, number
            case "wait":
                assert waits(fleet.ask(), int(value)) == pytest.approx(expected, abs=1e-5), number
            case "owed":
                assert fleet.ask().owed == pytest.approx(expected), number
            case "charge":
                fleet.ask(orders=Orders(charge=int(value)))
            case "drain":
                fleet.ask(orders=Orders(drain=int(value)))
            case "pause":
                fleet.ask(orders=Orders(pause=value))


def waits(answer: Answer, cost: int) -> float:
    """Seconds until so many are there, by what is owed."""
    return max(0.0, answer.closed, (answer.owed + cost - answer.burst) / answer.rate)


Step: TypeAlias = tuple[float, str, float, int]


@define
class Reference:
    """A bucket of one process, which is paused as its line would be.

    Attributes:
        changes: of the rate so far, each of which may lose a millionth of a permit.
    """

    bucket: Bucket
    changes: int = 0

    def wait(self, cost: int, now: float) -> float:
        return max(0.0, self.bucket.due(cost, now) - now, self.bucket.closed_until - now)


rates = st.sampled_from([0.01, 0.5, 2.0, 1 / 3, 60.0, 1000.0, 12345.6, 1e7])
bursts = st.sampled_from([1, 2, 5, 20, 1000])
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.9, 1.0, 1.1, 3.0]) | st.floats(0, 2),
        st.sampled_from(["ask"] * 6 + ["charge", "charge", "refund", "drain", "pause", "rate"]),
        st.floats(0, 1),
        st.integers(1, 1000),
    ),
    min_size=1,
    max_size=25,
)


Drawn: TypeAlias = tuple[float, int, float, bool, list[Step]]
drawn = st.tuples(rates, bursts, st.sampled_from([0.0, 0.05]), st.booleans(), steps)
LUMP: Final[Drawn] = (60.0, 5, 0.0, False, [(1.1, "ask", 0.0, 1), (0.0, "ask", 0.0, 5), (0.5, "ask", 0.0, 3)])


@ON_A_SERVER
@given(drawn=drawn)
def test_decisions_and_waits_about_one_permit_are_those_of_a_bucket(
    redis_server: Server, drawn: Drawn
) -> None:
    compare(redis_server, drawn, most=1)


@ON_A_SERVER
@given(drawn=drawn)
@example(drawn=LUMP)
def test_decisions_and_waits_are_those_of_a_bucket(redis_server: Server, drawn: Drawn) -> None:
    compare(redis_server, drawn, most=1000)


def compare(server: Server, drawn: Drawn, most: int) -> None:
    """A step is a time, as a part of what the burst or one permit takes to come in, what is done, and two
    numbers for it. What is booked ahead is a debt of the bucket's.
    """
    rate, burst, horizon, cold, steps = drawn
    fleet = Fleet(server, rate, burst, horizon=horizon)
    reference = Reference(Bucket(rate, burst, 0.0))
    if cold:
        reference.bucket.drain(0.0)
        fleet.ask(cold=True)
    for part, action, value, number in steps:
        bucket = reference.bucket
        fleet.advance(part * (bucket.burst if number % 2 else 1) / bucket.rate)
        if action == "ask":
            ask(fleet, reference, min(number, bucket.burst, most))
        else:
            act(fleet, reference, action, value, number)


def act(fleet: Fleet, reference: Reference, action: str, value: float, number: int) -> None:
    bucket, now = reference.bucket, fleet.seconds
    orders = Orders()
    match action:
        case "charge":
            orders = Orders(charge=number)
            bucket.charge(number, now)
        case "refund":
            if bucket.available(now) >= 0:  # a debt: see the rows
                orders = Orders(charge=-number)
                bucket.charge(-number, now)
        case "drain":
            orders = Orders(drain=round(value * bucket.burst))
            bucket.drain(now, round(value * bucket.burst))
        case "pause":
            orders = Orders(pause=value * bucket.burst / bucket.rate)
            bucket.closed_until = max(bucket.closed_until, now + orders.pause)
        case _:
            orders = Orders(size=(bucket.rate * (0.5 + value), number))
            bucket.change(bucket.rate * (0.5 + value), number, now)
            reference.changes += 1
    answer = fleet.ask(orders=orders)
    assert (answer.rate, answer.burst) == (bucket.rate, bucket.burst)


def ask(fleet: Fleet, reference: Reference, cost: int) -> None:
    bucket, now = reference.bucket, fleet.seconds
    expected = reference.wait(cost, now)
    answer = fleet.ask(calls=one(cost=cost))
    # Two microseconds; a millionth of a call, which counts as there; and what changes of the rate lose.
    tolerance = 2e-6 + 2e-6 * (cost + reference.changes) / bucket.rate
    if moments := dues(answer, one(cost=cost)):
        wait = moments[0][0] - now
        bucket.charge(cost, now)
    else:
        wait = waits(answer, cost)
        longest = 5.0 if answer.closed else 0.28
        assert answer.look <= max(0.001, min(wait, longest)) + 2e-6
    assert wait == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("says_so", "there"), [(True, 10), (False, 4)])
def test_what_may_be_on_its_way_does_not_come_in_before_it_is_told_to_have_gone(
    redis_server: Server, says_so: bool, there: int
) -> None:
    fleet = Fleet(redis_server, 100, 20)
    fleet.prompt = says_so
    assert fleet.takes("a", 20)
    fleet.ask("a")
    fleet.advance(0.1)
    calls = one(count=20)
    moments = dues(fleet.ask("b", calls), calls)
    assert sum(moment <= fleet.seconds for moment, _ in moments) == there


@pytest.mark.parametrize(
    ("orders", "may_go"),
    [
        pytest.param(Orders(), 2, id="nothing"),
        pytest.param(Orders(charge=1), 1, id="a charge"),
        pytest.param(Orders(drain=0), 0, id="a drain"),
    ],
)
def test_what_was_handed_back_while_permits_are_booked_ahead_may_go_at_once(
    redis_server: Server, orders: Orders, may_go: int
) -> None:
    fleet = Fleet(redis_server, 3, 5, horizon=1.0)
    assert served(fleet.ask("a", one(count=3), cold=True)) == 3
    assert fleet.ask("b", orders=Orders(back=2, back_since=fleet.now)).owed == 6
    fleet.ask("b", orders=orders)
    assert fleet.ask("c", one(count=2), stands=False).at_once == may_go


@pytest.mark.parametrize(
    "orders",
    [
        pytest.param(Orders(charge=-1), id="refunded"),
        pytest.param(
            Orders(back=1, back_since=BEGIN),
            id="handed back",
        ),
    ],
)
def test_what_comes_back_at_once_is_not_said_to_be_away_for_long(
    redis_server: Server, orders: Orders
) -> None:
    fleet = Fleet(redis_server, 0.01, 1)
    assert fleet.takes("a")
    fleet.advance(0.01)
    fleet.ask("a", orders=orders)
    assert waits(fleet.ask("b"), 1) <= 0.1


@pytest.mark.parametrize(
    ("rate", "seconds", "counts"),
    [
        pytest.param(10.0, 0.5, 1, id="half a second at any rate"),
        pytest.param(10.0, 0.51, 0, id="and no longer"),
        pytest.param(1.0, 1.5, 1, id="while one and a half come in"),
        pytest.param(1.0, 1.51, 0, id="and no longer where permits are scarce"),
        pytest.param(0.01, 12.0, 1, id="at the longest"),
        pytest.param(0.01, 12.1, 0, id="a permit of an hour ago does not come back"),
    ],
)
def test_what_comes_back_late_counts_if_it_was_not_made_up_for_meanwhile(
    redis_server: Server, rate: float, seconds: float, counts: int
) -> None:
    fleet = Fleet(redis_server, rate, 20)
    fleet.ask("a", one(count=20))
    fleet.advance(seconds)
    assert fleet.ask("a", orders=Orders(back=1, back_since=BEGIN)).owed == pytest.approx(
        20 - rate * seconds - counts, abs=1e-6
    )


def test_a_refund_within_a_debt_lets_nobody_go_before_the_rest_is_paid_off(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5, horizon=3.0)
    fleet.ask("a", orders=Orders(charge=10))
    fleet.ask("a", orders=Orders(charge=-2))  # 3 beyond the burst are left
    assert [moment for moment, _ in dues(fleet.ask("b", one()), one())] == [pytest.approx(2.0)]


@ON_A_SERVER
@given(
    owed=st.integers(12, 14),  # so that it is never full, nor in debt
    said=st.lists(
        st.builds(
            Orders,
            charge=st.integers(-3, 2),
            pause=st.integers(0, 9).map(float),
            drain=st.none() | st.integers(10, 20),
            size=st.none() | st.just((1.5, 20)),
        ),
        min_size=2,
        max_size=3,
    ),
)
def test_orders_in_one_question_are_as_if_said_one_after_the_other(
    valkey: Server, owed: int, said: list[Orders]
) -> None:
    each, together = Fleet(valkey, 2, 20), Fleet(valkey, 2, 20)
    for fleet in each, together:
        fleet.ask(orders=Orders(charge=owed))
        fleet.advance(1)
    in_one = Orders()
    for orders in said:
        in_one.add(orders)
    *_, expected = [each.ask(orders=orders) for orders in said]
    answer = together.ask(orders=in_one)
    assert (answer.rate, answer.closed, answer.gone) == (expected.rate, expected.closed, expected.gone)
    assert answer.owed == pytest.approx(expected.owed)


# the same question twice, too late, out of order


def test_a_question_that_comes_twice_is_answered_once(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    question = fleet.question("a", one(count=3))
    first, again = fleet.put(question), fleet.put(question)
    assert isinstance(first, Answer)
    assert isinstance(again, Answer)
    assert (first.again, again.again) == (False, True)
    assert (served(again), again.now, again.gone) == (3, first.now, 3)
    fleet.advance(0.5)
    assert fleet.ask("b").gone == 3
    assert fleet.ask("a", one(count=2), serial=question.serial).again
    assert served(fleet.ask("a", one(count=2))) == 2


@pytest.mark.parametrize(
    "orders",
    [Orders(charge=2), Orders(charge=-2), Orders(back=2, back_since=BEGIN)],
    ids=["charge", "refund", "back"],
)
def test_what_is_said_twice_counts_once(redis_server: Server, orders: Orders) -> None:
    fleet = Fleet(redis_server, 2, 8)
    assert fleet.takes("b", 8)
    question = fleet.question("a", orders=orders)
    first, again = fleet.put(question), fleet.put(question)
    assert isinstance(first, Answer)
    assert isinstance(again, Answer)
    assert again.again
    assert fleet.ask("b").gone == first.gone == 8 + orders.charge - orders.back


def test_an_older_question_is_refused_unrun(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    old, new = fleet.question("a", one()), fleet.question("a", one())
    fleet.put(new)
    assert fleet.put(old) == TooLate(fleet.now)
    assert fleet.ask("b").gone == 1
    assert isinstance(
        fleet.put(fleet.question("b", one(), serial=1)), Answer
    )  # another one's numbers are its own


def test_a_question_is_refused_unrun_after_its_deadline(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    assert served(fleet.ask("a", one(), deadline=fleet.now)) == 1
    late = fleet.question("a", one(), deadline=fleet.now - 1, orders=Orders(charge=3, pause=9.0))
    assert fleet.put(late) == TooLate(fleet.now)
    answer = fleet.ask("a")
    assert (answer.gone, answer.closed) == (1, 0.0)
    assert fleet.put(fleet.question("a", one(), deadline=fleet.now - 1, serial=late.serial)) == TooLate(
        fleet.now
    )


# who is here, and what was configured


def test_those_who_were_here_within_half_a_minute_are_counted(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    assert [fleet.ask(name, presence=2).members for name in "abc"] == [1, 2, 3]
    assert fleet.ask("d", one(), presence=0).members == 0
    fleet.advance(20)
    assert fleet.ask("a", presence=1).members == 3
    fleet.advance(10)
    assert fleet.ask("a", presence=1).members == 1
    assert fleet.ask("b", presence=1).members == 2


def test_the_last_answer_to_who_has_gone_is_forgotten(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    for name in "abc":
        fleet.ask(name, one(), presence=2)
    fleet.advance(30)
    fleet.ask("c", one(), presence=1)
    assert fleet.fields() == {"c", "here", "state"}


def test_the_last_answer_to_who_has_gone_is_forgotten_after_a_quiet_time_too(valkey: Server) -> None:
    fleet = Fleet(valkey, 2, 5, virtual=False)
    fleet.ask("a", one(), presence=2)
    fleet.ask("b", orders=Orders(size=(3.0, 5)), presence=2)  # which is remembered for an hour
    valkey.clock_offset = 600.0
    fleet.ask("b", one(), presence=2)
    assert fleet.fields() == {"b", "here", "state"}


def test_what_the_last_one_that_started_has_configured_counts(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    fleet.ask("a", presence=2)

    def said(presence: int, rate: float, burst: int) -> tuple[int, float, int]:
        answer = fleet.ask("b", presence=presence, rate=rate, burst=burst)
        return answer.version, answer.rate, answer.burst

    assert said(0, 3, 7) == (0, 2, 5)
    assert said(1, 3, 7) == (0, 2, 5)
    assert said(2, 3, 7) == (1, 3, 7)
    assert said(2, 3, 7) == (1, 3, 7)
    assert said(0, 2, 5) == (1, 3, 7)


def test_a_rate_that_the_fleet_agreed_on_outlives_another_one_that_starts(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    fleet.ask("a", presence=2)
    assert fleet.ask("a", orders=Orders(size=(1.0, 4))).version == 1
    answer = fleet.ask("b", presence=2)
    assert (answer.version, answer.rate, answer.burst) == (1, 1.0, 4)
    answer = fleet.ask("c", presence=2, rate=3, orders=Orders(size=(0.5, 4)))
    assert (answer.version, answer.rate, answer.burst) == (2, 0.5, 4)
    assert fleet.ask("c", orders=Orders(size=(0.5, 4))).version == 2


@pytest.mark.parametrize(("cold", "there"), [(False, 5), (True, 0)])
def test_a_bucket_that_is_not_known_starts_full_or_empty(
    redis_server: Server, cold: bool, there: int
) -> None:
    assert served(Fleet(redis_server, 2, 5).ask("a", one(count=9), cold=cold)) == there


# leases


@pytest.mark.parametrize(
    ("act", "leased"),
    [
        pytest.param(lambda fleet: None, 10, id="there is plenty"),
        pytest.param(
            lambda fleet: fleet.takes("b", 95 - ceil(fleet.reach)), 5, id="what others may book ahead is kept"
        ),
        pytest.param(
            lambda fleet: fleet.takes("b", 100 - ceil(fleet.reach)), 0, id="there is nothing beyond that"
        ),
        pytest.param(lambda fleet: fleet.ask("b", one(count=200)), 0, id="another one waits"),
        pytest.param(lambda fleet: fleet.ask("b", orders=Orders(pause=0.01)), 0, id="the fleet is paused"),
    ],
)
def test_a_lease_is_had_where_nobody_will_miss_it(
    redis_server: Server, act: Callable[[Fleet], object], leased: int
) -> None:
    fleet = Fleet(redis_server, 200, 100, horizon=0.05)
    act(fleet)
    assert fleet.ask("a", extra=10).leased == leased


def test_who_waits_itself_has_no_lease(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 200, 100, horizon=0.05)
    assert fleet.ask("a", one(count=200), extra=10).leased == 0


def test_what_is_leased_does_not_come_in_before_it_may_be_used(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 1000, 200)
    assert fleet.ask("a", extra=150).leased == 150
    fleet.advance(0.049)
    calls = one(count=200)
    moments = dues(fleet.ask("b", calls, stands=False), calls)
    assert sum(moment <= fleet.seconds for moment, _ in moments) == 50


# how long it is remembered


@pytest.mark.parametrize(("rate", "burst"), [(0.01, 1000), (2, 5), (1e7, 1000)])
def test_it_is_remembered_until_it_is_full_and_no_key_is_left_for_good(
    redis_server: Server, rate: float, burst: int
) -> None:
    fleet = Fleet(redis_server, rate, burst, horizon=0.05, virtual=False)
    for step in range(4):
        answer = fleet.ask("a", one(count=burst), presence=1)
        fleet.ask("b", one(count=burst), presence=2, orders=Orders(charge=step * burst, pause=step))
        left = fleet.run("PTTL", fleet.key)
        assert left >= 1000 * max(answer.owed / rate, answer.closed)
        assert left >= 29_000  # nobody who was here lately is forgotten
        redis_server.clock_offset += 20.0


def test_a_debt_that_outlasts_what_redis_can_remember_can_be_paid_back(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 0.001, 5)
    fleet.ask("a", orders=Orders(charge=2**63))
    assert not fleet.takes("b")
    assert fleet.run("PTTL", fleet.key) > 0
    fleet.ask("a", orders=Orders(charge=-(2**63)))
    assert fleet.takes("b")


def test_a_rate_that_is_not_the_configured_one_is_remembered_for_an_hour(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    fleet.ask("a", presence=2)
    assert 30_000 <= fleet.run("PTTL", fleet.key) <= 100_000
    fleet.ask("a", orders=Orders(size=(1.0, 5)))
    assert 1000 * HOUR <= fleet.run("PTTL", fleet.key) <= 1000 * (HOUR + 100)


def test_each_question_prolongs_it_seldom(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 100, 100)
    fleet.takes("a")
    redis_server.reset_stats()
    for _ in range(100):
        fleet.takes("a")
        fleet.advance(0.1)
    assert redis_server.commands().get("pexpire", 0) <= 2


# the server's clock jumps


@pytest.mark.parametrize("jump", [-HOUR, -5.0, -0.05])
def test_a_clock_that_is_set_back_stalls_nobody(redis_server: Server, jump: float) -> None:
    fleet = Fleet(redis_server, 10, 5, horizon=0.05)
    for name in "abc":
        fleet.ask(name, one(count=5), presence=2, orders=Orders(pause=0.2))
    fleet.advance(jump)
    begin = fleet.seconds
    answer = fleet.ask("b", one(), presence=1)
    assert answer.closed <= 0.2
    while not served(answer):
        assert fleet.seconds < begin + 0.8
        fleet.advance(max(0.001, answer.look))
        answer = fleet.ask("b", one(age=fleet.seconds - begin), presence=1)
    assert answer.members <= 3
    assert fleet.run("PTTL", fleet.key) > 0


def test_a_clock_that_is_set_back_adds_nothing(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    assert fleet.takes(cost=5)
    fleet.advance(-HOUR)
    assert not fleet.takes()
    fleet.advance(0.4)
    assert not fleet.takes()
    fleet.advance(0.1)
    assert fleet.takes()
    assert not fleet.takes()


def test_what_is_handed_back_counts_after_the_clock_was_set_back(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5)
    fleet.ask("a", cold=True)
    fleet.advance(-HOUR)
    fleet.ask("a")
    fleet.advance(1)
    assert fleet.takes("a")
    back = Orders(back=1, back_since=fleet.now)
    fleet.advance(0.25)
    assert fleet.ask("a", orders=back).owed == pytest.approx(2.5)


def test_a_clock_that_is_set_forward_lets_one_burst_go_at_most(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 2, 5, horizon=0.05)
    assert served(fleet.ask("a", one(count=9))) == 5
    fleet.ask("b", one(), orders=Orders(pause=60.0))
    fleet.advance(HOUR)
    assert served(fleet.ask("a", one(count=99))) == 5
    assert served(fleet.ask("b", one(count=99))) == 0


def test_a_server_whose_clock_is_set_forward_lets_one_burst_go_at_most(valkey: Server) -> None:
    fleet = Fleet(valkey, 0.01, 5, virtual=False)
    assert served(fleet.ask("a", one(count=9))) == 5
    valkey.clock_offset = 2 * HOUR
    assert served(fleet.ask("a", one(count=99))) == 5
    valkey.clock_offset = 0.0
    assert served(fleet.ask("a", one(count=99))) == 0


# what it costs


def test_a_plain_question_costs_a_few_commands(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 100, 100, virtual=False)
    fleet.ask("a", one(), presence=2)
    redis_server.reset_stats()
    fleet.ask("a", one())
    commands = redis_server.commands()
    print(f"\n{redis_server.binary}, commands in a plain question: {commands}")
    assert commands == {"evalsha": 1, "time": 1, "hmget": 1, "hset": 1}


@pytest.mark.parametrize("waiting", [0, 20])
def test_a_limiter_takes_little_memory(redis_server: Server, waiting: int) -> None:
    fleet = Fleet(redis_server, 2, 5, horizon=0.05)
    fleet.ask("process-0000", one(count=5), presence=2)
    for number in range(waiting):
        fleet.ask(f"process-{number:04}", one(), presence=2)
    used = fleet.run("MEMORY", "USAGE", fleet.key, "SAMPLES", 0)
    print(f"\n{redis_server.binary}, bytes with {waiting} that wait: {used}")
    assert used <= 1000 + 200 * waiting


def test_what_is_counted_stays_exact_after_a_billion(redis_server: Server) -> None:
    fleet = Fleet(redis_server, 1e7, 1000)
    fleet.ask("a", orders=Orders(charge=1_000_000_001))
    assert fleet.ask("a").gone == 1_000_000_001
    state = fleet.run("HGET", fleet.key, "state")
    assert all(number == number for number in unpack(f">{len(state) // 8}d", state))


def test_the_script_of_the_tests_differs_by_the_clock_only() -> None:
    ours, theirs = virtual_script().splitlines(), BUCKET.text.splitlines()
    assert len(theirs) - len(ours) == 1
    assert len(set(theirs) - set(ours)) == 2

"""Several limiters in one run of a script: a call of several is served by all of them or by none."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Final, TypeAlias

import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from batchkit._redis.wire import Answer, Calls, Orders, TooLate
from tests.redis.virtual import Fleet, Group, dues, worst_excess
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")

ROUND: Final = 1e-6
LONGEST: Final = 0.28  # seconds until the next look
PATIENCE: Final = 10.0  # seconds that a step of priority is worth
ON_A_SERVER: Final = settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
Wish: TypeAlias = tuple[int, tuple[int, ...], float]  # how many calls, the permits of each limiter, their age


def granted(answers: Sequence[Answer]) -> list[int]:
    return [answer.granted for answer in answers]


def group(server: Server, *sizes: tuple[float, int], horizon: float = 0.05) -> Group:
    return Group(*(Fleet(server, rate, burst, horizon=horizon) for rate, burst in sizes))


def calls_of(number: int, wishes: Sequence[Wish]) -> list[Calls]:
    return [Calls(count, wants[number], age) for count, wants, age in wishes if wants[number]]


# one decision


def test_a_call_of_two_limiters_is_served_by_both_or_by_none(redis_server: Server) -> None:
    both = group(redis_server, (1, 2), (10, 100))
    assert granted(both.ask("a", [(1, (1, 60), 0.0)])) == [1, 60]
    assert granted(both.ask("a", [(1, (1, 60), 0.0)])) == [0, 0]
    assert granted(both.ask("a", [(1, (1, 40), 0.0)])) == [1, 40]
    assert granted(both.ask("b", [(1, (1, 1), 0.0)])) == [0, 0]


def test_of_many_calls_as_many_are_served_as_the_scarcest_limiter_can(redis_server: Server) -> None:
    three = group(redis_server, (1, 5), (1, 3), (1, 100))
    answers = three.ask("a", [(9, (1, 1, 2), 0.0)])
    assert granted(answers) == [3, 3, 6]
    assert [answer.served for answer in answers] == [(3,), (3,), (3,)]


def test_it_costs_one_command(redis_server: Server) -> None:
    both = group(redis_server, (1, 2), (10, 100))
    both.ask()
    redis_server.reset_stats()
    both.ask("a", [(1, (1, 60), 0.0)])
    assert redis_server.commands() == {"evalsha": 1, "hmget": 2, "hset": 2}


def test_calls_of_one_limiter_pass_a_call_that_another_one_holds_up(redis_server: Server) -> None:
    both = group(redis_server, (1, 5), (0.01, 1))
    both.ask("a", [(1, (0, 1), 0.0)])  # the second one is empty for long
    answers = both.ask("a", [(1, (1, 1), 2.0), (3, (1, 0), 1.0)])
    assert granted(answers) == [3, 0]
    assert answers[0].served == (0, 3)
    assert both.fleets[0].standing() == []  # nobody is in its way
    assert both.fleets[1].standing() == ["a"]
    assert granted(both.ask("b", [(1, (1, 0), 0.0)])) == [1, 0]


def test_what_a_call_needs_where_it_is_held_is_kept_for_the_moment_at_which_it_can_go(
    redis_server: Server,
) -> None:
    both = group(redis_server, (1, 8), (2, 1), horizon=0.0)
    both.ask("x", [(1, (0, 1), 0.0)])
    answers = both.ask("a", [(1, (8, 1), 1.0), (9, (1, 0), 0.5)])  # it can go in half a second
    assert granted(answers) == [0, 0]
    assert granted(both.ask("b", [(9, (1, 0), 0.0)])) == [0, 0]
    both.at(0.6)
    assert granted(both.ask("a", [(1, (8, 1), 1.6), (9, (1, 0), 1.1)])) == [8, 1]


def test_those_of_higher_priority_go_first(redis_server: Server) -> None:
    both = group(redis_server, (2, 1), (100, 100))
    both.ask("x", [(1, (1, 0), 0.0)])
    for name in "abc":
        both.ask(name, [(1, (1, 1), 0.0)])
    moment = 0.0
    urgent = both.ask("urgent", [(1, (1, 1), PATIENCE)])
    while not urgent[0].granted:
        moment += max(0.001, min(answer.look for answer in urgent))
        both.at(moment)
        for name in "abc":
            assert not both.ask(name, [(1, (1, 1), moment)])[0].granted
        urgent = both.ask("urgent", [(1, (1, 1), PATIENCE + moment)])
    assert moment <= 0.6


# the same question twice, or too late


def test_questions_that_come_twice_are_answered_once(redis_server: Server) -> None:
    both = group(redis_server, (1, 5), (1, 5))
    asks = [fleet.question("a") for fleet in both.fleets]
    wishes: list[Wish] = [(1, (1, 2), 0.0), (1, (0, 1), 0.0)]
    first, again = both.put(asks, wishes), both.put(asks, wishes)
    assert [answer.again for answer in again] == [True, True]
    assert [evolve(answer, again=False) for answer in again] == first
    assert [answer.gone for answer in both.ask("b")] == [1, 3]


@pytest.mark.parametrize("late", [0, 1])
def test_if_one_question_is_not_to_be_answered_none_is(redis_server: Server, late: int) -> None:
    both = group(redis_server, (1, 5), (1, 5))
    asks = [fleet.question("a") for fleet in both.fleets]
    asks[late] = evolve(asks[late], deadline=both.fleets[0].now - 1.0)
    answers = both.put(asks, [(1, (1, 1), 0.0)])
    assert all(isinstance(answer, TooLate) for answer in answers)
    assert [answer.gone for answer in both.ask("b")] == [0, 0]


# one limiter of a group is as it is alone

steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 2),
        st.sampled_from(["a", "b", "c"]),
        st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.floats(0, 2)), max_size=3),
        st.sampled_from([Orders(), Orders(charge=2), Orders(pause=0.1), Orders(size=(3.0, 6))]),
    ),
    max_size=12,
)


@ON_A_SERVER
@given(
    rate=st.sampled_from([0.5, 2.0, 60.0, 1000.0]),
    horizon=st.sampled_from([0.0, 0.05, 1.0]),
    extra=st.integers(0, 3),
    steps=steps,
)
def test_calls_of_one_limiter_are_served_as_if_it_was_asked_alone(
    redis_server: Server,
    rate: float,
    horizon: float,
    extra: int,
    steps: list[tuple[float, str, list[tuple[int, int, float]], Orders]],
) -> None:
    alone = Fleet(redis_server, rate, 5, horizon=horizon)
    together = group(redis_server, (rate, 5), (1, 1), horizon=horizon)
    seconds = 0.0
    for part, process, drawn, orders in steps:
        seconds += part / rate
        alone.at(seconds)
        together.at(seconds)
        drawn.sort(key=lambda run: -run[2])
        calls = [Calls(count, cost, age) for count, cost, age in drawn]
        said = alone.put(alone.question(process, calls, orders=orders, extra=extra))
        asks = [
            together.fleets[0].question(process, orders=orders, extra=extra),
            together.fleets[1].question(process),
        ]
        answer, _ = together.put(asks, [(count, (cost, 0), age) for count, cost, age in drawn])
        assert evolve(answer, served=(), aside=()) == said
        assert together.fleets[0].standing() == alone.standing()


# the bound, and that all come through; for those whom the scripts above serve alike on each server


@define(eq=False)
class Worker:
    """A process whose callers come again as soon as they went.

    Attributes:
        name: what the servers know it by.
        kinds: what its callers want of each limiter.
        waiting: what those want who wait, and when they came.
        coming: what the others will want, and when.
        gone: what those wanted who went, when they came, and when they went.
    """

    name: str
    kinds: Sequence[tuple[int, ...]]
    waiting: deque[tuple[float, tuple[int, ...]]] = field(factory=deque)
    coming: list[tuple[float, tuple[int, ...]]] = field(factory=list)
    gone: list[tuple[tuple[int, ...], float, float]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.coming = [(0.0, kind) for kind in self.kinds]
        heapify(self.coming)

    def ask(self, those: Group, now: float) -> float:
        """Ask for all who wait; returned is when to do so again."""
        while self.coming and self.coming[0][0] <= now + ROUND / 2:
            self.waiting.append(heappop(self.coming))
        wishes: list[Wish] = [(1, kind, now - came) for came, kind in self.waiting]
        answers = those.ask(self.name, wishes)
        moments = [
            deque(moment for moment, _ in dues(answer, calls_of(number, wishes)))
            for number, answer in enumerate(answers)
        ]
        served = [deque(answer.served) for answer in answers]
        for came, kind in list(self.waiting):
            told = {served[number].popleft() for number, permits in enumerate(kind) if permits}
            assert len(told) == 1, "all or none"
            if told == {1}:
                due = max(moments[number].popleft() for number, permits in enumerate(kind) if permits)
                self.gone.append((kind, came, due))
                self.waiting.remove((came, kind))
                heappush(self.coming, (max(due, now + ROUND), kind))
        if self.waiting:
            return now + max(0.001, min(answer.look for answer in answers if stands(answer)))
        return max(now + max(answer.look for answer in answers), self.coming[0][0])


def stands(answer: Answer) -> bool:
    """Whether any of the calls, one in each run, stands in that line."""
    return any(not (served or aside) for served, aside in zip(answer.served, answer.aside, strict=True))


def simulate(those: Group, workers: Sequence[Worker], seconds: float) -> None:
    agenda = [(number * 0.003, number) for number in range(len(workers))]
    now = 0.0
    while agenda[0][0] < seconds:
        moment, number = heappop(agenda)
        now = max(moment, now)
        those.at(now)
        heappush(agenda, (max(workers[number].ask(those, now), now + ROUND), number))


def gone(workers: Sequence[Worker], number: int) -> list[tuple[float, int]]:
    return [(went, kind[number]) for worker in workers for kind, _, went in worker.gone if kind[number]]


@ON_A_SERVER
@given(
    sizes=st.lists(
        st.tuples(st.sampled_from([5.0, 20.0, 200.0, 2000.0]), st.sampled_from([4, 10, 50])),
        min_size=2,
        max_size=3,
    ),
    horizon=st.sampled_from([0.0, 0.05, 0.2]),
    data=st.data(),
)
def test_no_window_exceeds_the_bound_of_any_limiter(
    valkey: Server, sizes: list[tuple[float, int]], horizon: float, data: st.DataObject
) -> None:
    kinds = st.tuples(*(st.integers(0, 4) for _ in sizes)).filter(any)
    workers = [Worker(name, data.draw(st.lists(kinds, min_size=1, max_size=4))) for name in "abc"]
    those = group(valkey, *sizes, horizon=horizon)
    simulate(those, workers, 1.0)
    # what is booked ahead with one limiter may wait so long for what is booked with another
    late = min(min(horizon, max(0.004, 1 / rate)) for rate, _ in sizes)
    for number, (rate, burst) in enumerate(sizes):
        together = any(kind[number] and sum(map(bool, kind)) > 1 for each in workers for kind in each.kinds)
        assert worst_excess(gone(workers, number), rate, burst) <= 0.001 + (rate * late if together else 0)


@pytest.mark.parametrize("singles", [4, 40])
def test_a_call_of_two_is_not_starved_by_streams_of_calls_of_each(valkey: Server, singles: int) -> None:
    both = group(valkey, (50, 10), (20, 10))
    joint = Worker("joint", [(8, 5)])
    streams = [Worker(f"s{number}", [(1, 0), (0, 1)] * singles) for number in range(3)]
    simulate(both, [joint, *streams], 20)
    waits = [went - came for _, came, went in joint.gone]
    print(f"\n{len(waits)} calls, the longest wait {max(waits):.2f} s")
    turn = (5 + 3 * singles) / 20  # seconds until all who wait for the second limiter had theirs
    assert len(waits) >= 20 / (turn + 2 * LONGEST) - 2
    assert max(waits) <= 2 * turn + 2 * LONGEST


def test_streams_of_calls_of_each_are_not_starved_by_calls_of_both(valkey: Server) -> None:
    both = group(valkey, (50, 10), (5, 10))
    joint = [Worker(f"j{number}", [(1, 1)] * 10) for number in range(3)]
    stream = Worker("stream", [(1, 0)] * 10)
    simulate(both, [*joint, stream], 10)
    assert len(gone(joint, 0)) == pytest.approx(5 * 10 + 10, abs=6)  # which the second limiter lets go
    assert sum(cost for _, cost in gone([*joint, stream], 0)) >= 0.97 * 50 * 10


def test_groups_in_opposite_order_do_not_wait_for_each_other(valkey: Server) -> None:
    three = group(valkey, (20, 2), (20, 2), (20, 2))
    workers = [
        Worker("a", [(1, 1, 0)] * 3),
        Worker("b", [(0, 1, 1)] * 3),
        Worker("c", [(1, 0, 1)] * 3),
    ]
    simulate(three, workers, 10)
    counts = [len(worker.gone) for worker in workers]
    print(f"\n{counts}")
    assert sum(counts) >= 0.6 * 10 * 60 / 2  # in order of arrival, each of them now and then waits for two
    assert min(counts) >= 0.8 * max(counts)

"""The bound of the whole fleet: every permit that processes let go, at the moment at which it goes."""

from __future__ import annotations

from typing import Final, TypeAlias

import pytest
from attrs import define, field, frozen
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from batchkit._redis.wire import Orders
from tests.redis.virtual import Fleet, dues, one, worst_excess
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")
# A grant may be early by what rounding could cost it: a millionth of a call. A moment is a float.
TOLERANCE: Final = 0.001
ON_A_SERVER: Final = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


History: TypeAlias = "tuple[float, int, float, list[Step]]"


@frozen
class Step:
    """What a process does after some time.

    Attributes:
        wait: seconds since the last step.
        process: its number.
        count, cost: of the calls that wait.
        extra: permits that it would like to lease.
        uses: whether its calls go; what does not is handed back later.
        late: of the time for which a permit that may go at once is good, the part after which it goes.
        hands_back: whether it hands back what is past due.
        dies: whether it is gone before it hands back anything.
        pause: seconds for which it has the fleet stop.
    """

    wait: float
    process: int = 0
    count: int = 0
    cost: int = 1
    extra: int = 0
    uses: bool = True
    late: float = 0.0
    hands_back: bool = False
    dies: bool = False
    pause: float = 0.0


@define
class Processes:
    """Processes that do as they are told, and what they let go.

    Attributes:
        gone: moments, with the permits that went.
        unused: for each process, permits that it did not use: when they were due and granted, and how many.
        went: for each process, permits that went at once: when, how many, and how long they were good for.
    """

    fleet: Fleet
    gone: list[tuple[float, int]] = field(factory=list)
    unused: dict[int, list[tuple[float, float, int]]] = field(factory=dict)
    went: dict[int, list[tuple[float, int, float]]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.fleet.prompt = False

    def do(self, step: Step) -> None:
        fleet = self.fleet
        fleet.advance(step.wait)
        orders = Orders(pause=step.pause)
        unused = self.unused.setdefault(step.process, [])
        if step.hands_back:
            for entry in [entry for entry in unused if entry[0] <= fleet.seconds]:
                unused.remove(entry)
                orders.add(Orders(back=entry[2], back_since=entry[1]))
        went = self.went.pop(step.process, [])
        orders.went = sum(permits for moment, permits, good in went if fleet.seconds - moment <= good)
        calls = one(count=step.count, cost=min(step.cost, fleet.burst)) if step.count else []
        answer = fleet.ask(f"p{step.process}", calls, orders=orders, extra=step.extra, stands=False)
        granted = [*dues(answer, calls), *[(fleet.seconds, 1)] * answer.leased]
        for due, cost in granted:
            if not step.uses:
                unused.append((due, answer.now, cost))
            elif due > fleet.seconds or answer.closed:
                self.gone.append((due, cost))
            else:
                self.gone.append((due + step.late * answer.lasts, cost))
                if not step.late:
                    self.went.setdefault(step.process, []).append((due, cost, answer.lasts))
        if step.dies:
            unused.clear()

    def excess(self) -> float:
        return worst_excess(self.gone, self.fleet.rate, self.fleet.burst)


@st.composite
def histories(draw: st.DrawFn, *, late: bool = False, unused: bool = False, paused: bool = False) -> History:
    """A rate, a burst, a horizon, and steps of a few processes."""
    rate = draw(st.sampled_from([2.0, 50.0, 500.0, 5000.0]))
    burst = draw(st.sampled_from([1, 2, 5, 20, 500]))
    permits = st.floats(0, 1.5 * burst).map(lambda permits: permits / rate)
    waits = st.sampled_from([0.0, 0.001, 0.01, 0.025, 0.05, 0.1, 1.0]) | permits
    step = st.builds(
        Step,
        wait=waits,
        process=st.integers(0, 3),
        count=st.integers(0, 10) | st.sampled_from([burst, 4 * burst]),
        cost=st.sampled_from([1, 1, 1, 3, 8]),
        extra=st.sampled_from([0, burst]) if late else st.just(0),
        uses=st.booleans() if unused else st.just(True),
        late=st.sampled_from([0.0, 0.5, 1.0]) if late else st.just(0.0),
        hands_back=st.booleans() if unused else st.just(False),
        dies=st.sampled_from([False, False, False, True]) if unused else st.just(False),
        pause=st.sampled_from([0.0, 0.0, 0.04, 0.2]) if paused else st.just(0.0),
    )
    return rate, burst, draw(st.sampled_from([0.0, 0.05, 0.2])), draw(st.lists(step, min_size=2, max_size=25))


def check(server: Server, history: History, tolerance: float = TOLERANCE) -> None:
    rate, burst, horizon, steps = history
    processes = Processes(Fleet(server, rate, burst, horizon=horizon))
    for step in steps:
        processes.do(step)
    assert processes.excess() <= tolerance


@ON_A_SERVER
@given(history=histories())
def test_no_window_exceeds_the_bound_where_permits_are_booked_ahead(
    redis_server: Server, history: History
) -> None:
    check(redis_server, history)


GOES_LATE: Final = [Step(0, 0, 500, late=1.0), Step(0.05, 1, 500)]
SLEPT: Final = [Step(0, 0, 100, uses=False), Step(0.9, 1, 90), Step(0, 0, hands_back=True), Step(0, 2, 100)]
PAUSE_ENDS: Final = [Step(0, 0, pause=0.04), Step(0, 0, 50), Step(0, 1, 50)]


@pytest.mark.parametrize(
    ("rate", "burst", "steps"),
    [
        pytest.param(
            50,
            5,
            [Step(0, 0, 5), Step(0, 1, 20), Step(0.1, 2, 20), Step(0.02, 3, 20)],
            id="all go at their moment",
        ),
        pytest.param(
            5000,
            500,
            GOES_LATE,
            id="a burst goes as late as it may, the next one as soon as it may",
        ),
        pytest.param(
            5000,
            500,
            [Step(0, 0, extra=500, late=1.0), Step(0.05, 1, 500)],
            id="and so does what was leased",
        ),
        pytest.param(
            2,
            1,
            [Step(0, 0, 1, uses=False), Step(1, 1, 1), Step(0.4, 0, hands_back=True), Step(0, 2, 1)],
            id="a permit of before the bucket was full",
        ),
        pytest.param(
            100,
            100,
            SLEPT,
            id="a process that slept hands back a burst, most of which came in meanwhile",
        ),
        pytest.param(
            100,
            5,
            [
                Step(0, 0, 7),
                Step(0.01, 1, 1, uses=False),
                *[Step(0.01, 1, 1, uses=False)] * 4,
                *[Step(0.01, 2, 1, uses=False)] * 5,
                *[Step(0.01, 3, 1)] * 3,
                Step(0, 1, hands_back=True),
                Step(0, 3, 5),
                Step(0, 2, hands_back=True),
                Step(0, 3, 5),
            ],
            id="two processes that slept hand back what they booked, one after the other",
        ),
        pytest.param(
            1000,
            1,
            PAUSE_ENDS,
            id="a pause ends",
        ),
    ],
)
def test_rows(valkey: Server, rate: float, burst: int, steps: list[Step]) -> None:
    check(valkey, (rate, burst, 0.05, steps))


def test_what_is_booked_with_a_burst_that_goes_late_keeps_its_moment_so_that_one_more_goes(
    valkey: Server,
) -> None:
    check(valkey, (50, 5, 0.05, [Step(0, 0, 20, late=0.5)]), tolerance=1.0)


@pytest.mark.parametrize(
    ("histories_of", "known", "tolerance"),
    [
        # What is booked behind a permit that goes late keeps its moment: one call more may go around then.
        pytest.param(
            histories(late=True),
            (5000, 500, 0.05, GOES_LATE),
            8.0,
            id="permits go as late as they may",
        ),
        # What is handed back while all is booked may go at once, a moment before what is due next.
        pytest.param(
            histories(unused=True),
            (100, 100, 0.05, SLEPT),
            1.0,
            id="permits are handed back",
        ),
        pytest.param(
            histories(paused=True),
            (1000, 1, 0.05, PAUSE_ENDS),
            TOLERANCE,
            id="the fleet is paused",
        ),
        pytest.param(
            histories(late=True, unused=True, paused=True),
            (1000, 1, 0.05, PAUSE_ENDS),
            8.0,
            id="all of it",
        ),
    ],
)
def test_no_window_exceeds_the_bound_where(
    valkey: Server, histories_of: st.SearchStrategy[History], known: History, tolerance: float
) -> None:
    @ON_A_SERVER
    @given(history=histories_of)
    @example(history=known)
    def holds(history: History) -> None:
        check(valkey, history, tolerance)

    holds()

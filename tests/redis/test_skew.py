"""What a moment of the server's clock is by the own one: never earlier than it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._redis.skew import Skew

AHEAD = 1_000_000.0  # seconds by which the server's clock is ahead

# By the own clock: when a question was sent, when it reached the server, when the answer came.
Row = tuple[float, float, float]


def told(*rows: Row, ahead: float = AHEAD) -> Skew:
    skew = Skew()
    for sent, reached, received in rows:
        skew.hear((reached + ahead) * 1e6, sent, received)
    return skew


@pytest.mark.parametrize(
    ("rows", "late"),
    [
        pytest.param([(0, 0.01, 0.02)], 0.01, id="the way of the answer"),
        pytest.param([(0, 0.01, 0.03), (1, 1.01, 1.02)], 0.01, id="the fastest answer counts"),
        pytest.param([(0, 0.01, 0.012), (1, 1.01, 1.5)], 0.002, id="a slow answer changes nothing"),
        pytest.param(
            [(0, 0.01, 0.012), (9.9, 9.91, 9.93)], 0.002, id="the fastest one counts for ten seconds"
        ),
        pytest.param([(0, 0, 0.001), (11, 11, 11.02)], 0.001, id="and as the one before for ten more"),
        pytest.param([(0, 0, 0.001), (11, 11, 11.02), (22, 22, 22.03)], 0.02, id="then it is forgotten"),
    ],
)
def test_rows(rows: list[Row], late: float) -> None:
    assert told(*rows).here((5.0 + AHEAD) * 1e6) == pytest.approx(5.0 + late)


def test_nothing_is_known_before_the_first_answer() -> None:
    skew = Skew()
    assert not skew.known
    assert skew.there(5.0) == 0.0
    skew.hear(1.0, 0.0, 1.0)
    assert skew.known


@pytest.mark.parametrize("jump", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_jump_of_the_servers_clock_is_noticed_with_the_next_answer(jump: float) -> None:
    skew = told((0, 0.01, 0.02))
    skew.hear((1.01 + AHEAD + jump) * 1e6, 1.0, 1.02)
    assert skew.here((2.0 + AHEAD + jump) * 1e6) == pytest.approx(2.01)


@pytest.mark.parametrize("jump", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_jump_of_the_own_clock_is_noticed_with_the_next_answer(jump: float) -> None:
    skew = told((0, 0.01, 0.02))
    skew.hear((1.01 + AHEAD) * 1e6, 1.0 + jump, 1.02 + jump)
    assert skew.here((2.0 + AHEAD) * 1e6) == pytest.approx(2.01 + jump)


def test_after_a_jump_the_answers_of_before_count_no_more() -> None:
    skew = told((0, 0.0, 0.001), (11, 11, 11.001))
    for moment in (12.0, 13.0):
        skew.hear((moment + AHEAD - 5.0) * 1e6, moment, moment + 0.002)
        assert skew.here((moment + AHEAD - 5.0) * 1e6) == pytest.approx(moment + 0.002)


@given(
    answers=st.lists(
        st.tuples(st.floats(0, 15), st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=20
    ),
    later=st.floats(0, 5),
)
def test_a_moment_is_never_earlier_than_it_was_and_later_by_the_fastest_of_the_last_answers(
    answers: list[tuple[float, float, float]], later: float
) -> None:
    skew, now = Skew(), 0.0
    ways: list[tuple[float, float]] = []
    for wait, way, back in answers:
        sent = now + wait
        now = sent + way + back
        skew.hear((sent + way + AHEAD) * 1e6, sent, now)
        ways.append((now, back))
    late = skew.here((now + later + AHEAD) * 1e6) - (now + later)
    assert late >= -1e-6
    assert late <= min(back for heard, back in ways if now - heard < 10) + 1e-6


@given(moment=st.floats(-1e6, 1e6), sent=st.floats(0, 1e6), way=st.floats(0, 1))
def test_there_and_back(moment: float, sent: float, way: float) -> None:
    skew = told((sent, sent, sent + way))
    assert skew.here(skew.there(moment)) == pytest.approx(moment, abs=1e-5)


@given(drift=st.sampled_from([-1e-4, 1e-4]), seconds=st.integers(1, 100))
def test_clocks_that_drift_apart_cost_less_than_a_few_milliseconds(drift: float, seconds: int) -> None:
    """A tenth of a millisecond in a second, which is much, while an answer counts."""
    skew = Skew()
    for second in range(seconds):
        skew.hear((second * (1 + drift) + AHEAD) * 1e6, second, second + 0.001)
    now = seconds - 1
    late = skew.here((now * (1 + drift) + AHEAD) * 1e6) - now
    assert -0.0021 <= late <= 0.0011

"""How long to wait before another attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.backoff import Jitter, exponential_delay

SECONDS = st.floats(0, 1e6)
DRAWS = st.floats(0, 1)


@pytest.mark.parametrize(
    ("attempt", "jitter", "draw", "delay"),
    [
        (1, "none", 0.5, 0.1),
        (2, "none", 0.5, 0.2),
        (3, "none", 0.5, 0.4),
        (6, "none", 0.5, 3.2),
        (7, "none", 0.5, 5.0),
        (7, "full", 0.0, 0.0),
        (7, "full", 0.5, 2.5),
        (3, "full", 1.0, 0.4),
        (3, "equal", 0.0, 0.2),
        (3, "equal", 1.0, 0.4),
        (3, 1.0, 0.0, 0.4),
        (3, 1.0, 0.5, 0.9),
        (7, 1.0, 0.5, 5.0),  # also with what is added it is never more than the most
        (100_000, "none", 0.5, 5.0),
    ],
)
def test_it_grows_up_to_the_most(attempt: int, jitter: Jitter, draw: float, delay: float) -> None:
    assert exponential_delay(
        attempt, first=0.1, most=5.0, factor=2.0, jitter=jitter, draw=draw
    ) == pytest.approx(delay)


@given(
    attempt=st.integers(1, 10_000),
    first=SECONDS,
    most=SECONDS,
    factor=st.floats(1, 100),
    jitter=st.one_of(st.sampled_from(["full", "equal", "none"]), SECONDS),
    draw=DRAWS,
)
def test_it_stays_within_the_most(
    attempt: int, first: float, most: float, factor: float, jitter: Jitter, draw: float
) -> None:
    delay = exponential_delay(attempt, first=first, most=most, factor=factor, jitter=jitter, draw=draw)
    assert 0 <= delay <= most


@given(attempt=st.integers(1, 100), first=SECONDS, most=SECONDS, factor=st.floats(1, 100), draw=DRAWS)
def test_jitter_is_below_the_steady_time_and_at_its_ends_where_the_draw_is(
    attempt: int, first: float, most: float, factor: float, draw: float
) -> None:
    def delay(jitter: Jitter, draw: float) -> float:
        return exponential_delay(attempt, first=first, most=most, factor=factor, jitter=jitter, draw=draw)

    steady = delay("none", 0)
    assert delay("full", 1) == delay("equal", 1) == steady
    assert delay("full", draw) <= delay("equal", draw) * (1 + 1e-12) <= steady * (1 + 1e-12)

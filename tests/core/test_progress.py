"""How long a run will still take."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.progress import Capacity, Lately, Seen, UnderWay, seconds_left

IDLE = UnderWay()


@pytest.mark.parametrize(
    ("items", "free", "capacity", "under_way", "left"),
    [
        # by the quota: 95 items at 2/s, and the last one takes 4 s
        (100, 5, Capacity(quota=2.0, latency=4.0, calls=50), IDLE, 47.5 + 4),
        (100, 0, Capacity(quota=2.0, latency=4.0, calls=50), UnderWay(8, 2.0, 0.5), 46 + 4),
        (100, 5, Capacity(quota=2.0), IDLE, 47.5),
        (3, 5, Capacity(quota=2.0, latency=4.0, calls=50), IDLE, 4.0),
        (3, 0, Capacity(quota=2.0, latency=4.0, calls=50), UnderWay(3, 3.0, 2.5), 1.5),
        (3, 0, Capacity(quota=2.0, latency=4.0, calls=50), UnderWay(3, 9.0, 9.0), 0.0),
        (100, -20, Capacity(quota=2.0), IDLE, 60.0),  # a debt is paid off first
        # by the work: 20 rounds of 5 at once
        (100, 0, Capacity(latency=4.0, calls=5), IDLE, 80.0),
        (100, 0, Capacity(latency=4.0, calls=5), UnderWay(5, 3.0, 3.0), 77.0),
        (100, 0, Capacity(quota=1000.0, latency=4.0, calls=5), IDLE, 80.0),
        (2, 0, Capacity(latency=4.0, calls=5), UnderWay(2, 1.0, 1.0), 3.0),
        # batches of 10, 14 at once
        (1000, 0, Capacity(latency=6.0, calls=14, size=10.0), IDLE, 1000 / 140 * 6),
        (0, 0, Capacity(quota=2.0, latency=4.0), IDLE, 0.0),
        (0, 0, Capacity(), IDLE, 0.0),
        (100, 0, Capacity(), IDLE, None),  # no call ended yet, and there is no limiter
    ],
)
def test_at_first_it_is_the_longer_of_quota_and_work(
    items: int, free: float, capacity: Capacity, under_way: UnderWay, left: float | None
) -> None:
    found = seconds_left(items, free, capacity, under_way, Seen(items=0, seconds=0.0))
    assert found == (None if left is None else pytest.approx(left))


@pytest.mark.parametrize(
    ("seen", "ratio"),
    [
        # of a run's start, 4 items are free: by the rule 36 take 16 s, and 4 for the last one
        (Seen(0, 3.9, free=4), 1.0),  # none can be done yet
        (Seen(36, 20.0, free=4), 1.0),
        (Seen(36, 20.5, free=4), 1.0),  # until now the next one is not late
        (Seen(36, 41.0, free=4), (41 + 6.5) / (20.5 + 6.5)),
        (Seen(36, 10.0, free=4), (10 + 6.5) / (20 + 6.5)),
        # and later 60 items take 30 s
        (Seen(60, 30.0, is_start=False), 1.0),
        (Seen(60, 61.0, is_start=False), (61 + 6.5) / (30.5 + 6.5)),
        (Seen(6000, 6000.0, is_start=False), 2.0),
        (Seen(0, 300.0, is_start=False), (300 + 6.5) / (0.5 + 6.5)),  # all stands still
    ],
)
def test_the_rest_is_as_slow_as_what_was_seen(seen: Seen, ratio: float) -> None:
    capacity = Capacity(quota=2.0, latency=4.0, calls=50)
    assert seconds_left(100, 0, capacity, IDLE, seen) == pytest.approx(54 * ratio, rel=0.01)


def test_work_under_way_is_work_done() -> None:
    capacity = Capacity(latency=4.0, calls=5)
    for seconds in range(1, 40):
        done, spent = 5 * (seconds // 4), float(seconds % 4)
        left = seconds_left(200 - done, 0, capacity, UnderWay(5, spent, spent), Seen(done, float(seconds)))
        assert left == pytest.approx(160 - seconds)


SECONDS = st.floats(0, 1e6)


@given(
    items=st.integers(1, 10**7),
    free=st.floats(-1e4, 1e4),
    capacity=st.builds(
        Capacity,
        quota=st.one_of(st.just(inf), st.floats(1e-3, 1e6)),
        latency=st.one_of(st.none(), st.floats(1e-6, 1e4)),
        calls=st.integers(1, 10_000),
        size=st.floats(1, 1000),
    ),
    under_way=st.builds(UnderWay, st.integers(0, 10**4), SECONDS, SECONDS),
    seen=st.builds(Seen, st.integers(0, 10**7), SECONDS, st.floats(-1e4, 1e4), st.booleans()),
)
def test_it_is_never_negative_nor_beyond_measure(
    items: int, free: float, capacity: Capacity, under_way: UnderWay, seen: Seen
) -> None:
    left = seconds_left(items, free, capacity, under_way, seen)
    if left is None:
        assert capacity == Capacity(inf, None, capacity.calls, capacity.size)
    else:
        assert 0 <= left < inf


class TestLately:
    def test_at_first_it_is_since_the_start(self) -> None:
        lately = Lately(100.0)
        assert lately.seen(100.0, 0, free=5) == Seen(0, 0.0, 5, is_start=True)
        lately.note(103.0, 7, span=30)
        assert lately.seen(104.0, 9, free=5) == Seen(9, 4.0, 5, is_start=True)

    def test_later_it_is_the_last_while(self) -> None:
        lately = Lately(0.0)
        for second in range(1, 1001):
            lately.note(float(second), 10 * second, span=30)
        assert lately.seen(1000.0, 10_000, free=5) == Seen(300, 30.0, 0.0, is_start=False)

    def test_of_a_slow_run_it_goes_back_to_the_time_of_some_items(self) -> None:
        lately = Lately(0.0)
        for item in range(1, 101):
            lately.note(60.0 * item, item, span=30)
        assert lately.seen(6030.0, 100, free=0) == Seen(20, 1230.0, 0.0, is_start=False)

    def test_at_another_rate_it_is_since_the_change(self) -> None:
        lately = Lately(0.0)
        lately.note_rate(0.0, 0, 10.0)
        lately.note_rate(10.0, 100, 8.1)
        assert lately.seen(10.0, 100, free=5) == Seen(100, 10.0, 5, is_start=True)
        lately.note_rate(20.0, 200, 5.0)
        assert lately.seen(23.0, 215, free=5) == Seen(15, 3.0, 0.0, is_start=False)
        lately.note_rate(30.0, 240, 5.0)
        assert lately.seen(30.0, 240, free=5) == Seen(40, 10.0, 0.0, is_start=False)

    def test_it_remembers_little_however_much_is_done(self) -> None:
        lately = Lately(0.0)
        for item in range(100_000):
            lately.note(item / 1000, item, span=30)
        assert len(lately._marks) <= 33

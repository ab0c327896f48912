"""How many jobs run at once, and how large calls are, by how many wait: within bounds, without swinging."""

from hypothesis import given
from hypothesis import strategies as st

from examples.queueing.scaling import Bounds, batch_size, next_limit

BOUNDS = Bounds(3, 20)


def test_it_doubles_while_more_wait_than_run_and_no_further_than_the_bound() -> None:
    limits = [3]
    for _ in range(4):
        limits.append(next_limit(limits[-1], 100, BOUNDS))
    assert limits == [3, 6, 12, 20, 20]


def test_it_comes_down_one_by_one_when_nothing_waits() -> None:
    limits = [6]
    for _ in range(4):
        limits.append(next_limit(limits[-1], 0, BOUNDS))
    assert limits == [6, 5, 4, 3, 3]


def test_it_stays_while_a_few_wait() -> None:
    assert [next_limit(6, waiting, BOUNDS) for waiting in range(1, 7)] == [6] * 6


@given(
    limit=st.integers(1, 100), waiting=st.integers(0, 1000), least=st.integers(1, 50), more=st.integers(0, 50)
)
def test_it_is_always_within_its_bounds(limit: int, waiting: int, least: int, more: int) -> None:
    bounds = Bounds(least, least + more)
    assert bounds.least <= next_limit(limit, waiting, bounds) <= bounds.most


@given(waits=st.lists(st.integers(0, 6), min_size=1, max_size=50))
def test_a_queue_of_as_many_jobs_as_run_at_the_most_never_makes_it_grow(waits: list[int]) -> None:
    limit = 6
    for waiting in waits:
        assert (limit := next_limit(limit, min(waiting, limit), BOUNDS)) <= 6


def test_calls_are_as_small_as_a_burst_of_them_holds_what_waits() -> None:
    sizes = [batch_size(waiting, 5, Bounds(2, 10)) for waiting in (0, 1, 10, 11, 35, 50, 51, 1000)]
    assert sizes == [2, 2, 2, 3, 7, 10, 10, 10]


def test_the_largest_call_counts_more_than_the_smallest() -> None:
    assert batch_size(100, 5, Bounds(5, 1)) == 1

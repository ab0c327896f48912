"""The stand-in's queue of jobs against a plain simulation of servers, each of which takes the next job."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from examples.standin.queue import Job, Queue

moments = st.fractions(min_value=0, max_value=5, max_denominator=100)


def ends_of(arrivals: Sequence[Fraction], seconds: Sequence[Fraction], servers: int) -> list[Fraction]:
    """When each job ends: first come first served, each by the server that is free first."""
    free, ends = [Fraction(0)] * servers, []
    for arrived, taken in zip(arrivals, seconds, strict=True):
        free.sort()
        ends.append(max(arrived, free[0]) + taken)
        free[0] = ends[-1]
    return ends


@given(st.lists(st.tuples(moments, moments), min_size=1, max_size=20), st.integers(1, 4))
def test_each_job_ends_when_it_would_with_so_many_servers(
    jobs: list[tuple[Fraction, Fraction]], limit: int
) -> None:
    arrivals = list(accumulate(gap for gap, _ in jobs))
    queue, taken = Queue[Job](limit), [Job(seconds) for _, seconds in jobs]
    ended: list[Job] = []
    for job, now in zip(taken, arrivals, strict=True):
        ended += queue.submit(job, now)
    ended += queue.look(Fraction(1000))
    assert [job.ended for job in taken] == ends_of(arrivals, [seconds for _, seconds in jobs], limit)
    assert [job.ended for job in ended] == sorted(job.ended for job in taken if job.ended is not None)
    assert len(ended) == len(taken)


def test_a_cancelled_job_makes_room_at_once_and_one_that_hangs_never_does() -> None:
    queue = Queue[Job](1)
    hangs, waits, last = Job(None), Job(Fraction(5)), Job(Fraction(1))
    for job in (hangs, waits, last):
        assert queue.submit(job, Fraction(0)) == []
    assert queue.look(Fraction(100)) == []
    assert (queue.next_end(), queue.position(last)) == (None, 1)
    assert queue.cancel(hangs, Fraction(100)) == [hangs]
    assert (hangs.cancelled, waits.started) == (True, Fraction(100))
    assert queue.cancel(last, Fraction(101)) == [last]
    assert queue.look(Fraction(105)) == [waits]
    assert queue.cancel(waits, Fraction(106)) == []
    assert (waits.ended, waits.cancelled) == (Fraction(105), False)


def test_another_limit_starts_those_who_wait_and_stops_nobody() -> None:
    queue, jobs = Queue[Job](1), [Job(Fraction(10)) for _ in range(3)]
    for job in jobs:
        queue.submit(job, Fraction(0))
    queue.change(3, Fraction(4))
    assert [job.started for job in jobs] == [0, 4, 4]
    queue.change(1, Fraction(5))
    assert queue.look(Fraction(20)) == jobs

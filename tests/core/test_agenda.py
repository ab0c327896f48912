"""The agenda, as rows: what came, and what may be called when."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.agenda import Agenda, Batch, Job, Sizes, in_parts
from batchkit._core.barrier import Barrier
from batchkit._core.concurrency import FoundConcurrency


def indexes(batch: Batch[Any] | None) -> list[int]:
    return [] if batch is None else [job.index for job in batch.jobs]


def filled(agenda: Agenda[str], *jobs: Job[str]) -> Agenda[str]:
    for job in jobs:
        agenda.add(job)
    return agenda


def plain(count: int, **fields: Any) -> list[Job[str]]:
    return [Job(index, "", **fields) for index in range(count)]


class TestOrder:
    def test_first_come_first_served(self) -> None:
        agenda = filled(Agenda(Sizes()), *plain(3))
        assert [indexes(agenda.next(0)) for _ in range(4)] == [[0], [1], [2], []]

    def test_a_step_of_priority_is_worth_some_seconds_of_waiting(self) -> None:
        agenda = filled(
            Agenda(Sizes(), patience=10),
            Job(0, "", came=0),
            Job(1, "", came=9, priority=1),
            Job(2, "", came=11, priority=1),
        )
        assert [indexes(agenda.next(11)) for _ in range(3)] == [[1], [0], [2]]

    def test_what_is_put_back_keeps_its_place_once_it_is_due(self) -> None:
        agenda = filled(Agenda(Sizes()), *plain(3))
        first = agenda.next(0)
        assert first is not None
        agenda.put_back(first, due=5.0)
        assert agenda.due(more=False) == 5
        assert indexes(agenda.next(4.9)) == [1]
        assert indexes(agenda.next(5)) == [0]
        assert indexes(agenda.next(5)) == [2]
        assert not agenda

    def test_what_is_put_back_goes_where_nothing_new_may(self) -> None:
        agenda = filled(Agenda(Sizes()), *plain(2))
        first = agenda.next(0)
        assert first is not None
        agenda.put_back(first)
        assert agenda.put_back_ones == 1
        assert indexes(agenda.next(0, fresh=False)) == [0]
        assert agenda.next(0, fresh=False) is None

    def test_clearing_takes_out_all(self) -> None:
        agenda = filled(Agenda(Sizes(1, 2)), *plain(7))
        for due in (None, 9.0):
            batch = agenda.next(0)
            assert batch is not None
            agenda.put_back(batch, due)
        assert sorted(job.index for job in agenda.clear()) == [*range(7)]
        assert not agenda
        assert agenda.due(more=False) == inf


class TestBatches:
    def test_a_batch_waits_to_be_full_only_as_long_as_something_can_come(self) -> None:
        agenda = filled(Agenda(Sizes(3, 3)), *plain(2))
        assert agenda.next(0, more=True) is None
        assert indexes(agenda.next(0, more=False)) == [0, 1]

    def test_and_no_longer_than_it_may(self) -> None:
        agenda = filled(Agenda(Sizes(3, 3), max_wait=0.5), *plain(2, came=1.0))
        assert agenda.due(more=True) == 1.5
        assert agenda.due(more=False) == inf
        assert agenda.next(1.49, more=True) is None
        assert indexes(agenda.next(1.5, more=True)) == [0, 1]

    @pytest.mark.parametrize(
        ("weights", "batches"),
        [
            ([4, 4, 4], [[0, 1], [2]]),
            ([10, 1], [[0], [1]]),
            ([25, 1], [[0], [1]]),
            ([1, 25, 1], [[0], [1], [2]]),
            ([5, 5, 5, 5], [[0, 1], [2, 3]]),
        ],
    )
    def test_weight(self, weights: list[float], batches: list[list[int]]) -> None:
        jobs = [Job(index, "", weight=weight) for index, weight in enumerate(weights)]
        agenda = filled(Agenda(Sizes(9, 9, weight=10)), *jobs)
        assert [indexes(agenda.next(0)) for _ in batches] == batches

    def test_a_batch_is_full_by_weight(self) -> None:
        agenda = filled(Agenda(Sizes(9, 9, weight=10)), *plain(2, weight=5))
        assert indexes(agenda.next(0, more=True)) == [0, 1]

    @pytest.mark.parametrize(
        ("waiting", "slots", "size"), [(1, 4, 2), (8, 4, 2), (20, 4, 5), (1000, 4, 50), (1000, 1, 50)]
    )
    def test_size_by_depth(self, waiting: int, slots: int, size: int) -> None:
        assert Sizes(2, 50).at(waiting, slots) == size

    def test_groups_stay_apart_and_full_ones_go_first(self) -> None:
        jobs = [Job(index, "", group=group) for index, group in enumerate("abbabb")]
        agenda = filled(Agenda(Sizes(3, 3)), *jobs)
        assert indexes(agenda.next(0, more=True)) == [1, 2, 4]
        assert agenda.next(0, more=True) is None
        assert indexes(agenda.next(0)) == [0, 3]
        assert indexes(agenda.next(0)) == [5]

    def test_a_rare_one_goes_when_enough_went_past_it(self) -> None:
        agenda = filled(Agenda(Sizes(2, 2), passes=4), Job(0, "", group="rare"))
        for index in range(1, 9):
            agenda.add(Job(index, "", group="often"))
        assert [indexes(agenda.next(0, more=True)) for _ in range(4)] == [[1, 2], [3, 4], [0], [5, 6]]

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=40), st.integers(1, 5))
    def test_each_job_goes_once_in_a_batch_of_its_group(
        self, items: list[tuple[str, int]], most: int
    ) -> None:
        jobs = [Job(index, "", group=group, weight=weight) for index, (group, weight) in enumerate(items)]
        agenda = filled(Agenda(Sizes(most, most, weight=12)), *jobs)
        gone: list[int] = []
        while batch := agenda.next(0):
            assert len({job.group for job in batch.jobs}) == 1
            assert len(batch.jobs) == 1 or sum(job.weight for job in batch.jobs) <= 12
            assert indexes(batch) == sorted(indexes(batch))
            gone += indexes(batch)
        assert sorted(gone) == [*range(len(items))]
        assert agenda.waiting == 0

    def test_halves_keep_their_order(self) -> None:
        parts = [*in_parts(Batch(plain(5), (3.0, 0)))]
        assert [indexes(part) for part in parts] == [[0, 1, 2], [3, 4]]
        assert [part.place for part in parts] == [(3.0, 0), (3.0, 3)]


class TestBarrier:
    def test_the_next_batch_begins_a_pause_after_the_last_of_this_one(self) -> None:
        barrier = Barrier(size=2, pause=10)
        barrier.begin(2)
        assert not barrier.is_open(1)
        barrier.ended(1, all_done=False)
        assert barrier.due() == inf
        barrier.ended(3, all_done=True)
        assert barrier.due() == 13
        assert not barrier.is_open(12.9)
        assert barrier.is_open(13)
        assert barrier.room == 2

    def test_a_batch_that_has_room_is_no_barrier(self) -> None:
        barrier = Barrier(size=2, pause=10)
        barrier.begin(1)
        barrier.ended(1, all_done=True)
        assert barrier.is_open(1)

    def test_without_one_there_is_always_room(self) -> None:
        barrier = Barrier(size=2, pause=None)
        barrier.begin(100)
        assert barrier.is_open(0)
        assert barrier.room == inf


def settled(latency: Any, quota: float = inf, least: int = 1, most: int = 100) -> int:
    """The limit after many rounds of calls that take `latency(calls at once)` seconds."""
    found, now = FoundConcurrency(least, most), 0.0
    for _ in range(60):
        at_once = found.limit
        seconds = latency(at_once)
        now += max(seconds, at_once / quota)
        for _ in range(at_once):
            found.note(seconds, now, wanted=True, waited=at_once / quota > seconds)
    return found.limit


class TestFoundConcurrency:
    def test_a_quota_needs_rate_times_latency_with_some_to_spare(self) -> None:
        assert 10 <= settled(lambda _: 0.5, quota=20) <= 15

    def test_without_a_quota_it_is_the_most(self) -> None:
        assert settled(lambda _: 0.5) == 100

    def test_a_service_that_takes_longer_for_more_is_not_asked_for_more(self) -> None:
        assert 8 <= settled(lambda at_once: max(0.5, at_once / 16)) <= 18

    def test_it_keeps_its_bounds(self) -> None:
        assert settled(lambda _: 0.5, quota=0.1, least=4) == 4

    def test_slots_that_nobody_wanted_say_nothing(self) -> None:
        found = FoundConcurrency(5, 50)
        for number in range(100):
            found.note(0.1, number + 1.0, wanted=False, waited=False)
        assert found.limit == 5

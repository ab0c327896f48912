"""Runs with a checkpoint: what is kept, what is not called again, and what a kill costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from batchkit import BatchedExecutor, FailedEarlier, ItemFinished, NotStorable, Outcome, TokenBucket
from batchkit.checkpoints import Entry, SQLiteCheckpoint
from batchkit.exceptions import CheckpointError, CheckpointLocked
from batchkit.retries import Retry
from batchkit.testing import ManualClock, RecordingHook
from tests.executor import killed
from tests.executor.helpers import Calls, Memory, Work, trickle
from tests.helpers import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def states(outcomes: Iterable[Outcome[Any, Any]]) -> dict[Any, str]:
    return {outcome.item: outcome.state for outcome in outcomes}


async def test_what_an_earlier_run_left_needs_no_call_and_no_permit(path: Path, clock: ManualClock) -> None:
    calls = Calls(clock)
    bucket = TokenBucket(rate=1, burst=100, clock=clock)
    executor = BatchedExecutor.of_batches(
        calls, batch_size=5, limiter=bucket, checkpoint=SQLiteCheckpoint(path, version="1"), clock=clock
    )
    first = await clock.run(executor.run(["a", "b", "c"], ordered=True))
    second = await clock.run(executor.run(["a", "b", "c", "d"], ordered=True))
    assert calls.made == [["a", "b", "c"], ["d"]]
    assert [outcome.value for outcome in second.outcomes] == ["a", "b", "c", "d"]
    assert [outcome.resumed for outcome in second.outcomes] == [True, True, True, False]
    assert (first.resumed, second.resumed, second.succeeded) == (0, 3, 4)
    assert bucket.statistics().granted == 2


async def test_nothing_is_delivered_that_is_not_kept(work: Work, clock: ManualClock) -> None:
    memory = Memory()
    hook = RecordingHook()

    def check(event: object) -> None:
        if isinstance(event, ItemFinished):
            assert str(event.outcome.item) in memory.entries

    executor = BatchedExecutor(work.one, checkpoint=memory, hooks=[hook, check], clock=clock)

    async def read() -> None:
        async with executor.map([1, 2, 3, 13]) as outcomes:
            async for outcome in outcomes:
                assert str(outcome.item) in memory.entries

    await clock.run(read())
    assert len(hook.of(ItemFinished)) == 4
    assert not memory.is_open
    assert threading.main_thread() not in memory.threads


async def test_what_is_done_meanwhile_is_kept_in_one_commit(work: Work, clock: ManualClock) -> None:
    memory = Memory()
    executor = BatchedExecutor(work.one, concurrency=100, checkpoint=memory, clock=clock)
    await clock.run(executor.run(range(1, 100)))
    assert sum(memory.commits) == 99
    executor = BatchedExecutor.of_batches(work.many, batch_size=50, checkpoint=memory, clock=clock)
    memory.commits.clear()
    await clock.run(executor.run(range(1000, 1500)))
    assert sum(memory.commits) == 500
    assert len(memory.commits) <= 20


async def test_a_commit_holds_up_no_call(clock: ManualClock) -> None:
    class Slow(Memory):
        def write(self, entries: Sequence[Entry]) -> None:
            slow.wait(20)
            super().write(entries)

    slow = threading.Event()

    async def work(item: int) -> int:
        await clock.sleep(1)
        if item == 15:
            slow.set()
        return item

    executor = BatchedExecutor(work, concurrency=2, checkpoint=Slow(), clock=clock)
    report = await clock.run(executor.run(range(40)))
    assert report.succeeded == 40


async def test_an_item_that_failed_fails_again_without_a_call_unless_asked(
    path: Path, work: Work, clock: ManualClock
) -> None:
    for expected, calls in ((ValueError, 1), (FailedEarlier, 0)):
        executor = BatchedExecutor(
            work.one, checkpoint=SQLiteCheckpoint(path, version="1"), key=str, name="x", clock=clock
        )
        report = await clock.run(executor.run([13]))
        assert (type(report.outcomes[0].error), report.calls) == (expected, calls)
        assert report.outcomes[0].attempts == 1
    again = SQLiteCheckpoint(path, version="1", retry_failed=True)
    report = await clock.run(BatchedExecutor(work.one, checkpoint=again, name="x", clock=clock).run([13]))
    assert report.calls == 1


async def test_another_version_is_called_again(path: Path, work: Work, clock: ManualClock) -> None:
    for version in "12":
        checkpoint = SQLiteCheckpoint(path, version=version)
        report = await clock.run(BatchedExecutor(work.one, checkpoint=checkpoint, clock=clock).run([1, 2]))
        assert report.calls == 2


async def test_an_async_input_and_submitted_items_are_looked_up_too(clock: ManualClock) -> None:
    memory = Memory([Entry("0", 0), Entry("2", 2), Entry("7", 7)])
    calls = Calls(clock)
    executor = BatchedExecutor.of_batches(calls, batch_size=10, checkpoint=memory, clock=clock)

    async def use() -> None:
        async with executor.map(trickle(clock, range(4), every=0), keep_open=True) as outcomes:
            outcomes.submit(7)
            outcomes.submit(8)
            outcomes.end()
            report = await outcomes.collect()
        assert report.resumed == 3

    await clock.run(use())
    assert sorted(item for batch in calls.made for item in batch) == [1, 3, 8]


async def test_many_known_items_take_few_questions(clock: ManualClock, work: Work) -> None:
    class Counting(Memory):
        questions = 0

        def find(self, keys: Sequence[str]) -> Mapping[str, Entry]:
            self.questions += 1
            return super().find(keys)

    memory = Counting(Entry(str(item), item) for item in range(1000))
    report = await BatchedExecutor(work.one, checkpoint=memory, clock=clock).run(range(1000))
    assert (report.resumed, report.calls) == (1000, 0)
    assert memory.questions <= 30


async def test_what_was_stopped_is_not_kept_but_what_was_done_is(work: Work, clock: ManualClock) -> None:
    memory = Memory()
    executor = BatchedExecutor(work.one, concurrency=3, checkpoint=memory, clock=clock)
    outcomes = executor.map([1, 2, 50, 60, 70])
    async with outcomes:
        await anyio.to_thread.run_sync(eventually, lambda: len(work.starts) == 3)
        await clock.run_for(2.5)
        await anyio.to_thread.run_sync(eventually, lambda: len(memory.entries) == 2)
    assert set(memory.entries) == {"1", "2"}
    assert not memory.is_open


async def test_a_value_that_cannot_be_kept_is_the_error_of_its_item(path: Path) -> None:
    async def work(item: int) -> object:
        return object() if item == 1 else item

    executor = BatchedExecutor(work, checkpoint=SQLiteCheckpoint(path, version="1"))
    report = await executor.run(range(3), ordered=True)
    assert [outcome.ok for outcome in report.outcomes] == [True, False, True]
    assert isinstance(report.outcomes[1].error, NotStorable)


async def test_a_checkpoint_that_cannot_be_written_ends_the_run(clock: ManualClock, work: Work) -> None:
    class Full(Memory):
        def write(self, entries: Sequence[Entry]) -> None:
            raise CheckpointError("the disk is full")

    executor = BatchedExecutor(work.one, checkpoint=Full(), clock=clock)
    with pytest.raises(CheckpointError, match="the disk is full"):
        await clock.run(executor.run([1, 50, 60]))
    assert work.now_running == 0


async def test_a_checkpoint_in_use_is_refused(path: Path, work: Work, clock: ManualClock) -> None:
    started = anyio.Event()

    async def ask(item: int) -> None:
        started.set()
        await anyio.sleep_forever()

    executor = BatchedExecutor(ask, name="cards", checkpoint=SQLiteCheckpoint(path, version="1"), clock=clock)
    other = BatchedExecutor(
        work.one, name="cards", checkpoint=SQLiteCheckpoint(path, version="1"), clock=clock
    )
    async with executor.map([50]) as outcomes:
        await started.wait()
        with pytest.raises(CheckpointLocked):
            await other.run([1])
        await outcomes.aclose()
    assert (await clock.run(other.run([1]))).succeeded == 1


@pytest.mark.parametrize("key", [None, lambda item: 1.5])
async def test_keys_of_a_checkpoint_are_texts_or_whole_numbers(key: Any, clock: ManualClock) -> None:
    async def ask(item: float) -> float:
        return item

    report = await clock.run(BatchedExecutor(ask, checkpoint=Memory(), key=key, clock=clock).run([2.5]))
    assert isinstance(report.outcomes[0].error, TypeError)
    assert "key= is a function" in str(report.outcomes[0].error)


async def test_only_the_last_of_several_attempts_is_kept(clock: ManualClock) -> None:
    memory, calls = Memory(), 0

    async def flaky(item: str) -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionError
        return item

    executor = BatchedExecutor(flaky, retry=Retry(), checkpoint=memory, clock=clock)
    await clock.run(executor.run("a"))
    assert memory.entries["a"] == Entry("a", "a", None, 3, 0.0)


def test_without_a_loop(path: Path) -> None:
    def double(item: int) -> int:
        return item * 2

    executor = BatchedExecutor(double, checkpoint=SQLiteCheckpoint(path, version="1"), concurrency=3)
    assert executor.run_sync(range(50)).resumed == 0
    report = executor.run_sync(range(60))
    assert (report.resumed, report.calls, report.succeeded) == (50, 10, 60)
    with executor.map_sync(iter(range(70))) as outcomes:
        assert sorted(outcome.item for outcome in outcomes) == [*range(70)]


def test_without_a_loop_nothing_is_delivered_that_is_not_kept() -> None:
    memory = Memory()
    with BatchedExecutor(lambda item: item, checkpoint=memory, concurrency=3).map_sync(
        range(100)
    ) as outcomes:
        for outcome in outcomes:
            assert str(outcome.item) in memory.entries
    assert not memory.is_open


def test_without_a_loop_a_checkpoint_that_cannot_be_written_ends_the_run() -> None:
    class Full(Memory):
        def write(self, entries: Sequence[Entry]) -> None:
            raise CheckpointError("the disk is full")

    with pytest.raises(CheckpointError, match="the disk is full"):
        BatchedExecutor(lambda item: item, checkpoint=Full()).run_sync(range(5))


@pytest.mark.skipif(os.name == "nt", reason="a process is killed in another way there")
def test_fifty_kills_repeat_what_was_in_flight_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, killed.__file__, str(tmp_path), "50", "7"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(told)
    assert (result["status"], result["killed"]) == (0, 50)
    assert result["called"] == result["delivered"] == killed.ITEMS
    assert result["sink"] == killed.ITEMS, "an item had two idempotency keys"
    assert result["not_in_flight"] == 0, "what was kept, or never started before the last kill, was repeated"
    assert (result["lost"], result["twice"]) == (0, 0)
    assert result["repeated"] > 0, "no kill struck amid a call"

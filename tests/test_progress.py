"""How far a run is, and how long it will take: by real runs on a clock that is moved."""

from __future__ import annotations

import io
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from batchkit import (
    BatchedExecutor,
    CallFinished,
    CallStarted,
    Event,
    ItemFinished,
    Outcome,
    RunFinished,
    RunStarted,
    TokenBucket,
    all_of,
)
from batchkit.progress import Progress, ProgressMeter, rich_progress, tqdm_progress
from batchkit.testing import ManualClock

pytestmark = pytest.mark.anyio

WARM = 0.1  # of the way, after which a forecast has to be good


class Forecasts:
    """A hook that asks a meter for a forecast when items are done, and compares them with what came."""

    def __init__(self, meter: ProgressMeter, clock: ManualClock) -> None:
        self.meter = meter
        self.clock = clock
        self.made: dict[float, tuple[float, float]] = {}  # share of the way and forecast of the end

    def __call__(self, event: Event) -> None:
        self.meter(event)
        if isinstance(event, ItemFinished):
            now = self.meter.progress()
            if now.left is not None and now.total:
                self.made[self.clock.now()] = now.done / now.total, self.clock.now() + now.left

    def worst(self, end: float, first: float = WARM, last: float = 1.0) -> float:
        """By how much of what was left, and of a tenth of the whole, the worst forecast was wrong."""
        errors = [
            abs(forecast - end) / (end - moment + end / 10)
            for moment, (share, forecast) in self.made.items()
            if first <= share <= last
        ]
        assert len(errors) > 20
        return max(errors)


@pytest.fixture
def sleep(clock: ManualClock) -> Callable[[float], Callable[[int], Awaitable[None]]]:
    def taking(seconds: float) -> Callable[[int], Awaitable[None]]:
        async def work(item: int) -> None:
            await clock.sleep(seconds)

        return work

    return taking


class TestForecasts:
    async def test_the_quota_is_short(self, clock: ManualClock, sleep: Any) -> None:
        bucket = TokenBucket(rate=2, burst=5, clock=clock)
        forecasts = Forecasts(ProgressMeter(limiter=bucket, clock=clock), clock)
        executor = BatchedExecutor(sleep(4), concurrency=50, limiter=bucket, hooks=[forecasts], clock=clock)
        await clock.run(executor.run(range(200)))
        assert clock.now() == pytest.approx((200 - 5) / 2 + 4)
        assert forecasts.worst(clock.now()) < 0.1

    async def test_the_concurrency_is_short(self, clock: ManualClock, sleep: Any) -> None:
        forecasts = Forecasts(ProgressMeter(clock=clock), clock)
        executor = BatchedExecutor(sleep(4), concurrency=5, hooks=[forecasts], clock=clock)
        await clock.run(executor.run(range(200)))
        assert forecasts.worst(clock.now()) < 0.15

    async def test_items_of_different_length(self, clock: ManualClock) -> None:
        async def work(item: int) -> None:
            await clock.sleep(10.0 if item % 20 == 7 else 1.0)

        forecasts = Forecasts(ProgressMeter(clock=clock), clock)
        executor = BatchedExecutor(work, concurrency=5, hooks=[forecasts], clock=clock)
        await clock.run(executor.run(range(1000)))
        assert forecasts.worst(clock.now()) < 0.25

    async def test_batches_and_what_they_cost(self, clock: ManualClock) -> None:
        async def work(items: list[int]) -> list[int]:
            await clock.sleep(6)
            return items

        quota = all_of(
            requests=TokenBucket(rate=100, burst=20, clock=clock),
            tokens=TokenBucket(rate=1000, burst=5000, clock=clock),
        )
        forecasts = Forecasts(ProgressMeter(limiter=quota, clock=clock), clock)
        executor = BatchedExecutor.of_batches(
            work,
            batch_size=10,
            concurrency=14,
            limiter=quota,
            cost=lambda items: {"requests": 1, "tokens": 250 * len(items)},
            hooks=[forecasts],
            clock=clock,
        )
        await clock.run(executor.run(range(1000)))
        assert clock.now() == pytest.approx((250 * 1000 - 5000) / 1000 + 6, rel=0.05)
        assert forecasts.worst(clock.now()) < 0.15

    async def test_others_use_half_of_the_quota(self, clock: ManualClock, sleep: Any) -> None:
        bucket = TokenBucket(rate=10, burst=5, clock=clock)
        forecasts = Forecasts(ProgressMeter(limiter=bucket, clock=clock), clock)
        executors = [
            BatchedExecutor(sleep(1), concurrency=30, limiter=bucket, hooks=hooks, clock=clock)
            for hooks in ([forecasts], [])
        ]
        other = executors[1].map(range(10_000))

        async def drain() -> None:
            async with other:
                async for _ in other:
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            await clock.run(executors[0].run(range(400)))
            tasks.cancel_scope.cancel()
        assert clock.now() > 70
        assert forecasts.worst(clock.now()) < 0.25

    async def test_a_rate_that_falls_amid_the_run(self, clock: ManualClock, sleep: Any) -> None:
        bucket = TokenBucket(rate=10, burst=5, clock=clock)
        forecasts = Forecasts(ProgressMeter(limiter=bucket, clock=clock), clock)

        def fall(event: Event) -> None:
            if isinstance(event, ItemFinished) and event.outcome.index == 1000:
                bucket.change(rate=2)

        executor = BatchedExecutor(
            sleep(1), concurrency=30, limiter=bucket, hooks=[forecasts, fall], clock=clock
        )
        await clock.run(executor.run(range(1400)))
        assert clock.now() == pytest.approx(300, rel=0.02)
        assert forecasts.worst(clock.now(), first=0.75) < 0.2
        at_once = next(end for share, end in forecasts.made.values() if share > 1001 / 1400)
        assert at_once == pytest.approx(clock.now(), rel=0.3)  # as soon as it is known

    async def test_a_limiter_that_nobody_told_it_of_shows_in_what_is_seen(
        self, clock: ManualClock, sleep: Any
    ) -> None:
        bucket = TokenBucket(rate=2, burst=1, clock=clock)
        forecasts = Forecasts(ProgressMeter(clock=clock), clock)
        executor = BatchedExecutor(sleep(1), concurrency=10, limiter=bucket, hooks=[forecasts], clock=clock)
        await clock.run(executor.run(range(400)))
        assert forecasts.worst(clock.now(), first=0.3) < 0.3


def call(meter: ProgressMeter, clock: ManualClock, seconds: float, outcome: Outcome[Any, Any]) -> None:
    meter(CallStarted("cards", 1))
    clock.advance(seconds)
    meter(CallFinished("cards", 1, seconds, outcome.error))
    meter(ItemFinished("cards", outcome))


class TestMeter:
    def test_before_a_run(self, clock: ManualClock) -> None:
        assert ProgressMeter(clock=clock).progress() == Progress("", 0, 0, 0, None, 0.0, 0.0, None, False)

    def test_from_the_start_to_the_end(self, clock: ManualClock) -> None:
        meter = ProgressMeter(concurrency=1, clock=clock)
        clock.advance(5)
        meter(RunStarted("cards", 4))
        assert meter.progress() == Progress("cards", 0, 0, 0, 4, 0.0, 0.0, None, False)
        for index in range(2):
            call(meter, clock, 2.0, Outcome(index, "好"))
        call(meter, clock, 2.0, Outcome(2, "x", error=ValueError()))
        assert meter.progress() == Progress("cards", 3, 1, 0, 4, 6.0, 0.5, 2.0, False)
        call(meter, clock, 2.0, Outcome(3, "好"))
        assert meter.progress().left == 0.0
        meter(RunFinished("cards", None))  # type: ignore[arg-type]  # it does not look at the report
        clock.advance(100)
        assert meter.progress() == Progress("cards", 4, 1, 0, 4, 8.0, 0.5, 0.0, True)

    def test_nobody_knows_how_long_an_input_without_a_length_takes(self, clock: ManualClock) -> None:
        meter = ProgressMeter(clock=clock)
        meter(RunStarted("cards", None))
        call(meter, clock, 2.0, Outcome(0, "好"))
        assert meter.progress() == Progress("cards", 1, 0, 0, None, 2.0, 0.5, None, False)

    def test_more_items_than_were_said(self, clock: ManualClock) -> None:
        meter = ProgressMeter(clock=clock)
        meter(RunStarted("cards", 1))
        for index in range(3):
            call(meter, clock, 2.0, Outcome(index, "好"))
        assert (meter.progress().total, meter.progress().left) == (3, 0.0)

    def test_a_run_after_another_begins_anew(self, clock: ManualClock) -> None:
        meter = ProgressMeter(clock=clock)
        for _ in range(2):
            meter(RunStarted("cards", 2))
            call(meter, clock, 2.0, Outcome(0, "好"))
            assert (meter.done, meter.progress().seconds) == (1, 2.0)

    def test_it_counts_down_while_nothing_happens_and_up_when_that_lasts(self, clock: ManualClock) -> None:
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        meter = ProgressMeter(limiter=bucket, clock=clock)
        meter(RunStarted("cards", 100))
        for index in range(40):
            bucket.try_acquire()
            call(meter, clock, 1.0, Outcome(index, "好"))
        lefts = []
        for _ in range(4):
            lefts.append(meter.progress().left or 0.0)
            clock.advance(60)
        assert lefts[0] == pytest.approx(60, rel=0.05)
        assert lefts == sorted(lefts)

    @pytest.mark.parametrize(
        ("progress", "words"),
        [
            (Progress("cards", 40, 0, 0, 100, 20.0, 2.0, 30.0, False), "cards: 40 of 100, 2/s, 0:30 left"),
            (
                Progress("cards", 4000, 12, 0, 10_000, 20.0, 2.54, 3725.2, False),
                "cards: 4,000 of 10,000, 12 failed, 2.54/s, 1:02:06 left",
            ),
            (Progress("cards", 40, 0, 0, None, 20.0, 2.0, None, False), "cards: 40, 2/s, -:-- left"),
            (Progress("cards", 100, 0, 0, 100, 50.0, 2.0, 0.0, True), "cards: 100 of 100, 2/s"),
        ],
    )
    def test_in_words(self, progress: Progress, words: str) -> None:
        assert str(progress) == words


async def word(item: int) -> int:
    if item % 5 == 4:
        raise ValueError("no such word")
    return item


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


class TestRich:
    async def test_a_display_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        monkeypatch.setattr("rich._console", console)
        executor = BatchedExecutor(word, name="cards [new]", hooks=[rich_progress()])
        for _ in range(2):  # a display for each run
            await executor.run(range(20))
        shown = without_colours(console.file.getvalue())  # type: ignore[attr-defined]
        last = shown.replace("\r", "\n").strip().splitlines()[-1]
        assert re.search(r"cards \[new\] ━+ 20/20 4 failed 0:00:0\d 0:00 left", last)

    async def test_in_a_display_of_somebody(self) -> None:
        display = RichProgress(auto_refresh=False)
        hook = rich_progress(display)
        for name in ("cards", "decks"):
            await BatchedExecutor(word, name=name, hooks=[hook]).run(iter(range(20)))
        assert [(task.description, task.completed, task.total) for task in display.tasks] == [
            ("cards", 20, 20),
            ("decks", 20, 20),
        ]
        assert str(display.tasks[0].fields["failed"]) == "4 failed"
        assert not display.live.is_started

    def test_what_it_shows_is_of_the_moment(self, clock: ManualClock) -> None:
        display = RichProgress(auto_refresh=False)
        hook: Any = rich_progress(display, clock=clock, concurrency=1)
        hook(RunStarted("cards", 10))
        task = display.tasks[0]
        assert str(task.fields["left"]) == "-:--"
        call(hook, clock, 30.0, Outcome(0, "好"))
        assert (task.completed, task.total) == (1, 10)
        assert str(task.fields["left"]) == "4:30"
        clock.advance(10)
        assert str(task.fields["left"]) == "4:30"
        clock.advance(900)
        assert len(str(task.fields["left"])) > len("4:30")  # the second one is late
        hook(RunStarted("decks", None))
        assert [task.total for task in display.tasks] == [10, None]


class TestTqdm:
    @pytest.fixture(autouse=True)
    def it_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tqdm = pytest.importorskip("tqdm")
        monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # no thread of its own

    async def test_a_bar_for_each_run(self) -> None:
        file = io.StringIO()
        hook = tqdm_progress(file=file, ncols=100, mininterval=0, ascii=True)
        await BatchedExecutor(word, name="cards", hooks=[hook]).run(range(20))
        await BatchedExecutor(word, name="decks", hooks=[hook]).run(iter(range(5)))
        lines = [line for line in file.getvalue().replace("\r", "\n").splitlines() if line.strip()]
        cards = [line for line in lines if line.startswith("cards")]
        assert re.match(r"cards:   0%\|\s+\| 0/20 \[00:00, ", cards[0])
        assert re.match(r"cards: 100%\|#+\| 20/20 4 failed \[00:0\d, .* items/s, 0:00 left\]", cards[-1])
        assert re.search(r"5/5 1 failed .* 0:00 left", lines[-1])

    def test_what_it_shows_is_of_the_moment(self, clock: ManualClock) -> None:
        file = io.StringIO()
        hook: Any = tqdm_progress(file=file, ncols=100, mininterval=0, clock=clock, concurrency=1)
        hook(RunStarted("cards", 10))
        call(hook, clock, 30.0, Outcome(0, "好"))
        assert "1/10" in file.getvalue()
        assert file.getvalue().endswith("4:30 left]")

    def test_its_options_are_handed_on(self) -> None:
        file = io.StringIO()
        hook: Any = tqdm_progress(file=file, disable=True)
        hook(RunStarted("cards", 10))
        hook(ItemFinished("cards", Outcome(0, "好")))
        hook(RunFinished("cards", None))  # type: ignore[arg-type]
        assert file.getvalue() == ""

"""A run in any order of events, against what a user may rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchkit import BatchedExecutor, Outcome, OutcomeStream
from batchkit.retries import Retry, exponential
from batchkit.testing import ManualClock, settle
from tests.executor.helpers import Down
from tests.helpers import DEADLINE

seconds = st.sampled_from([0.0, 0.1, 1.0, 3.0])
BACKOFF = exponential(first=0.5, most=0.5, jitter="none")


@define(eq=False)
class Item:
    """What an item does: how long its calls take, how many fail at first, and whether it spoils its batch."""

    takes: float
    flaky: int
    bad: bool
    group: int
    calls: int = 0
    running: int = field(default=0)


items = st.builds(
    Item, seconds, st.sampled_from([0, 0, 0, 1, 5]), st.sampled_from([False, False, True]), st.integers(0, 1)
)


class Runs(RuleBasedStateMachine):
    """One run that is kept open: items come, time passes, outcomes are read, and it ends somehow."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.submitted: list[Item] = []
        self.read: list[Outcome[Item, Item]] = []
        self.reading: list[asyncio.Task[Any]] = []
        self.at_once = 0
        self.drained = False

    @initialize(
        batches=st.booleans(),
        concurrency=st.sampled_from([1, 2, (1, 4)]),
        ordered=st.booleans(),
        retry=st.booleans(),
        timeout=st.sampled_from([None, 2.0]),
    )
    def start(
        self, batches: bool, concurrency: Any, ordered: bool, retry: bool, timeout: float | None
    ) -> None:
        self.batches, self.ordered, self.retry, self.timeout = batches, ordered, retry, timeout
        self.most = concurrency if isinstance(concurrency, int) else concurrency[1]
        options: Any = {
            "concurrency": concurrency,
            "retry": Retry(attempts=3, backoff=BACKOFF, budget=None) if retry else None,
            "timeout": timeout,
            "priority": lambda item: item.group,
            "clock": self.clock,
        }
        if batches:
            executor = BatchedExecutor[Item, Item].of_batches(
                self.call, batch_size=3, group_by=lambda item: item.group, **options
            )
        else:
            executor = BatchedExecutor[Item, Item](self.call_one, **options)
        self.stream: OutcomeStream[Item, Item] = executor.map(keep_open=True, ordered=ordered)

    async def call_one(self, item: Item) -> Item:
        return (await self.call([item]))[0]

    async def call(self, batch: list[Item]) -> list[Item]:
        self.at_once += 1
        for item in batch:
            item.calls += 1
            item.running += 1
            assert item.running == 1, "two calls for one item at the same time"
        try:
            assert self.at_once <= self.most
            assert len(batch) <= (3 if self.batches else 1)
            assert len({item.group for item in batch}) == 1
            await self.clock.sleep(max(item.takes for item in batch))
        finally:
            self.at_once -= 1
            for item in batch:
                item.running -= 1
        if any(item.bad for item in batch):
            raise ValueError("bad")
        if any(item.calls <= item.flaky for item in batch):
            raise Down
        return batch

    @precondition(lambda self: not self.drained)
    @rule(item=items)
    def submit(self, item: Item) -> None:
        self.submitted.append(item)
        self.stream.submit(item)
        self.run(settle())

    @rule()
    def read_one(self) -> None:
        async def read() -> None:
            outcome = await anext(self.stream, None)
            if outcome is not None:
                self.read.append(outcome)

        self.reading.append(self.loop.create_task(read()))
        self.run(settle())

    @rule(amount=seconds)
    def time_passes(self, amount: float) -> None:
        self.run(self.clock.run_for(amount))

    @rule(grace=seconds)
    def drain(self, grace: float) -> None:
        self.drained = True
        self.run(self.do(lambda: self.stream.drain(grace)))

    async def do(self, act: Any) -> None:
        act()
        await settle()

    @invariant()
    def no_item_is_told_twice(self) -> None:
        indexes = [outcome.index for outcome in self.read]
        assert len(set(indexes)) == len(indexes)

    def run(self, work: Awaitable[None]) -> None:
        async def doing() -> None:
            async with asyncio.timeout(DEADLINE):
                await work

        self.loop.run_until_complete(doing())

    def teardown(self) -> None:
        if hasattr(self, "stream"):
            self.run(self.finish())
            self.check()
        self.loop.close()

    async def finish(self) -> None:
        self.stream.end()

        async def read() -> None:
            self.read.extend([outcome async for outcome in self.stream])

        task = asyncio.create_task(read())
        await self.clock.run_for(10_000)
        assert task.done(), "the run does not end"
        await task
        await asyncio.gather(*self.reading)
        await settle()
        assert len(asyncio.all_tasks()) == 1, "a task is left"

    def check(self) -> None:
        assert sorted(outcome.index for outcome in self.read) == [*range(len(self.submitted))]
        if self.ordered and len(self.reading) == 0:
            assert [outcome.index for outcome in self.read] == [*range(len(self.submitted))]
        for outcome in self.read:
            item = self.submitted[outcome.index]
            assert outcome.item is item
            assert outcome.attempts == item.calls
            assert (outcome.state == "not started") == (item.calls == 0)
            assert outcome.state != "not started" or self.drained
            if not self.drained:
                assert outcome.ok == self.should_succeed(item)

    def should_succeed(self, item: Item) -> bool:
        if item.bad:
            return False
        if self.timeout is not None and item.takes > self.timeout:
            return False
        return item.calls > item.flaky


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

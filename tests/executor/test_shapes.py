"""How long a run takes beside the ideal, in the shapes that people have, on a clock that is moved by hand."""

from __future__ import annotations

import pytest

from batchkit import BatchedExecutor, TokenBucket
from batchkit.testing import ManualClock

pytestmark = pytest.mark.anyio


def times(count: int) -> list[float]:
    """One item in twenty takes ten times as long as the others."""
    return [10.0 if number % 20 == 7 else 1.0 for number in range(count)]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("at_once", "most"), [(5, 1.15), (20, 1.3)])
async def test_slow_items_cost_little_beside_the_ideal(
    at_once: int, most: float, ordered: bool, clock: ManualClock
) -> None:
    executor = BatchedExecutor(clock.sleep, concurrency=at_once, clock=clock)
    items = times(1000)

    async def read() -> float:
        async with executor.map(items, ordered=ordered) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok
        return clock.now()

    assert await clock.run(read()) <= most * sum(items) / at_once


async def test_ten_a_batch_five_at_once_ten_starts_a_second(clock: ManualClock) -> None:
    """The shape of the system that this library was made for, with the pause read as a pace."""
    items = times(1000)
    executor = BatchedExecutor(clock.sleep, concurrency=5, pace=10, clock=clock)
    report = await clock.run(executor.run(items))
    assert report.seconds <= 1.2 * max(sum(items) / 5, 1000 / 10)
    assert report.limited_by == "concurrency"


@pytest.mark.parametrize(
    "options", [{}, {"priority": lambda _: 0}, {"timeout": 100.0}, {"deadline": 10_000.0}]
)
async def test_no_feature_makes_it_longer(options: dict[str, object], clock: ManualClock) -> None:
    items = times(200)
    executor = BatchedExecutor(clock.sleep, concurrency=5, clock=clock, **options)  # type: ignore[call-overload]
    report = await clock.run(executor.run(items))
    assert report.seconds <= 1.15 * sum(items) / 5


async def test_a_quota_is_used_to_the_full(clock: ManualClock) -> None:
    bucket = TokenBucket(rate=20, burst=1, clock=clock)
    executor = BatchedExecutor(clock.sleep, concurrency=30, limiter=bucket, clock=clock)
    report = await clock.run(executor.run([1.0] * 1000))
    assert report.seconds <= 1.02 * (1000 / 20 + 1)

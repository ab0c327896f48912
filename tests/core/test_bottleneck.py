from __future__ import annotations

import pytest

from batchkit._core.bottleneck import Bottleneck, Spent, bottleneck


def spent(
    calling: float = 0.0,
    *,
    quota: float = 0.0,
    pace: float = 0.0,
    barrier: float = 0.0,
    input: float = 0.0,
    output: float = 0.0,
) -> Spent:
    return Spent(calling, quota, pace, barrier, input, output)


@pytest.mark.parametrize(
    ("time", "calls", "seconds", "concurrency", "expected", "words"),
    [
        (spent(60, quota=20), 10, 8, 10, "quota", "25% of the workers' time"),
        (spent(60, pace=20), 10, 8, 10, "pace", "raise pace="),
        (spent(60, barrier=20), 10, 8, 10, "barrier", "pace= instead of barrier"),
        (spent(60, input=20), 10, 8, 10, "input", "input is slower"),
        (spent(60, output=20), 10, 8, 10, "output", "window="),
        (spent(60, quota=2), 100, 6, 10, "concurrency", "concurrency=20"),
        (spent(60), 10, 7, 10, "latency", "6 s on average"),
        (spent(1), 100, 6, 10, "latency", "no call had to wait"),
        (spent(), 0, 0, 10, "latency", "no call"),
    ],
)
def test_what_held_it_back(
    time: Spent, calls: int, seconds: float, concurrency: int, expected: Bottleneck, words: str
) -> None:
    what, advice = bottleneck(time, calls=calls, seconds=seconds, concurrency=concurrency)
    assert what == expected
    assert words in advice


def test_the_advice_tells_how_many_calls_at_once_the_rate_needs() -> None:
    _, advice = bottleneck(spent(600, quota=100), calls=100, seconds=50, concurrency=14)
    assert "2 calls/s of 6 s each keep 12 busy" in advice

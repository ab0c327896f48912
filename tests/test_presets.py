from __future__ import annotations

from math import inf, nan

import pytest

from batchkit.presets import AZURE_TTS, FAL, OPENAI, Quota


@pytest.mark.parametrize(
    ("quota", "rate", "burst", "client_burst"),
    [
        (OPENAI, 2, 5, 4),
        (FAL, 1, 3, 2),
        (AZURE_TTS, 5, 10, 9),
        (OPENAI.scaled(20), 40, 5, 3),
        (Quota(100, 2), 100, 2, 1),
    ],
)
def test_a_client_stays_below_the_servers_burst_by_what_jitter_adds(
    quota: Quota, rate: float, burst: int, client_burst: int
) -> None:
    assert (quota.rate, quota.burst) == (rate, burst)
    bucket = quota.bucket(jitter=0.05, name="text")
    assert (bucket.rate, bucket.burst, bucket.name) == (rate, client_burst, "text")


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (inf, 1), (1, 0), (1, 2.5)])
def test_a_quota_that_is_none(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match=r"a rate is|a burst is"):
        Quota(rate, burst)


@pytest.mark.parametrize("jitter", [-0.1, nan, inf])
def test_a_jitter_that_is_none(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter is a number of seconds"):
        OPENAI.bucket(jitter=jitter)

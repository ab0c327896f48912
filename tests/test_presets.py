from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import Any

import pytest
from attrs import evolve

from batchkit import CostExceedsBurst, InvalidCost, TokenBucket, Waited
from batchkit.presets import (
    AZURE_SPEECH,
    AZURE_TTS,
    FAL,
    FAL_ACCOUNT,
    OPENAI,
    OPENAI_GPT_5_MINI,
    Quota,
    Tier,
)
from batchkit.testing import ManualClock, RecordingHook
from tests.helpers import worst_excess

JITTER = 0.05
TIERS = [*OPENAI_GPT_5_MINI.values(), *AZURE_SPEECH.values(), *FAL_ACCOUNT.values()]


def greedy(bucket: TokenBucket, clock: ManualClock, seconds: float, cost: int = 1) -> list[float]:
    """When a client goes that goes whenever it may."""
    gone: list[float] = []
    while clock.now() < seconds:
        decision = bucket.try_acquire(cost)
        if decision:
            gone.append(clock.now())
        clock.advance(decision.retry_after)
    return gone


def busiest(gone: Sequence[float], seconds: float) -> int:
    """The most calls in any window of so many seconds."""
    first = most = 0
    for last, moment in enumerate(gone):
        while gone[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


class TestQuota:
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
        self, quota: Quota, rate: float, burst: int, client_burst: int
    ) -> None:
        assert (quota.rate, quota.burst) == (rate, burst)
        bucket = quota.bucket(jitter=0.05, name="text")
        assert (bucket.rate, bucket.burst, bucket.name) == (rate, client_burst, "text")

    @pytest.mark.parametrize(
        ("limit", "per", "burst"),
        [
            (20, 60, 1),  # a third of a permit a second: one at once
            (600, 60, 10),  # a second's worth
            (30_000, 60, 500),
            (200, 1, 20),  # a tenth, or nothing would be left
            (10_000, 86_400, 1),
            (2, 1, 1),
        ],
    )
    def test_the_burst_of_a_limit_in_a_time_is_a_seconds_worth_and_at_most_a_tenth(
        self, limit: int, per: float, burst: int
    ) -> None:
        assert Quota.within(limit, per=per) == Quota(rate=(limit - burst) / per, burst=burst)

    def test_a_larger_burst_is_paid_for_by_a_lower_rate(self) -> None:
        assert Quota.per_minute(600) == Quota.within(600, per=60)
        assert Quota.per_minute(600, burst=300) == Quota(rate=5, burst=300)

    @pytest.mark.parametrize(
        ("limit", "per", "burst"),
        [
            (20, 60, None),
            (60, 60, None),
            (500, 60, None),
            (500, 60, 250),
            (500, 60, 1),
            (6000, 60, None),
            (200, 1, None),
            (100, 10, None),
        ],
    )
    def test_no_window_of_the_server_sees_more_than_the_limit_whatever_the_network_delays(
        self, limit: int, per: float, burst: int | None, clock: ManualClock
    ) -> None:
        quota = Quota.within(limit, per=per, burst=burst)
        gone = greedy(quota.bucket(jitter=JITTER, clock=clock), clock, 2.5 * per)
        assert worst_excess(gone, quota.rate, quota.burst) <= 0
        # what arrives in a window of `per` was sent in one that is longer by the jitter
        assert busiest(gone, per + JITTER) <= limit
        if burst is None:
            assert len(gone) >= 0.89 * 2.5 * limit

    @pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (inf, 1), (1, 0), (1, 2.5)])
    def test_one_that_is_none(self, rate: float, burst: int) -> None:
        with pytest.raises(ValueError, match=r"a rate is|a burst is"):
            Quota(rate, burst)

    @pytest.mark.parametrize(
        ("limit", "per", "burst"),
        [
            (0, 60, None),
            (1, 60, None),  # nothing is left for the rate
            (-5, 60, None),
            (500.0, 60, None),
            (True, 60, None),
            (nan, 60, None),
            (500, 0, None),
            (500, -1, None),
            (500, inf, None),
            (500, nan, None),
            (500, 60, 500),
            (500, 60, 0),
            (500, 60, 1.5),
        ],
    )
    def test_a_limit_in_a_time_that_is_none(self, limit: Any, per: float, burst: Any) -> None:
        with pytest.raises(ValueError, match=r"a limit is|per is|a burst is|must be below"):
            Quota.within(limit, per=per, burst=burst)

    @pytest.mark.parametrize("jitter", [-0.1, nan, inf])
    def test_a_jitter_that_is_none(self, jitter: float) -> None:
        with pytest.raises(ValueError, match="jitter is a number of seconds"):
            OPENAI.bucket(jitter=jitter)


class TestTier:
    def test_one_of_ones_own_takes_of_all_its_limits_at_once(
        self, clock: ManualClock, hook: RecordingHook
    ) -> None:
        tier = Tier(
            "acme:gold", requests=Quota.per_minute(600), tokens=Quota.per_minute(90_000, burst=8000), calls=2
        )
        limiter = tier.limiter(jitter=0, hooks=iter([hook]), clock=clock)
        with limiter.permit(tokens=5000) as permit:
            available = {what: numbers.available for what, numbers in limiter.statistics().items()}
            assert available == {"requests": 9, "tokens": 3000, "calls": 1}
            assert not limiter.try_acquire(tokens=3001)
            permit.settle(tokens=2000)
        assert limiter.statistics()["tokens"].available == 6000
        assert limiter.statistics()["calls"].available == 2
        with pytest.raises(CostExceedsBurst, match="exceeds burst 8000 of acme:gold:tokens"):
            limiter.try_acquire(tokens=9000)

    @pytest.mark.anyio
    async def test_its_limiters_send_events_by_their_names(
        self, clock: ManualClock, hook: RecordingHook
    ) -> None:
        limiter = Tier("acme", requests=Quota(1, 1)).limiter(jitter=0, hooks=[hook], clock=clock)
        await limiter.acquire()
        await clock.run(limiter.acquire())
        assert hook.events == [Waited("acme:requests", 1, 1.0)]

    def test_a_published_one_with_another_burst_for_larger_calls(self, clock: ManualClock) -> None:
        tier = evolve(OPENAI_GPT_5_MINI[1], tokens=Quota.per_minute(500_000, burst=100_000))
        assert tier.limiter(clock=clock).try_acquire(tokens=90_000)
        with pytest.raises(CostExceedsBurst):
            OPENAI_GPT_5_MINI[1].limiter(clock=clock).try_acquire(tokens=90_000)

    def test_a_limit_that_it_has_not_cannot_be_paid_for(self, clock: ManualClock) -> None:
        limiter = AZURE_SPEECH["S0"].limiter(clock=clock)
        with pytest.raises(InvalidCost, match=r"no limiter is called \['tokens'\]"):
            limiter.try_acquire(tokens=10)

    @pytest.mark.parametrize("calls", [0, -1, 2.5, True])
    def test_calls_that_are_none(self, calls: Any) -> None:
        with pytest.raises(ValueError, match="calls at once is a whole number"):
            Tier("acme", calls=calls)

    def test_one_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="acme limits nothing"):
            Tier("acme")
        with pytest.raises(TypeError):
            Tier("acme", requests=500)  # type: ignore[arg-type]  # the wrong type is the point
        with pytest.raises(TypeError):
            Tier(None, calls=5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="jitter is a number of seconds"):
            AZURE_SPEECH["S0"].limiter(jitter=-1)


class TestPublished:
    @pytest.mark.parametrize(
        ("tier", "requests", "per", "tokens", "calls"),
        [
            (OPENAI_GPT_5_MINI[1], 500, 60, 500_000, None),
            (OPENAI_GPT_5_MINI[2], 5000, 60, 2_000_000, None),
            (OPENAI_GPT_5_MINI[3], 5000, 60, 4_000_000, None),
            (OPENAI_GPT_5_MINI[4], 10_000, 60, 10_000_000, None),
            (OPENAI_GPT_5_MINI[5], 30_000, 60, 180_000_000, None),
            (AZURE_SPEECH["F0"], 20, 60, None, None),
            (AZURE_SPEECH["S0"], 200, 1, None, None),
            (FAL_ACCOUNT["new"], None, None, None, 2),
            (FAL_ACCOUNT["full"], None, None, None, 40),
        ],
        ids=lambda value: value.name if isinstance(value, Tier) else "",
    )
    def test_it_never_exceeds_what_the_service_allows(
        self, tier: Tier, requests: int | None, per: float, tokens: int | None, calls: int | None
    ) -> None:
        for quota, limit, share in ((tier.requests, requests, None), (tier.tokens, tokens, 8)):
            assert (quota is None) == (limit is None)
            if quota is not None and limit is not None:
                clock = ManualClock()
                bucket = quota.bucket(jitter=JITTER, clock=clock)
                cost = 1 if share is None else bucket.burst // share
                gone = greedy(bucket, clock, 1.2 * per, cost)
                assert busiest(gone, per + JITTER) * cost <= limit
                assert busiest(gone, per) * cost >= 0.89 * limit
        assert tier.calls == calls

    @pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
    def test_a_typical_call_goes_at_once(self, tier: Tier, clock: ManualClock) -> None:
        limiter = tier.limiter(clock=clock)
        costs = {} if tier.tokens is None else {"tokens": 1200}
        with limiter.permit(**costs) as permit:
            assert permit.cost.keys() == limiter.limiters.keys()
        assert clock.now() == 0

    def test_the_names_differ_and_the_tables_cannot_be_changed(self) -> None:
        assert len({tier.name for tier in TIERS}) == len(TIERS)
        with pytest.raises(TypeError):
            FAL_ACCOUNT["new"] = FAL_ACCOUNT["full"]  # type: ignore[index]

"""The figures of the closing report, worked out by hand."""

import json

import pytest
from attrs import evolve

from examples.characters import LeftOut, Reason
from examples.report import Load, Report, cost, limited_by, quota_bound

# 100 calls of 6 s each in 54 s, at 2/s with 14 slots: 756 s of all slots, 600 s of them in calls.
FULL = Load(
    seconds=54,
    slots=14,
    calls=100,
    refused=0,
    calling=600,
    waiting=120,
    pausing=0,
    saving=1,
    starved=False,
    rate=2,
)
REPORT = Report(
    items=1000,
    saved=999,
    already_there=200,
    failed=1,
    failures={"坏": "the answer is malformed"},
    left_out=[LeftOut(Reason.DIGIT, 3, "12")],
    seconds=55.0,
    wall_seconds=2.75,
    bound_seconds=50.0,
    calls=80,
    refused=0,
    repeated=0,
    counted_by="the stand-in's ledger",
    cache_hit_rate=0.25,
    limited_by="quota of text",
    advice="raise it",
    rows=799,
    round_trips=99,
    input_tokens=1_000_000,
    output_tokens=500_000,
    estimated_cost=0.45,
    speed=20.0,
)


@pytest.mark.parametrize(
    ("load", "what", "advice"),
    [
        (FULL, "quota of text", "2 calls/s"),
        # 5 slots, each in a call nearly all the time: 120 s for 100 calls. 2/s x 6 s x 4/3 = 16 slots.
        (
            evolve(FULL, seconds=120, slots=5, calling=595, waiting=0),
            "concurrency",
            "need 16 at once with some to spare, and 5",
        ),
        (evolve(FULL, seconds=7, calls=4, calling=24, waiting=0), "latency", "one took 6.0 s"),
        (evolve(FULL, seconds=200, waiting=0, starved=True), "input", "waited for characters"),
        (evolve(FULL, seconds=200, waiting=0, saving=2100), "database", "a save took 21.0 s"),
        (evolve(FULL, seconds=100, waiting=0, pausing=71), "retries", "paused"),
        (evolve(FULL, refused=6), "refusals", "6 calls were refused"),
        (evolve(FULL, seconds=0, calls=0, calling=0, waiting=0, saving=0), "nothing", "nothing to ask"),
    ],
    ids=["quota", "concurrency", "latency", "input", "database", "retries", "refusals", "nothing"],
)
def test_what_held_it_back(load: Load, what: str, advice: str) -> None:
    assert limited_by(load)[0] == what
    assert advice in limited_by(load)[1]


def test_the_bound_of_the_quota() -> None:
    assert quota_bound(100, rate=2, burst=5, latency=6) == 53.5
    assert quota_bound(5, rate=2, burst=5, latency=6) == 6
    assert quota_bound(0, rate=2, burst=5, latency=0) is None


def test_the_cost() -> None:
    assert cost(1_000_000, 500_000, input_price=0.15, output_price=0.60) == pytest.approx(0.45)


def test_as_json() -> None:
    report = json.loads(REPORT.to_json())
    assert report["failed"] == 1
    assert report["failures"] == {"坏": "the answer is malformed"}
    assert report["left_out"] == [{"reason": "digits", "count": 3, "text": "12"}]
    assert "坏" in REPORT.to_json()


def test_in_words() -> None:
    lines = dict(REPORT.lines())
    assert lines["cards"] == "999 of 1,000 are saved (200 were there before)"
    assert lines["time"] == "55.0 s (2.8 s at 20x speed); the quota allows no less than 50.0 s, 1.100 x"
    assert lines["calls"] == "80, 0 refused (429), 0 words asked twice, by the stand-in's ledger"
    assert lines["tokens"] == "1,000,000 in, 500,000 out: about 0.45 USD"

"""The figures of the closing report, worked out by hand."""

import json
from typing import Any

import pytest
from attrs import evolve

from examples.language.characters import LeftOut, Reason
from examples.reporting.report import Load, Report, Use, cost, limited_by, quota_bound

# 100 calls of 6 s each in 54 s, at 2/s with 14 slots: 756 s of all slots, 600 s of them in calls.
TEXT = Use(calls=100, refused=0, waiting=120, calling=600, total=720, rate=2)
FULL = Load(
    setting="bulk_import.concurrency",
    batch_setting="bulk_import.batch_size",
    slots=14,
    seconds=14 * 54,
    results=100,
    uses={"text": TEXT},
    calling=600,
    saving=1,
    starved=False,
)
# 100 cards of 10 s each, of which each of 14 slots waited a third of the time.
PICTURE = Use(calls=100, refused=0, waiting=500, calling=600, total=1100, rate=1)
SOUND = Use(calls=200, refused=0, waiting=600, calling=160, total=760, rate=5)  # two wait side by side
DECK = evolve(
    FULL,
    setting="deck.concurrency",
    batch_setting="database.batch_size",
    seconds=14 * 107,
    uses={"text": evolve(TEXT, calling=400, waiting=20, total=420), "picture": PICTURE, "sound": SOUND},
    calling=1000,
)


def use(use: Use, **changes: Any) -> Use:
    """Another use; its total is what it waited and did, unless that is given."""
    changed = evolve(use, **changes)
    return evolve(changed, total=changes.get("total", changed.waiting + changed.calling))


def full(seconds: float, *, text: Use = TEXT, **changes: Any) -> Load:
    """An import of another length, with other figures."""
    load = evolve(FULL, uses={"text": text}, **changes)
    return evolve(load, seconds=load.slots * seconds)


EASY = use(TEXT, waiting=0)
# 5 slots, each in a call nearly all the time: 120 s for 100 calls. 2/s x 6 s x 4/3 = 16 slots.
FEW = full(120, slots=5, calling=595, text=use(EASY, calling=595))
# 5 cards at once: 203 s. 1 picture/s x 10 s x 4/3 = 14 slots.
FEW_CARDS = evolve(
    DECK,
    slots=5,
    seconds=5 * 203,
    uses={"text": use(EASY, calling=400), "picture": use(PICTURE, waiting=0)},
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
        (DECK, "quota of picture", "raise picture.rate"),
        (
            FEW,
            "concurrency",
            "need 16 at once with some to spare, and 5 were allowed: raise bulk_import.conc",
        ),
        (FEW_CARDS, "concurrency", "1 a second of 10.0 s each need 14 at once with some to spare"),
        (full(7, results=4, calling=24, text=use(EASY, calls=4, calling=24)), "latency", "took 6.0 s"),
        (full(200, text=EASY, starved=True), "input", "waited for characters"),
        (full(200, text=EASY, saving=2100), "database", "2100.0 s in all: raise bulk_import.batch_size"),
        (
            evolve(FEW_CARDS, saving=1100),
            "database",
            "1100.0 s in all: raise database.batch_size",
        ),
        (full(100, text=use(EASY, total=671)), "retries", "paused"),
        (full(54, text=use(TEXT, refused=6)), "refusals", "6 calls of text were refused"),
        (full(54, text=use(TEXT, calls=0)), "nothing", "nothing to ask"),
    ],
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
    assert report["decks"] == {}
    decks = json.loads(evolve(REPORT, decks=evolve(REPORT, failed=0)).to_json())["decks"]
    assert (decks["failed"], decks["decks"], decks.keys()) == (0, {}, report.keys())


def test_in_words() -> None:
    lines = dict(REPORT.lines())
    assert lines["cards"] == "999 of 1,000 are saved (200 were there before)"
    assert lines["time"] == "55.0 s (2.8 s at 20x speed); the quota allows no less than 50.0 s, 1.100 x"
    assert lines["calls"] == "80, 0 refused (429), 0 words asked twice, by the stand-in's ledger"
    assert lines["paid for"] == "1,000,000 tokens in, 500,000 out: about 0.45 USD"

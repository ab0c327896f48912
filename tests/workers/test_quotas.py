"""How near the fleet of the examples comes to what the quotas allow, by the stand-in's ledger, in scaled
time.

`python3 noxfile.py -s loadtest -- deck --speed 1` is the same at the quotas' own speed.
"""

from __future__ import annotations

import sys

import pytest

from tests.workers.places import LoadTest

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform == "win32", reason="no server is bundled for Windows"),
]


# Eight processes and all else share the processors: what they cost counts as often as the speed says.
@pytest.mark.parametrize(("workers", "speed", "ratio"), [("1", "4", 1.03), ("8", "2", 1.05)])
def test_a_deck_is_made_at_the_bound_and_nothing_is_refused(
    loadtest: LoadTest, workers: str, speed: str, ratio: float
) -> None:
    report = loadtest("deck", "--cards", "100", "--speed", speed, "--workers", workers)
    assert report["refused"] == 0
    assert report["ratio"] <= ratio
    assert report["seconds"] <= 580 / 5  # what the original took before it was made faster, by five
    assert report["limited_by"] == "quota of picture"


@pytest.mark.parametrize(("workers", "speed", "ratio"), [("1", "4", 1.05), ("8", "2", 1.07)])
def test_an_import_is_made_at_the_bound_and_nothing_is_refused(
    loadtest: LoadTest, workers: str, speed: str, ratio: float
) -> None:
    report = loadtest("bulk-import", "--size", "1000", "--speed", speed, "--workers", workers)
    assert report["refused"] == 0
    assert report["ratio"] <= ratio
    assert report["limited_by"] == "quota of text"


def test_a_card_takes_its_critical_path(loadtest: LoadTest) -> None:
    report = loadtest("card", "--cards", "3", "--speed", "2")
    assert report["refused"] == 0
    assert report["ratio"] <= 1.05


def test_half_the_quota_that_was_hidden_costs_few_refusals_and_little_time(loadtest: LoadTest) -> None:
    compare(loadtest, "--quota", "0.5")


def test_a_quota_that_is_halved_on_the_way_costs_few_refusals_and_little_time(loadtest: LoadTest) -> None:
    compare(loadtest, "--quota", "0.5", "--after", "60")


def compare(loadtest: LoadTest, *quota: str) -> None:
    """Adapting, against back-off alone: a deck for each of four workers, at half the quotas.

    Half the quota of pictures is 4/s at this speed. A controller's unit of time is that of 4 calls, or a
    second: at higher speeds it would adapt more slowly, in the services' time, than at their own.
    """
    load = ("deck", "--cards", "100", "--workers", "4", "--speed", "8", *quota)
    ours, others = (loadtest(*load, "--policy", policy) for policy in ("adaptive", "backoff"))
    assert others["refused"] > 100
    assert ours["refused"] <= 0.03 * others["refused"]
    assert ours["seconds"] <= others["seconds"] / 0.95

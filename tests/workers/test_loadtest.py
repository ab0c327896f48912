"""The load test as it is run: a fleet of processes for each, in scaled time.

How near it comes to the bound is measured elsewhere (test_quotas.py).
"""

import sys
from pathlib import Path

import pytest

from examples.loadtest import main
from tests.workers.places import LoadTest, measured

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no server is bundled for Windows")


def test_decks_of_several_workers_and_their_sequential_twin(
    loadtest: LoadTest, capsys: pytest.CaptureFixture[str]
) -> None:
    report = loadtest("deck", "--cards", "8", "--workers", "2", "--speed", "30", "--baseline")
    assert (report["items"], report["saved"], report["failed"]) == (8, 8, 0)
    assert (report["kind"], report["workers"], report["policy"]) == ("deck", 2, "adaptive")
    assert (report["calls"] - report["refused"], report["repeated"]) == (4 * 8, 0)
    assert report["services"].keys() == {"text", "picture", "sound"}
    assert report["bound_seconds"] > 4 + 5
    assert report["ratio"] == report["seconds"] / report["bound_seconds"] > 1
    assert report["baseline_seconds"] > 8 * 9 > report["seconds"]
    said = capsys.readouterr().out
    assert "8 cards of decks by 2 worker(s)" in said
    assert "x the bound" in said


def test_an_import_whose_services_go_wrong_is_whole_in_the_end(loadtest: LoadTest) -> None:
    report = loadtest("bulk-import", "--size", "60", "--speed", "30", "--faults")
    assert (report["items"], report["saved"], report["faults"]) == (60, 60, True)
    assert report["services"].keys() == {"text"}


def test_back_off_alone_meets_a_quota_that_it_does_not_know(loadtest: LoadTest) -> None:
    hidden = ("bulk-import", "--size", "150", "--speed", "10", "--quota", "0.1", "--policy", "backoff")
    report = loadtest(*hidden)
    assert (report["saved"], report["quota"], report["policy"]) == (150, 0.1, "backoff")
    assert report["services"]["text"]["rate"] == 0.2
    assert report["refused"] > 0


def test_a_single_card_is_measured_from_the_request_to_the_answer(tmp_path: Path, clean: None) -> None:
    report = measured(tmp_path, "card", "--cards", "2", "--speed", "10")
    assert (report["items"], report["saved"], report["calls"]) == (2, 2, 8)
    assert len(report["answered_seconds"]) == 2
    assert sum(report["answered_seconds"]) > report["seconds"] > report["bound_seconds"]


def test_a_single_card_is_measured_while_an_import_and_three_decks_are_made(loadtest: LoadTest) -> None:
    report = loadtest("card", "--cards", "1", "--speed", "10", "--busy")
    assert (report["items"], report["saved"], report["failed"]) == (1, 1, 0)
    assert len(report["answered_seconds"]) == 1


def test_what_cannot_be_done_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deck", "--report", str(tmp_path / "no" / "report.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["card", "--cards", "0"])

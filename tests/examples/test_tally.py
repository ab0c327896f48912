"""What several jobs did, added up by hand."""

from collections.abc import Mapping
from typing import Any

import pytest

from examples import settings
from examples.reporting.report import Ledger
from examples.reporting.tally import Tally

CONFIG = settings.load({})
NOTHING = {"calls": 0, "refused": 0, "waiting": 0.0, "calling": 0.0, "total": 0.0}
LEDGER = Ledger(calls=7, refused=1, repeated=0, bound_seconds=30.0, counted_by="the ledger")


def figures(texts: int, rows: int) -> dict[str, Any]:
    """What a process did: so many texts of 0.4 s on the wall each, and so many rows."""
    text = {"calls": texts, "refused": 0, "waiting": 0.1, "calling": 0.4 * texts, "total": 0.5 * texts}
    counts = {"input_tokens": 1000 * texts, "output_tokens": 100 * texts, "pictures": texts, "characters": 0}
    more = {"rows": rows, "round_trips": rows, "saving": 0.1, "cache_hits": 1, "cache_misses": 3}
    return {"text": text, "picture": NOTHING, "sound": NOTHING, **counts, **more}


def result(
    process: str,
    began: float,
    seconds: float,
    so_far: Mapping[str, Any],
    did: Mapping[str, Any],
    **more: object,
) -> dict[str, Any]:
    """What a job returns."""
    process_figures = {"id": process, "so_far": so_far}
    times = {"began": began, "seconds": seconds, "speed": 10.0}
    return {**times, "process": process_figures, **did, "words": 4, "saved": 4, "slots": 5, **more}


def test_jobs_at_once_in_one_process_are_not_counted_twice() -> None:
    # Both began with nothing done; the first had 3 texts when it ended, both together 7.
    jobs = [
        result("a", 100, 2, figures(3, 3), figures(3, 3)),
        result("a", 100, 4, figures(7, 7), figures(7, 7), failed={"坏": "malformed"}),
    ]
    report = Tally("deck", jobs, CONFIG).report(LEDGER, items=8, saved=7)
    assert (report.rows, report.pictures, report.input_tokens) == (7, 7, 7000)
    assert (report.wall_seconds, report.seconds, report.speed) == (4, 40, 10)
    assert (report.failed, report.failures) == (1, {"坏": "malformed"})
    assert (report.calls, report.refused, report.bound_seconds) == (7, 1, 30)
    tokens = (7000 * CONFIG.text.input_price + 700 * CONFIG.text.output_price) / 1e6
    assert report.estimated_cost == pytest.approx(tokens + 7 * CONFIG.picture.price)


def test_what_a_process_had_done_before_is_not_counted() -> None:
    job = result("a", 100, 2, figures(10, 30), figures(4, 4))
    tally = Tally("deck", [job], CONFIG)
    assert (tally.count("rows"), tally.uses()["text"].calls) == (4, 4)


def test_processes_are_added_up_in_service_time() -> None:
    jobs = [
        result("a", 100, 2, figures(3, 3), figures(3, 3)),
        result("b", 101, 3, figures(4, 5), figures(4, 5), already_there=2),
    ]
    tally = Tally("deck", jobs, CONFIG)
    assert tally.wall_seconds == 4
    assert tally.count("rows") == 8
    load = tally.load()
    assert load.uses["text"].calls == 7
    assert load.uses["text"].calling == pytest.approx(7 * 4)
    assert load.uses["text"].waiting == pytest.approx(2 * 1)
    assert load.seconds == 5 * (2 + 3) * 10  # of 5 slots in each job
    assert (load.results, load.slots, load.setting) == (6, 5, "deck.concurrency")


@pytest.mark.parametrize(
    ("kind", "setting"),
    [("import", "bulk_import.batch_size"), ("deck", "database.batch_size"), ("card", "database.batch_size")],
)
def test_when_saves_held_it_back_the_setting_is_that_of_what_the_job_saves_together(
    kind: str, setting: str
) -> None:
    text = {"calls": 4, "refused": 0, "waiting": 0.0, "calling": 1.6, "total": 1.6}
    slow = {**figures(4, 4), "saving": 10.0, "text": text}
    report = Tally(kind, [result("a", 100, 2, slow, slow)], CONFIG).report(LEDGER, items=4, saved=4)
    assert (report.limited_by, report.advice) == ("database", f"saves took 100.0 s in all: raise {setting}")


def test_a_run_without_results_is_reported_all_the_same() -> None:
    report = Tally("import", [], CONFIG).report(LEDGER, items=4, saved=1)
    assert (report.items, report.saved, report.seconds, report.rows, report.cache_hit_rate) == (4, 1, 0, 0, 0)
    assert report.limited_by == "nothing"

"""The row of the load test's table: every column that there has to be."""

from attrs import evolve

from examples.reporting.trial import Trial
from tests.examples.test_report import REPORT

WINDOW = {"calls": 7, "seconds": 1.0, "allowed": 7.0, "excess": 0.0}
TRIAL = Trial(
    kind="import",
    workers=8,
    policy="adaptive",
    faults=False,
    quota=1.0,
    original="25-30 min / 8-10 min",
    baseline_seconds=4000.0,
    report=evolve(REPORT, services={"text": {"calls": 80, "busiest_asked": WINDOW}}),
)


def test_each_column_of_the_table_is_there() -> None:
    assert dict(TRIAL.lines()) == {
        "work": "1,000 characters by 8 worker(s), adaptive",
        "one after the other": "4,000.0 s",
        "the original": "25-30 min / 8-10 min",
        "bound": "50.0 s",
        "ours": "55.0 s, 1.100 x the bound",
        "refused (429)": "0 of 80 calls",
        "repeated": "0",
        "busiest window": "text 7 in 1.0 s of 7.0 allowed",
        "cost": "0.450 USD",
        "held back by": "quota of text: raise it",
    }


def test_it_is_written_with_all_keys_of_the_report_and_its_own() -> None:
    written = TRIAL.to_dict()
    assert written.keys() > REPORT.to_dict().keys()
    assert (written["workers"], written["baseline_seconds"], written["ratio"]) == (8, 4000, 1.1)


def test_what_was_not_measured_is_a_dash() -> None:
    said = dict(
        evolve(TRIAL, baseline_seconds=None, original="", report=evolve(REPORT, repeated=None)).lines()
    )
    assert {said[name] for name in ("one after the other", "the original", "repeated", "busiest window")} == {
        "-"
    }

"""The stand-in's quota against its definition, in fractions, and the figures that are read off its ledger."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.standin.ledger import Answer, Ledger
from examples.standin.openai_wire import duration, retry_headers
from examples.standin.quota import Bucket, Quota, Refusal, admit
from examples.standin.summary import summary

NANOSECOND = Fraction(1, 10**9)

rates = st.fractions(min_value=Fraction(1, 1000), max_value=1000, max_denominator=1000)
bursts = st.integers(min_value=1, max_value=20)
gaps = st.fractions(min_value=0, max_value=3, max_denominator=10**9)
quotas = st.builds(Quota, rates, bursts)


def excess(moments: Sequence[Fraction], quota: Quota) -> Fraction:
    """The definition, the long way: the most by which any window of arrivals goes over rate x T + burst."""
    return max(
        (last - first + 1) - quota.rate * (moments[last] - moments[first]) - quota.burst
        for first in range(len(moments))
        for last in range(first, len(moments))
    )


@given(quotas, st.lists(gaps, min_size=1, max_size=25))
def test_admits_all_that_the_quota_allows_and_nothing_else(quota: Quota, steps: list[Fraction]) -> None:
    bucket = Bucket(quota)
    admitted: list[Fraction] = []
    for now in accumulate(steps):
        refusal = admit({"requests": bucket}, {"requests": 1}, now)
        over = excess([*admitted, now], quota) > 0
        assert (refusal is not None) == over
        if not refusal:
            admitted.append(now)


@given(quotas, st.lists(gaps, max_size=20))
def test_a_refused_call_is_admitted_at_the_promised_moment_and_not_before(
    quota: Quota, steps: list[Fraction]
) -> None:
    bucket, now = Bucket(quota), sum(steps, Fraction(0))
    for moment in (*accumulate(steps), *[now] * quota.burst):
        admit({"requests": bucket}, {"requests": 1}, moment)
    refusal = admit({"requests": bucket}, {"requests": 1}, now)
    assert refusal
    assert admit(
        {"requests": bucket}, {"requests": 1}, now + refusal.wait - min(NANOSECOND, refusal.wait / 2)
    )
    assert not admit({"requests": bucket}, {"requests": 1}, now + refusal.wait)


def test_two_quotas_are_charged_together_or_not_at_all() -> None:
    buckets = {"requests": Bucket(Quota.of(1, 5)), "tokens": Bucket(Quota.of(10, 100))}
    now = Fraction(0)
    assert admit(buckets, {"requests": 1, "tokens": 90}, now) is None
    refusal = admit(buckets, {"requests": 1, "tokens": 40}, now)
    assert refusal
    assert refusal == Refusal("tokens", burst=100, left=Fraction(10), cost=40, wait=Fraction(3))
    assert buckets["requests"].level(now) == 4


@pytest.mark.parametrize(
    ("rate", "burst", "left", "a_second_later"),
    [(10, 5, 2, 5), (0.5, 5, 2, Fraction(5, 2)), (0.5, 1, 1, 1), (0.1, 20, 2, Fraction(21, 10))],
)
def test_a_change_of_quota_keeps_what_is_left(
    rate: float, burst: int, left: int, a_second_later: Fraction
) -> None:
    bucket = Bucket(Quota.of(2, 5))
    bucket.charge(Fraction(0), 5)
    bucket.change(Fraction(1), Quota.of(rate, burst))
    assert bucket.level(Fraction(1)) == left
    assert bucket.level(Fraction(2)) == a_second_later


# --- the summary of a ledger ----------------------------------------------------------------------


def ledger_of(*calls: tuple[float, str, Answer | None, float], quota: Quota | None = None) -> Ledger:
    """A ledger from rows of arrival, keys (one letter each), answer, seconds."""
    ledger = Ledger()
    for arrived, keys, answer, seconds in calls:
        moment = Fraction(arrived)
        admitted = answer != "refused"
        entry = ledger.open("text", moment, tuple(keys), 1, admitted, quota or Quota.of(2, 2))
        if answer:
            entry.end(moment + Fraction(seconds), answer, 200, billed=10)
    return ledger


def test_the_bound_worked_by_hand() -> None:
    # At 2/s burst 2 the calls can be sent at 0, 0, 0.5 and 1.0 at the earliest. The third, sent at 0.5 and
    # 7 s long, is the last to end; that it was sent at 3.0 is the client's fault. The refused one is none.
    ledger = ledger_of(
        (0, "a", "ok", 4),
        (0, "b", "ok", 6),
        (0, "c", "refused", 0),
        (3, "c", "malformed", 7),
        (4, "d", "ok", 5),
    )
    assert summary(ledger.entries)["bound_seconds"] == 7.5


def test_counts_by_answer_and_what_was_answered_twice() -> None:
    ledger = ledger_of(
        (0, "ab", "ok", 1),
        (1, "ab", "malformed", 1),
        (2, "a", "ok", 1),
        (3, "a", "ok", 1),
        (4, "b", "aborted", 1),
        (5, "c", "refused", 0),
        (6, "c", "error", 1),
        (7, "c", None, 0),
    )
    figures = summary(ledger.entries)
    expected = {"ok": 3, "malformed": 1, "aborted": 1, "refused": 1, "errors": 1, "under_way": 1}
    assert figures["calls"] == 8
    assert expected.items() <= figures.items()
    assert figures["repeated"] == 2
    later = summary(ledger.entries, since=3)
    assert (later["calls"], later["repeated"], later["since"], later["next"]) == (5, 0, 3, 8)


@given(quotas, st.lists(gaps, min_size=1, max_size=25))
def test_the_busiest_window_is_the_busiest_of_all(quota: Quota, steps: list[Fraction]) -> None:
    ledger, bucket, moments = Ledger(), Bucket(quota), list(accumulate(steps))
    for now in moments:
        refused = admit({"requests": bucket}, {"requests": 1}, now) is not None
        ledger.open("text", now, (), 1, not refused, quota)
    figures = summary(ledger.entries)["services"]["text"]
    assert figures["busiest"]
    assert figures["busiest"]["excess"] <= 0
    assert figures["busiest_asked"]
    assert figures["busiest_asked"]["excess"] == float(excess(moments, quota))


def test_figures_against_a_quota_need_one_quota() -> None:
    entries = [
        *ledger_of((0, "a", "ok", 1)).entries,
        *ledger_of((1, "b", "ok", 1), quota=Quota.of(1, 1)).entries,
    ]
    both, second = summary(entries), summary(entries, since=1)
    assert both["bound_seconds"] is None
    assert both["services"]["text"]["busiest"] is None
    assert second["bound_seconds"] == 1


def test_an_empty_ledger_has_a_summary() -> None:
    figures = summary([])
    assert (figures["calls"], figures["bound_seconds"], figures["services"]) == (0, None, {})


# --- durations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        ("0", "0ms"),
        ("0.0001", "1ms"),
        ("0.5", "500ms"),
        ("0.9999", "1s"),
        ("1.5", "1.5s"),
        ("60", "1m0s"),
        ("360", "6m0s"),
        ("59.9999", "1m0s"),
        ("3600", "1h0m0s"),
        ("3725.25", "1h2m5.25s"),
    ],
)
def test_durations_as_openai_writes_them(seconds: str, written: str) -> None:
    assert duration(Fraction(seconds)) == written


@given(st.fractions(min_value=0, max_value=10**6))
def test_who_obeys_retry_after_is_never_early(wait: Fraction) -> None:
    headers = retry_headers("exact", wait)
    assert wait <= Fraction(headers["retry-after"]) < wait + Fraction(1, 1000)
    assert wait <= Fraction(headers["retry-after-ms"]) / 1000
    assert wait <= int(retry_headers("whole", wait)["retry-after"]) < wait + 1
    assert retry_headers("none", wait) == {}

"""The quota bound of a pipeline, worked out by hand and against a program that makes no mistakes."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain, count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.standin.ledger import Answer, Ledger
from examples.standin.pipeline import Path, bounds
from examples.standin.quota import Bucket, Quota
from tests.examples.house import house

QUOTAS = {"text": Quota.of(2, 2), "picture": Quota.of(1, 1), "sound": Quota.of(5, 5)}


def path(word: str) -> Path:
    """What a card needs."""
    return [[("text", word)], [("picture", f"draw {word}"), ("sound", word)]]


def ledger_of(*calls: tuple[str, float, str, float] | tuple[str, float, str, float, Answer]) -> Ledger:
    """A ledger from rows of service, arrival, key, seconds, and the answer unless it was ok."""
    ledger = Ledger()
    for service, arrived, key, seconds, *how in calls:
        answer: Answer = how[0] if how else "ok"
        quota = QUOTAS[service]
        entry = ledger.open(service, Fraction(arrived), (key,), 1, answer != "refused", quota)
        entry.end(entry.arrived + Fraction(seconds), answer, 200)
    return ledger


def test_of_one_card_it_is_the_critical_path() -> None:
    ledger = ledger_of(("text", 0, "好", 4), ("picture", 5, "draw 好", 6), ("sound", 5, "好", 1))
    assert bounds(ledger.entries, [path("好")]) == {"text": 4, "picture": 10, "sound": 5}


def test_the_next_service_cannot_begin_before_the_first_result_of_the_one_before_it() -> None:
    # Texts at 2/s, 2 at once: c, sent at 0.5, ends at 2.5, before the others.
    # Pictures at 1/s, one at once: the first at 2.5, and the third at 4.5.
    ledger = ledger_of(
        *[("text", 0, word, seconds) for word, seconds in [("a", 4), ("b", 3), ("c", 2)]],
        *[("picture", 9, f"draw {word}", 6) for word in "abc"],
    )
    assert bounds(ledger.entries, [path(word) for word in "abc"]) == {"text": 4, "picture": 10.5}


def test_a_result_cannot_end_before_its_own_path() -> None:
    ledger = ledger_of(
        *[("text", 0, word, seconds) for word, seconds in [("a", 1), ("b", 20)]],
        *[("picture", 9, f"draw {word}", 6) for word in "ab"],
    )
    assert bounds(ledger.entries, [path("a"), path("b")])["picture"] == 26


def test_a_card_whose_text_was_there_before_waits_for_nothing() -> None:
    ledger = ledger_of(("text", 0, "a", 0.5), *[("picture", 9, f"draw {word}", 6) for word in "ab"])
    assert bounds(ledger.entries, [path("a"), path("b")])["picture"] == 7


def test_a_call_that_failed_counts_and_nothing_follows_it() -> None:
    ledger = ledger_of(
        ("text", 0, "a", 60, "aborted"),
        ("text", 60, "a", 4),
        ("picture", 70, "draw a", 1, "refused"),
        ("picture", 71, "draw a", 6),
    )
    # Of the text, the second call could have been sent at once.
    assert bounds(ledger.entries, [path("a")]) == {"text": 60, "picture": 10}


def test_one_call_may_be_for_several_cards() -> None:
    ledger = Ledger()
    entry = ledger.open("text", Fraction(0), ("a", "b"), 1, True, QUOTAS["text"])
    entry.end(Fraction(5), "ok", 200)
    for word, seconds in [("a", 6), ("b", 8)]:
        picture = ledger.open("picture", Fraction(9), (f"draw {word}",), 1, True, QUOTAS["picture"])
        picture.end(9 + Fraction(seconds), "ok", 200)
    assert bounds(ledger.entries, [path("a"), path("b")]) == {"text": 5, "picture": 14}


def test_calls_of_other_work_are_left_out() -> None:
    ledger = ledger_of(*[("text", 0, word, 4) for word in "abcdefgh"])
    assert bounds(ledger.entries, [path("h")]) == {"text": 4}


def test_a_quota_that_changed_has_no_bound() -> None:
    ledger = ledger_of(("text", 0, "a", 4))
    entry = ledger.open("text", Fraction(1), ("b",), 1, True, Quota.of(1, 1))
    entry.end(Fraction(5), "ok", 200)
    assert bounds(ledger.entries, [path("a"), path("b")]) == {"text": None}


def test_without_paths_it_is_the_bound_of_each_service() -> None:
    ledger = ledger_of(*[("text", 0, word, 4) for word in "abcd"])
    assert bounds(ledger.entries, []) == {"text": 5}
    assert bounds([], []) == {}


lengths = st.integers(min_value=1, max_value=8)


@given(st.lists(st.tuples(lengths, lengths, lengths), min_size=1, max_size=12))
def test_a_program_that_makes_no_mistakes_does_not_beat_it(cards: list[tuple[int, int, int]]) -> None:
    took = {
        step: Fraction(seconds)
        for number, lengths in enumerate(cards)
        for step, seconds in zip(chain(*path(str(number))), lengths, strict=True)
    }
    ledger, seconds = flawless([path(str(number)) for number in range(len(cards))], took)
    found = bounds(ledger.entries, [path(str(number)) for number in range(len(cards))])
    assert max(bound for bound in found.values() if bound is not None) <= seconds


def flawless(paths: Sequence[Path], took: Mapping[tuple[str, str], Fraction]) -> tuple[Ledger, float]:
    """All paths, every call sent as soon as its stage has come and the quota has room; and when it ended."""
    ledger, numbers, last = Ledger(), count(), Fraction(0)
    buckets = {service: Bucket(quota) for service, quota in QUOTAS.items()}
    free = dict.fromkeys(QUOTAS, Fraction(0))
    begun = [(Fraction(0), next(numbers), path, 0) for path in paths]
    while begun:
        moment, _, path, number = heapq.heappop(begun)
        ends = [moment]
        for service, key in path[number]:
            now = max(moment, free[service])
            free[service] = now = now + buckets[service].wait(now)
            buckets[service].charge(now)
            entry = ledger.open(service, now, (key,), 1, True, QUOTAS[service])
            entry.end(now + took[service, key], "ok", 200)
            ends.append(now + took[service, key])
        last = max(last, *ends)
        if number + 1 < len(path):
            heapq.heappush(begun, (max(ends), next(numbers), path, number + 1))
    ledger.entries.sort(key=lambda entry: entry.arrived)
    return ledger, float(last)


@pytest.mark.anyio
async def test_who_knows_the_paths_asks_for_the_bound(anyio_backend: str) -> None:
    async with house("picture") as here:
        reply = await here.client.post("/standin/bound", json=[[["text", "好"]], [["picture", "好"]]])
        assert reply.status_code == 400
        reply = await here.client.post("/standin/bound", json=[[[["text", "好"]], [["picture", "draw 好"]]]])
        assert reply.json() == {"bound_seconds": None, "services": {}}

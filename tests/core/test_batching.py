from __future__ import annotations

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.batching import InOrder, halves, values_by_key, values_in_order, values_of


@pytest.mark.parametrize(("size", "left", "right"), [(2, 1, 1), (3, 2, 1), (10, 5, 5)])
def test_halves(size: int, left: int, right: int) -> None:
    first, second = halves(range(size))
    assert (len(first), len(second)) == (left, right)
    assert [*first, *second] == list(range(size))


def calls_to_isolate(batch: list[int], bad: set[int]) -> int:
    calls, parts = 0, [batch]
    while parts:
        part = parts.pop()
        calls += 1
        if bad.intersection(part) and len(part) > 1:
            parts.extend(list(half) for half in halves(part))
    return calls


@pytest.mark.parametrize("size", range(1, 15))
def test_splitting_stays_within_its_bound_for_every_set_of_bad_items(size: int) -> None:
    for mask in range(2**size):
        bad = {index for index in range(size) if mask >> index & 1}
        bound = 1 + 2 * len(bad) * ceil(log2(size)) if size > 1 else 1
        assert calls_to_isolate(list(range(size)), bad) <= bound


@pytest.mark.parametrize("answer", [[1, 2], (1, 2), iter([1, 2])])
def test_values_in_order(answer: object) -> None:
    assert values_in_order(answer, 2) == [1, 2]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1], "1 came back for 2"),
        (None, "NoneType"),
        ("ab", "str"),
        ({"a": 1, "b": 2}, "not a mapping"),
        ({1, 2}, "not set"),
    ],
)
def test_wrong_answers_of_a_batch_function(answer: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values_in_order(answer, 2)


def test_values_by_key_from_a_mapping_that_lacks_keys_and_has_others() -> None:
    assert values_by_key({"b": None, "x": 0}, ["a", "b"]) == {"b": None}


def test_values_by_key_from_a_sequence() -> None:
    assert values_by_key([1, 2], ["a", "b"]) == {"a": 1, "b": 2}


@pytest.mark.parametrize("answer", [[1, 2], (1, 2), {"b": 2, "a": 1}, iter([1, 2])])
def test_values_of_keys_are_in_the_order_of_the_keys(answer: object) -> None:
    assert values_of(answer, ["a", "b"], None) == [1, 2]


def test_a_value_that_a_mapping_leaves_out_is_missing() -> None:
    assert values_of({"b": 2}, ["a", "b"], "missing") == ["missing", 2]


@pytest.mark.parametrize(("answer", "words"), [([1], "1 came back for 2"), (7, "int"), (b"ab", "bytes")])
def test_wrong_answers_of_a_loader(answer: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values_by_key(answer, ["a", "b"])


def test_a_result_waits_for_those_before_it() -> None:
    in_order: InOrder[str] = InOrder()
    assert in_order.put(1, "b") == []
    assert in_order.put(0, "a") == ["a", "b"]
    assert in_order.put(2, "c") == ["c"]


@given(st.permutations(range(20)))
def test_results_come_out_in_the_order_of_their_items(finished: list[int]) -> None:
    in_order: InOrder[int] = InOrder()
    out: list[int] = []
    for place, index in enumerate(finished):
        out += in_order.put(index, index)
        held = set(finished[: place + 1]) - set(out)
        assert all(any(earlier not in finished[: place + 1] for earlier in range(late)) for late in held)
    assert out == list(range(20))

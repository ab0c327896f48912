"""The names of a tier's keys, and how a value is written there."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._redis.directory import Directory
from batchkit._redis.entries import MOMENT, Entry, Names, begins_with, head_of, tag_text
from batchkit._redis.names import part, whole


def _has_a_point(number: float) -> bool:
    return not number.is_integer()


def written(key: Hashable) -> str:
    """The text of a key."""
    return part(key, scalars=True)


keys = st.recursive(
    st.text() | st.binary() | st.integers() | st.none() | st.floats(allow_nan=False).filter(_has_a_point),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=6,
)


@given(keys)
def test_a_key_comes_back_from_its_text(key: Hashable) -> None:
    assert whole(written(key)) == key
    assert type(whole(written(key))) is type(key)


@given(keys, keys)
def test_two_keys_have_two_names(one: Hashable, other: Hashable) -> None:
    if written(one) != written(other):
        names = Names.of("words")
        assert not set(names.pair(one)) & set(names.pair(other))


@pytest.mark.parametrize("text", ["", "(", "(a", "(a,", "a,", "a)", "=x", "=1_0", "=1.x", "(a)", "+", "好"])
def test_a_text_that_stands_for_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="stands for no key"):
        whole(text)


@given(keys)
def test_a_directory_knows_whatever_it_was_asked_for(key: Hashable) -> None:
    directory = Directory(Names.of("words"), lambda: None)
    value, claim = directory.pair(key)
    assert directory.keys(value) == [key]
    assert claim.startswith(value)
    assert len(claim.encode()) < 250


def test_names_of_strangers_stand_for_no_key() -> None:
    directory = Directory(Names.of("words"), lambda: None)
    for name in ["words:rules", "words:{", "words:x", "words:{a+0123}", "other:{a}"]:
        assert directory.keys(name) == []


def test_a_directory_that_forgets_long_keys_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchkit._redis.directory._MOST", 3)
    forgotten: list[int] = []
    directory = Directory(Names.of("words"), lambda: forgotten.append(1))
    long = ["x" * 300 + str(number) for number in range(4)]
    for key in [*long[:3], *long[:3]]:
        directory.pair(key)
    assert not forgotten
    last = directory.pair(long[3])[0]
    assert forgotten == [1]
    assert directory.keys(last) == [long[3]]
    assert directory.keys(Names.of("words").pair(long[0])[0]) == []


def test_a_prefix_with_signs_of_its_own_is_apart_from_others() -> None:
    assert Names.of("a:b").start == "a%3Ab:"
    assert not Names.of("a:b").start.startswith(Names.of("a").start)
    with pytest.raises(ValueError, match="prefix"):
        Names.of("")


words = st.text("abc%()=,.0", min_size=1)


@given(
    st.integers(0, 2**53),
    words,
    st.booleans(),
    st.integers(0, 10**9),
    st.lists(keys.map(written)),
    st.binary(),
    st.integers(0, 10**15),
)
def test_a_value_comes_back_as_written(
    born: int, mark: str, negative: bool, stale: int, tags: list[str], data: bytes, ends: int
) -> None:
    entry = Entry(born, mark, negative, stale, tuple(tags), data, ends)
    text = entry.text()
    there = b"%d %b" % (ends, text)  # as the script writes it
    assert Entry.read(there) == entry
    assert there.startswith(head_of(there))
    assert begins_with(there[: MOMENT + len(head_of(text)) + 1], head_of(text))
    assert not begins_with(there, b"x" + head_of(text))


@pytest.mark.parametrize(
    "text", [b"", b"hello", b"{}\n1", b"[]\n", b"1 2 0 3\n", b"1 2 0 3 m", b"1 2 x 3 m\n", b"\xff 2 0 3 m\n"]
)
def test_what_somebody_else_wrote_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="no tier wrote that"):
        Entry.read(text)


@given(keys)
def test_a_tag_comes_back_from_its_text(tag: Hashable) -> None:
    if len(written(tag)) <= 1000:
        assert whole(tag_text(tag)) == tag


@pytest.mark.parametrize(
    ("tag", "error"), [("x" * 1001, ValueError), (float("nan"), TypeError), (object(), TypeError)]
)
def test_a_tag_that_is_none_is_refused(tag: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        tag_text(tag)

"""The names of keys: never the same for two limiters, bounded, and on one node of a cluster."""

from __future__ import annotations

import re
from collections.abc import Hashable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from batchkit._redis.names import bounded, name, part

# What could be taken for something else, often enough.
letters = st.text("ab:{}%~=(),'/ é\x00", min_size=1, max_size=12)
texts = letters | st.text(min_size=1, max_size=300) | st.integers(195, 205).map(lambda length: "x" * length)
tags = texts | st.none()


@pytest.mark.parametrize(
    ("key", "tag", "of", "base"),
    [
        pytest.param("openai", None, "", "batchkit:{openai}", id="the key is the tag"),
        pytest.param("openai:gpt-4", None, "", "batchkit:{openai%3Agpt-4}", id="what separates is quoted"),
        pytest.param("a}b{c", None, "", "batchkit:{a%7Db%7Bc}", id="braces are quoted"),
        pytest.param("tokens", "openai", "", "batchkit:{openai}:tokens", id="with a tag"),
        pytest.param("速率", None, "", "batchkit:{%E9%80%9F%E7%8E%87}", id="other letters"),
        pytest.param("openai", None, part("eve"), "batchkit:{openai/eve}", id="one of a family"),
        pytest.param(
            "openai",
            "eu",
            part(("eve", 7)),
            "batchkit:{eu}:openai/(eve,=7,)",
            id="one of a family with a tag",
        ),
    ],
)
def test_rows(key: str, tag: str | None, of: str, base: str) -> None:
    assert name("batchkit", key, tag, of) == base


@pytest.mark.parametrize(
    ("prefix", "key", "tag", "what"),
    [
        ("", "k", None, "prefix"),
        ("p", "", None, "key"),
        ("p", "k", "", "tag"),
        ("p", 5, None, "key"),
        ("p", "k", b"t", "tag"),
    ],
)
def test_what_is_no_text_is_refused(prefix: str, key: str, tag: str | None, what: str) -> None:
    with pytest.raises(ValueError, match=f"a {what} is a text"):
        name(prefix, key, tag)


limiters = st.tuples(texts, texts, tags, st.just("") | letters.map(part))


@given(first=limiters, second=limiters)
@example(first=("p", "a", "b", ""), second=("p", "a:b", None, ""))
@example(first=("p", "line", "a", ""), second=("p", "a", None, ""))
@example(first=("p:{a}", "b", None, ""), second=("p", "a", "b", ""))
@example(first=("p", "a/b", None, ""), second=("p", "a", None, "b"))
@example(first=("p", "a", None, part("")), second=("p", "a", None, ""))
def test_two_limiters_share_no_name(
    first: tuple[str, str, str | None, str], second: tuple[str, str, str | None, str]
) -> None:
    assume(first != second)
    assert name(*first) != name(*second)


@given(prefix=texts, key=texts, tag=tags)
def test_the_tag_determines_the_slot(prefix: str, key: str, tag: str | None) -> None:
    other = name(f"other {prefix}", key if tag is None else f"other {key}", tag)
    assert key_slot(other.encode()) == key_slot(name(prefix, key, tag).encode())


def test_limiters_spread_over_a_cluster_unless_they_have_a_tag() -> None:
    assert len({key_slot(name("p", f"k{number}", None).encode()) for number in range(100)}) > 90
    assert len({key_slot(name("p", f"k{number}", "t").encode()) for number in range(100)}) == 1


@given(key=st.text(min_size=1, max_size=3000), tag=st.none() | st.text(min_size=1, max_size=3000))
def test_a_name_is_bounded_whatever_the_key_and_the_tag(key: str, tag: str | None) -> None:
    assert len(name("batchkit", key, tag)) <= 2 * 200 + 20


@given(first=texts, second=texts)
@example(first="x" * 200, second="x" * 201)
def test_what_stands_for_long_texts_differs(first: str, second: str) -> None:
    assume(first != second)
    assert bounded(first) != bounded(second)


def test_what_stands_for_a_long_text_is_nobodys_key() -> None:
    stands = bounded("x" * 201)
    assert re.fullmatch(r"x{40}\+[0-9a-f]{32}", stands)
    assert name("p", stands, None) != name("p", "x" * 201, None)


keys = st.recursive(
    letters | st.text(max_size=5) | st.binary(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(first=keys, second=keys)
@example(first=("a", "b"), second=("a,b",))
@example(first=(), second=("",))
@example(first=1, second="=1")
@example(first=b"a", second="a")
@example(first=(("a",), "b"), second=("a", ("b",)))
def test_two_keys_of_a_family_have_different_texts(first: Hashable, second: Hashable) -> None:
    assume(first != second)
    assert part(first) != part(second)


scalars = keys | st.none() | st.booleans() | st.floats(allow_nan=False)


@given(first=scalars, second=scalars)
@example(first=True, second=1)
@example(first=1.0, second=1)
@example(first=-0.0, second=0)
@example(first=1e300, second=10**300)
@example(first=None, second="=none")
@example(first=0.5, second="=0.5")
@example(first=(None,), second=("",))
def test_two_keys_have_the_same_text_if_they_are_equal(first: Hashable, second: Hashable) -> None:
    assert (part(first, scalars=True) == part(second, scalars=True)) == (first == second)


@pytest.mark.parametrize("key", [float("nan"), frozenset({1}), (1, object())])
def test_a_key_that_is_equal_to_nothing_or_has_no_text_is_refused(key: Hashable) -> None:
    with pytest.raises(TypeError, match="a key in Redis is a str, bytes, number, bool, None or a tuple"):
        part(key, scalars=True)


@given(key=keys)
def test_a_key_has_one_text_of_plain_letters(key: Hashable) -> None:
    assert part(key) == part(key)
    assert part(key).isascii()
    assert part(key).isprintable()


@pytest.mark.parametrize("key", [True, 1.0, None, frozenset({1}), (1, None)], ids=repr)
def test_a_key_that_has_no_text_of_its_own_is_refused(key: Hashable) -> None:
    with pytest.raises(TypeError, match="a key in Redis is a str, bytes, int or a tuple"):
        part(key)

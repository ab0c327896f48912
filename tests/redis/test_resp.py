"""What a server says, however it comes in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._redis.resp import Feed, Refusal

SAID: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":5\r\n", b"5"),
    (b"$3\r\na\r\n\r\n", b"a\r\n"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"_\r\n", None),
    (b"*0\r\n", []),
    (b"*-1\r\n", None),
    (b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n", [b"invalidate", [b"k"]]),
    (b">2\r\n+invalidate\r\n_\r\n", [b"invalidate", None]),
    (b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nk\r\n", [b"message", b"c", b"k"]),
    (b"%1\r\n+proto\r\n:3\r\n", [b"proto", b"3"]),
    (b"~1\r\n#t\r\n", [b"t"]),
]


@given(said=st.lists(st.sampled_from(SAID)), sizes=st.lists(st.integers(1, 20), min_size=1))
def test_pieces_of_any_size_say_the_same(said: list[tuple[bytes, Any]], sizes: list[int]) -> None:
    data = b"".join(text for text, _ in said)
    feed = Feed()
    heard: list[Any] = []
    while data:
        size = sizes[len(data) % len(sizes)]
        heard += feed.feed(data[:size])
        data = data[size:]
    assert heard == [value for _, value in said]


def test_a_refusal_has_the_words_of_the_server() -> None:
    (refusal,) = Feed().feed(b"-NOPERM this user has no permissions\r\n")
    assert isinstance(refusal, Refusal)
    assert str(refusal) == "NOPERM this user has no permissions"


def test_what_is_no_resp_is_an_error() -> None:
    with pytest.raises(ValueError, match="no RESP"):
        Feed().feed(b"HTTP/1.1 400 Bad Request\r\n")

"""What a server says is read whole, however the network cuts it up."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import BusyLoadingError, NoScriptError, ResponseError

from batchkit._redis.link import Replies

Said = bytes | list["Said"] | None

texts = st.binary(max_size=40)
said = st.recursive(st.none() | texts, lambda inner: st.lists(inner, max_size=4), max_leaves=8)


class Pieces:
    """A socket at which a reply comes in pieces."""

    def __init__(self, data: bytes, sizes: Iterator[int]) -> None:
        self.data = data
        self.sizes = sizes

    def recv(self, most: int) -> bytes:
        size = min(most, next(self.sizes))
        piece, self.data = self.data[:size], self.data[size:]
        return piece


def written(reply: Said) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n%b" % (len(reply), b"".join(map(written, reply)))


def error(text: str) -> Exception:
    kinds = {"NOSCRIPT": NoScriptError, "LOADING": BusyLoadingError}
    return kinds.get(text.split()[0], ResponseError)(text)


@given(replies=st.lists(said, max_size=5), sizes=st.lists(st.integers(1, 30), min_size=1))
def test_replies_are_read_one_after_the_other_however_they_are_cut(
    replies: list[Said], sizes: list[int]
) -> None:
    sock = Pieces(b"".join(map(written, replies)), iter(sizes * 400))
    reader = Replies(sock, error)
    assert [reader.next() for _ in replies] == replies
    assert not sock.data


def test_an_error_is_returned_also_within_a_list_and_the_next_reply_is_read() -> None:
    reader = Replies(Pieces(b"*2\r\n-NOSCRIPT no\r\n:7\r\n+OK\r\n", iter([99] * 9)), error)
    first, second = reader.next()
    assert isinstance(first, NoScriptError)
    assert second == 7
    assert reader.next() == b"OK"


def test_a_server_that_is_not_ready_is_raised_as_one_that_is_not_there() -> None:
    reader = Replies(Pieces(b"-LOADING my data\r\n", iter([99])), error)
    with pytest.raises(redis.ConnectionError):
        reader.next()


@pytest.mark.parametrize("begun", [b"", b"$5\r\nab", b"*2\r\n$1\r\na\r\n"])
def test_a_connection_that_ends_amid_a_reply_is_an_error(begun: bytes) -> None:
    here, there = socket.socketpair()
    with here:
        with there:
            there.sendall(begun)
        with pytest.raises(redis.ConnectionError):
            Replies(here, error).next()

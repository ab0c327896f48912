"""What a server says on a connection that only listens: RESP, versions 2 and 3. Pure."""

from __future__ import annotations

from typing import Any, Final

_END: Final = b"\r\n"
_LINES: Final = b"+:,(#"
_TEXTS: Final = b"$="
_MANY: Final = b"*>~%"


class Refusal(Exception):
    """The server says no, in its own words."""


class _Incomplete(Exception):
    """The rest is on its way."""


class Feed:
    """Takes bytes as they come, and gives what they say as a whole."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[Any]:
        """What is complete now: texts as bytes, lists, None, and errors as `Refusal`.

        Raises:
            ValueError: that is no RESP.
        """
        data = self._data + data
        said: list[Any] = []
        begin = 0
        while begin < len(data):
            try:
                item, begin = _read(data, begin)
            except _Incomplete:  # what is missing comes with the next bytes
                break
            said.append(item)
        self._data = data[begin:]
        return said


def _read(data: bytes, begin: int) -> tuple[Any, int]:
    """What stands there, and where the next one begins."""
    end = data.find(_END, begin)
    if end < 0:
        raise _Incomplete
    kind, head, end = data[begin : begin + 1], data[begin + 1 : end], end + len(_END)
    if kind in _LINES:
        return head, end
    if kind == b"-":
        return Refusal(head.decode(errors="replace")), end
    if kind == b"_" or head == b"-1":
        return None, end
    if kind in _TEXTS:
        return _text(int(head), data, end)
    if kind in _MANY:
        return _several(int(head) * (2 if kind == b"%" else 1), data, end)
    raise ValueError(f"no RESP: {kind + head[:20]!r}")


def _text(length: int, data: bytes, begin: int) -> tuple[bytes, int]:
    end = begin + length
    if len(data) < end + len(_END):
        raise _Incomplete
    return data[begin:end], end + len(_END)


def _several(count: int, data: bytes, begin: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    for _ in range(count):
        item, begin = _read(data, begin)
        items.append(item)
    return items, begin

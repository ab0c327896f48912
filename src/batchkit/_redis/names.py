"""The names of keys in Redis: bounded, and never the same for two limiters. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable
from typing import Final, cast
from urllib.parse import quote, unquote, unquote_to_bytes

_LONGEST: Final = 200  # characters; longer ones are told apart by a hash
_NONE: Final = "=none"
_OWN: Final = re.compile(
    r"=(?:-?(?:\d+(?:\.\d+)?(?:e-\d+)?|inf)|none)?|'?[\w.~%-]+|'", re.ASCII
)  # a part that is no tuple
_QUOTED: Final = {code: quote(chr(code), safe="") for code in range(128)}  # `quote` takes three times as long


def name(prefix: str, key: str, tag: str | None, of: str = "") -> str:
    """The key of a limiter in Redis. Those of one hash tag lie on the same node of a cluster.

    Args:
        prefix: what the names of all keys start with.
        key: what the limiter is called.
        tag: the hash tag, if it is not the key.
        of: which one of a family it is, made by `part`.

    Raises:
        ValueError: an empty key, tag or prefix.
    """
    given: dict[str, object] = {"key": key, "tag": tag, "prefix": prefix}
    for what, text in given.items():
        if text == "" or not isinstance(text, str | None):
            raise ValueError(f"a {what} is a text that is not empty, not {text!r}")
    own = bounded(quote(key, safe="") + (f"/{of}" if of else ""))
    base = f"{quote(prefix, safe='')}:{{{own if tag is None else bounded(quote(tag, safe=''))}}}"
    if tag is not None:
        base += f":{own}"
    return base


def bounded(text: str) -> str:
    """The text, or what stands for it if it is long: no quoted text has a plus."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[:40]}+{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def part(key: Hashable, *, scalars: bool = False) -> str:
    """A key as a text that no other key has.

    Args:
        key: a text, bytes, a whole number, or a tuple of those.
        scalars: whether None, True, False and other numbers are keys, too. What is equal, such as 1, True and
            1.0, is the same key, as in a dict.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(key, str):
        return (key.translate(_QUOTED) if key.isascii() else quote(key, safe="")) or "="
    if isinstance(key, bytes):
        return f"'{quote(key, safe='')}"
    if isinstance(key, int) and (scalars or not isinstance(key, bool)):
        return f"={int(key)}"
    if isinstance(key, tuple):
        items = cast("tuple[Hashable, ...]", key)
        return f"({''.join([f'{part(item, scalars=scalars)},' for item in items])})"
    if scalars:
        return _scalar(key)
    raise TypeError(f"a key in Redis is a str, bytes, int or a tuple of those, not {type(key).__name__}")


def _scalar(key: Hashable) -> str:
    if key is None:
        return _NONE
    if isinstance(key, float) and key == key:
        return f"={int(key)}" if key.is_integer() else f"={float(key)!r}"
    raise TypeError(
        f"a key in Redis is a str, bytes, number, bool, None or a tuple of those, not {_kind(key)}"
    )


def _kind(key: Hashable) -> str:
    return "nan" if isinstance(key, float) else type(key).__name__


def whole(text: str) -> Hashable:
    """The key that `part` made this text of.

    Raises:
        ValueError: it made it of none.
    """
    key, rest = _first(text)
    if rest:
        raise ValueError(f"{text!r} stands for no key")
    return key


def _first(text: str) -> tuple[Hashable, str]:
    """The key at the start of a text, and what follows."""
    if text[:1] == "(":
        items: list[Hashable] = []
        text = text[1:]
        while text[:1] != ")":
            item, rest = _first(text)
            if rest[:1] != ",":
                raise ValueError(f"{text!r} stands for no key")
            items.append(item)
            text = rest[1:]
        return tuple(items), text[1:]
    own = _OWN.match(text)
    if own is None:
        raise ValueError(f"{text!r} stands for no key")
    return _plain(own[0]), text[own.end() :]


def _plain(text: str) -> Hashable:
    if text[0] == "=":
        return _read_scalar(text)
    if text[0] == "'":
        return unquote_to_bytes(text[1:])
    return unquote(text)


def _read_scalar(text: str) -> Hashable:
    if text == "=":
        return ""
    if text == _NONE:
        return None
    try:
        return int(text[1:])
    except ValueError:
        return float(text[1:])

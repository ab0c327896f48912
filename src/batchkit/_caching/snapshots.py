"""What a cache holds, as bytes, and back."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from math import inf
from typing import Any, cast

from attrs import frozen

from batchkit.abc import Codec

_VERSION = 1


@frozen
class Kept:
    """A value as a snapshot has it.

    Attributes:
        key: its key.
        value: the value.
        seconds: for which it holds; may be infinite.
        main: whether it is known to be worth keeping.
        tags: by which it can be dropped.
    """

    key: Hashable
    value: Any
    seconds: float
    main: bool
    tags: tuple[Hashable, ...]


def dump(values: Iterable[Kept], codec: Codec) -> bytes:
    """Values as bytes."""
    # JSON knows no infinity
    rows = [
        [each.key, each.value, None if each.seconds == inf else each.seconds, each.main, list(each.tags)]
        for each in values
    ]
    return codec.encode({"version": _VERSION, "entries": rows})


def parse(data: bytes, codec: Codec) -> list[Kept]:
    """The values that these bytes tell of.

    Raises:
        ValueError: they tell of none.
    """
    document = codec.decode(data)
    if not isinstance(document, dict) or cast("dict[str, Any]", document).get("version") != _VERSION:
        raise ValueError("this is no snapshot of a cache, or one of another version")
    rows = cast("list[Any]", document["entries"])
    return [
        Kept(_as_key(key), value, inf if seconds is None else seconds, main, tuple(map(_as_key, tags)))
        for key, value, seconds, main, tags in rows
    ]


def _as_key(told: Any) -> Hashable:
    """JSON knows no tuples, and a key is no list."""
    return tuple(map(_as_key, cast("list[Any]", told))) if isinstance(told, (list, tuple)) else told

"""How values become bytes, and come back: what keeps them outside of the process takes a codec."""

from __future__ import annotations

import json
from typing import Any, Final

from batchkit.abc import Codec

__all__ = ["JSON", "Codec"]


_DECODE: Final = json.JSONDecoder().decode


class _Json:
    """Text, numbers, true, false, None, and lists and dicts of those; nothing in it can run code when it is
    read. A tuple comes back as a list, and the keys of a dict as texts.
    """

    def encode(self, value: Any, /) -> bytes:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, data: bytes, /) -> Any:
        return _DECODE(data.decode())  # `json.loads` would first find out which encoding it is

    def __repr__(self) -> str:
        return "JSON"


JSON: Final[Codec] = _Json()
"""The codec for whatever JSON can tell."""

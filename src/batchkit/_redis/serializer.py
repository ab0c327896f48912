"""How values become what is written in Redis, and come back."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Hashable
from itertools import count
from typing import Final

from batchkit._events import DecodeFailed, Hook, emit
from batchkit._redis.entries import Entry, tag_text
from batchkit._redis.names import whole
from batchkit._redis.rules import Rules
from batchkit.abc import Codec, TierValue
from batchkit.exceptions import CodecFailed

_LONGEST_LIFE: Final = 10 * 365 * 86_400.0  # seconds


class Serializer:
    """Writes and reads values.

    Args:
        name: of the tier, for errors and events.
        codec: how values become bytes.
        rules: by which values count as dropped.
        hooks: who hears of values that cannot be read.

    Attributes:
        undecodable: how many those were.
    """

    def __init__(self, name: str, codec: Codec, rules: Rules, hooks: tuple[Hook, ...]) -> None:
        self.undecodable = 0
        self._name = name
        self._codec = codec
        self._rules = rules
        self._hooks = hooks
        self._process = secrets.token_hex(6)
        self._serial = count(1)
        self._lock = threading.Lock()

    def mark(self) -> str:
        """What no other process says, nor this one twice."""
        return f"{self._process}.{next(self._serial)}"

    def written(self, key: Hashable, born: int, value: TierValue) -> bytes:
        """A value, as it is to be written.

        Raises:
            CodecFailed: the codec cannot tell it.
            TypeError, ValueError: a tag that is none, or too long.
        """
        tags = tuple(map(tag_text, value.tags))
        data = b"" if value.negative else self._encoded(key, value)
        return Entry(born, self.mark(), value.negative, milliseconds(value.stale), tags, data).text()

    def _encoded(self, key: Hashable, value: TierValue) -> bytes:
        try:
            return self._codec.encode(value.value)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CodecFailed(f"{self._name}: the value of {key!r} cannot be kept ({reason})") from error

    def read(self, key: Hashable, text: bytes, now: int) -> TierValue | None:
        """A value, unless its life is over at this moment, it counts as dropped, or it cannot be read."""
        if not self._rules.position:  # nobody knows what was dropped
            return None
        try:
            entry = Entry.read(text)
            if entry.ends <= now or self._rules.is_dropped(key, entry.tags, entry.born):
                return None
            value = None if entry.negative else self._codec.decode(entry.data)
            tags = tuple(map(whole, entry.tags))
        except Exception as error:
            with self._lock:
                self.undecodable += 1
            emit(self._hooks, DecodeFailed(self._name, key, error))
            return None
        return TierValue(value, (entry.ends - now) / 1000, entry.negative, tags, entry.stale / 1000)


def milliseconds(seconds: float) -> int:
    """Whole ones; what lasts for ever lasts ten years."""
    return round(min(seconds, _LONGEST_LIFE) * 1000)

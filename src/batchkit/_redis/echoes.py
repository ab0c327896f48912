"""What a process will hear of its own changes: the server tells everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

_MOST: Final = 10_000


class Echoes:
    """How the values begin that this process kept, by their names; the oldest ones are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: dict[str, bytes] = {}

    def expect(self, name: str, head: bytes) -> None:
        """A value that begins so is about to be kept."""
        with self._lock:
            self._heads.pop(name, None)
            if len(self._heads) >= _MOST:
                del self._heads[next(iter(self._heads))]
            self._heads[name] = head

    def of(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those of the names whose values may be this process's own, and how these begin."""
        with self._lock:
            return {name: self._heads[name] for name in names if name in self._heads}

    def forget(self, name: str, head: bytes) -> None:
        """It is another value now."""
        with self._lock:
            if self._heads.get(name) == head:
                del self._heads[name]

    def clear(self) -> None:
        """Nobody knows what was heard."""
        with self._lock:
            self._heads.clear()

"""Which key a name in Redis stands for, when a change of it is heard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Final

from batchkit._redis.entries import Names

_MOST: Final = 10_000  # keys whose names do not tell them


class Directory:
    """The names of keys, and the keys of names.

    Args:
        names: how names are made.
        on_forget: called when keys were forgotten, so that changes of theirs will not be understood.
    """

    def __init__(self, names: Names, on_forget: Callable[[], object]) -> None:
        self._names = names
        self._on_forget = on_forget
        self._lock = threading.Lock()
        self._long: dict[str, Hashable] = {}  # by the names that do not tell them

    def pair(self, key: Hashable) -> tuple[str, str]:
        """The names of a value and of the claim to load it."""
        pair = self._names.pair(key)
        if "+" in pair[0] and pair[0] not in self._long:
            self._remember(pair[0], key)
        return pair

    def value(self, key: Hashable) -> str:
        """The name of a value."""
        return self._names.pair(key)[0]

    def keys(self, name: str) -> list[Hashable]:
        """The key of a value's name; none, if nobody here can have asked for it."""
        try:
            return [self._names.key(name)]
        except ValueError:
            with self._lock:
                return [self._long[name]] if name in self._long else []

    def _remember(self, name: str, key: Hashable) -> None:
        with self._lock:
            forget = len(self._long) >= _MOST
            if forget:
                self._long.clear()
            self._long[name] = key
        if forget:
            self._on_forget()

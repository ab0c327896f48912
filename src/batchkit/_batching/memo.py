"""A mapping as a cache: it keeps what it is given for as long as it is kept itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, MutableMapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """What `batchkit.abc.Cache` asks of a cache, on a mapping.

    Attributes:
        values: the mapping.
    """

    def __init__(self, values: MutableMapping[K, V]) -> None:
        self.values = values

    def get_present(self, keys: Iterable[K]) -> dict[K, V]:
        """Those of the keys that are there, with their values."""
        values = self.values
        return {key: values[key] for key in keys if key in values}

    def set(self, key: K, value: V) -> None:
        """Keep a value."""
        self.values[key] = value

    def delete(self, key: K) -> None:
        """Drop a value, if it is there."""
        self.values.pop(key, None)

    def clear(self) -> None:
        """Drop all values."""
        self.values.clear()

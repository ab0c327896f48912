"""What a caller gets for the answers that are there."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto
from typing import Any, Final, Generic, TypeVar, cast

from batchkit._batching.loads import NoValue

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Unset(Enum):
    """No default was given."""

    UNSET = auto()


UNSET: Final = Unset.UNSET


class Answers(Generic[K, V]):
    """Reads answers.

    Args:
        default: the value of keys that the loader does not know, if there is one.
    """

    def __init__(self, default: V | Unset) -> None:
        self._default = default

    def value(self, key: K, answer: Any) -> V:
        """The value of a key.

        Raises:
            KeyError: it has none.
            BaseException: the key's error.
        """
        return self.stand_in(key, answer) if answer.__class__ is NoValue else cast(V, answer)

    def value_or_error(self, key: K, answer: Any) -> V | Exception:
        """The same, with the error as a value."""
        try:
            return self.value(key, answer)
        except Exception as error:
            return error

    def stand_in(self, key: K, answer: NoValue) -> V:
        """What a caller gets in place of a value."""
        answer.check()
        if self._default is UNSET:
            raise KeyError(key)
        return self._default

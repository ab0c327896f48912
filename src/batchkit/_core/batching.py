"""How a failed batch is split; which value belongs to which item; the order of results."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def halves(batch: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Split a failed batch of two or more.

    Splitting each failed part until the bad items stand alone costs at most `1 + 2*k*ceil(log2 n)` calls
    for `k` bad items among `n`: each bad item fails one part on each of the `ceil(log2 n)` levels, and a
    failed part makes two calls.
    """
    middle = (len(batch) + 1) // 2
    return batch[:middle], batch[middle:]


def values_in_order(answer: object, size: int) -> list[Any]:
    """The values of a batch function, one for each item, in the order of the items.

    Raises:
        ValueError: the answer is no sequence of that length.
    """
    if isinstance(answer, Mapping):
        raise ValueError("a batch function returns a sequence with a value for each item, not a mapping")
    values = _listed(answer)
    if len(values) != size:
        raise ValueError(f"a value for each item is wanted: {len(values)} came back for {size} items")
    return values


def values_by_key(answer: object, keys: Sequence[K]) -> dict[K, Any]:
    """The values of a loader by key.

    Args:
        answer: a mapping, which may lack keys, or a sequence in the order of the keys.
        keys: the keys that it was asked for.

    Raises:
        ValueError: the answer is neither, or a sequence of another length.
    """
    if isinstance(answer, Mapping):
        found = cast(Mapping[K, Any], answer)
        return {key: found[key] for key in keys if key in found}
    values = _listed(answer)
    if len(values) != len(keys):
        raise ValueError(f"a value for each key is wanted: {len(values)} came back for {len(keys)} keys")
    return dict(zip(keys, values, strict=True))


def values_of(answer: Any, keys: Sequence[K], missing: object) -> Sequence[Any]:
    """The values of a loader, one for each key, in the order of the keys; see `values_by_key`.

    Args:
        answer: what the loader returned.
        keys: the keys that it was asked for.
        missing: what stands for a value that it left out.
    """
    if answer.__class__ is list and len(answer) == len(keys):
        return answer
    values = values_by_key(answer, keys)
    return [values.get(key, missing) for key in keys]


def _listed(answer: object) -> list[Any]:
    kind = type(answer).__name__
    if isinstance(answer, (str, bytes, Set)) or not isinstance(answer, Iterable):  # a set has no order
        raise ValueError(f"a sequence is wanted, not {kind}")
    return [*answer]


class InOrder(Generic[T]):
    """Puts results back into the order of their items."""

    __slots__ = ("_early", "_next")

    def __init__(self) -> None:
        self._early: dict[int, T] = {}
        self._next = 0

    def put(self, index: int, result: T) -> list[T]:
        """Take a result in; returns those that are next, in order."""
        early = self._early
        if index != self._next:
            early[index] = result
            return []
        ready = [result]
        index += 1
        while index in early:
            ready.append(early.pop(index))
            index += 1
        self._next = index
        return ready

    def rest(self) -> list[T]:
        """Take out those whose predecessors never came, in order."""
        early, self._early = self._early, {}
        return [early[index] for index in sorted(early)]

"""The input of a run: any iterable, or an async one, without end if need be."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Hands out items; after an error of the input it has none left.

    Attributes:
        total: number of items, or None where the input does not tell.
        at_once: whether items come without waiting; otherwise `read` has to be awaited.
        ended: whether the input is at its end.
        error: what the input raised.
        stock: what was read of an async input, and not handed out.
    """

    __slots__ = ("_async", "_items", "at_once", "ended", "error", "stock", "total")

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        self.total = len(items) if isinstance(items, Sized) else None
        self.error: Exception | None = None
        self.ended = False
        self.stock: deque[T] = deque()
        self.at_once = isinstance(items, Iterable)
        self._async: AsyncIterator[T] | None = None
        if isinstance(items, Iterable):
            self._items: Iterator[T] = self._guarded(iter(items))
        else:
            self._items, self._async = iter(()), aiter(items)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return self.ended and not self.stock

    def take(self, size: int) -> list[T]:
        """Up to that many items of those that are at hand."""
        if self.at_once:
            return list(islice(self._items, size))
        return [self.stock.popleft() for _ in range(min(size, len(self.stock)))]

    @property
    def has_some(self) -> bool:
        """Whether items may be at hand."""
        return not self.ended if self.at_once else bool(self.stock)

    def items(self) -> Iterator[T]:
        """The items that are at hand, one by one."""
        return self._items if self.at_once else self._taken()

    def batches(self, size: int) -> Iterator[list[T]]:
        """All that is at hand, in batches of that size; the last one may be smaller."""
        while batch := self.take(size):
            yield batch

    async def read(self) -> list[T]:
        """One item of an async input; none at the end."""
        try:
            return [] if self._async is None else [await anext(self._async)]
        except StopAsyncIteration:
            pass
        except Exception as error:
            self.error = error
        self.ended, self._async = True, None
        return []

    def rest(self, *, all_of_it: bool) -> Iterator[T]:
        """What was read and not handed out; with `all_of_it`, also what was not read of an input that has an
        end.
        """
        yield from self.stock
        if all_of_it and self.total is not None:
            yield from self._items

    def _taken(self) -> Iterator[T]:
        stock = self.stock
        while stock:
            yield stock.popleft()

    def _guarded(self, items: Iterator[T]) -> Iterator[T]:
        try:
            yield from items
        except Exception as error:
            self.error = error
        finally:
            self.ended = True

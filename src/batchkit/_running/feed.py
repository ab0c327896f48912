"""The input of a run: any iterable, or an async one, without end if need be."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Hands out items; after an error of the input it has none left.

    Attributes:
        total: number of items, or None where the input does not tell.
        at_once: whether items come without waiting (`take_now`); otherwise `next` has to be awaited.
        error: what the input raised.
        items: those of an input that is no async one, until its end or its error.
    """

    __slots__ = ("_async", "at_once", "error", "items", "total")

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        self.total = len(items) if isinstance(items, Sized) else None
        self.error: Exception | None = None
        self.at_once = isinstance(items, Iterable)
        self.items: Iterator[T] = self._guarded(iter(items)) if isinstance(items, Iterable) else iter(())
        self._async: AsyncIterator[T] | None = None if isinstance(items, Iterable) else aiter(items)

    def take_now(self, size: int) -> list[T]:
        """Up to that many items; fewer at the end."""
        return list(islice(self.items, size))

    async def next(self) -> list[T]:
        """One item of an async input; none at the end."""
        try:
            return [] if self._async is None else [await anext(self._async)]
        except StopAsyncIteration:
            self._async = None
        except Exception as error:
            self.error, self._async = error, None
        return []

    def rest(self) -> Iterator[T]:
        """What was not read yet of an input that has an end."""
        return iter(()) if self.total is None else self.items

    def _guarded(self, items: Iterator[T]) -> Iterator[T]:
        try:
            yield from items
        except Exception as error:
            self.error = error

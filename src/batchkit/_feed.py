"""The input of a run: any iterable, or an async one, without end if need be."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from itertools import islice
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Feed(Generic[T]):
    """Hands out items; after an error of the input it has none left.

    Attributes:
        total: number of items, or None where the input does not tell.
        at_once: whether items come without waiting (`take_now`); otherwise `take` has to be awaited.
        error: what the input raised.
    """

    __slots__ = ("_ahead", "_async", "_sync", "_turn", "at_once", "error", "total")

    def __init__(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        self.total = len(items) if isinstance(items, Sized) else None
        self.error: Exception | None = None
        self.at_once = isinstance(items, Iterable)
        self._sync: Iterator[T] = iter(items) if isinstance(items, Iterable) else iter(())
        self._async: AsyncIterator[T] | None = None if isinstance(items, Iterable) else aiter(items)
        self._turn = anyio.Lock()
        self._ahead: list[T] = []

    def take_now(self, size: int) -> list[T]:
        """Up to that many items; none at the end. For an input that is no async one."""
        if self._ahead:
            items, self._ahead = self._ahead, []
            return items + self.take_now(size - len(items))
        try:
            return list(islice(self._sync, size))
        except Exception as error:
            self._end(error)
            return []

    async def take(self, size: int) -> list[T]:
        """The same for any input."""
        if self.at_once:
            return self.take_now(size)
        async with self._turn:
            items, self._ahead = self._ahead, []
            try:
                while self._async is not None and len(items) < size:
                    items.append(await anext(self._async))
            except StopAsyncIteration:
                self._async = None
            except Exception as error:
                self._end(error)
            return items

    async def at_end(self) -> bool:
        """Whether there is no further item; waits for one, and keeps it for the next take."""
        if not self._ahead:
            self._ahead = await self.take(1)
        return not self._ahead

    def _end(self, error: Exception) -> None:
        self.error = error
        self._sync = iter(())
        self._async = None

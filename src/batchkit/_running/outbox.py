"""Outcomes on their way to the reader, as they come or in the order of the items."""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

from batchkit._core.batching import InOrder
from batchkit._values import Outcome

T = TypeVar("T")
R = TypeVar("R")


class Outbox(Generic[T, R]):
    """Takes outcomes in, and gives them out.

    Attributes:
        ready: those that may be read.
        delivered: those that were.
    """

    __slots__ = ("_in_order", "delivered", "put", "ready")

    def __init__(self, *, ordered: bool) -> None:
        self.ready: deque[Outcome[T, R]] = deque()
        self.delivered = 0
        self._in_order: InOrder[Outcome[T, R]] | None = InOrder() if ordered else None
        self.put = self._put_in_order if ordered else self.ready.append

    def take(self) -> Outcome[T, R]:
        """The next one that is ready."""
        self.delivered += 1
        return self.ready.popleft()

    def take_all(self) -> list[Outcome[T, R]]:
        """All that are ready, or wait for those before them."""
        rest: list[Any] = [] if self._in_order is None else self._in_order.rest()
        outcomes = [*self.ready, *rest]
        self.ready.clear()
        self.delivered += len(outcomes)
        return outcomes

    def _put_in_order(self, outcome: Outcome[T, R]) -> None:
        assert self._in_order is not None
        self.ready.extend(self._in_order.put(outcome.index, outcome))

"""Those who wait at a desk, and how they are woken: workers, helpers, and readers of outcomes.

A worker that finds nothing to do idles. Whatever happens stirs one of those who idle, which looks at the
desk; whoever finds something stirs the next. One of them, the keeper, has the timer for what is due later.
"""

from __future__ import annotations

from collections import deque

from batchkit._parking import Parker, SyncParker

AnyParker = Parker | SyncParker


class Lobby:
    """Who waits. Like the desk, it takes no lock.

    Attributes:
        idle: workers, the one that waited longest first.
        helpers: those who feed the desk, or keep its journal.
        stockers: who read an async input ahead, and have read enough for now.
        readers: who wait for an outcome.
        last: who wait for the end of the run.
    """

    __slots__ = ("_keeper", "_stirred", "helpers", "idle", "last", "readers", "stockers")

    def __init__(self) -> None:
        self.idle: deque[AnyParker] = deque()
        self.helpers: list[AnyParker] = []
        self.stockers: list[AnyParker] = []
        self.readers: list[AnyParker] = []
        self.last: list[AnyParker] = []
        self._keeper: AnyParker | None = None
        self._stirred = False

    def enter(self, parker: AnyParker) -> bool:
        """A worker idles; returns whether it is the keeper."""
        self.idle.append(parker)
        if self._keeper is not None:
            return False
        self._keeper = parker
        return True

    def leave(self, parker: AnyParker) -> None:
        """It does no more."""
        self.idle.remove(parker)
        self._stirred = False
        if self._keeper is parker:
            self._keeper = None

    def stir(self) -> None:
        """Something happened: one of those who idle looks at the desk, and so do the helpers."""
        if self.idle and not self._stirred:  # or else somebody is about to look
            self._stirred = True
            (self._keeper or self.idle[0]).unpark()
        if self.helpers:
            _wake(self.helpers)

    def stir_helpers(self) -> None:
        """There is something to be read, or to be looked up or kept in the checkpoint."""
        if self.helpers:
            _wake(self.helpers)

    def tell_stockers(self) -> None:
        """There is room for what is read ahead."""
        _wake(self.stockers)

    def tell_readers(self) -> None:
        """There are outcomes."""
        _wake(self.readers)

    def tell_all(self) -> None:
        """It is over."""
        for parkers in ([*self.idle], self.helpers, self.stockers, self.readers, self.last):
            _wake(parkers)


def _wake(parkers: list[AnyParker]) -> None:
    waiting = [*parkers]
    parkers.clear()
    for parker in waiting:
        parker.unpark()

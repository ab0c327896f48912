"""Which process this is. To ask the system for its number at each decision would cost more than the lock."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol


class Forked(Protocol):
    """What has to be told of a fork."""

    def forked(self) -> None:
        """This is the child now: the threads of the parent are not here."""
        ...


class Forks:
    """Counts the forks that lie between this process and the first one that imported this.

    Attributes:
        count: how many.
    """

    __slots__ = ("_told", "count")

    def __init__(self) -> None:
        self.count = 0
        self._told: weakref.WeakSet[Forked] = weakref.WeakSet()
        self.then(self._happened)

    def tell(self, concerned: Forked) -> None:
        """Tell it in each child, as long as it is there."""
        self._told.add(concerned)

    def then(self, call: Callable[[], object]) -> None:
        """Have something called in each child."""
        if hasattr(os, "register_at_fork"):  # there is none where nothing forks
            os.register_at_fork(after_in_child=call)

    def _happened(self) -> None:
        self.count += 1
        for each in list(self._told):
            each.forked()


FORKS = Forks()


class OwnLock:
    """A lock that the child of a fork finds free: whichever thread of the parent had it is not there.

    It is called for the lock, `with lock():`, and is no context manager itself: Ctrl-C could strike within an
    `__enter__` written in Python and leave it locked.
    """

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = FORKS.count

    def __call__(self) -> threading.Lock:
        if self._process != FORKS.count:
            self._lock, self._process = threading.Lock(), FORKS.count
        return self._lock

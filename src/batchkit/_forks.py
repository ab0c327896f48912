"""Which process this is. To ask the system for its number at each decision would cost more than the lock."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from operator import methodcaller
from typing import Final, Protocol

# If a lock is not free by then, the thread that has it stands still, or is the one that forks.
_TAKE: Final = methodcaller("acquire", timeout=60.0)


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

    __slots__ = ("_awaited", "_lock", "_taken", "_told", "count")

    def __init__(self) -> None:
        self.count = 0
        self._told: weakref.WeakSet[Forked] = weakref.WeakSet()
        self._awaited: weakref.WeakSet[OwnLock] = weakref.WeakSet()
        self._begin()
        if hasattr(os, "register_at_fork"):  # there is none where nothing forks
            os.register_at_fork(
                before=self._take, after_in_parent=self._give_back, after_in_child=self._happened
            )

    def tell(self, concerned: Forked) -> None:
        """Tell it in each child, as long as it is there."""
        self._told.add(concerned)

    def then(self, call: Callable[[], object]) -> None:
        """Have something called in each child."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=call)

    def wait_for(self, lock: OwnLock) -> None:
        """Let no thread fork while another one has this lock, as long as it is there.

        It guards what a child could never use any more if a thread of the parent was amid it, such as a
        library in C with locks of its own.
        """
        with self._lock:
            self._awaited.add(lock)

    def _begin(self) -> None:
        self._lock = threading.RLock()  # one fork at a time
        self._taken: list[threading.Lock] = []

    def _take(self) -> None:
        self._lock.acquire()
        # in one step, which Ctrl-C cannot strike between a lock and the note that it is taken
        self._taken.extend(filter(_TAKE, [lock() for lock in self._awaited]))

    def _give_back(self) -> None:
        while self._taken:
            self._taken.pop().release()
        self._lock.release()

    def _happened(self) -> None:
        self.count += 1
        self._begin()
        for each in list(self._told):
            each.forked()


FORKS = Forks()


class OwnLock:
    """A lock that the child of a fork finds free: whichever thread of the parent had it is not there.

    It is called for the lock, `with lock():`, and is no context manager itself: Ctrl-C could strike within an
    `__enter__` written in Python and leave it locked.
    """

    __slots__ = ("__weakref__", "_lock", "_process")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = FORKS.count

    def __call__(self) -> threading.Lock:
        if self._process != FORKS.count:
            self._lock, self._process = threading.Lock(), FORKS.count
        return self._lock

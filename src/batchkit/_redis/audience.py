"""The caches before a tier, which are told what they may keep no longer; also in the child of a fork."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from batchkit._forks import FORKS
from batchkit.abc import Invalidation

_log = logging.getLogger("batchkit")

# Those who hear of changes: in the child of a fork they do not, until they ask Redis for something.
_LISTENING: Final[WeakSet[Audience]] = WeakSet()


class Audience:
    """Those who are told.

    Args:
        name: of the tier, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._callbacks: list[Callable[[Invalidation], object]] = []

    def add(self, callback: Callable[[Invalidation], object]) -> None:
        """One more."""
        self._callbacks.append(callback)

    def tell(self, news: Invalidation) -> None:
        """Tell all of them."""
        for callback in self._callbacks:
            try:
                callback(news)
            except Exception:
                _log.exception("a callback of %s failed", self._name)

    def tell_all(self) -> None:
        """Tell them to keep nothing."""
        self.tell(Invalidation(everything=True))

    def rely(self, listening: bool) -> None:
        """Whether somebody listens for them from now on: a child of this process does not."""
        if listening:
            _LISTENING.add(self)
        else:
            _LISTENING.discard(self)

    def tell_child(self) -> None:
        """This is the child of a fork: what its caches hold is not followed from here on. A thread says so,
        since locks of a cache may be held by a thread that is not there any more.
        """
        threading.Thread(target=self.tell_all, name="batchkit-forked", daemon=True).start()


def _forked() -> None:
    for audience in list(_LISTENING):
        audience.tell_child()
    _LISTENING.clear()


FORKS.then(_forked)

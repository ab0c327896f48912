"""A cache and the tier behind it: each is told what changed by way of the other."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import anyio.to_thread

from batchkit._background import Backstage
from batchkit._caching.shelf import Shelf
from batchkit._forks import FORKS
from batchkit.abc import Invalidation, Tier

K = TypeVar("K", bound=Hashable)

_log = logging.getLogger("batchkit")


class Tiered(Generic[K]):
    """The tier of a cache.

    What the cache changes the tier is told by a thread, in order; or before that by whoever wants something
    of the tier, so that nobody gets from there what was dropped here.

    Attributes:
        tier: the tier.
    """

    def __init__(self, name: str, tier: Tier[K], shelf: Shelf[K]) -> None:
        self.tier = tier
        self._name = name
        self._backstage = Backstage(f"batchkit {name}", threads=1)
        self._changes: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        FORKS.tell(self)
        told = weakref.WeakMethod(shelf.hear)

        def hear(news: Invalidation) -> None:
            if (method := told()) is not None:  # the cache is still there
                method(news)

        tier.on_invalidate(hear)

    def forked(self) -> None:
        """What the parent changed, the parent tells."""
        self._lock = threading.Lock()
        self._changes = deque()

    def tell(self, change: Callable[[], object]) -> None:
        """Have the tier told of a change, soon."""
        self._changes.append(change)
        self._backstage.do(self.settle_sync)

    async def catch_up(self) -> None:
        """Return when the tier was told of all changes.

        Raises:
            Exception: what the tier raised.
        """
        if self._behind:
            await anyio.to_thread.run_sync(self.catch_up_sync)

    def catch_up_sync(self) -> None:
        """The blocking twin of `catch_up`."""
        with self._lock:
            while self._changes:
                self._changes.popleft()()

    async def settle(self) -> None:
        """As `catch_up`, for one who asks for something else: what the tier raised is logged."""
        if self._behind:
            await anyio.to_thread.run_sync(self.settle_sync)

    def settle_sync(self) -> None:
        """The blocking twin of `settle`."""
        while self._behind:
            try:
                self.catch_up_sync()
            except Exception as error:
                _log.warning("%s: the tier could not be told of a change", self._name, exc_info=error)

    @property
    def _behind(self) -> bool:
        """Whether there is something to tell, or somebody is telling it."""
        return bool(self._changes) or self._lock.locked()

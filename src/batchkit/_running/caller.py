"""What a worker tells the function about its call, if that asks."""

from __future__ import annotations

from math import inf
from typing import Any

from batchkit._call import CallInfo, idempotency_key
from batchkit._core.agenda import Batch


class Caller:
    """One worker.

    Args:
        scope: whose keys these are: the executor, and the version of its function.
        run: what tells this run's items from those of another, where they have no keys.

    Attributes:
        batch: what it calls; None where that was on no agenda.
        first, size: the numbers of those items then.
        until: the moment at which the call under way is over; infinite if it may take its time.
        waits: whether it has something to call, and no permits for it yet.
    """

    __slots__ = ("_run", "_scope", "batch", "first", "size", "until", "waits")

    def __init__(self, scope: str, run: str) -> None:
        self._scope = scope
        self._run = run
        self.batch: Batch[Any] | None = None
        self.first = 0
        self.size = 1
        self.until = inf
        self.waits = False

    def tell(self) -> CallInfo:
        """What there is to say about the call under way."""
        keys, until = self._keys(), self.until
        attempt = 1 if self.batch is None else self.batch.tries
        return CallInfo(keys, idempotency_key(self._scope, keys), attempt, None if until == inf else until)

    def _keys(self) -> tuple[str, ...]:
        if self.batch is None:
            return tuple(map(self._numbered, range(self.first, self.first + self.size)))
        jobs = self.batch.jobs
        return tuple(self._numbered(job.index) if job.key is None else str(job.key) for job in jobs)

    def _numbered(self, index: int) -> str:
        return f"{self._run}:{index}"

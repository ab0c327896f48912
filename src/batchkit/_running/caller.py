"""What a worker tells the function about its call, if that asks."""

from __future__ import annotations

from math import inf
from typing import Any

from batchkit._call import CallInfo, idempotency_key
from batchkit._core.agenda import Batch, Job


class Caller:
    """One worker.

    Args:
        scope: whose keys these are: the executor, and the version of its function.
        run: what tells this run's items from those of another, where they have no keys.

    Attributes:
        batch: what it calls.
        index: of the item that it calls, while there is no batch.
    """

    __slots__ = ("_run", "_scope", "batch", "index")

    def __init__(self, scope: str, run: str) -> None:
        self._scope = scope
        self._run = run
        self.batch: Batch[Any] | None = None
        self.index = 0

    @property
    def waits(self) -> bool:
        """Whether it has a batch, and no permits for it yet."""
        return self.batch is not None and not self.batch.calling

    def tell(self) -> CallInfo:
        """What there is to say about the call under way."""
        batch = self.batch
        if batch is None:
            return self._info((self._text(Job(self.index, None)),), 1, inf)
        return self._info(tuple(map(self._text, batch.jobs)), batch.tries, batch.until)

    def _info(self, keys: tuple[str, ...], attempt: int, until: float) -> CallInfo:
        return CallInfo(keys, idempotency_key(self._scope, keys), attempt, None if until == inf else until)

    def _text(self, job: Job[Any]) -> str:
        return f"{self._run}:{job.index}" if job.key is None else str(job.key)

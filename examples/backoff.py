"""The worker with exponential back-off alone, for comparison: `python -m examples.backoff deck`.

It knows no quota: calls go as they come, and those that are refused wait longer and longer before they go
again. That is what most programs do, and what the limiters are measured against.
"""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from batchkit import ConcurrencyLimiter
from batchkit.abc import Limiter
from examples import worker
from examples.services.limits import Limit

AT_ONCE = 10_000  # calls: no limit at all


class NoLimits:
    """Lets every call go at once."""

    def limiter(self, limit: Limit) -> Limiter:
        """The limiter of a service, which limits nothing."""
        return ConcurrencyLimiter(AT_ONCE, name=limit.service)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Work; returns the exit code."""
    return worker.main(arguments, lambda _: NoLimits())


if __name__ == "__main__":
    sys.exit(main())

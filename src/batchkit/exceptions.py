"""Errors by situation. "Not yet" and "never" are different ones, with the numbers and the mend."""

from __future__ import annotations

__all__ = [
    "AcquireTimeout",
    "BatchFailed",
    "BatchkitError",
    "CallCancelled",
    "CostExceedsBurst",
    "InvalidCost",
    "LimiterClosed",
    "LimiterUnavailable",
    "LoadFailed",
]


class BatchkitError(Exception):
    """The parent of all errors of batchkit."""


class AcquireTimeout(BatchkitError, TimeoutError):
    """Not yet: the permits do not come in within the timeout.

    Attributes:
        retry_after: seconds after which the permits could be there if nobody else takes them.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidCost(BatchkitError, ValueError):
    """A cost that is no whole number above zero."""


class CostExceedsBurst(BatchkitError, ValueError):
    """Never: no full bucket holds that many permits."""


class LimiterUnavailable(BatchkitError, ConnectionError):
    """Redis cannot be asked, and the limiter was told to raise then. The cause says why."""


class LimiterClosed(BatchkitError):
    """The limiter was closed."""


class BatchFailed(BatchkitError):
    """A batch function answered wrongly: not one value for each item."""


class CallCancelled(BatchkitError):
    """A call ended by a cancellation that nobody asked the run for: something that it awaited was
    cancelled.
    """


class LoadFailed(BatchkitError):
    """A loader answered wrongly (wrong length, wrong type), or asked for the key that it is loading."""

"""Errors by situation. "Not yet" and "never" are different ones, with the numbers and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

__all__ = [
    "AcquireTimeout",
    "BatchFailed",
    "BatchkitError",
    "CallCancelled",
    "CheckpointError",
    "CheckpointLocked",
    "CircuitOpen",
    "CodecFailed",
    "CostExceedsBurst",
    "FailedEarlier",
    "InvalidCost",
    "LimiterClosed",
    "LimiterUnavailable",
    "LoadFailed",
    "NoCurrentCall",
    "NotStarted",
    "NotStorable",
    "RunFailed",
    "StreamClosed",
    "TierUnavailable",
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


class CircuitOpen(BatchkitError):
    """No call was made: the service failed again and again, and is left alone for a while.

    Attributes:
        retry_after: seconds until it is worth asking again.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CheckpointError(BatchkitError):
    """A checkpoint cannot be used: its file is damaged, another program's or a newer version's, or it cannot
    be written. The message names the file and says what may help; the cause is the database's own error.
    """


class CheckpointLocked(CheckpointError):
    """Another run has the checkpoint, in this process or another.

    Attributes:
        process: the number of the other process, if it is known.
    """

    def __init__(self, message: str, *, process: int | None = None) -> None:
        super().__init__(message)
        self.process = process


class NotStorable(CheckpointError, TypeError):
    """A value that the checkpoint's codec cannot keep. Nothing of what was to be written with it was written.

    Attributes:
        key: of the item whose value it is.
    """

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class FailedEarlier(BatchkitError):
    """An item that failed in an earlier run, says the checkpoint; the message has the type and the words of
    the error. It is called again with `retry_failed=True`.
    """


class NoCurrentCall(BatchkitError, LookupError):
    """`current_call()` was asked where no executor runs."""


class NotStarted(BatchkitError):
    """The run ended before this item was called: no call was made, and nothing was paid for it."""


class StreamClosed(BatchkitError):
    """The run is over, or ends: it takes no further items."""


class RunFailed(BatchkitError, ExceptionGroup[Exception]):
    """A run with `on_error="raise"` was stopped by the first item that failed.

    Attributes:
        exceptions: its error, and those of items that failed while the run was stopped.
        report: what the run did; its outcomes say what became of each item, also which did not start.
    """

    report: Any

    def __new__(cls, message: str, errors: Sequence[Exception], report: object = None) -> Self:
        """A group is made here, since its errors cannot change later."""
        group = super().__new__(cls, message, errors)
        group.report = report
        return group

    def __init__(self, message: str, errors: Sequence[Exception], report: object = None) -> None:
        super().__init__(message, errors)

    def derive(self, errors: Sequence[Exception]) -> RunFailed:  # type: ignore[override]  # of errors only
        """A group of some of the errors, with the same report."""
        return RunFailed(self.message, errors, self.report)


class CodecFailed(BatchkitError, ValueError):
    """A codec cannot tell a value as bytes; the message names the key, and the cause says why."""


class TierUnavailable(BatchkitError, ConnectionError):
    """Redis cannot be asked for what is cached there, and the tier was told to raise then. The cause says
    why.
    """

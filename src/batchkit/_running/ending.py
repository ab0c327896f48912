"""How a run ends: with its input, drained, out of time, or by an error."""

from __future__ import annotations

from math import inf

from batchkit.exceptions import CallCancelled, NotStarted, StreamClosed


class Ending:
    """What is known of the end of a run.

    Args:
        name: the executor's.

    Attributes:
        draining: whether nothing new starts.
        abandoned: whether the reader has left.
        is_over: whether each item has its outcome.
        ends: when the time of the run is over; infinite if it has none.
        cut: when calls under way are not waited for any longer; infinite if they may take their time.
        failures: errors of items that stopped the run.
        failure: what the run itself, or its input, failed with.
    """

    def __init__(self, name: str) -> None:
        self.draining = False
        self.abandoned = False
        self.is_over = False
        self.ends = inf
        self.cut = inf
        self.failures: list[Exception] = []
        self.failure: BaseException | None = None
        self._name = name

    def look_at_clock(self, now: float) -> None:
        """The run is drained when its time is over."""
        if now >= self.ends:
            self.drain(self.ends)

    def drain(self, cut: float = inf) -> None:
        """Nothing new starts, and after that moment nothing is under way."""
        self.draining = True
        self.cut = min(self.cut, cut)

    def fails(self, error: BaseException) -> None:
        """The run cannot go on."""
        self.draining = True
        self.failure = self.failure or error

    def fails_by(self, error: Exception) -> None:
        """An item failed, and the run is to stop then."""
        self.draining = True
        self.failures.append(error)

    @property
    def has_failed(self) -> bool:
        """Whether the run is to be stopped, since an item failed or the run itself did."""
        return bool(self.failures) or self.failure is not None

    @property
    def is_read(self) -> bool:
        """Whether the reader takes the outcomes of what did not start, too."""
        return not self.abandoned and self.failure is None

    def check_open(self) -> None:
        """Refuse items where nobody would call them.

        Raises:
            StreamClosed: the run is over, or ends.
        """
        if self.draining or self.abandoned or self.is_over:
            raise StreamClosed(f"{self._name}: the run is over, or ends: it takes no further items")

    def raise_failure(self) -> None:
        """What the reader is to know after the last outcome.

        Raises:
            BaseException: what the run, or its input, failed with.
        """
        if self.failure is not None:
            raise self.failure

    def not_started(self) -> NotStarted:
        """The error of an item that was not called."""
        return NotStarted(f"{self._name}: the run ended before this item was called")

    def stopped(self) -> Exception:
        """The error of an item whose call was under way."""
        if self.cut == self.ends < inf:
            return TimeoutError(f"{self._name}: the time of the run is over")
        return CallCancelled(f"{self._name}: the run was stopped while this call was under way")

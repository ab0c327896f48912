"""`Reservation`: a place in line without its owner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self


class Reservation:
    """A place in line, taken now and waited at later; a context manager that gives it up if it was not used.

    It takes no permits before its owner goes, so that giving it up needs no refund. When its moment comes
    and nobody waits at it, its permits are kept for a hundredth of a second at most; then others may pass,
    and it is first in line again as soon as its owner comes.

    Attributes:
        cost: permits.
        delay: seconds after which it could go, counted from when it was made, if nobody ahead leaves and no
            higher priority comes.
    """

    __slots__ = ("_cancel", "_wait", "_wait_sync", "cost", "delay")

    def __init__(
        self,
        cost: int,
        delay: float,
        *,
        wait: Callable[[], Awaitable[None]],
        wait_sync: Callable[[], None],
        cancel: Callable[[], None],
    ) -> None:
        self.cost = cost
        self.delay = delay
        self._wait = wait
        self._wait_sync = wait_sync
        self._cancel = cancel

    async def wait(self) -> None:
        """Return when the caller may go.

        Raises:
            CostExceedsBurst: the burst was lowered below its cost meanwhile.
            RuntimeError: it was waited for, or cancelled, before.
        """
        await self._wait()

    def wait_sync(self) -> None:
        """The blocking twin of `wait`, for threads."""
        self._wait_sync()

    def cancel(self) -> None:
        """Give the place up; nothing happens if it was used."""
        self._cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"Reservation(cost={self.cost}, delay={self.delay:.3g})"

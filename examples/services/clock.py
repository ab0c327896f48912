"""What time it is, and how to wait: one object that is passed in, so that tests can drive both."""

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Time and the wait on it; `batchkit.testing.ManualClock` is one."""

    def now(self) -> float:
        """Seconds since any fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait this many seconds."""
        ...


class RealClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float, /) -> None:
        await anyio.sleep(seconds)

"""The clock: what time it is, and how to wait. Nothing else in batchkit reads the time."""

from __future__ import annotations

import time

import anyio

from batchkit import _parking
from batchkit._parking import Parker, SyncParker, ThreadParker
from batchkit.abc import Clock


class MonotonicClock:
    """The clock of the machine: monotonic seconds, real waits."""

    __slots__ = ()

    now = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def sleep_sync(self, seconds: float) -> None:
        time.sleep(seconds)

    def parker(self) -> Parker:
        return _parking.parker(time.monotonic)

    def parker_sync(self) -> SyncParker:
        return ThreadParker(time.monotonic)


def give_way() -> None:
    """Let another thread run, which is about to be done."""
    time.sleep(0)


MONOTONIC: Clock = MonotonicClock()

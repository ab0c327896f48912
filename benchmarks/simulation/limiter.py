"""The client's limiter: batchkit's own bucket behind a line, first come, first served."""

from __future__ import annotations

from collections import deque

from batchkit._core.bucket import Bucket


class SharedLimiter:
    """Workers stand in line by number; `serve` says who goes now, and when to look again."""

    def __init__(self, rate: float, burst: int = 1) -> None:
        self._bucket = Bucket(rate, burst, 0.0)
        self._line: deque[int] = deque()
        self._paused_until = 0.0

    @property
    def rate(self) -> float:
        return self._bucket.rate

    def join(self, worker: int) -> None:
        self._line.append(worker)

    def serve(self, now: float) -> list[int]:
        going: list[int] = []
        while self._line and now >= self._paused_until and self._bucket.take(1, now):
            going.append(self._line.popleft())
        return going

    def next_look(self, now: float) -> float | None:
        return max(self._bucket.due(1, now), self._paused_until) if self._line else None

    def change(self, rate: float, burst: int, now: float) -> None:
        self._bucket.change(rate, burst, now)

    def pause(self, until: float) -> None:
        self._paused_until = max(self._paused_until, until)

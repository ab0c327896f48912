"""The client's limiter: a bucket behind a line, first come, first served."""

from __future__ import annotations

from collections import deque

from batchkit._core.bucket import Bucket


class PlainBucket:
    """What botocore has: a smaller burst takes away what is over it, and nothing is owed. Empty at first.

    batchkit's bucket keeps what is owed when the burst shrinks. Under a controller that moves the burst with
    the rate that would be held against it.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._burst = 1.0
        self._level = 0.0
        self._at = 0.0

    def take(self, cost: int, now: float) -> bool:
        self._refill(now)
        if self._level < cost - 1e-9:
            return False
        self._level -= cost
        return True

    def due(self, cost: int, now: float) -> float:
        self._refill(now)
        return now + max(0.0, cost - self._level) / self.rate

    def change(self, rate: float, burst: int, now: float) -> None:
        self._refill(now)
        self.rate = rate
        self._burst = float(burst)
        self._level = min(self._level, self._burst)

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self.rate)
        self._at = now


class SharedLimiter:
    """Workers stand in line by number; `serve` says who goes now, and when to look again."""

    def __init__(self, rate: float, bucket: PlainBucket | None = None) -> None:
        self._bucket: Bucket | PlainBucket = Bucket(rate, 1, 0.0) if bucket is None else bucket
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

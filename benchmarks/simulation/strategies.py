"""What the workers go by. Each is made anew for a run, and told of every answer."""

from __future__ import annotations

from collections.abc import Callable
from math import floor
from typing import Protocol

from attrs import define

from batchkit._core.controller import AIMD, Controller, Cubic, Sample, Verdict
from benchmarks.simulation.limiter import PlainBucket, SharedLimiter


class Strategy(Protocol):
    @property
    def limiter(self) -> SharedLimiter | None: ...  # None: every call goes at once

    def feed(self, sample: Sample) -> None: ...


@define
class BackOff:
    """No limiter: the retries' own back-off is all there is."""

    limiter: SharedLimiter | None = None

    def feed(self, sample: Sample) -> None: ...


@define
class Fixed:
    """A limiter whose rate somebody wrote into a configuration."""

    limiter: SharedLimiter

    def feed(self, sample: Sample) -> None: ...


@define
class Controlled:
    """A limiter under one of batchkit's controllers."""

    limiter: SharedLimiter
    controller: Controller

    def feed(self, sample: Sample) -> None:
        if (adjustment := self.controller.feed(sample)) is None:
            return
        self.limiter.change(adjustment.rate, 1, sample.now)
        if adjustment.pause:
            self.limiter.pause(sample.now + adjustment.pause)


class ClientSideCubic:
    """What botocore's "adaptive" retries do, by its constants (botocore/retries, version 1.44).

    No limiter until the first refusal. From then on every answer sets the rate: a cubic in permits a second
    around the rate that was *measured* when it was last refused (scale 0.4, cut to 0.7), never above twice
    the measured rate, never below 0.5/s, and with one second's worth as the burst. The measure is a mean of
    half seconds in which the last one counts for 0.8. Every refusal cuts, also that of an old call.
    """

    def __init__(self) -> None:
        self._shared = SharedLimiter(0.5, PlainBucket(0.5))
        self.limiter: SharedLimiter | None = None
        self._ceiling = 0.0
        self._cut_at = 0.0
        self._measured = 0.0
        self._half = 0.0
        self._count = 0

    def feed(self, sample: Sample) -> None:
        measured = self._measure(sample.now)
        if sample.verdict is Verdict.THROTTLED:
            self._ceiling = measured if self.limiter is None else min(measured, self._shared.rate)
            self._cut_at = sample.now
            self.limiter = self._shared
            rate = 0.7 * self._ceiling
        else:
            foot = (self._ceiling * 0.3 / 0.4) ** (1 / 3)
            rate = self._ceiling + 0.4 * (sample.now - self._cut_at - foot) ** 3
        rate = min(rate, 2.0 * measured)
        self._shared.change(max(rate, 0.5), max(1, int(rate)), sample.now)

    def _measure(self, now: float) -> float:
        half = floor(now * 2.0) / 2.0
        self._count += 1
        if half > self._half:
            self._measured = 0.8 * self._count / (half - self._half) + 0.2 * self._measured
            self._count = 0
            self._half = half
        return self._measured


MIN_RATE, MAX_RATE = 0.2, 1000.0
Make = Callable[[float, float], Strategy]  # the rate at the start, and the most; permits/s


def _aimd(rate: float, most: float) -> Strategy:
    return Controlled(SharedLimiter(rate), AIMD(rate, min_rate=MIN_RATE, max_rate=most))


def cubic(rate: float, most: float) -> Strategy:
    return Controlled(SharedLimiter(rate), Cubic(rate, min_rate=MIN_RATE, max_rate=most))


STRATEGIES: dict[str, Make] = {
    "back-off": lambda rate, most: BackOff(),
    "fixed": lambda rate, most: Fixed(SharedLimiter(rate)),
    "AIMD": _aimd,
    "botocore-like": lambda rate, most: ClientSideCubic(),
    "batchkit": cubic,
}

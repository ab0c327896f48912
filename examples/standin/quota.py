"""A quota, counted as a strict server counts it: a token bucket in fractions, with no tolerance at all.

It is full at the start, holds at most `burst` permits and gains `rate` of them a second. A call that finds
its cost in it is admitted and takes it out; any other is refused and changes nothing. So in every window of
T seconds at most rate*T + burst permits are admitted, and nothing is refused that would have kept to that.
A call that comes a nanosecond early is refused: clients that want no refusal leave headroom for jitter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from examples.standin.clock import exact

NOTHING = Fraction(0)


@dataclass(frozen=True, slots=True)
class Quota:
    """What may be used: `rate` permits a service second, `burst` permits at once."""

    rate: Fraction
    burst: int

    @classmethod
    def of(cls, rate: float, burst: int) -> "Quota":
        return cls(exact(rate), burst)


class Bucket:
    """What is left of a quota; a function of the `now` that it is given, in service seconds."""

    def __init__(self, quota: Quota, now: Fraction = NOTHING) -> None:
        self.quota = quota
        self._level = Fraction(quota.burst)
        self._at = now

    def level(self, now: Fraction) -> Fraction:
        """Permits left at `now`."""
        return min(Fraction(self.quota.burst), self._level + self.quota.rate * (now - self._at))

    def wait(self, now: Fraction, cost: int = 1) -> Fraction:
        """Seconds from `now` until `cost` permits are there; 0 if they are there already."""
        return max(NOTHING, (cost - self.level(now)) / self.quota.rate)

    def full_in(self, now: Fraction) -> Fraction:
        """Seconds from `now` until the bucket is full, if nobody calls."""
        return self.wait(now, self.quota.burst)

    def charge(self, now: Fraction, cost: int = 1) -> None:
        """Take `cost` permits out; only after `wait` said 0."""
        self._level, self._at = self.level(now) - cost, now

    def change(self, now: Fraction, quota: Quota) -> None:
        """Go on with another quota. What is left stays, cut to the new burst; a raise fills at the rate."""
        self._level, self._at = min(self.level(now), Fraction(quota.burst)), now
        self.quota = quota


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was refused: which bucket was short, and for how many service seconds it will be."""

    limit: str
    burst: int
    left: Fraction
    cost: int
    wait: Fraction

    @classmethod
    def by(cls, limit: str, bucket: Bucket, now: Fraction, cost: int) -> "Refusal":
        return cls(limit, bucket.quota.burst, bucket.level(now), cost, bucket.wait(now, cost))


def admit(buckets: Mapping[str, Bucket], costs: Mapping[str, int], now: Fraction) -> Refusal | None:
    """Charge all buckets, or none of them and say which one makes the call wait longest."""
    refusals = [Refusal.by(name, buckets[name], now, cost) for name, cost in costs.items()]
    longest = max(refusals, key=lambda refusal: refusal.wait)
    if longest.wait > 0:
        return longest
    for name, cost in costs.items():
        buckets[name].charge(now, cost)
    return None

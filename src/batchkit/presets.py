"""Quotas of well-known services, as values.

A quota says what the *server* allows. A client at exactly that quota is refused now and then: the network
delays one call more than the next, so that calls arrive closer together than they were sent, and a server
that counts exactly sees up to `rate * jitter` calls more in a window. `Quota.bucket` therefore makes a
client's bucket with a burst that much lower: it costs those permits once, and no throughput.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Final

from attrs import evolve, field, frozen

from batchkit._clock import MONOTONIC
from batchkit._events import Hook
from batchkit._limiters import TokenBucket, checked_burst, checked_rate, checked_seconds
from batchkit.abc import Clock

__all__ = ["AZURE_TTS", "FAL", "OPENAI", "Quota"]


@frozen
class Quota:
    """What a service allows.

    Attributes:
        rate: permits a second.
        burst: permits at once.

    Raises:
        ValueError: a rate or a burst that is none.
    """

    rate: float = field(validator=lambda _quota, _field, rate: checked_rate(rate))
    burst: int = field(validator=lambda _quota, _field, burst: checked_burst(burst))

    def scaled(self, factor: float) -> Quota:
        """The quota of a service whose time runs that many times faster."""
        return evolve(self, rate=self.rate * factor)

    def bucket(
        self,
        *,
        jitter: float = 0.05,
        name: str = "limiter",
        hooks: Iterable[Hook] = (),
        clock: Clock = MONOTONIC,
    ) -> TokenBucket:
        """A limiter that keeps a client within the quota.

        Args:
            jitter: seconds by which the delays of two calls on their way to the server differ at most.
            name: what it is called in events and errors.
            hooks: called with each event.
            clock: for tests, `batchkit.testing.ManualClock`.

        Raises:
            ValueError: the jitter is no number of seconds.
        """
        headroom = ceil(self.rate * checked_seconds("jitter", jitter))
        return TokenBucket(self.rate, max(1, self.burst - headroom), name=name, hooks=hooks, clock=clock)


OPENAI: Final = Quota(rate=2, burst=5)
FAL: Final = Quota(rate=1, burst=3)
AZURE_TTS: Final = Quota(rate=5, burst=10)

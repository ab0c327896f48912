"""Quotas of well-known services, as values, and how to write one's own.

A quota says what the *server* allows. A client at exactly that quota is refused now and then: the network
delays one call more than the next, so that calls arrive closer together than they were sent, and a server
that counts exactly sees up to `rate * jitter` calls more in a window. `Quota.bucket` therefore makes a
client's bucket with a burst that much lower: it costs those permits once, and no throughput.

What a server allows is often published by usage tier, with several limits at once. A `Tier` holds them, and
makes one limiter of them.

Example:
    ```python
    gold = Tier(
        "acme:gold",
        requests=Quota.per_minute(600),
        tokens=Quota.per_minute(90_000, burst=8000),  # 8000 is the largest call
        calls=5,
    )
    limiter = gold.limiter()
    async with limiter.permit(tokens=1200) as permit:  # one request and one call at once, if not named
        reply = await call()
        permit.settle(tokens=reply.usage.total_tokens)
    ```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from types import MappingProxyType
from typing import Final

from attrs import evolve, field, frozen
from attrs.validators import instance_of, optional

from batchkit._clock import MONOTONIC
from batchkit._concurrency import ConcurrencyLimiter
from batchkit._events import Hook
from batchkit._groups import AllOf, all_of
from batchkit._limiters import TokenBucket
from batchkit._numbers import checked_burst, checked_rate, checked_seconds
from batchkit.abc import Clock

__all__ = [
    "AZURE_SPEECH",
    "AZURE_TTS",
    "FAL",
    "FAL_ACCOUNT",
    "OPENAI",
    "OPENAI_GPT_5_MINI",
    "Quota",
    "Tier",
]


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

    @classmethod
    def within(cls, limit: int, *, per: float, burst: int | None = None) -> Quota:
        """The quota of a service that allows `limit` permits in `per` seconds, however it counts them.

        No window of `per` seconds sees more than `limit`: that is right for a server that counts a sliding
        window, and for one that counts from each full minute on. A server with a token bucket of the rate
        `limit / per` is not used up, by the share that the burst has of the limit.

        Some servers spread the limit over shorter times, say 600 a minute as 10 a second. So the burst is a
        second's worth, and at most a tenth of the limit, if none is given. The smallest burst, 1, is the
        safest. A larger one is needed if a call costs more than that; it is paid for by a lower rate,
        `(limit - burst) / per`.

        Args:
            limit: permits.
            per: seconds.
            burst: permits at once, below the limit.

        Raises:
            ValueError: no rate is left, or a number is none.
        """
        bucket = TokenBucket.within(limit, per=per, burst=1 if burst is None else burst)
        if burst is None:
            return cls.within(limit, per=per, burst=max(1, int(min(limit / per, limit / 10))))
        return cls(bucket.rate, bucket.burst)

    @classmethod
    def per_minute(cls, limit: int, *, burst: int | None = None) -> Quota:
        """The quota of a service that allows `limit` permits in a minute; see `within`."""
        return cls.within(limit, per=60, burst=burst)

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


def _check_calls(_tier: object, _field: object, calls: int | None) -> None:
    if calls is not None:
        checked_burst(calls, "calls at once")


@frozen
class Tier:
    """What a service allows to accounts of one kind: several limits at once.

    Attributes:
        name: what it is called in events and errors.
        requests: calls over time.
        tokens: tokens over time, those of the question and of the answer.
        calls: calls under way at once.

    Raises:
        ValueError: nothing is limited, or a number of calls that is none.
        TypeError: a name that is no text, or a quota that is none.
    """

    name: str = field(validator=instance_of(str))
    requests: Quota | None = field(default=None, validator=optional(instance_of(Quota)), kw_only=True)
    tokens: Quota | None = field(default=None, validator=optional(instance_of(Quota)), kw_only=True)
    calls: int | None = field(default=None, validator=_check_calls, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.requests is None and self.tokens is None and self.calls is None:
            raise ValueError(f"the tier {self.name} limits nothing: give it requests, tokens or calls")

    def limiter(self, *, jitter: float = 0.05, hooks: Iterable[Hook] = (), clock: Clock = MONOTONIC) -> AllOf:
        """One limiter that keeps a client within all limits of the tier, `all_of` those that it has:
        requests, tokens and calls.

        A cost that is not named is 1. Where only one quota is there, its `bucket` is the plain limiter.

        Args:
            jitter: seconds by which the delays of two calls on their way to the server differ at most.
            hooks: called with each event.
            clock: for tests, `batchkit.testing.ManualClock`.

        Raises:
            ValueError: the jitter is no number of seconds.
        """
        hooks = tuple(hooks)
        quotas = {"requests": self.requests, "tokens": self.tokens}
        limiters: dict[str, TokenBucket | ConcurrencyLimiter] = {
            what: quota.bucket(jitter=jitter, name=f"{self.name}:{what}", hooks=hooks, clock=clock)
            for what, quota in quotas.items()
            if quota is not None
        }
        if self.calls is not None:
            limiters["calls"] = ConcurrencyLimiter(
                self.calls, name=f"{self.name}:calls", hooks=hooks, clock=clock
            )
        return all_of(**limiters)


OPENAI: Final = Quota(rate=2, burst=5)
FAL: Final = Quota(rate=1, burst=3)
AZURE_TTS: Final = Quota(rate=5, burst=10)


# What the services publish. Such figures change, and an account may have others: look yours up.

_LONG_CALL: Final = 20_000  # tokens


def _openai(tier: int, requests: int, tokens: int) -> Tier:
    return Tier(
        f"openai:gpt-5-mini:tier-{tier}",
        requests=Quota.per_minute(requests),
        # a second's worth, but enough for a long call
        tokens=Quota.per_minute(tokens, burst=max(tokens // 60, _LONG_CALL)),
    )


# By usage tier, in requests and tokens a minute: https://developers.openai.com/api/docs/models/gpt-5-mini, in
# 2026; gpt-6-luna had the same table on 2026-10-05. A minute may be enforced second by second:
# https://help.openai.com/en/articles/5955604. A call counts with the most tokens that it may answer with:
# acquire those, and settle. `attrs.evolve(tier, tokens=...)` is a tier with another burst, for larger calls.
# Limits by the day and for batches are not in here.
OPENAI_GPT_5_MINI: Final[Mapping[int, Tier]] = MappingProxyType(
    {
        1: _openai(1, 500, 500_000),
        2: _openai(2, 5000, 2_000_000),
        3: _openai(3, 5000, 4_000_000),
        4: _openai(4, 10_000, 10_000_000),
        5: _openai(5, 30_000, 180_000_000),
    }
)

# By pricing tier. Real-time text to speech, for each resource: 20 transactions in 60 s, and 200 a second
# unless raised. https://learn.microsoft.com/azure/ai-services/speech-service/speech-services-quotas-and-limits,
# 2026-01-30.
AZURE_SPEECH: Final[Mapping[str, Tier]] = MappingProxyType(
    {
        "F0": Tier("azure-speech:F0", requests=Quota.within(20, per=60)),
        "S0": Tier("azure-speech:S0", requests=Quota.within(200, per=1)),
    }
)

# Calls at once: 2 for a new account, and up to 40 for one that has bought credits. fal lets calls beyond that
# wait in its own queue; here they wait in yours, where you say which goes first. https://docs.fal.ai/faq,
# 2026-11.
FAL_ACCOUNT: Final[Mapping[str, Tier]] = MappingProxyType(
    {"new": Tier("fal:new", calls=2), "full": Tier("fal:full", calls=40)}
)

"""What tests of a tier need: tiers that are closed when a test is over, and what their caches were told."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import anyio

from batchkit import RedisTier
from batchkit._redis.scripts import Command
from batchkit.abc import Invalidation, TierValue
from tests.helpers import DEADLINE, eventually

Words: TypeAlias = RedisTier[Any]


class Make:
    """Makes tiers of the same prefix, each as if it were another process."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, target: object, prefix: str = "words", **options: Any) -> Words:
        tier: Words = RedisTier(target, prefix, **options)
        self._stack.callback(tier.close)
        return tier


class Told:
    """What a cache before a tier was told, once it listens."""

    def __init__(self, tier: Words) -> None:
        self.news: list[Invalidation] = []
        tier.on_invalidate(self.news.append)
        tier.get_many_sync(["nothing"])
        eventually(self.everything)
        self.news.clear()

    def everything(self) -> bool:
        """Whether it was told to keep nothing."""
        return any(news.everything for news in self.news)

    def was_told_of(self, key: Any) -> bool:
        """Whether it was told of a key."""
        return key in self.changed

    @property
    def changed(self) -> set[Any]:
        """The keys that it was told of."""
        return {key for news in self.news for key in news.keys}


def value(value: Any = 1, ttl: float = 60.0, *tags: Hashable) -> TierValue:
    """A value that holds for a minute."""
    return TierValue(value, ttl, tags=tags)


def values(tier: Words, *keys: Any) -> dict[Any, Any]:
    """What a tier has for keys."""
    return {key: found.value for key, found in tier.get_many_sync(keys).items()}


@contextmanager
def exchanges(tier: Words) -> Iterator[list[Sequence[Command]]]:
    """The round trips that a tier takes, each with its commands."""
    seen: list[Sequence[Command]] = []
    link: Any = tier._link
    exchange = link.exchange

    def note(commands: Sequence[Command], timeout: float) -> Any:
        seen.append(commands)
        return exchange(commands, timeout)

    link.exchange = note
    yield seen
    link.exchange = exchange


def load_through(
    tier: Words, keys: Sequence[Any], load: Callable[[list[Any]], dict[Any, Any]]
) -> dict[Any, Any]:
    """What a cache does: find, or load and keep, or wait for another one who loads."""
    got: dict[Any, Any] = {}
    pending = list(keys)
    while pending:
        claim = tier.claim_sync(pending)
        try:
            got |= {key: found.value for key, found in claim.found.items()}
            if claim.mine:
                loaded = load(list(claim.mine))
                claim.keep_sync({key: value(loaded[key]) for key in claim.mine})
                got |= loaded
            pending = list(claim.others)
            claim.wait_sync()
        finally:
            claim.release()
    return got


def in_colour(colour: str, work: Callable[[], Any]) -> Any:
    """Run an async function on asyncio or trio."""
    return anyio.run(work, backend=colour)


__all__ = ["DEADLINE", "Make", "Told", "Words", "exchanges", "in_colour", "load_through", "value", "values"]

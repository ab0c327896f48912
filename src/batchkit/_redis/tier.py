"""`RedisTier`: what the caches of several processes share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

import anyio.to_thread

from batchkit._events import Hook
from batchkit._forks import FORKS, OwnLock
from batchkit._numbers import checked_seconds
from batchkit._redis.audience import Audience
from batchkit._redis.claims import TierClaim
from batchkit._redis.entries import Names
from batchkit._redis.link import link_to
from batchkit._redis.member import Member, Settings
from batchkit._values import TierStatistics
from batchkit.abc import Codec, Invalidation, Prefix, TierValue
from batchkit.codecs import JSON

K = TypeVar("K", bound=Hashable)


class RedisTier(Generic[K]):
    """Keeps values for all processes that share a Redis (or Valkey) and a prefix, behind the `TTLCache` that
    each of them has.

    May be made before any event loop runs, and shared by threads and event loops. It connects when it is
    first used.

    Args:
        url_or_client: a URL of Redis, or a blocking client of redis-py (a `redis.Redis`, one made by
            `Sentinel.master_for`, or a `redis.cluster.RedisCluster`).
        prefix: what the names of all its keys start with. Two tiers of the same prefix are the same.
        codec: how values become bytes, and come back.
        on_unavailable: what happens while Redis cannot be asked: "local": nothing is found there, each
            process loads what it needs on its own, and what is dropped meanwhile is told when Redis is back;
            or "raise" `TierUnavailable`.
        timeout: seconds within which Redis has to answer.
        lease: seconds after which others may load what a process that died was about to load. While a process
            lives it renews its claims, however long a load takes.
        name: what it is called in events; by default the prefix.
        hooks: called with each event: `Unavailable`, `Reconnected`, `DecodeFailed`.

    Raises:
        ValueError: a number that is none, an empty prefix, no URL of Redis.
        TypeError: neither a URL nor a blocking client.

    Example:
        ```python
        tier = RedisTier("redis://localhost", "dictionary")
        words = TTLCache(maxsize=10_000, ttl=300, tier=tier)
        ```
    """

    def __init__(
        self,
        url_or_client: object,
        prefix: str,
        *,
        codec: Codec = JSON,
        on_unavailable: str = "local",
        timeout: float = 1.0,
        lease: float = 10.0,
        name: str | None = None,
        hooks: Iterable[Hook] = (),
    ) -> None:
        if not checked_seconds("timeout", timeout):
            raise ValueError("timeout is a number of seconds above 0")
        if checked_seconds("lease", lease) <= timeout:
            raise ValueError(f"a lease of {lease:g} s is not longer than the timeout of {timeout:g} s")
        self.name = prefix if name is None else name
        self._settings = Settings(
            self.name, Names.of(prefix), codec, on_unavailable, timeout, lease, tuple(hooks)
        )
        self._link = link_to(url_or_client)
        self._audience = Audience(self.name)
        self._lock = OwnLock()
        self._process = FORKS.count
        self._member: Member[K] = Member(self._settings, self._link, self._audience)

    # what a cache asks

    async def get_many(self, keys: Iterable[K]) -> dict[K, TierValue]:
        """What is there for these keys, in their order; one round trip.

        Raises:
            TypeError: a key that is no text, bytes, number, bool, None, or tuple of those.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        member = self._ready()
        return await member.carrier.run(member.talks.get(list(dict.fromkeys(keys))))

    def get_many_sync(self, keys: Iterable[K]) -> dict[K, TierValue]:
        """The blocking twin of `get_many`."""
        member = self._ready()
        return member.carrier.run_sync(member.talks.get(list(dict.fromkeys(keys))))

    async def set_many(self, values: Mapping[K, TierValue]) -> None:
        """Keep values, whatever was there; what another process loads for these keys just now is not kept.

        Raises:
            CodecFailed: the codec cannot tell a value as bytes. Nothing is kept.
            TypeError: a key or a tag that is no text, bytes, number, bool, None, or tuple of those.
            ValueError: a tag that is too long.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        member = self._ready()
        await member.carrier.run(member.talks.store(dict(values)))

    def set_many_sync(self, values: Mapping[K, TierValue]) -> None:
        """The blocking twin of `set_many`."""
        member = self._ready()
        member.carrier.run_sync(member.talks.store(dict(values)))

    async def delete(self, keys: Iterable[K]) -> None:
        """Drop the values of these keys, also those that are being loaded.

        Raises:
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        member = self._ready()
        await member.carrier.run(member.talks.drop(keys))

    def delete_sync(self, keys: Iterable[K]) -> None:
        """The blocking twin of `delete`."""
        member = self._ready()
        member.carrier.run_sync(member.talks.drop(keys))

    async def delete_tag(self, tag: Hashable) -> None:
        """Drop all values that have this tag.

        Raises:
            TypeError: it is no text, bytes, number, bool, None, or tuple of those.
            ValueError: it is too long.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        member = self._ready()
        await member.carrier.run(member.talks.drop_tag(tag))

    def delete_tag_sync(self, tag: Hashable) -> None:
        """The blocking twin of `delete_tag`."""
        member = self._ready()
        member.carrier.run_sync(member.talks.drop_tag(tag))

    async def delete_prefix(self, prefix: Prefix) -> None:
        """Drop the values of all keys that are texts, or tuples, and start with this one; of all keys
        whatever if it is an empty text.

        Raises:
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        member = self._ready()
        await member.carrier.run(member.talks.drop_prefix(prefix))

    def delete_prefix_sync(self, prefix: Prefix) -> None:
        """The blocking twin of `delete_prefix`."""
        member = self._ready()
        member.carrier.run_sync(member.talks.drop_prefix(prefix))

    async def claim(self, keys: Iterable[K], *, ahead: float = 0.0) -> TierClaim[K]:
        """Ask for values, and to load those that are not there, in one round trip.

        Args:
            keys: the keys.
            ahead: seconds: what holds for no longer counts as not there.

        Raises:
            TypeError: a key that is no text, bytes, number, bool, None, or tuple of those.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        member = self._ready()
        claim = TierClaim(self, member.serializer.mark())
        return await member.carrier.run(member.talks.claim(claim, list(dict.fromkeys(keys)), ahead))

    def claim_sync(self, keys: Iterable[K], *, ahead: float = 0.0) -> TierClaim[K]:
        """The blocking twin of `claim`."""
        member = self._ready()
        claim = TierClaim(self, member.serializer.mark())
        return member.carrier.run_sync(member.talks.claim(claim, list(dict.fromkeys(keys)), ahead))

    def on_invalidate(self, callback: Callable[[Invalidation], object]) -> None:
        """Have a callback told what must be kept no longer. It is called by a thread of the tier, or by
        whoever asks it something just then, and should be quick.
        """
        self._audience.add(callback)

    def statistics(self) -> TierStatistics:
        """What this process did so far with it."""
        return self._member.statistics()

    def close(self) -> None:
        """Hang up. Whoever asks it something afterwards connects again."""
        self._here().close()

    async def aclose(self) -> None:
        """The async twin of `close`."""
        await anyio.to_thread.run_sync(self.close)

    def __repr__(self) -> str:
        return f"RedisTier({self.name!r})"

    # for claims

    @property
    def listens(self) -> bool:
        """Whether it hears of all changes."""
        return self._member.listens

    async def keep(self, claim: TierClaim[K], values: Mapping[K, TierValue]) -> set[K]:
        """Keep what was loaded under a claim; returns what was dropped meanwhile."""
        member = self._ready()
        return await member.carrier.run(member.talks.keep(claim, dict(values)))

    def keep_sync(self, claim: TierClaim[K], values: Mapping[K, TierValue]) -> set[K]:
        """The blocking twin of `keep`."""
        member = self._ready()
        return member.carrier.run_sync(member.talks.keep(claim, dict(values)))

    def release(self, claim: TierClaim[K]) -> None:
        """Give up what is left of a claim."""
        member = self._here()
        member.carrier.post(member.talks.give_up(claim))

    # this process

    def _ready(self) -> Member[K]:
        """The member of this process, who listens."""
        member = self._here()
        member.listen()
        return member

    def _here(self) -> Member[K]:
        """The member of this process: in the child of a fork it is another one."""
        if self._process != FORKS.count:
            with self._lock():
                if self._process != FORKS.count:
                    self._member = Member(self._settings, self._link, self._audience)
                    self._process = FORKS.count
        return self._member

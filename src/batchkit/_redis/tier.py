"""`RedisTier`: what the caches of several processes share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast
from weakref import WeakSet, ref

import anyio.to_thread

from batchkit._events import Hook
from batchkit._forks import FORKS
from batchkit._numbers import checked_seconds
from batchkit._redis.claims import TierClaim
from batchkit._redis.entries import CLAIM, Names
from batchkit._redis.link import Command, link_to
from batchkit._redis.listener import Listener
from batchkit._redis.messenger import Messenger
from batchkit._redis.presence import Presence, Trip
from batchkit._redis.talks import Talk, Talks
from batchkit._values import TierStatistics
from batchkit.abc import Codec, Invalidation, Prefix, TierValue
from batchkit.codecs import JSON
from batchkit.exceptions import TierUnavailable

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_log = logging.getLogger("batchkit")

_RENEWALS: Final = 3  # within a lease

# Those who hear of changes: in the child of a fork they do not, until they ask Redis for something.
_LISTENING: Final[WeakSet[RedisTier[Any]]] = WeakSet()


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
        self._names = Names.of(prefix)
        self._codec = codec
        self._timeout = timeout
        self._lease = lease
        self._hooks = tuple(hooks)
        self._link = link_to(url_or_client)
        self._messenger = Messenger(self._link, timeout)
        self._presence = Presence(self.name, on_unavailable, self._hooks, self._link.place)
        self._callbacks: list[Callable[[Invalidation], object]] = []
        self._listener: Listener | None = None
        self._renewed = 0.0
        self._talks: Talks[K]
        self._start_anew()

    # what a cache asks

    async def get_many(self, keys: Iterable[K]) -> dict[K, TierValue]:
        """What is there for these keys, in their order; one round trip.

        Raises:
            TypeError: a key that is no text, bytes, whole number, or tuple of those.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        return await self._run(self._talks.get(list(dict.fromkeys(keys))))

    def get_many_sync(self, keys: Iterable[K]) -> dict[K, TierValue]:
        """The blocking twin of `get_many`."""
        return self._run_sync(self._talks.get(list(dict.fromkeys(keys))))

    async def set_many(self, values: Mapping[K, TierValue]) -> None:
        """Keep values, whatever was there; what another process loads for these keys just now is not kept.

        Raises:
            CodecFailed: the codec cannot tell a value as bytes. Nothing is kept.
            TypeError: a key or a tag that is no text, bytes, whole number, or tuple of those.
            ValueError: a tag that is too long.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        await self._run(self._talks.store(dict(values)))

    def set_many_sync(self, values: Mapping[K, TierValue]) -> None:
        """The blocking twin of `set_many`."""
        self._run_sync(self._talks.store(dict(values)))

    async def delete(self, keys: Iterable[K]) -> None:
        """Drop the values of these keys, also those that are being loaded.

        Raises:
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        await self._run(self._talks.drop(keys))

    def delete_sync(self, keys: Iterable[K]) -> None:
        """The blocking twin of `delete`."""
        self._run_sync(self._talks.drop(keys))

    async def delete_tag(self, tag: Hashable) -> None:
        """Drop all values that have this tag.

        Raises:
            TypeError: it is no text, bytes, whole number, or tuple of those.
            ValueError: it is too long.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        await self._run(self._talks.drop_tag(tag))

    def delete_tag_sync(self, tag: Hashable) -> None:
        """The blocking twin of `delete_tag`."""
        self._run_sync(self._talks.drop_tag(tag))

    async def delete_prefix(self, prefix: Prefix) -> None:
        """Drop the values of all keys that are texts, or tuples, and start with this one; of all keys
        whatever if it is an empty text.

        Raises:
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        await self._run(self._talks.drop_prefix(prefix))

    def delete_prefix_sync(self, prefix: Prefix) -> None:
        """The blocking twin of `delete_prefix`."""
        self._run_sync(self._talks.drop_prefix(prefix))

    async def claim(self, keys: Iterable[K], *, ahead: float = 0.0) -> TierClaim[K]:
        """Ask for values, and to load those that are not there, in one round trip.

        Args:
            keys: the keys.
            ahead: seconds: what holds for no longer counts as not there.

        Raises:
            TypeError: a key that is no text, bytes, whole number, or tuple of those.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        return await self._run(self._claim(keys, ahead))

    def claim_sync(self, keys: Iterable[K], *, ahead: float = 0.0) -> TierClaim[K]:
        """The blocking twin of `claim`."""
        return self._run_sync(self._claim(keys, ahead))

    def on_invalidate(self, callback: Callable[[Invalidation], object]) -> None:
        """Have a callback told what must be kept no longer. It is called by a thread of the tier, or by
        whoever asks it something just then, and should be quick.
        """
        self._callbacks.append(callback)

    def statistics(self) -> TierStatistics:
        """What this process did so far with it."""
        listener, talks = self._listener, self._talks
        return TierStatistics(
            hits=talks.hits,
            misses=talks.misses,
            kept=talks.kept,
            dropped=talks.dropped,
            alone=self._presence.alone,
            undecodable=talks.undecodable,
            rules=len(talks.rules),
            listening="" if listener is None else min(listener.ways),
            unavailable=self._presence.unavailable,
        )

    def close(self) -> None:
        """Hang up. Whoever asks it something afterwards connects again."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self._messenger.close()
        _LISTENING.discard(self)

    async def aclose(self) -> None:
        """The async twin of `close`."""
        await anyio.to_thread.run_sync(self.close)

    def __repr__(self) -> str:
        return f"RedisTier({self.name!r})"

    # for claims

    @property
    def listens(self) -> bool:
        """Whether it hears of all changes."""
        listener = self._listener
        return listener is not None and "" not in listener.ways

    async def keep(self, claim: TierClaim[K], values: Mapping[K, TierValue]) -> set[K]:
        """Keep what was loaded under a claim; returns what was dropped meanwhile."""
        return await self._run(self._talks.keep(claim, dict(values)))

    def keep_sync(self, claim: TierClaim[K], values: Mapping[K, TierValue]) -> set[K]:
        """The blocking twin of `keep`."""
        return self._run_sync(self._talks.keep(claim, dict(values)))

    def release(self, claim: TierClaim[K]) -> None:
        """Give up what is left of a claim."""
        if commands := self._presence.reachable(self._talks.give_up(claim)):
            self._messenger.post(commands)

    # for the listener

    def heard(self, names: list[str] | None) -> None:
        """These keys were changed in Redis; None: it is not known which."""
        talks = self._talks
        if names is None:
            talks.echoes.clear()
            talks.waiting.hear(None)
            self._tell(Invalidation(everything=True))
            return
        talks.waiting.hear([name.removesuffix(CLAIM) for name in names])
        if self._names.rules in names:
            self._run_now(talks.look())
        values = self._run_now(talks.foreign([name for name in names if not name.endswith(CLAIM)]))
        if keys := [key for name in values for key in talks.directory.keys(name)]:
            self._tell(Invalidation(keys=tuple(keys)))

    def there(self, place: str) -> None:
        """A server answers."""
        self._presence.there(place)

    def tick(self, now: float) -> None:
        """Say that this process lives, and what is owed."""
        commands: list[Command] = []
        if now >= self._renewed + self._lease / _RENEWALS:
            self._renewed = now
            commands = self._talks.renewals()
        if commands or self._presence.owes:
            trip = self._presence.begin(commands)
            self._presence.end(trip, self._messenger.ask_sync(trip.asked))

    # how it is asked

    def _claim(self, keys: Iterable[K], ahead: float) -> Talk[TierClaim[K]]:
        claim = TierClaim(self, self._talks.token())
        return self._talks.claim(claim, list(dict.fromkeys(keys)), ahead)

    async def _run(self, talk: Talk[T]) -> T:
        self._get_ready()
        try:
            commands = next(talk)
            while True:
                trip = self._presence.begin(commands)
                answers = await self._messenger.ask(trip.asked) if trip.asked else []
                commands = talk.send(self._end(trip, answers))
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            talk.close()

    def _run_sync(self, talk: Talk[T]) -> T:
        self._get_ready()
        return self._run_now(talk)

    def _run_now(self, talk: Talk[T]) -> T:
        try:
            commands = next(talk)
            while True:
                trip = self._presence.begin(commands)
                answers = self._messenger.ask_sync(trip.asked) if trip.asked else []
                commands = talk.send(self._end(trip, answers))
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            talk.close()

    def _get_ready(self) -> None:
        if self._process != FORKS.count:
            self._start_anew()
        if self._listener is None:
            self._listen()

    def _end(self, trip: Trip, answers: Sequence[Any]) -> list[Any]:
        lost = self._presence.end(trip, answers)
        listener = self._listener
        if listener is not None:
            for place in lost:
                listener.doubt(place)
        error = next((reply for reply in trip.replies if isinstance(reply, Exception)), None)
        if error is not None and self._presence.policy == "raise":
            reason = f"{type(error).__name__}: {error}"
            raise TierUnavailable(f"{self.name} cannot ask Redis ({reason})") from error
        return trip.replies

    def _tell(self, news: Invalidation) -> None:
        for callback in self._callbacks:
            try:
                callback(news)
            except Exception:
                _log.exception("a callback of %r failed", self)

    def _listen(self) -> None:
        with self._lock:
            if self._listener is None:
                self._listener = Listener(
                    self._link, self._names, self._timeout, self._lease / _RENEWALS / 2, ref(self)
                )
                self._listener.start()
                _LISTENING.add(self)

    def _start_anew(self) -> None:
        self._process = FORKS.count
        self._lock = threading.Lock()
        self._listener = None
        self._renewed = 0.0
        self._presence.start_anew()
        self._talks = Talks(
            self.name,
            self._names,
            codec=self._codec,
            lease=self._lease,
            presence=self._presence,
            hooks=self._hooks,
            tell=self._tell,
        )

    def tell_child(self) -> None:
        """This is the child of a fork: what its caches hold is not followed from here on. A thread says so,
        since locks of a cache may be held by a thread that is not there any more.
        """
        news = Invalidation(everything=True)
        threading.Thread(target=self._tell, args=(news,), name="batchkit-forked", daemon=True).start()


def _forked() -> None:
    for tier in list(_LISTENING):
        tier.tell_child()
    _LISTENING.clear()


FORKS.then(_forked)

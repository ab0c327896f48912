"""What one process has of a tier: what it knows and owes, its connections, and who listens for it."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final, Generic, TypeVar
from weakref import ref

from attrs import frozen

from batchkit._events import Hook
from batchkit._redis.audience import Audience
from batchkit._redis.bulletin import Bulletin
from batchkit._redis.carrier import Carrier
from batchkit._redis.directory import Directory
from batchkit._redis.entries import CLAIM, Names
from batchkit._redis.link import Link
from batchkit._redis.listener import Listener
from batchkit._redis.messenger import Messenger
from batchkit._redis.presence import Presence
from batchkit._redis.serializer import Serializer
from batchkit._redis.talks import Talks
from batchkit._values import TierStatistics
from batchkit.abc import Codec, Invalidation

K = TypeVar("K", bound=Hashable)

_RENEWALS: Final = 3  # within a lease


@frozen
class Settings:
    """What a tier was told, as `RedisTier` says."""

    name: str
    names: Names
    codec: Codec
    on_unavailable: str
    timeout: float
    lease: float
    hooks: tuple[Hook, ...]


class Member(Generic[K]):
    """One process.

    Args:
        settings: of the tier.
        link: the way to Redis, which no other process uses from now on.
        audience: who is told what changes.

    Attributes:
        talks: what it says to Redis.
        carrier: who carries that.
        serializer: writes and reads values.
    """

    def __init__(self, settings: Settings, link: Link, audience: Audience) -> None:
        link.forget()
        names = settings.names
        self._settings = settings
        self._link = link
        self._audience = audience
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._renewed = 0.0
        self._messenger = Messenger(link, settings.timeout)
        self._presence = Presence(settings.name, settings.on_unavailable, settings.hooks, link.place)
        self._bulletin = Bulletin(names, audience.tell)
        self._directory = Directory(names, audience.tell_all)
        self.serializer = Serializer(settings.name, settings.codec, self._bulletin.rules, settings.hooks)
        self.talks: Talks[K] = Talks(
            names,
            self._bulletin,
            self.serializer,
            self._directory,
            self._presence,
            lease=settings.lease,
            together=link.together,
        )
        self.carrier = Carrier(settings.name, self._messenger, self._presence, self._doubt)

    @property
    def listens(self) -> bool:
        """Whether it hears of all changes."""
        listener = self._listener
        return listener is not None and "" not in listener.ways

    def listen(self) -> None:
        """Hear of changes from now on, if it does not yet."""
        if self._listener is not None:
            return
        with self._lock:
            if self._listener is None:
                pause = self._settings.lease / _RENEWALS / 2
                self._listener = Listener(
                    self._link, self._settings.names, self._settings.timeout, pause, ref(self)
                )
                self._listener.start()
                self._audience.rely(True)

    def close(self) -> None:
        """Hang up; listen and ask again when need be."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self._messenger.close()
        self._audience.rely(False)

    def statistics(self) -> TierStatistics:
        """What it did so far."""
        listener, talks = self._listener, self.talks
        return TierStatistics(
            hits=talks.hits,
            misses=talks.misses,
            kept=talks.kept,
            dropped=talks.dropped,
            alone=self._presence.alone,
            undecodable=self.serializer.undecodable,
            rules=len(self._bulletin.rules),
            listening="" if listener is None else min(listener.ways),
            unavailable=self._presence.unavailable,
        )

    def _doubt(self, place: str) -> None:
        if (listener := self._listener) is not None:
            listener.doubt(place)

    # for the listener

    def heard(self, names: list[str] | None) -> None:
        """These keys were changed in Redis; None: it is not known which."""
        talks = self.talks
        if names is None:
            talks.echoes.clear()
            talks.waiting.hear(None)
            self._audience.tell_all()
            return
        talks.waiting.hear([name.removesuffix(CLAIM) for name in names])
        if self._settings.names.rules in names:
            self.carrier.run_sync(self._bulletin.look())
        values = [name for name in names if not name.endswith(CLAIM)]
        changed = self.carrier.run_sync(talks.foreign(values))
        if keys := [key for name in changed for key in self._directory.keys(name)]:
            self._audience.tell(Invalidation(keys=tuple(keys)))

    def there(self, place: str) -> None:
        """A server answers."""
        self._presence.there(place)

    def tick(self, now: float) -> None:
        """Say that this process lives, and what is owed."""
        renew = now >= self._renewed + self._settings.lease / _RENEWALS
        if renew:
            self._renewed = now
        self.carrier.say(self.talks.renewals() if renew else [])

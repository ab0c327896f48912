"""Claims to load what is missing, and how one waits for what another process loads."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping
from math import inf
from random import SystemRandom
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from batchkit._clock import MONOTONIC
from batchkit._forks import FORKS
from batchkit._parking import Parker, SyncParker
from batchkit.abc import TierValue

if TYPE_CHECKING:
    from batchkit._redis.tier import RedisTier

K = TypeVar("K", bound=Hashable)

_SPREAD: Final = 0.05  # seconds over which those who wait for a lease look again
_LOOK: Final = 0.25  # seconds after which somebody looks again who does not hear of changes


class TierClaim(Generic[K]):
    """What a process may load; see `batchkit.abc.Claim`.

    Args:
        tier: which tier.
        token: by which Redis knows it.

    Attributes:
        found: what is there.
        mine: the keys that this process is to load.
        others: the keys that another process is loading.
        held: the keys of which Redis may know that they are claimed.
        born: for each of those, the last moment of a rule that was known of before its load began.
        until: the moment at which somebody else's claim has lapsed, unless it is renewed.
    """

    def __init__(self, tier: RedisTier[K], token: str) -> None:
        self.found: dict[K, TierValue] = {}
        self.mine: list[K] = []
        self.others: list[K] = []
        self.token = token
        self.held: set[K] = set()
        self.born: dict[K, int] = {}
        self.until = inf
        self._tier = tier
        self._process = FORKS.count
        self._news = False
        self._parker: Parker | SyncParker | None = None

    async def keep(self, values: Mapping[K, TierValue]) -> set[K]:
        """Keep values for all processes.

        Raises:
            CodecFailed: the codec cannot tell a value as bytes. Nothing is kept.
            TierUnavailable: Redis cannot be asked, and that was to be told.
        """
        return await self._tier.keep(self, values)

    def keep_sync(self, values: Mapping[K, TierValue]) -> set[K]:
        """The blocking twin of `keep`."""
        return self._tier.keep_sync(self, values)

    def release(self) -> None:
        """Give up the claim to all keys that were not kept."""
        if self._process == FORKS.count:  # or it is that of the parent
            self._tier.release(self)

    async def wait(self) -> None:
        """Return when there is news of one of the `others`."""
        if not self.others:
            return
        parker = MONOTONIC.parker()
        self._parker, until = parker, self._next_look()
        while not self._news and MONOTONIC.now() < until:
            await parker.park(until)

    def wait_sync(self) -> None:
        """The blocking twin of `wait`."""
        if not self.others:
            return
        parker = MONOTONIC.parker_sync()
        self._parker, until = parker, self._next_look()
        while not self._news and MONOTONIC.now() < until:
            parker.park_sync(until)

    def hear(self) -> None:
        """There is news."""
        self._news = True
        if (parker := self._parker) is not None:
            parker.unpark()

    def _next_look(self) -> float:
        until = self.until + SystemRandom().uniform(0, _SPREAD)
        return until if self._tier.listens else min(until, MONOTONIC.now() + _LOOK)

    def __repr__(self) -> str:
        return f"<claim: {len(self.found)} found, {len(self.mine)} mine, {len(self.others)} of others>"


class Waiting(Generic[K]):
    """Who waits for what other processes load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[str, set[TierClaim[K]]] = {}

    def add(self, claim: TierClaim[K], names: Iterable[str]) -> None:
        """Somebody waits for the keys of these names."""
        with self._lock:
            for name in names:
                self._claims.setdefault(name, set()).add(claim)

    def remove(self, claim: TierClaim[K], names: Iterable[str]) -> None:
        """Somebody waits no more."""
        with self._lock:
            for name in names:
                claims = self._claims.get(name, set())
                claims.discard(claim)
                if not claims:
                    self._claims.pop(name, None)

    def hear(self, names: Iterable[str] | None) -> None:
        """There is news of the keys of these names, or of all."""
        with self._lock:
            heard = list(self._claims) if names is None else [name for name in names if name in self._claims]
            claims = {claim for name in heard for claim in self._claims[name]}
        for claim in claims:
            claim.hear()

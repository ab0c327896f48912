"""The protocols that the parts of batchkit know each other by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from attrs import frozen

from batchkit._core.controller import Sample, SharedController
from batchkit._events import Event, Hook
from batchkit._parking import Parker, SyncParker
from batchkit._values import Decision, Entry

__all__ = [
    "Adjustable",
    "Cache",
    "Checkpoint",
    "Claim",
    "Clearable",
    "Clock",
    "Codec",
    "Event",
    "Hook",
    "Invalidation",
    "Limiter",
    "Parker",
    "Permit",
    "Shared",
    "SyncParker",
    "Tier",
    "TierValue",
]

K = TypeVar("K")
V = TypeVar("V")

Prefix: TypeAlias = str | tuple[Hashable, ...]


class Clock(Protocol):
    """What time it is, and how to wait. `batchkit.testing.ManualClock` is the one for tests."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait in a task."""
        ...

    def sleep_sync(self, seconds: float) -> None:
        """Wait in a thread."""
        ...

    def parker(self) -> Parker:
        """What a task waits with when others may wake it."""
        ...

    def parker_sync(self) -> SyncParker:
        """What a thread waits with when others may wake it."""
        ...


class Permit(AbstractAsyncContextManager["Permit"], AbstractContextManager["Permit"], Protocol):
    """Permission for one call, held by `async with` or `with`."""

    cost: Any

    def settle(self, actual: Any, /) -> None:
        """Say what the call really cost, in permits: the difference is charged or given back."""
        ...

    def hear(self, answer: object) -> None:
        """Say how the call ended: an answer with its status code and headers, a status code, or an error."""
        ...


@runtime_checkable
class Limiter(Protocol):
    """Lets callers go, each at its time. A cost is a whole number of permits; a group of limiters takes a
    mapping, too.
    """

    async def acquire(self, cost: Any = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go."""
        ...

    def acquire_sync(self, cost: Any = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go; blocks the thread."""
        ...

    def try_acquire(self, cost: Any = 1) -> Decision:
        """Go now, or not at all."""
        ...

    def permit(self, cost: Any = 1, *, priority: int = 0, timeout: float | None = None) -> Permit:
        """The same as a context manager, for calls whose true cost is known afterwards."""
        ...


class Adjustable(Limiter, Protocol):
    """A limiter whose rate can be changed in use, such as a `TokenBucket`; for an `AdaptiveLimiter`."""

    @property
    def rate(self) -> float:
        """Permits a second."""
        ...

    @property
    def clock(self) -> Clock:
        """What it goes by."""
        ...

    def change(self, *, rate: float, reason: str) -> None:
        """Go on at another rate."""
        ...

    def pause_for(self, seconds: float, *, reason: str) -> None:
        """Let nobody go for so long."""
        ...

    def drain(self, remaining: int) -> None:
        """Lose the permits that are there but for so many."""
        ...

    def charge(self, permits: int) -> None:
        """Count `permits` more as taken, or, below zero, give some back."""
        ...

    def statistics(self) -> Any:
        """What it did so far."""
        ...


@runtime_checkable
class Shared(Protocol):
    """A limiter of a whole fleet, whose rate a controller decides on for all processes."""

    def share(self, controller: SharedController) -> None:
        """Have the fleet's rate follow a controller."""
        ...

    def report(self, sample: Sample) -> None:
        """Tell the controller what became of a call."""
        ...


class Cache(Protocol[K, V]):
    """Keeps values by key for a time."""

    def get_present(self, keys: Iterable[K]) -> dict[K, V]:
        """Those of the keys that are there, with their values."""
        ...

    def set(self, key: K, value: V) -> None:
        """Keep a value."""
        ...


class Watch(Protocol):
    """Keeps what is loaded, but nothing that may be old by then."""

    def keep(self, key: Any, value: Any, /) -> bool:
        """Keep the value of a watched key, unless something else was said about it since the watch began: it
        was set, dropped, by whatever means, or the cache was cleared.

        Returns:
            Whether it was kept.
        """
        ...


@runtime_checkable
class Watchable(Protocol):
    """A `Cache` that can be watched. One that cannot may be left with a value that was dropped while it was
    loaded: it is set when the load ends.
    """

    def watch(self, keys: Iterable[Any], /) -> Watch:
        """Watch keys that are about to be loaded, until the watch is let go."""
        ...


class Checkpoint(Protocol):
    """Remembers what became of items, so that a later run goes on where this one ended.

    It is used from one thread at a time, and may block it.

    Attributes:
        version: of the function, as the user counts it. What another version left is not found.
    """

    version: str

    def open(self, name: str) -> None:
        """Begin to work for the executor of that name.

        Raises:
            CheckpointLocked: another run has it.
            CheckpointError: it cannot be used.
        """
        ...

    def find(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """What is known about these items; those that are to be called are not among them."""
        ...

    def write(self, entries: Sequence[Entry]) -> None:
        """Keep all of these or, where it raises, none. When it returns they outlive the process.

        Raises:
            NotStorable: a value cannot be kept.
            CheckpointError: nothing can be written.
        """
        ...

    def close(self) -> None:
        """End the work; may be called again."""
        ...


class Codec(Protocol):
    """Turns values into bytes, and back."""

    def encode(self, value: Any, /) -> bytes:
        """The value as bytes.

        Raises:
            Exception: it cannot be told as bytes.
        """
        ...

    def decode(self, data: bytes, /) -> Any:
        """The value that these bytes tell of.

        Raises:
            Exception: they tell of none.
        """
        ...


@frozen
class TierValue:
    """What a tier keeps for a key.

    Attributes:
        value: the value; None where there is none.
        ttl: seconds for which it holds from now on: a cache before the tier keeps it no longer.
        negative: whether it says that the key has no value.
        tags: by which it can be dropped.
        stale: seconds beyond for which a cache before the tier may use it while it is loaded anew; so long
            the cache is not told that its time is over.
    """

    value: Any
    ttl: float
    negative: bool = False
    tags: tuple[Hashable, ...] = ()
    stale: float = 0.0


@frozen
class Invalidation:
    """What a cache before a tier may keep no longer: it was changed or dropped, by whomever.

    Whatever was asked for before it came must not be kept after it either.

    Attributes:
        keys: these.
        tags: whatever has one of these.
        prefixes: whatever is a text, or a tuple, that starts with one of these.
        everything: all there is, since it is not known what was missed.
    """

    keys: tuple[Hashable, ...] = ()
    tags: tuple[Hashable, ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    everything: bool = False


class Claim(Protocol[K]):
    """Who loads what is missing: of all processes that claim a key at the same time one gets it.

    The usual way is: load what is `mine`, and `keep` it; then, if there are `others`, `wait`, and claim these
    anew; and `release` whatever happened.
    """

    @property
    def found(self) -> Mapping[K, TierValue]:
        """What is there meanwhile."""
        ...

    @property
    def mine(self) -> Sequence[K]:
        """The keys that this process is to load now. It has them until it keeps or releases them, or dies."""
        ...

    @property
    def others(self) -> Sequence[K]:
        """The keys that another process is loading."""
        ...

    async def keep(self, values: Mapping[K, TierValue]) -> set[K]:
        """Keep values of keys that are `mine`, for all processes, and give up the claim to all of them.

        Returns:
            Those that somebody dropped while they were loaded. They are not kept, and should be kept
            nowhere else.
        """
        ...

    def keep_sync(self, values: Mapping[K, TierValue]) -> set[K]:
        """The blocking twin of `keep`."""
        ...

    def release(self) -> None:
        """Give up the claim, so that others may load the keys that were not kept. Neither waits nor raises;
        may be called again.
        """
        ...

    async def wait(self) -> None:
        """Return when there is news of one of the `others`: it is there, or somebody else may load it."""
        ...

    def wait_sync(self) -> None:
        """The blocking twin of `wait`."""
        ...


class Tier(Protocol[K]):
    """Keeps values for several processes, behind the caches that each of them has.

    What is kept under a key that was dropped while its value was loaded counts as dropped.
    """

    async def get_many(self, keys: Iterable[K]) -> dict[K, TierValue]:
        """What is there for these keys, in their order."""
        ...

    def get_many_sync(self, keys: Iterable[K]) -> dict[K, TierValue]:
        """The blocking twin of `get_many`."""
        ...

    async def set_many(self, values: Mapping[K, TierValue]) -> None:
        """Keep values, each for its `ttl`, whatever was there."""
        ...

    def set_many_sync(self, values: Mapping[K, TierValue]) -> None:
        """The blocking twin of `set_many`."""
        ...

    async def delete(self, keys: Iterable[K]) -> None:
        """Drop the values of these keys, also those that are being loaded."""
        ...

    def delete_sync(self, keys: Iterable[K]) -> None:
        """The blocking twin of `delete`."""
        ...

    async def delete_tag(self, tag: Hashable) -> None:
        """Drop all values that have this tag."""
        ...

    def delete_tag_sync(self, tag: Hashable) -> None:
        """The blocking twin of `delete_tag`."""
        ...

    async def delete_prefix(self, prefix: Prefix) -> None:
        """Drop the values of all keys that are texts, or tuples, and start with this one; of all keys
        whatever if it is an empty text.
        """
        ...

    def delete_prefix_sync(self, prefix: Prefix) -> None:
        """The blocking twin of `delete_prefix`."""
        ...

    async def claim(self, keys: Iterable[K], *, ahead: float = 0.0) -> Claim[K]:
        """Ask for values, and to load those that are not there, in one go.

        Args:
            keys: the keys.
            ahead: seconds: what holds for no longer counts as not there, so that it can be loaded ahead of
                its end.
        """
        ...

    def claim_sync(self, keys: Iterable[K], *, ahead: float = 0.0) -> Claim[K]:
        """The blocking twin of `claim`."""
        ...

    def on_invalidate(self, callback: Callable[[Invalidation], object]) -> None:
        """Have a callback told what must be kept no longer, soon after each change; with `everything`
        whenever changes may have been missed, such as when a connection was lost and when it is there again.
        It may be told of what this process itself dropped. It is called by a thread of the tier, or by
        whoever asks it something just then, and should be quick.
        """
        ...


@runtime_checkable
class Clearable(Protocol):
    """A cache that can be told to forget."""

    def delete(self, key: Any, /) -> object:
        """Drop a value, if it is there."""
        ...

    def clear(self) -> object:
        """Drop all values."""
        ...


LoadMany = Callable[[list[K]], Awaitable[Mapping[K, Any] | Iterable[Any]]]

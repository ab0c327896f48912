"""Limiters by key, such as one for each account, in memory that follows what is in use.

A store that is full and not paused, and of the size that a new one has, says nothing that a new one would
not say. So it is forgotten, once nobody holds its limiter: exactly nothing is lost by that. The stores of
limiters that nobody holds are kept alone, without line and lock, and each search looks at the two that were
not looked at for longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar
from weakref import ref

from batchkit._core.store import Store
from batchkit._forks import FORKS

if TYPE_CHECKING:
    from batchkit._gate import Gate


class _Keyed(Protocol):
    @property
    def gate(self) -> Gate[Any]: ...


L = TypeVar("L", bound=_Keyed)
S = TypeVar("S", bound=Store)

_LOOKS: Final = 2


class Family(Generic[S, L]):
    """The limiters of one kind, by key. Changed under the lock of the limiter that it belongs to.

    Args:
        new: makes a full store for a key; for None, one to compare others with.
        around: makes a limiter around a store.
    """

    __slots__ = ("_around", "_held", "_new", "_process", "_stores")

    def __init__(self, new: Callable[[float, Hashable], S], around: Callable[[S], L]) -> None:
        self._new = new
        self._around = around
        self._stores: OrderedDict[Hashable, S] = OrderedDict()
        # no WeakValueDictionary: it changes as limiters are collected, also while another thread walks it
        self._held: dict[Hashable, ref[L]] = {}  # some of limiters that are gone
        self._process = FORKS.count

    def __len__(self) -> int:
        return len(self._stores)

    def held(self, key: Hashable) -> L | None:
        """The limiter of a key, if somebody holds it; safe without the lock."""
        limiter = self._held.get(key)
        return None if limiter is None else limiter()

    def members(self) -> list[L]:
        """The limiters that somebody holds."""
        held = (self.held(key) for key in self._stores)
        return [limiter for limiter in held if limiter is not None]

    def find(self, now: float, key: Hashable) -> L:
        """The limiter of a key."""
        self._settle_in_a_fork()
        self._forget(now)
        limiter = self.held(key)
        if limiter is None:
            store = self._stores.get(key)
            if store is None:
                store = self._stores[key] = self._new(now, key)
            limiter = self._around(store)
            self._held[key] = ref(limiter)
        return limiter

    def change(self, now: float, rate: float, burst: int) -> list[L]:
        """Change the stores that nobody holds, and return the limiters that are to be changed."""
        self._settle_in_a_fork()
        held: list[L] = []
        for key, store in self._stores.items():
            limiter = self.held(key)
            if limiter is None:
                store.change(rate, burst, now)
            else:
                held.append(limiter)
        return held

    def _forget(self, now: float) -> None:
        like = self._new(now, None)
        for _ in range(min(_LOOKS, len(self._stores))):
            key = next(iter(self._stores))
            if self.held(key) is not None:
                self._stores.move_to_end(key)
                continue
            self._held.pop(key, None)
            if self._stores[key].adds_to(like, now):
                self._stores.move_to_end(key)
            else:
                del self._stores[key]

    def _settle_in_a_fork(self) -> None:
        """Tell the stores of a fork: a limiter tells its own when it is used next, if ever, so that those
        whose limiters may be dropped before are told now.
        """
        if FORKS.count == self._process:
            return
        for key, store in self._stores.items():
            limiter = self.held(key)
            if limiter is None:
                store.fork()
            else:
                limiter.gate.settle()
        self._process = FORKS.count

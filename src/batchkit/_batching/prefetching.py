"""Loads that nobody waits for: their values will be in the cache when somebody asks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define

from batchkit._background import run_apart
from batchkit._events import Hook, PrefetchFailed, emit

K = TypeVar("K", bound=Hashable)

_log = logging.getLogger("batchkit")


class Prefetching(Generic[K]):
    """The prefetches of one batcher.

    Args:
        most: keys under way at most.
        name: the batcher's.
        hooks: told of errors.
    """

    def __init__(self, most: int, name: str, hooks: tuple[Hook, ...]) -> None:
        self._most = most
        self._name = name
        self._hooks = hooks
        self._under_way: set[_Prefetch] = set()

    def begin(
        self,
        keys: Sequence[K],
        load_many: Callable[[list[K]], Awaitable[Mapping[K, Any]]],
        load_many_sync: Callable[[list[K]], Mapping[K, Any]],
    ) -> int:
        """Begin to load keys, as many as may be under way; returns how many.

        Args:
            keys: the keys.
            load_many: loads them in a task; errors stand as values.
            load_many_sync: its blocking twin, for a thread.
        """
        room = self._most - sum([prefetch.keys for prefetch in list(self._under_way)])
        begun = list(keys[: max(0, room)])
        if begun:
            prefetch = _Prefetch(len(begun))
            self._under_way.add(prefetch)
            prefetch.work = run_apart(
                partial(self._load, begun, load_many),
                partial(self._load_sync, begun, load_many_sync),
                partial(self._under_way.discard, prefetch),
            )
        return len(begun)

    async def _load(self, keys: list[K], load_many: Callable[[list[K]], Awaitable[Mapping[K, Any]]]) -> None:
        try:
            self._tell_failed(await load_many(keys))
        except Exception as error:
            self._tell_failed(dict.fromkeys(keys, error))

    def _load_sync(self, keys: list[K], load_many_sync: Callable[[list[K]], Mapping[K, Any]]) -> None:
        """The blocking twin of `_load`."""
        try:
            self._tell_failed(load_many_sync(keys))
        except Exception as error:
            self._tell_failed(dict.fromkeys(keys, error))

    def _tell_failed(self, answers: Mapping[K, Any]) -> None:
        failed = {key: answer for key, answer in answers.items() if isinstance(answer, Exception)}
        for key, error in failed.items():
            emit(self._hooks, PrefetchFailed(self._name, key, error))
        if failed and not self._hooks:
            kinds = ", ".join(sorted({type(error).__name__ for error in failed.values()}))
            _log.warning("%s: %d keys could not be prefetched: %s", self._name, len(failed), kinds)


@define(eq=False)
class _Prefetch:
    """Keys that are being prefetched.

    Attributes:
        keys: how many.
        work: the task, or the thread.
    """

    keys: int
    work: object = None

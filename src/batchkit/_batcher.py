"""`Batcher`: load one key, many become one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import Any, Generic, Literal, TypeVar, cast, overload

import anyio.to_thread

from batchkit._batching.answers import UNSET, Answers, Unset
from batchkit._batching.calls import Rules
from batchkit._batching.keys import Keys
from batchkit._batching.loading import Loading
from batchkit._batching.loads import LOST, NoValue
from batchkit._batching.memo import Memo
from batchkit._batching.prefetching import Prefetching
from batchkit._batching.waiters import AsyncFuture, Order, is_guest
from batchkit._clock import MONOTONIC
from batchkit._core.gathering import Gathering
from batchkit._dispatch import Cost, Dispatch, is_async
from batchkit._events import Hook
from batchkit._numbers import checked_seconds
from batchkit.abc import Cache, Clearable, Clock, Limiter, LoadMany
from batchkit.retries import Retry

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LoadManySync = Callable[[list[K]], Mapping[K, Any] | Iterable[Any]]


class Batcher(Generic[K, V]):
    """Gathers the keys that callers ask for at about the same time into one call of `load_many`.

    A key that is on its way already is not asked for again. A caller that is cancelled harms nobody, and a
    call that nobody waits for any more is stopped, unless it runs in a thread. May be shared by event loops
    and threads: all of them gather together.

    A batch leaves when it is full, or when no call is under way and the tasks that are ready have had their
    turn; otherwise when no key came for a quarter of `max_wait`, and `max_wait` after its first key at the
    latest; but never while `max_in_flight` calls are under way.

    Args:
        load_many: gets a list of distinct keys; returns a mapping, or a sequence with a value for each
            key. A key that it does not know is left out of a mapping; an exception as a value is that
            key's error. It is async, or a plain function: that one runs in a thread.
        max_batch_size: keys in one call at most.
        max_wait: seconds that a key waits for others to join it, while calls are under way.
        max_in_flight: calls under way at most. Meanwhile keys gather, so that load makes the calls larger.
        cache: keeps the values: a `TTLCache`, or a dictionary, which keeps them for as long as you keep it.
            Without one, each is forgotten when its callers have it.
        default: the value of keys that `load_many` leaves out; without one, they are a `KeyError` for
            their callers.
        split: whether a call that fails is made again for each half of its keys, until the bad keys stand
            alone: at most `1 + 2*k*ceil(log2 n)` calls for `k` bad keys among `n`. Not done after a refusal
            for coming too fast, or a wrong answer.
        retry: when a call that failed is made again, before it is split; each attempt takes permits of its
            own.
        limiter: lets each call go, at `cost` permits (a number, or a function of the keys).
        priority: of keys for which no other one is given; a call has the highest one of its keys.
        patience: seconds of waiting that outweigh one step of priority, so that low priorities move, too.
        max_prefetch: keys that `prefetch` has under way at most.
        name: what it is called in events and errors.
        hooks: called with each event: `CallStarted`, `CallFinished`, `BatchSplit`, `PrefetchFailed`.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a number that is none.
        TypeError: `load_many` is no function.
    """

    def __init__(
        self,
        load_many: LoadMany[K] | LoadManySync[K],
        *,
        max_batch_size: int = 50,
        max_wait: float = 0.005,
        max_in_flight: int = 10,
        cache: Cache[K, V] | MutableMapping[K, V] | None = None,
        default: V | Unset = UNSET,
        split: bool = True,
        retry: Retry | None = None,
        limiter: Limiter | None = None,
        cost: Callable[[list[K]], Cost] | Cost = 1,
        priority: int = 0,
        patience: float = 10.0,
        max_prefetch: int = 1_000,
        name: str = "batcher",
        hooks: Iterable[Hook] = (),
        clock: Clock = MONOTONIC,
    ) -> None:
        self.name = name
        hooks = tuple(hooks)
        self._max_batch_size = _checked_count("max_batch_size", max_batch_size)
        self._max_wait = checked_seconds("max_wait", max_wait)
        self._max_in_flight = _checked_count("max_in_flight", max_in_flight)
        self._priority = priority
        plain_dict = isinstance(cache, dict) and cache.__class__ is dict
        self._memo: dict[K, V] = cast(dict[K, V], cache) if plain_dict else {}  # is asked without a lock
        self._cache = Memo(cache) if isinstance(cache, MutableMapping) else cache
        self._answers: Answers[K, V] = Answers(default)
        most = _checked_count("max_prefetch", max_prefetch)
        self._prefetching: Prefetching[K] = Prefetching(most, name, hooks)

        way = partial(
            Dispatch[list[K], Any],
            name=name,
            clock=clock,
            limiter=limiter,
            cost=cost,
            priority=priority,
            hooks=hooks,
        )
        plain = None if is_async(load_many) else cast(LoadManySync[K], load_many)
        rules = Rules(
            dispatch=way(load_many if plain is None else _in_a_thread(plain)),
            dispatch_sync=None if plain is None else way(plain),
            limited=limiter is not None,
            retry=retry,
            split=split,
            priority=priority,
            name=name,
            hooks=hooks,
            clock=clock,
        )
        gathering: Gathering[K] = Gathering(
            max_batch_size, self._max_wait, max_in_flight, checked_seconds("patience", patience)
        )
        self._loading = Loading(rules, Keys(gathering, self._cache, name))

    async def load(self, key: K, priority: int | None = None) -> V:
        """The value of a key.

        Args:
            key: the key.
            priority: in place of the batcher's own; higher goes first. It need not be named, since that would
                make a hit a seventh slower.

        Raises:
            KeyError: `load_many` does not know the key, and there is no default.
            LoadFailed: `load_many` answered wrongly, or asks for a key that it is loading.
            Exception: what `load_many` raised, or returned as the value of this key.
        """
        known = self._memo.get(key, UNSET)  # an error to catch would cost ten times that
        if known is not UNSET:
            return known
        future = self._loading.ask(key, priority)
        try:
            answer = await future
        except BaseException:
            self._loading.leave((key,), future)
            if is_guest(future):
                return (await self.load_many((key,), priority=priority))[key]
            raise
        if answer.__class__ is NoValue:
            if answer is LOST:
                return (await self.load_many((key,), priority=priority))[key]
            return self._answers.stand_in(key, answer)
        return answer  # type: ignore[no-any-return]  # a cast would be a call

    def load_sync(self, key: K, *, priority: int | None = None) -> V:
        """The blocking twin of `load`, for threads.

        Where `load_many` is a plain function, one of the threads that wait calls it for all of them. An async
        one is run by an event loop whose tasks have used this batcher.

        Raises:
            RuntimeError: `load_many` is async, and there is no such event loop; or one runs in this thread,
                and would be blocked.
        """
        return self.load_many_sync((key,), priority=priority)[key]

    @overload
    async def load_many(
        self, keys: Iterable[K], *, priority: int | None = None, return_exceptions: Literal[False] = False
    ) -> dict[K, V]: ...

    @overload
    async def load_many(
        self, keys: Iterable[K], *, priority: int | None = None, return_exceptions: Literal[True]
    ) -> dict[K, V | Exception]: ...

    async def load_many(
        self, keys: Iterable[K], *, priority: int | None = None, return_exceptions: bool = False
    ) -> dict[K, V] | dict[K, V | Exception]:
        """The values of many keys, in the order of the keys; each distinct key once.

        Args:
            keys: the keys; more than fit into a call are several calls.
            priority: in place of the batcher's own; higher goes first.
            return_exceptions: whether an error stands as the value of its key, instead of being raised.

        Raises:
            KeyError: as `load` does, for the first key that fails, when all have their answers.
            LoadFailed: likewise.
            Exception: likewise.
        """
        wanted = list(dict.fromkeys(keys))
        answers, missing = self._known(wanted)
        while missing:
            order = self._loading.ask_all(missing, priority)
            await self._wait(order)
            missing = _note(answers, order)
        return self._all_picked(wanted, answers, return_exceptions)

    @overload
    def load_many_sync(
        self, keys: Iterable[K], *, priority: int | None = None, return_exceptions: Literal[False] = False
    ) -> dict[K, V]: ...

    @overload
    def load_many_sync(
        self, keys: Iterable[K], *, priority: int | None = None, return_exceptions: Literal[True]
    ) -> dict[K, V | Exception]: ...

    def load_many_sync(
        self, keys: Iterable[K], *, priority: int | None = None, return_exceptions: bool = False
    ) -> dict[K, V] | dict[K, V | Exception]:
        """The blocking twin of `load_many`, for threads.

        Raises:
            RuntimeError: as `load_sync` does.
        """
        wanted = list(dict.fromkeys(keys))
        answers, missing = self._known(wanted)
        while missing:
            order = self._loading.ask_all_sync(missing, priority)
            self._wait_sync(order)
            missing = _note(answers, order)
        return self._all_picked(wanted, answers, return_exceptions)

    def prefetch(self, keys: Iterable[K], *, priority: int | None = None) -> int:
        """Begin to load keys that somebody will ask for soon, such as those of the next batch while this one
        runs. Returns at once; may be called from tasks and threads.

        An error is no error of those who ask later: the key is asked for again then. It is a `PrefetchFailed`
        event, or, without hooks, logged.

        Args:
            keys: the keys; those beyond `max_prefetch` are left out.
            priority: one below the batcher's own, if not given.

        Returns:
            How many were begun: those that were neither known nor left out.

        Raises:
            ValueError: the batcher has no cache, so that the values would be lost.
        """
        if self._cache is None:
            raise ValueError(f"{self.name}: prefetch needs a cache= that keeps the values")
        wanted = list(dict.fromkeys(keys))
        known = self._cache.get_present(wanted)
        missing = [key for key in wanted if key not in known]
        lower = self._priority - 1 if priority is None else priority
        return self._prefetching.begin(
            missing,
            partial(self.load_many, priority=lower, return_exceptions=True),
            partial(self.load_many_sync, priority=lower, return_exceptions=True),
        )

    def prime(self, key: K, value: V) -> None:
        """Keep a value that is known from elsewhere, in place of what was known of the key. Who waits for the
        key has it at once.

        Raises:
            ValueError: the batcher has no cache.
            TypeError: the value is an error, which no cache keeps.
        """
        if self._cache is None:
            raise ValueError(f"{self.name}: prime needs a cache= that keeps the value")
        if isinstance(value, Exception):
            raise TypeError(f"{self.name}: errors are not kept: {type(value).__name__}")
        self._loading.prime(key, value)

    def clear(self, key: K) -> None:
        """Forget the value of a key, since it has changed. Who asks from now on gets a value that is loaded
        from now on: one that is on its way goes to those who wait for it already, and is not kept.

        Raises:
            TypeError: the cache has no `delete`.
        """
        forget = partial(self._clearable("delete").delete, key) if self._cache is not None else _nothing
        self._loading.outdate((key,), forget)

    def clear_all(self) -> None:
        """Forget all values.

        Raises:
            TypeError: the cache has no `clear`.
        """
        forget = self._clearable("clear").clear if self._cache is not None else _nothing
        self._loading.outdate(None, forget)

    def __repr__(self) -> str:
        return (
            f"Batcher(max_batch_size={self._max_batch_size}, max_wait={self._max_wait:g}, "
            f"max_in_flight={self._max_in_flight}, name={self.name!r})"
        )

    async def _wait(self, order: Order) -> None:
        if not order.done():
            try:
                await cast(AsyncFuture, order.bell)
            except BaseException:
                self._loading.leave(order.wanted, order)
                raise

    def _wait_sync(self, order: Order) -> None:
        if not order.done():
            try:
                self._loading.wait_sync(order)
            except BaseException:
                self._loading.leave(order.wanted, order)
                raise

    def _known(self, wanted: list[K]) -> tuple[dict[K, Any], list[K]]:
        """What needs no lock to be known, and the other keys."""
        memo = self._memo
        if not memo:
            return {}, wanted
        known: dict[K, Any] = {key: memo[key] for key in wanted if key in memo}
        return known, [key for key in wanted if key not in known]

    def _all_picked(
        self, wanted: list[K], answers: dict[K, Any], return_exceptions: bool
    ) -> dict[K, V] | dict[K, V | Exception]:
        pick = self._answers.value_or_error if return_exceptions else self._answers.value
        return {key: pick(key, answers[key]) for key in wanted}

    def _clearable(self, method: str) -> Clearable:
        if not isinstance(self._cache, Clearable):
            raise TypeError(f"{self.name}: {type(self._cache).__name__} has no {method}")
        return self._cache


def _note(answers: dict[K, Any], order: Order) -> list[K]:
    """Put what came to the other answers; returns the keys whose calls were lost."""
    answers.update(order.answers)
    return [key for key in order.wanted if order.answers[key] is LOST]


def _in_a_thread(function: LoadManySync[K]) -> LoadMany[K]:
    async def call(keys: list[K]) -> Mapping[K, Any] | Iterable[Any]:
        return await anyio.to_thread.run_sync(function, keys)

    return call


def _nothing() -> None:
    """Where no cache is, nothing has to be forgotten."""


def _checked_count(name: str, count: int) -> int:
    if count.__class__ is not int or count < 1:
        raise ValueError(f"{name} is a whole number, 1 or more, not {count!r}")
    return count

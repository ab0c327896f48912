"""`cached`: a function whose values are kept."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from batchkit._cache import NOTHING, TTLCache
from batchkit._caching.arguments import Arguments
from batchkit._core.terms import Tags, Ttl
from batchkit._functions import is_async, refuse_unfit

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class CachedFunction(Generic[P, R]):
    """A function whose values are kept; see `cached`.

    Attributes:
        cache: where they are kept.
    """

    __name__: str

    def __init__(self, function: Callable[P, R], keeping: _Keeping) -> None:
        functools.update_wrapper(cast(Any, self), function)
        self.cache = keeping.cache
        self._keeping = keeping
        self._key = keeping.key
        self._fresh = keeping.cache.fresh
        self._owner: tuple[Any, ...] = ()  # of a method: its object
        self._owner_in_key: tuple[Any, ...] = ()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's value for these arguments, from the cache or from the function."""
        key = self._key(self._owner_in_key + args, kwargs)
        try:
            value: R = self._fresh(key)
        except TypeError:
            self._keeping.refuse_unhashable(key)
            raise
        if value is not NOTHING:
            return value
        keeping = self._keeping
        load, tags = keeping.load(self._owner + args, kwargs)
        return cast(R, self.cache.get_or_load_sync(key, load, keeping.ttl, tags=tags))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Drop what is kept for these arguments; false if nothing was."""
        return self.cache.delete(self.key(*args, **kwargs))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Hashable:
        """What the value for these arguments is kept by."""
        return self._key(self._owner_in_key + args, kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedFunction[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._bound_to(instance)

    def __repr__(self) -> str:
        return f"<cached {self._keeping.function!r}>"

    def _bound_to(self, instance: object) -> Any:
        bound = object.__new__(type(self))
        vars(bound).update(vars(self))
        bound._owner = (instance,)
        bound._owner_in_key = (self._keeping.in_key(instance),)
        return bound


class CachedAsyncFunction(CachedFunction[P, Coroutine[Any, Any, R]]):
    """An async function whose values are kept; see `cached`."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's value for these arguments, from the cache or from the function."""
        key = self._key(self._owner_in_key + args, kwargs)
        try:
            value: R = self._fresh(key)
        except TypeError:
            self._keeping.refuse_unhashable(key)
            raise
        if value is not NOTHING:
            return value
        keeping = self._keeping
        load, tags = keeping.load(self._owner + args, kwargs)
        return cast(R, await self.cache.get_or_load(key, load, keeping.ttl, tags=tags))

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: CachedAsyncFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedAsyncFunction[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._bound_to(instance)


class cached:  # noqa: N801 - a decorator
    """Keep the values of a function, async or not, in a cache. All who call it with the same arguments while
    it runs share that one call.

    What it gives back is called as the function is, and has `cache`, `key(...)` and
    `invalidate(...)`, which take the function's arguments. It works on methods, whose objects it does not
    keep alive.

    Args:
        cache: any; functions may share one.
        key: what a value is kept by, as a function of the arguments; by default the function's name and all
            its arguments, those with a default included, which have to be hashable.
        ttl: seconds for which a value is kept, or a function of key and value, instead of the cache's own.
        tags: by which values can be dropped with others, as a function of the arguments.

    Raises:
        TypeError: the function is a generator, or none yet (a `staticmethod` or `classmethod`, which belong
            above this); or the cache is none.

    Example:
        ```python
        @cached(TTLCache(maxsize=10_000, ttl=300))
        async def look_up(word: str) -> str: ...

        look_up.invalidate("好")
        ```
    """

    def __init__(
        self,
        cache: TTLCache[Any, Any],
        *,
        key: Callable[..., Hashable] | None = None,
        ttl: Ttl | None = None,
        tags: Callable[..., Tags] | None = None,
    ) -> None:
        if not hasattr(cache, "get_or_load"):
            raise TypeError(f"cached needs a cache, not a {type(cache).__name__}: @cached(TTLCache(...))")
        self._cache = cache
        self._key = key
        self._ttl = ttl
        self._tags = tags

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CachedAsyncFunction[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...

    def __call__(self, function: Callable[..., Any], /) -> Any:
        refuse_unfit(function, "cached", "what it gives can be used once only")
        keeping = _Keeping(function, self._cache, self._key, self._ttl, self._tags)
        return (CachedAsyncFunction if is_async(function) else CachedFunction)(function, keeping)


class _Keeping:
    """Where and how the values of a function are kept.

    Attributes:
        function: it.
        cache, ttl: as of `cached`.
        key: what a value is kept by, given the arguments, for a method with its object before them.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        cache: TTLCache[Any, Any],
        key: Callable[..., Hashable] | None,
        ttl: Ttl | None,
        tags: Callable[..., Tags] | None,
    ) -> None:
        self.cache = cache
        self.ttl = ttl
        self.function = function
        self._tags = tags
        self._arguments = Arguments(function) if key is None else None
        self.key = _own_key(key) if self._arguments is None else self._arguments.key

    def refuse_unhashable(self, key: Hashable) -> None:
        """Say it if a key is none since the arguments cannot be one."""
        if self._arguments is not None:
            self._arguments.refuse_unhashable(key)

    def in_key(self, owner: object) -> object:
        """The object of a method, as it stands in a key: so that the key does not keep it alive, if it can be
        helped.
        """
        if self._arguments is None:
            return owner
        try:
            return weakref.ref(owner)
        except TypeError:
            return owner

    def load(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Callable[[Hashable], Any], Tags]:
        """What loads the value for these arguments, and its tags."""
        tags = () if self._tags is None else tuple(self._tags(*args, **kwargs))
        return functools.partial(_call, self.function, args, kwargs), tags


def _own_key(key: Any) -> Callable[[tuple[Any, ...], dict[str, Any]], Hashable]:
    return lambda args, kwargs: key(*args, **kwargs)


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: Hashable) -> Any:
    return function(*args, **kwargs)

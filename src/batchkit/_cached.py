"""`cached`: a function whose values are kept."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, cast, overload

from batchkit._cache import NOTHING, TTLCache
from batchkit._core.terms import Tags, Ttl
from batchkit._functions import is_async, refuse_unfit

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

_PLAIN: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class CachedFunction(Generic[P, R]):
    """A function whose values are kept; see `cached`.

    Attributes:
        cache: where they are kept.
    """

    __name__: str

    def __init__(self, function: Callable[P, R], keeping: _Keeping) -> None:
        functools.update_wrapper(cast(Any, self), function)
        self.cache = keeping.cache
        self._function: Callable[..., Any] = function
        self._keeping = keeping
        self._owner: tuple[Any, ...] = ()  # of a method: its object

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's value for these arguments, from the cache or from the function."""
        key = self._keeping.key(self._owner, args, kwargs)
        value: R = self._keeping.fresh(key)
        if value is not NOTHING:
            return value
        load = functools.partial(_call, self._function, (*self._owner, *args), kwargs)
        tags = self._keeping.tags(self._owner, args, kwargs)
        return cast(R, self.cache.get_or_load_sync(key, load, self._keeping.ttl, tags=tags))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Drop what is kept for these arguments; false if nothing was."""
        return self.cache.delete(self.key(*args, **kwargs))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Hashable:
        """What the value for these arguments is kept by."""
        return self._keeping.key(self._owner, args, kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedFunction[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._bound_to(instance)

    def __repr__(self) -> str:
        return f"<cached {self._function!r}>"

    def _bound_to(self, instance: object) -> Any:
        bound = type(self)(self._function, self._keeping)
        bound._owner = (instance,)
        return bound


class CachedAsyncFunction(CachedFunction[P, Coroutine[Any, Any, R]]):
    """An async function whose values are kept; see `cached`."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's value for these arguments, from the cache or from the function."""
        key = self._keeping.key(self._owner, args, kwargs)
        value: R = self._keeping.fresh(key)
        if value is not NOTHING:
            return value
        load = functools.partial(_call, self._function, (*self._owner, *args), kwargs)
        tags = self._keeping.tags(self._owner, args, kwargs)
        return cast(R, await self.cache.get_or_load(key, load, self._keeping.ttl, tags=tags))

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
        keeping = _Keeping(self._cache, self._key or _Arguments(function), self._ttl, self._tags)
        return (CachedAsyncFunction if is_async(function) else CachedFunction)(function, keeping)


class _Keeping:
    """Where and how the values of a function are kept."""

    def __init__(
        self,
        cache: TTLCache[Any, Any],
        key: Callable[..., Hashable],
        ttl: Ttl | None,
        tags: Callable[..., Tags] | None,
    ) -> None:
        self.cache = cache
        self.ttl = ttl
        self._key = key
        self._tags = tags
        self._by_arguments = key if isinstance(key, _Arguments) else None

    def key(self, owner: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        if self._by_arguments is None:
            return self._key(*owner, *args, **kwargs)
        return self._by_arguments.key((_weak(owner[0]), *args) if owner else args, kwargs)

    def fresh(self, key: Hashable) -> Any:
        """The value, if nothing has to be thought of but that."""
        try:
            return self.cache.fresh(key)
        except TypeError as error:
            if self._by_arguments is not None:
                self._by_arguments.refuse_unhashable(key)
            raise error

    def tags(self, owner: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tags:
        return () if self._tags is None else tuple(self._tags(*owner, *args, **kwargs))


class _Arguments:
    """The default key: one for all ways to pass the same arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{_name(function)}"
        self._signature = inspect.signature(function)
        parameters: Sequence[inspect.Parameter] = list(self._signature.parameters.values())
        self._plain = all(parameter.kind in _PLAIN for parameter in parameters)
        self._count = len(parameters)
        self._defaults = tuple(each.default for each in parameters if each.default is not each.empty)

    def __call__(self, *args: Any, **kwargs: Any) -> Hashable:
        return self.key(args, kwargs)

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        if self._plain and not kwargs:
            left = self._count - len(args)
            if left == 0:
                return (self._name, *args)
            if 0 < left <= len(self._defaults):
                return (self._name, *args, *self._defaults[len(self._defaults) - left :])
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._plain:
            return (self._name, *bound.args)
        return (self._name, bound.args, tuple(sorted(bound.kwargs.items())))

    def refuse_unhashable(self, key: Hashable) -> None:
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(
                f"the arguments of {self._name} cannot be a key ({error}): give it one by key="
            ) from error


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _weak(owner: object) -> Hashable:
    """An object in a key, which does not keep it alive if it can be helped."""
    try:
        return weakref.ref(owner)
    except TypeError:
        return owner


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: Hashable) -> Any:
    return function(*args, **kwargs)

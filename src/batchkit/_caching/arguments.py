"""The arguments of a function as the key of its value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, Final

_PLAIN: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """Makes one key for all ways to pass the same arguments to a function: its name, and all of them, those
    with a default included.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{_name(function)}"
        self._start = (self._name,)
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters
        kinds = {parameter.kind for parameter in parameters.values()}
        self._plain = kinds.issubset(_PLAIN)
        self._count = len(parameters) if self._plain else -1
        self._names = tuple(parameters) if kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD} else ()
        self._defaults = {
            name: each.default for name, each in parameters.items() if each.default is not each.empty
        }

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """The key of arguments.

        Raises:
            TypeError: the function does not take them.
        """
        if len(args) == self._count and not kwargs:
            return self._start + args
        left = self._names[len(args) :]
        values = self._defaults | kwargs
        if left and kwargs.keys() <= set(left) <= values.keys():  # as `bind` does, in a fifth of its time
            return (self._name, *args, *[values[name] for name in left])
        return self._bound(args, kwargs)

    def refuse_unhashable(self, key: Hashable) -> None:
        """Say it in the function's words if they cannot be a key.

        Raises:
            TypeError: they cannot.
        """
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(
                f"the arguments of {self._name} cannot be a key ({error}): give it one by key="
            ) from error

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._plain:
            return (self._name, *bound.args)
        return (self._name, bound.args, tuple(sorted(bound.kwargs.items())))


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))

"""What kind of function a decorator was given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return _is(inspect.iscoroutinefunction, function)


def refuse_unfit(function: Any, decorator: str, mend: str) -> None:
    """Refuse what a decorator of calls cannot wrap.

    Raises:
        TypeError: the function is a generator: its calls end before its work begins; or it is no function
            yet (a `staticmethod` or `classmethod`, which belong above the decorator).
    """
    if type(function) in (staticmethod, classmethod):
        raise TypeError(f"{type(function).__name__} belongs above {decorator}, not below it")
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        raise TypeError(f"{function!r} is a generator: {mend}")


def _is(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Whether a function, or what an object with `__call__` runs, is of a kind."""
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or (not isinstance(function, type) and kind(type(function).__call__))

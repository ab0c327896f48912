"""`limited`: a function whose every call waits for a limiter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from batchkit._dispatch import Cost, hear_returned
from batchkit._functions import is_async, refuse_unfit
from batchkit.abc import Limiter

F = TypeVar("F", bound=Callable[..., Any])


def limited(
    limiter: Limiter,
    *,
    cost: Cost | Callable[..., Cost] = 1,
    priority: int = 0,
    timeout: float | None = None,
) -> Callable[[F], F]:
    """Let every call of a function, async or not, wait for a limiter. An adaptive limiter learns from what
    the function returns, if that has a status code, or raises. A number that it returns is no status code.

    Args:
        limiter: any limiter, or group of them.
        cost: permits of a call, or a function that tells them by the call's arguments; for a group also a
            mapping.
        priority: higher goes first.
        timeout: seconds to wait at most.

    Raises:
        TypeError: the function is a generator: its calls end before its work begins; or it is no function
            yet (a `staticmethod` or `classmethod`, which belong above this), or the limiter is none.

    Example:
        ```python
        @limited(TokenBucket(rate=2, burst=5), cost=lambda texts: len(texts))
        async def translate(texts: list[str]) -> list[str]: ...
        ```
    """
    if not hasattr(limiter, "permit"):
        raise TypeError(f"limited needs a limiter, not a {type(limiter).__name__}: @limited(limiter)")

    def decorate(function: F) -> F:
        refuse_unfit(function, "limited", "acquire the limiter inside it")

        def permit(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            permits = cost(*args, **named) if callable(cost) else cost
            return limiter.permit(permits, priority=priority, timeout=timeout)

        @functools.wraps(function)
        async def call(*args: Any, **named: Any) -> Any:
            async with permit(args, named) as held:
                answer = await function(*args, **named)
                hear_returned(held, answer)
                return answer

        @functools.wraps(function)
        def call_sync(*args: Any, **named: Any) -> Any:
            with permit(args, named) as held:
                answer = function(*args, **named)
                hear_returned(held, answer)
                return answer

        return cast(F, call if is_async(function) else call_sync)

    return decorate

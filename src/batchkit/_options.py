"""What an executor may be told, and how it is checked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from math import inf
from typing import Any, Generic, TypedDict, TypeVar

from batchkit._clock import MONOTONIC
from batchkit._core.agenda import Sizes
from batchkit._dispatch import Cost, is_async
from batchkit._events import Hook
from batchkit._numbers import checked_seconds
from batchkit._running.plan import OnError, Plan, Terms
from batchkit.abc import Cache, Checkpoint, Clock, Limiter
from batchkit.breaker import CircuitBreaker
from batchkit.retries import Retry

T = TypeVar("T")
Bounds = int | tuple[int, int]


class Options(TypedDict, Generic[T], total=False):
    """What every executor may be told; see `BatchedExecutor`."""

    batch_size: Bounds
    concurrency: Bounds
    pace: float | None
    limiter: Limiter | None
    priority: Callable[[T], int] | int
    patience: float
    timeout: float | None
    deadline: Callable[[T], float] | float | None
    retry: Retry | None
    breaker: CircuitBreaker | None
    on_error: OnError
    key: Callable[[T], Hashable] | None
    cache: Cache[Any, Any] | None
    checkpoint: Checkpoint | None
    name: str | None
    hooks: Iterable[Hook]
    clock: Clock


class ItemOptions(Options[T], Generic[T], total=False):
    """What an executor for a function of one item may be told, too."""

    cost: Callable[[T], Cost] | Cost
    barrier: bool
    pause: float


class BatchOptions(Options[T], Generic[T], total=False):
    """What an executor for a function of batches may be told, too."""

    cost: Callable[[list[T]], Cost] | Cost
    max_weight: float | None
    weight: Callable[[T], float] | None
    group_by: Callable[[T], Hashable] | None
    max_wait: float | None


def plan_for_items(
    function: Callable[..., Any],
    *,
    batch_size: int = 10,
    barrier: bool = False,
    pause: float = 0.0,
    **options: Any,
) -> Plan:
    """The plan of an executor for a function of one item."""
    checked_pause = checked_seconds("a pause", pause)
    if checked_pause and not barrier:
        raise ValueError("a pause needs barrier=True; to limit how many calls start in a second, use pace=")
    return _plan(
        function,
        whole_batches=False,
        batch_size=checked_count("batch_size", batch_size),
        sizes=Sizes(),
        pause=checked_pause if barrier else None,
        **options,
    )


def plan_for_batches(
    function: Callable[..., Any],
    *,
    batch_size: Bounds = 10,
    max_weight: float | None = None,
    weight: Callable[[Any], float] | None = None,
    max_wait: float | None = 1.0,
    **options: Any,
) -> Plan:
    """The plan of an executor for a function of batches."""
    if (max_weight is None) != (weight is None):
        raise ValueError("max_weight= and weight= belong together: the most, and a function of an item")
    if max_weight is not None and not max_weight > 0:
        raise ValueError(f"max_weight is a number above 0, not {max_weight!r}")
    least, most = checked_bounds("batch_size", batch_size)
    return _plan(
        function,
        whole_batches=True,
        batch_size=most,
        sizes=Sizes(least, most, inf if max_weight is None else max_weight),
        weight=weight,
        max_wait=inf if max_wait is None else checked_seconds("max_wait", max_wait),
        **options,
    )


def _plan(
    function: Callable[..., Any],
    *,
    concurrency: Bounds = 10,
    patience: float = 10.0,
    timeout: float | None = None,
    deadline: Callable[[Any], float] | float | None = None,
    on_error: OnError = "collect",
    key: Callable[[Any], Hashable] | None = None,
    cache: Cache[Any, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    name: str | None = None,
    hooks: Iterable[Hook] = (),
    clock: Clock = MONOTONIC,
    **options: Any,
) -> Plan:
    threads = not is_async(function)
    if threads and timeout is not None:
        raise TypeError(
            "a plain function cannot be stopped when its time is over: give the time-out to its client "
            "(current_call().deadline says how long it has), or make the function async"
        )
    if on_error not in ("collect", "raise"):
        raise ValueError(f'on_error is "collect" or "raise", not {on_error!r}')
    if key is None and (cache is not None or checkpoint is not None):
        key = _itself
    return Plan(
        threads=threads,
        concurrency=checked_bounds("concurrency", concurrency),
        patience=checked_seconds("patience", patience),
        timeout=None if timeout is None else checked_time("timeout", timeout),
        deadline=deadline if deadline is None or callable(deadline) else checked_time("deadline", deadline),
        on_error=on_error,
        key=key if checkpoint is None or key is None else _text_key(key),
        cache=cache,
        checkpoint=checkpoint,
        name=name or str(getattr(function, "__name__", "executor")),
        hooks=tuple(hooks),
        clock=clock,
        **options,
    )


def terms(plan: Plan, *, ordered: bool, window: int | None, keep_open: bool, deadline: float | None) -> Terms:
    """The terms of one run whose outcomes are read one by one."""
    if window is not None:
        checked_count("a window", window)
    return Terms(
        ordered=ordered,
        window=window or plan.reach,
        keep_open=keep_open,
        deadline=inf if deadline is None else checked_time("deadline", deadline),
    )


def checked_count(name: str, count: int) -> int:
    """A number of items or calls."""
    if count.__class__ is not int or count < 1:
        raise ValueError(f"{name} is a whole number, 1 or more, not {count!r}")
    return count


def checked_bounds(name: str, bounds: Bounds) -> tuple[int, int]:
    """The least and the most."""
    if not isinstance(bounds, tuple):
        return checked_count(name, bounds), bounds
    least, most = (checked_count(name, bound) for bound in bounds)
    if least > most:
        raise ValueError(f"{name} is a number, or the least and the most, not {bounds!r}")
    return least, most


def checked_time(name: str, seconds: float) -> float:
    """A number of seconds that something may take."""
    if isinstance(seconds, bool) or not 0 < seconds < inf:
        raise ValueError(f"{name} is a number of seconds above 0, not {seconds!r}")
    return seconds


def _itself(item: Any) -> Any:
    return item


def _text_key(key: Callable[[Any], Hashable]) -> Callable[[Any], str]:
    """Keys of a checkpoint are texts, or whole numbers."""

    def text(item: Any) -> str:
        found = key(item)
        if isinstance(found, (str, int)) and not isinstance(found, bool):
            return str(found)
        raise TypeError(
            f"a checkpoint knows items by a text or a whole number, not by {found!r}: "
            "key= is a function that tells it by the item"
        )

    return text

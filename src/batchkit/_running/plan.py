"""What an executor hands to each of its runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Any, Literal

from attrs import frozen

from batchkit._core.agenda import Sizes
from batchkit._events import Hook
from batchkit.abc import Cache, Checkpoint, Clock
from batchkit.breaker import CircuitBreaker
from batchkit.retries import Retry

OnError = Literal["collect", "raise"]


@frozen(kw_only=True)
class Plan:
    """What an executor hands to each of its runs.

    Attributes:
        name: the executor's.
        whole_batches: whether the function takes a list of items.
        threads: whether the function is a plain one, which runs in a thread.
        sizes: items, and weight, of a batch.
        batch_size: with a barrier, items between two of them.
        concurrency: calls at once, at least and at most.
        pause: with a barrier, seconds between the end of a batch and the start of the next; None without one.
        max_wait: seconds that an item waits for its batch to be filled.
        weight, group_by, priority, deadline, key: functions of an item, or None where nobody asked.
        patience: seconds of waiting that outweigh one step of priority.
        timeout: seconds of a call, or None.
        retry: what is called again, or None for nothing.
        breaker: whether the service is left alone for now.
        on_error: whether an item that fails stops the run.
        cache: where values are looked up before a call, and kept after it.
        checkpoint: where outcomes are kept for a later run.
        hooks, clock: the executor's.
    """

    name: str
    whole_batches: bool
    threads: bool
    sizes: Sizes
    batch_size: int
    concurrency: tuple[int, int]
    pause: float | None = None
    max_wait: float = inf
    weight: Callable[[Any], float] | None = None
    group_by: Callable[[Any], Hashable] | None = None
    priority: Callable[[Any], int] | int
    patience: float
    timeout: float | None
    deadline: Callable[[Any], float] | float | None
    retry: Retry | None = None
    breaker: CircuitBreaker | None = None
    on_error: OnError
    key: Callable[[Any], Hashable] | None
    cache: Cache[Any, Any] | None
    checkpoint: Checkpoint | None
    hooks: tuple[Hook, ...]
    clock: Clock

    @property
    def reach(self) -> int:
        """Items that are kept under way at most, finished ones not counted."""
        return 10 * self.sizes.most * self.concurrency[1]

    @property
    def looks_ahead(self) -> bool:
        """Whether what goes next depends on more than what came first."""
        return (
            callable(self.priority)
            or self.group_by is not None
            or self.checkpoint is not None
            or self.sizes.least != self.sizes.most
        )

    @property
    def is_plain(self) -> bool:
        """Whether a call is nothing but the function, and is made once."""
        return not self.whole_batches and self.timeout is None and self.retry is None and not self.hooks

    @property
    def straight(self) -> bool:
        """Whether what came first is what is called next, and a call that goes well is all that there is to
        it: no batch waits for its items, no item for its twin, and nobody is asked whether a call is wanted.
        """
        asked = (self.pause, self.weight, self.deadline, self.key, self.breaker)
        return (
            not self.looks_ahead
            and all(option is None for option in asked)
            and self.concurrency[0] == self.concurrency[1]
        )


@frozen
class Terms:
    """What one run is asked for.

    Attributes:
        ordered: whether outcomes are read in the order of the items.
        window: items taken whose outcomes were not read, at most.
        keep_open: whether the run goes on after its input, until it is told that nothing more comes.
        deadline: seconds that it has; infinite if it may take its time.
    """

    ordered: bool = False
    window: float = inf
    keep_open: bool = False
    deadline: float = inf

"""`BatchedExecutor`: run a function over a queue of items, and give every item its outcome."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from math import inf
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from batchkit._clock import MONOTONIC
from batchkit._dispatch import Cost, Dispatch, checked_async
from batchkit._events import Hook
from batchkit._limiters import TokenBucket
from batchkit._run import Plan, Run
from batchkit._values import Outcome, RunReport
from batchkit.abc import Clock, Limiter

T = TypeVar("T")
R = TypeVar("R")


class BatchedExecutor(Generic[T, R]):
    """Runs an async function over items, as fast as concurrency, pace and limiter allow.

    A window slides over the items: as soon as a call ends the next one starts, so that one slow item holds
    up nobody. Every item that is taken gets an `Outcome`: a value or an error. An executor may be used for
    many runs, also at once.

    Args:
        function: called with one item. (For a function that takes a list of items see `of_batches`.)
        batch_size: items between two barriers; without a barrier it has no effect on a function of one item.
        concurrency: calls at once at most.
        barrier: start no item of the next batch before the last of this one is done. Slow, and seldom what
            one wants: `pace` keeps the same rate of starts without the wait.
        pause: with a barrier, seconds between two batches.
        pace: calls started a second at most.
        limiter: lets each call go, at `cost` permits (a number, or a function of the item;
            a mapping for a group) and `priority`.
        name: what it is called in events and reports.
        hooks: called with each event: `RunStarted`, `CallStarted`, `CallFinished`, `BatchSplit`,
            `ItemFinished`, `RunFinished`.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a number that is none, or a pause without a barrier.
        TypeError: the function is not async.
    """

    _whole_batches = False

    def __init__(
        self,
        function: Callable[[T], Awaitable[R]],
        *,
        batch_size: int = 10,
        concurrency: int = 10,
        barrier: bool = False,
        pause: float = 0.0,
        pace: float | None = None,
        limiter: Limiter | None = None,
        cost: Callable[[T], Cost] | Cost = 1,
        priority: int = 0,
        name: str | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock = MONOTONIC,
    ) -> None:
        self._set_up(
            function,
            whole_batches=False,
            batch_size=batch_size,
            concurrency=concurrency,
            pause=_checked_pause(pause, barrier),
            pace=pace,
            limiter=limiter,
            cost=cost,
            priority=priority,
            name=name,
            hooks=hooks,
            clock=clock,
        )

    @classmethod
    def of_batches(
        cls,
        function: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        batch_size: int = 10,
        concurrency: int = 10,
        pace: float | None = None,
        limiter: Limiter | None = None,
        cost: Callable[[list[T]], Cost] | Cost = 1,
        priority: int = 0,
        name: str | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock = MONOTONIC,
    ) -> Self:
        """The executor for a function that takes a list of items and returns a value for each, in their
        order.

        A batch whose call raises, or answers with another number of values, is split until the bad items
        stand alone: at most `1 + 2*k*ceil(log2 n)` calls for `k` bad items among `n`. An exception as a value
        is the error of that item alone.

        A batch is filled before it is called, so that an async input that trickles delays the first items
        of a batch.

        Args:
            function: called with up to `batch_size` items.
            batch_size: items in a call at most.
            concurrency: calls at once at most.
            pace: calls started a second at most.
            limiter: lets each call go.
            cost: permits of a call, or a function of the items of a call.
            priority: higher goes first.
            name: what it is called in events and reports.
            hooks: called with each event.
            clock: for tests, `batchkit.testing.ManualClock`.
        """
        executor = cls.__new__(cls)
        executor._set_up(
            function,
            whole_batches=True,
            batch_size=batch_size,
            concurrency=concurrency,
            pause=None,
            pace=pace,
            limiter=limiter,
            cost=cost,
            priority=priority,
            name=name,
            hooks=hooks,
            clock=clock,
        )
        return executor

    def map(
        self, items: Iterable[T] | AsyncIterable[T], *, ordered: bool = False, window: int | None = None
    ) -> OutcomeStream[T, R]:
        """The outcomes as they finish, or in the order of the items; memory stays flat however many there
        are.

        Args:
            items: any iterable, or an async one; it is read as far as the window goes. An async generator is
                the caller's to close if the stream is left early (`contextlib.aclosing`).
            ordered: in the order of the items; a slow one holds up no other within the window.
            window: items, rounded up to whole batches, that were taken and whose outcomes were not read yet.
                (An async input may be read ahead by a batch for each call at once.)

        Returns:
            An async iterator that owns the workers. Leave it by `async with`, or `aclose()`, if it is not
            read to its end.
        """
        if window is not None and (window.__class__ is not int or window < 1):
            raise ValueError(f"a window is a whole number of items, 1 or more, not {window!r}")
        return OutcomeStream(self._new_run(items, ordered=ordered, window=window or self._default_window()))

    async def run(self, items: Iterable[T] | AsyncIterable[T], *, ordered: bool = False) -> RunReport[T, R]:
        """All outcomes, and the figures.

        Args:
            items: any iterable, or an async one.
            ordered: whether the outcomes are in the order of the items, or as they finished.

        Raises:
            Exception: what the input raised; what was under way then is finished first.
        """
        async with OutcomeStream(self._new_run(items, ordered=ordered, window=inf)) as stream:
            outcomes = [outcome async for outcome in stream]
        return stream.report(outcomes)

    def __repr__(self) -> str:
        return f"BatchedExecutor(name={self._plan.name!r}, concurrency={self._plan.concurrency})"

    def _set_up(
        self,
        function: Callable[[Any], Awaitable[Any]],
        *,
        whole_batches: bool,
        batch_size: int,
        concurrency: int,
        pause: float | None,
        pace: float | None,
        limiter: Limiter | None,
        cost: Callable[[Any], Cost] | Cost,
        priority: int,
        name: str | None,
        hooks: Iterable[Hook],
        clock: Clock,
    ) -> None:
        self._plan = Plan(
            name=name or str(getattr(function, "__name__", "executor")),
            whole_batches=whole_batches,
            batch_size=_checked_count("batch_size", batch_size),
            concurrency=_checked_count("concurrency", concurrency),
            pause=pause,
            hooks=tuple(hooks),
            clock=clock,
        )
        self._function = checked_async(function)
        self._limiter = limiter
        self._cost = cost
        self._priority = priority
        # a twentieth of a second at once: what late timers would cost at burst 1
        self._pace = (
            None if pace is None else TokenBucket(pace, max(1, int(pace / 20)), name="pace", clock=clock)
        )

    def _new_run(self, items: Iterable[T] | AsyncIterable[T], *, ordered: bool, window: float) -> Run[T, R]:
        plan = self._plan
        dispatch: Dispatch[Any, Any] = Dispatch(
            self._function,
            name=plan.name,
            clock=plan.clock,
            limiter=self._limiter,
            cost=self._cost,
            priority=self._priority,
            pace=self._pace,
            hooks=plan.hooks,
        )
        return Run(plan, dispatch, items, ordered=ordered, window=window)

    def _default_window(self) -> int:
        size = self._plan.batch_size if self._plan.whole_batches else 1
        return 10 * size * self._plan.concurrency


class OutcomeStream(AsyncIterator[Outcome[T, R]]):
    """The outcomes of a run, as an async iterator that owns the run's workers.

    The workers start with the first outcome that is asked for. They stop when the stream is read to its
    end, when its `async with` is left, at `aclose()`, or when it is dropped. Several tasks may read it side
    by side: each outcome goes to one of them.
    """

    def __init__(self, run: Run[T, R]) -> None:
        self._run = run

    async def __anext__(self) -> Outcome[T, R]:
        outcome = await self._run.read()
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    async def aclose(self) -> None:
        """Stop the workers; what is under way is cancelled. Returns when the last one has stopped."""
        await self._run.stopped()

    def report(self, outcomes: Sequence[Outcome[T, R]] = ()) -> RunReport[T, R]:
        """The figures so far, with the outcomes given."""
        return self._run.report(outcomes)

    async def __aenter__(self) -> Self:
        self._run.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._run.stop()


def batched(
    *,
    batch_size: int = 10,
    concurrency: int = 10,
    pace: float | None = None,
    limiter: Limiter | None = None,
    cost: Callable[[list[Any]], Cost] | Cost = 1,
    priority: int = 0,
    name: str | None = None,
    hooks: Iterable[Hook] = (),
    clock: Clock = MONOTONIC,
) -> Callable[[Callable[[list[T]], Awaitable[Sequence[R | Exception]]]], BatchedExecutor[T, R]]:
    """Make an executor of the batch function that follows; see `BatchedExecutor.of_batches`.

    Example:
        ```python
        @batched(batch_size=10, concurrency=5)
        async def enrich(words: list[str]) -> list[Card]: ...

        report = await enrich.run(words)
        ```
    """

    def make(function: Callable[[list[T]], Awaitable[Sequence[R | Exception]]]) -> BatchedExecutor[T, R]:
        return BatchedExecutor[T, R].of_batches(
            function,
            batch_size=batch_size,
            concurrency=concurrency,
            pace=pace,
            limiter=limiter,
            cost=cost,
            priority=priority,
            name=name,
            hooks=hooks,
            clock=clock,
        )

    return make


def _checked_count(name: str, count: int) -> int:
    if count.__class__ is not int or count < 1:
        raise ValueError(f"{name} is a whole number, 1 or more, not {count!r}")
    return count


def _checked_pause(pause: float, barrier: bool) -> float | None:
    if isinstance(pause, bool) or not 0 <= pause < inf:
        raise ValueError(f"a pause is a number of seconds, 0 or more, not {pause!r}")
    if pause and not barrier:
        raise ValueError("a pause needs barrier=True; to limit how many calls start in a second, use pace=")
    return pause if barrier else None

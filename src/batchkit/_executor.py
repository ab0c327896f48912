"""`BatchedExecutor`: run a function over a queue of items, and give every item its outcome."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar, overload

import anyio
import anyio.to_thread
from typing_extensions import Unpack

from batchkit._dispatch import Dispatch
from batchkit._limiters import TokenBucket
from batchkit._options import BatchOptions, ItemOptions, plan_for_batches, plan_for_items, terms
from batchkit._running.plan import Plan, Terms
from batchkit._running.streams import OutcomeStream, SyncOutcomeStream
from batchkit._running.tasks import Run
from batchkit._running.threads import ThreadRun
from batchkit._values import RunReport

T = TypeVar("T")
R = TypeVar("R")


class BatchedExecutor(Generic[T, R]):
    """Runs a function over items, as fast as concurrency, pace and limiter allow.

    A window slides over the items: as soon as a call ends the next one starts, so that one slow item holds
    up nobody. Every item that is taken gets an `Outcome`: a value, an error, or not started. An executor may
    be used for many runs, also at once.

    An async function runs in the event loop, of asyncio or trio. A plain one runs in threads, `concurrency`
    at the most; `run_sync` and `map_sync` do without an event loop.

    Args:
        function: called with one item. (For a function that takes a list of items see `of_batches`.)
        batch_size: items between two barriers; without a barrier it has no effect on a function of one item.
        concurrency: calls at once at most; or the least and the most, between which the executor finds how
            many are needed (by Little's law: rate x latency).
        barrier: start no item of the next batch before the last of this one is done. Slow, and seldom what
            one wants: `pace` keeps the same rate of starts without the wait.
        pause: with a barrier, seconds between two batches.
        pace: calls started a second at most.
        limiter: lets each call go, at `cost` permits (a number, or a function of the item;
            a mapping for a group), and by priority.
        priority: higher goes first; or a function of the item, for which the input is read ahead.
        patience: seconds of waiting that outweigh one step of priority, so that low priorities move, too.
        timeout: seconds that a call may take. For async functions.
        deadline: seconds from the moment at which an item is read, or submitted, after which it is not
            called any more, and its call is cancelled; or a function of the item.
        retry: when a call that failed is made again, such as `Retry()`. Each attempt takes its own permits;
            nobody waits for the next one but its items.
        breaker: a `CircuitBreaker`, while which is open nothing is called; items wait.
        on_error: "collect" gives each failed item its outcome. "raise" stops the run at the first, with a
            `RunFailed`, whose report says what became of each item.
        key: by which an item is known again; a function of the item. By default the item itself. Items with
            the same key share a call.
        cache: values that it has need no call; it keeps new ones.
        checkpoint: keeps outcomes for a later run, such as `SQLiteCheckpoint(path, version="1")`. What it has
            needs no call. No outcome is read that it does not have.
        name: what it is called in events, reports and checkpoints.
        hooks: called with each event: `RunStarted`, `CallStarted`, `CallFinished`, `Throttled`,
            `ItemRetried`, `BatchSplit`, `ItemFinished`, `RunFinished`.
        clock: for tests, `batchkit.testing.ManualClock`.

    Raises:
        ValueError: a number that is none, or a pause without a barrier.
        TypeError: the function is none, or a generator; or a timeout for a plain function.
    """

    @overload
    def __init__(self, function: Callable[[T], Awaitable[R]], **options: Unpack[ItemOptions[T]]) -> None: ...
    @overload
    def __init__(self, function: Callable[[T], R], **options: Unpack[ItemOptions[T]]) -> None: ...
    def __init__(self, function: Callable[[T], Any], **options: Unpack[ItemOptions[T]]) -> None:
        self._set_up(function, plan_for_items, **options)

    @overload
    @classmethod
    def of_batches(
        cls,
        function: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        **options: Unpack[BatchOptions[T]],
    ) -> Self: ...
    @overload
    @classmethod
    def of_batches(
        cls, function: Callable[[list[T]], Sequence[R | Exception]], **options: Unpack[BatchOptions[T]]
    ) -> Self: ...
    @classmethod
    def of_batches(cls, function: Callable[[list[T]], Any], **options: Unpack[BatchOptions[T]]) -> Self:
        """The executor for a function that takes a list of items and returns a value for each, in their
        order.

        A batch whose call raises, or answers with another number of values, is split until the bad items
        stand alone: at most `1 + 2*k*ceil(log2 n)` calls for `k` bad items among `n`. An exception as a value
        is the error of that item alone. What `retry` takes for passing is not split, but called again as it
        is; and a batch that was refused for coming too fast is never split, since halves would be, too.

        Args:
            function: called with up to `batch_size` items.
            batch_size: items in a call at most; or the least and the most, between which the items that wait
                are spread over the calls at once.
            max_weight: weight of a call at most, where `weight` tells that of an item, such as its tokens. An
                item that is heavier stands alone.
            weight: what an item weighs.
            group_by: what items of a call have in common, a function of the item. The input is read ahead to
                fill batches; a rare group waits until a window of others went past it, at the most.
            max_wait: seconds that an item waits for others to fill its batch, while a call could be made;
                None for as long as it takes.
            options: what else there is, see `BatchedExecutor`. `cost` may be a function of the list;
                `barrier` and `pause` are for functions of one item.
        """
        executor = cls.__new__(cls)
        executor._set_up(function, plan_for_batches, **options)
        return executor

    def map(
        self,
        items: Iterable[T] | AsyncIterable[T] = (),
        *,
        ordered: bool = False,
        window: int | None = None,
        keep_open: bool = False,
        deadline: float | None = None,
    ) -> OutcomeStream[T, R]:
        """The outcomes as they finish, or in the order of the items; memory stays flat however many there
        are.

        Args:
            items: any iterable, or an async one; it is read as far as the window goes. An async generator is
                the caller's to close if the stream is left early (`contextlib.aclosing`).
            ordered: in the order of the items; a slow one holds up no other within the window.
            window: items, rounded up to whole batches, that were taken and whose outcomes were not read yet.
                (An async input may be read ahead by a batch for each call at once.)
            keep_open: do not end with the input, but wait for items that are submitted, until `end()`.
            deadline: seconds for the whole run. Then calls under way are cancelled, with a `TimeoutError` as
                their error, and what is left is not started.

        Returns:
            An async iterator that owns the workers. Leave it by `async with`, or `aclose()`, if it is not
            read to its end.
        """
        asked = terms(self._plan, ordered=ordered, window=window, keep_open=keep_open, deadline=deadline)
        return OutcomeStream(self._new_run(items, asked))

    async def run(
        self, items: Iterable[T] | AsyncIterable[T], *, ordered: bool = False, deadline: float | None = None
    ) -> RunReport[T, R]:
        """All outcomes, and the figures.

        Args:
            items: any iterable, or an async one.
            ordered: whether the outcomes are in the order of the items, or as they finished.
            deadline: seconds for the whole run, as for `map`.

        Raises:
            RunFailed: an item failed, with `on_error="raise"`.
            Exception: what the input raised; what was under way then is finished first.
        """
        async with self.map(items, ordered=ordered, deadline=deadline) as stream:
            return await stream.collect()

    def map_sync(
        self,
        items: Iterable[T] = (),
        *,
        ordered: bool = False,
        window: int | None = None,
        keep_open: bool = False,
        deadline: float | None = None,
    ) -> SyncOutcomeStream[T, R]:
        """The blocking twin of `map`, for a plain function: threads, and no event loop.

        Args:
            items: any iterable; it is read in a thread of its own.
            ordered: as for `map`.
            window: likewise.
            keep_open: likewise.
            deadline: likewise; but calls under way are not cancelled, they are only not waited for.

        Raises:
            TypeError: the function is async, or the input is.
        """
        if not self._plan.threads:
            raise TypeError(f"{self._plan.name} is async: use map or run, in an event loop")
        if isinstance(items, AsyncIterable):
            raise TypeError("an async input needs an event loop: use map or run")
        asked = terms(self._plan, ordered=ordered, window=window, keep_open=keep_open, deadline=deadline)
        return SyncOutcomeStream(ThreadRun(self._plan, self._dispatch(self._function), items, asked))

    def run_sync(
        self, items: Iterable[T], *, ordered: bool = False, deadline: float | None = None
    ) -> RunReport[T, R]:
        """The blocking twin of `run`, for a plain function: threads, and no event loop.

        Raises:
            TypeError: the function is async, or the input is.
            RunFailed: an item failed, with `on_error="raise"`.
            Exception: what the input raised.
        """
        with self.map_sync(items, ordered=ordered, deadline=deadline) as stream:
            return stream.collect()

    def __repr__(self) -> str:
        least, most = self._plan.concurrency
        concurrency = most if least == most else (least, most)
        return f"BatchedExecutor(name={self._plan.name!r}, concurrency={concurrency})"

    def _set_up(
        self,
        function: Callable[[Any], Any],
        make_plan: Callable[..., Plan],
        *,
        pace: float | None = None,
        limiter: Any = None,
        cost: Any = 1,
        priority: Any = 0,
        **options: Any,
    ) -> None:
        self._plan = make_plan(function, priority=priority, **options)
        clock = self._plan.clock
        self._function = function
        self._limiter = limiter
        self._cost = cost
        # a twentieth of a second at once: what late timers would cost at burst 1
        self._pace = (
            None if pace is None else TokenBucket(pace, max(1, int(pace / 20)), name="pace", clock=clock)
        )

    def _new_run(self, items: Iterable[T] | AsyncIterable[T], asked: Terms) -> Run[T, R]:
        return Run(self._plan, self._dispatch(self._awaitable()), items, asked)

    def _awaitable(self) -> Callable[[Any], Awaitable[Any]]:
        """The function for tasks: a plain one goes to threads, as many at once as there are calls."""
        if not self._plan.threads:
            return self._function
        threads = anyio.CapacityLimiter(self._plan.concurrency[1])

        async def call(argument: Any) -> Any:
            return await anyio.to_thread.run_sync(self._function, argument, limiter=threads)

        return call

    def _dispatch(self, function: Callable[[Any], Any]) -> Dispatch[Any, Any]:
        plan = self._plan
        return Dispatch(
            function,
            name=plan.name,
            clock=plan.clock,
            limiter=self._limiter,
            cost=self._cost,
            pace=self._pace,
            hooks=plan.hooks,
        )


class Decorator(Protocol):
    """Makes an executor of a batch function."""

    @overload
    def __call__(
        self, function: Callable[[list[T]], Awaitable[Sequence[R | Exception]]], /
    ) -> BatchedExecutor[T, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[T]], Sequence[R | Exception]], /
    ) -> BatchedExecutor[T, R]: ...


def batched(**options: Unpack[BatchOptions[Any]]) -> Decorator:
    """Make an executor of the batch function that follows; see `BatchedExecutor.of_batches`.

    Example:
        ```python
        @batched(batch_size=10, concurrency=5)
        async def enrich(words: list[str]) -> list[Card]: ...

        report = await enrich.run(words)
        ```
    """

    def make(function: Callable[[list[Any]], Any]) -> BatchedExecutor[Any, Any]:
        return BatchedExecutor[Any, Any].of_batches(function, **options)

    return make

"""The outcomes of a run, one by one: as an async iterator, and as a plain one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from batchkit._numbers import checked_seconds
from batchkit._running.tasks import Run
from batchkit._running.threads import ThreadRun
from batchkit._values import Outcome, RunReport

T = TypeVar("T")
R = TypeVar("R")


class Stream(Generic[T, R]):
    """What both kinds have in common."""

    def __init__(self, run: Run[T, R] | ThreadRun[T, R]) -> None:
        self._any_run = run

    def submit(self, item: T, *, priority: int | None = None) -> None:
        """Have one more item called. From any task or thread, also from the function itself.

        It does not wait, whatever the window is; `waiting` says how many have not started.

        Args:
            item: the item.
            priority: in place of the executor's.

        Raises:
            StreamClosed: the run is over, or ends.
        """
        self._any_run.submit(item, priority)

    def end(self) -> None:
        """Say that no further item is submitted, so that a run that was kept open ends with its last item."""
        self._any_run.end_input()

    def drain(self, grace: float = 30.0) -> None:
        """Start nothing new. What is under way has `grace` seconds, and is cancelled then; the rest is not
        started. The stream ends when all of them were read. From any task or thread; a second call may
        shorten the time.

        A plain function cannot be cancelled: in an event loop it is waited for; `map_sync` goes on without
        it, and its thread ends with the call.
        """
        self._any_run.drain(checked_seconds("grace", grace))

    @property
    def draining(self) -> bool:
        """Whether nothing new starts."""
        return self._any_run.desk.ending.draining

    @property
    def waiting(self) -> int:
        """Items that were read or submitted, and have not started."""
        return self._any_run.waiting

    @property
    def left(self) -> Sequence[Outcome[T, R]]:
        """When the stream was closed before its end: the outcomes that were not read, also those of items
        that were not started.
        """
        return self._any_run.desk.delivery.left

    def report(self, outcomes: Sequence[Outcome[T, R]] = ()) -> RunReport[T, R]:
        """The figures so far, with the outcomes given."""
        return self._any_run.report(outcomes)

    def __del__(self) -> None:
        self._any_run.stop()


class OutcomeStream(Stream[T, R], AsyncIterator[Outcome[T, R]]):
    """The outcomes of a run, as an async iterator that owns the run's workers.

    The workers start with the first outcome that is asked for. They stop when the stream is read to its
    end, when its `async with` is left, at `aclose()`, or when it is dropped. Several tasks may read it side
    by side: each outcome goes to one of them.
    """

    def __init__(self, run: Run[T, R]) -> None:
        super().__init__(run)
        self._run = run

    async def __anext__(self) -> Outcome[T, R]:
        outcome = self._run.read_now() or await self._run.read()
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    async def collect(self) -> RunReport[T, R]:
        """Wait for the end of the run; returns the figures, with all outcomes that were not read.

        It reads nothing meanwhile, so that the window does not matter.

        Raises:
            RunFailed: an item failed, with `on_error="raise"`.
            Exception: what the input raised.
        """
        return self._run.report(await self._run.read_all())

    async def aclose(self) -> None:
        """Stop the workers; what is under way is cancelled. Returns when the last one has stopped."""
        await self._run.stopped()

    async def __aenter__(self) -> Self:
        self._run.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class SyncOutcomeStream(Stream[T, R], Iterator[Outcome[T, R]]):
    """The blocking twin of `OutcomeStream`: a plain iterator that owns the threads of the run.

    The input is read in a thread of its own. Nobody can stop a thread: `close()` waits for calls under way.
    """

    def __init__(self, run: ThreadRun[T, R]) -> None:
        super().__init__(run)
        self._run = run

    def __next__(self) -> Outcome[T, R]:
        outcome = self._run.read()
        if outcome is None:
            raise StopIteration
        return outcome

    def collect(self) -> RunReport[T, R]:
        """The blocking twin of `OutcomeStream.collect`."""
        return self._run.report(self._run.read_all())

    def close(self) -> None:
        """Start nothing more, and return when no call is under way."""
        self._run.stopped()

    def __enter__(self) -> Self:
        self._run.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

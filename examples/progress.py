"""Live progress from the executor's events: a bar in a terminal, a few plain lines anywhere else."""

import time
from types import TracebackType
from typing import Protocol, Self

from attrs import define, field
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from batchkit import BatchSplit, CallFinished, Event, ItemFinished

LINES = 10  # that a run prints where nobody looks at a bar


class Watcher(Protocol):
    """A hook with a beginning and an end."""

    def __call__(self, event: Event) -> object:
        """Something happened."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def watcher(console: Console, total: int) -> Watcher:
    """What suits the console, for `total` characters."""
    return Bar(console, total) if console.is_terminal else Lines(console, total)


@define
class Counts:
    """What happened so far."""

    done: int = 0
    failed: int = 0
    calls: int = 0
    splits: int = 0

    def add(self, event: Event) -> None:
        """Count an event."""
        match event:
            case ItemFinished(outcome=outcome):
                self.done += 1
                self.failed += not outcome.ok
            case CallFinished():
                self.calls += 1
            case BatchSplit():
                self.splits += 1
            case _:
                pass

    def __str__(self) -> str:
        failed = f", {self.failed:,} failed" if self.failed else ""
        splits = f", {self.splits:,} split" if self.splits else ""
        return f"{self.calls:,} calls{splits}{failed}"


@define(eq=False)
class Bar:
    """A bar that moves."""

    console: Console
    total: int
    counts: Counts = field(factory=Counts)
    _progress: Progress = field(init=False)
    _task: TaskID = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._progress = Progress(
            TextColumn("cards"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        self._task = self._progress.add_task("", total=self.total, counts=self.counts)

    def __call__(self, event: Event) -> None:
        self.counts.add(event)
        self._progress.update(self._task, completed=self.counts.done, counts=self.counts)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


@define(eq=False)
class Lines:
    """A line for each tenth of the way."""

    console: Console
    total: int
    counts: Counts = field(factory=Counts)
    started: float = 0.0

    def __call__(self, event: Event) -> None:
        tenth = self._tenth()
        self.counts.add(event)
        if self._tenth() > tenth:
            self._say()

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _tenth(self) -> int:
        return LINES * self.counts.done // max(1, self.total)

    def _say(self) -> None:
        seconds = time.monotonic() - self.started
        self.console.print(f"  {self.counts.done:,} of {self.total:,} cards, {self.counts}, {seconds:.1f} s")

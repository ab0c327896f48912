"""Live progress, as the database has it: bars in a terminal, a few plain lines anywhere else."""

import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

import anyio
from attrs import define, field
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Display

from examples.database import Progress

LINES = 10  # for each step of the cards, where nobody looks at a bar
LOOK = 0.1  # seconds between two looks
STEPS = {"cards": "cards", "media": "pictures and sounds"}


class Watcher(Protocol):
    """Shows progress from the beginning to the end of a block."""

    def show(self, progress: Progress) -> None:
        """It has come so far."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


async def follow(watch: Watcher, look: Callable[[], Awaitable[Progress]]) -> None:
    """Show how far the work is, until this is cancelled."""
    while True:
        watch.show(await look())
        await anyio.sleep(LOOK)


def watcher(console: Console, with_media: bool = True) -> Watcher:
    """What suits the console."""
    steps = [*STEPS] if with_media else ["cards"]
    return Bars(console, steps) if console.is_terminal else Lines(console, steps)


def counts(progress: Progress) -> dict[str, int]:
    """How many cards have done each step."""
    return {"cards": progress.texts, "media": progress.complete}


@define(eq=False)
class Bars:
    """A bar for each step."""

    console: Console
    steps: list[str]
    _display: Display = field(init=False)
    _tasks: dict[str, TaskID] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._display = Display(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        self._tasks = {step: self._display.add_task(STEPS[step], total=None) for step in self.steps}

    def show(self, progress: Progress) -> None:
        for step, task in self._tasks.items():
            self._display.update(task, completed=counts(progress)[step], total=progress.words)

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()


@define(eq=False)
class Lines:
    """A line for each tenth of the way, of each step."""

    console: Console
    steps: list[str]
    _told: dict[str, int] = field(factory=dict[str, int])
    _started: float = field(factory=time.monotonic)

    def show(self, progress: Progress) -> None:
        for step in self.steps:
            tenth = LINES * counts(progress)[step] // max(1, progress.words)
            if step in self._told and tenth > self._told[step]:
                self._say(step, tenth * progress.words // LINES, progress.words)
            self._told[step] = tenth

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _say(self, step: str, done: int, total: int) -> None:
        seconds = time.monotonic() - self._started
        self.console.print(f"  {done:,} of {total:,} {STEPS[step]}, {seconds:.1f} s")

"""Bars of rich and of tqdm, moved by an executor's events. A library is imported when a bar is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from attrs import frozen

from batchkit._events import Event, ItemFinished, RunFinished, RunStarted
from batchkit.progress import ProgressMeter, duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

B = TypeVar("B")
NewMeter = Callable[[], ProgressMeter]

_TQDM_FORMAT: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt}{failed} [{elapsed}, {rate_fmt}, {left} left]"


class Bars(ABC, Generic[B]):
    """A bar for each executor whose run is on, by its name."""

    def __init__(self, new_meter: NewMeter) -> None:
        self._new_meter = new_meter
        self._runs: dict[str, tuple[ProgressMeter, B]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            meter = self._new_meter()
            meter(event)
            self._runs[event.name] = (meter, self._begin(event, meter))
        elif event.name in self._runs:  # so it is not a limiter's
            meter, bar = self._runs[event.name]
            meter(event)
            if isinstance(event, ItemFinished):
                self._show(bar, meter)
            elif isinstance(event, RunFinished):
                del self._runs[event.name]
                self._end(bar, meter)

    @abstractmethod
    def _begin(self, event: RunStarted, meter: ProgressMeter) -> B:
        """Make the bar of a run."""

    @abstractmethod
    def _show(self, bar: B, meter: ProgressMeter) -> None:
        """An item more is done."""

    @abstractmethod
    def _end(self, bar: B, meter: ProgressMeter) -> None:
        """The run is over."""


class RichBars(Bars["TaskID"]):
    """Bars of rich, in a display of their own or in somebody's."""

    def __init__(self, new_meter: NewMeter, progress: Progress | None) -> None:
        super().__init__(new_meter)
        self._rich = import_module("rich.progress")
        self._given = progress
        self._progress: Progress | None = progress

    def _begin(self, event: RunStarted, meter: ProgressMeter) -> TaskID:
        if self._progress is None:
            self._progress = self._new_display()
            self._progress.start()
        name = import_module("rich.markup").escape(event.name)
        return self._progress.add_task(name, total=event.total, failed=_Failed(meter), left=_Left(meter))

    def _show(self, bar: TaskID, meter: ProgressMeter) -> None:
        if self._progress is not None:
            self._progress.update(bar, completed=meter.done)

    def _end(self, bar: TaskID, meter: ProgressMeter) -> None:
        if self._progress is None:
            return
        self._progress.update(bar, completed=meter.done, total=meter.progress().total or meter.done)
        if self._given is None and not self._runs:
            self._progress.stop()
            self._progress = None

    def _new_display(self) -> Progress:
        rich = self._rich
        display: Progress = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[failed]}"),
            rich.TimeElapsedColumn(),
            rich.TextColumn("{task.fields[left]} left"),
        )
        return display


class TqdmBars(Bars[Any]):
    """Bars of tqdm."""

    def __init__(self, new_meter: NewMeter, options: Mapping[str, Any]) -> None:
        super().__init__(new_meter)
        self._options = options
        self._tqdm: Any = import_module("tqdm.auto").tqdm

    def _begin(self, event: RunStarted, meter: ProgressMeter) -> Any:
        options = {"desc": event.name, "total": event.total, "unit": " items", "bar_format": _TQDM_FORMAT}
        return self._kind(meter)(**options | dict(self._options))

    def _show(self, bar: Any, meter: ProgressMeter) -> None:
        bar.update(meter.done - bar.n)

    def _end(self, bar: Any, meter: ProgressMeter) -> None:
        bar.update(meter.done - bar.n)
        bar.total = meter.progress().total or meter.done
        bar.refresh()
        bar.close()

    def _kind(self, meter: ProgressMeter) -> Any:
        """The class of a bar that asks the meter whenever it is drawn, also by its own constructor."""

        def format_dict(bar: Any) -> dict[str, Any]:
            failed, left = _Failed(meter), _Left(meter)
            return {**self._tqdm.format_dict.fget(bar), "failed": f" {failed}".rstrip(), "left": left}

        return type("Bar", (self._tqdm,), {"format_dict": property(format_dict)})


@frozen
class _Failed:
    """Says how many items failed, if any did, at the moment at which it is shown."""

    meter: ProgressMeter

    def __str__(self) -> str:
        failed = self.meter.progress().failed
        return f"{failed:,} failed" if failed else ""


@frozen
class _Left:
    """Says how long it will take, at the moment at which it is shown."""

    meter: ProgressMeter

    def __str__(self) -> str:
        return duration(self.meter.progress().left)

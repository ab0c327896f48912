"""Processes of our own that end with us, however we end: each reads its standard input, which closes then."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import IO, Self

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define

from examples.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]  # where `examples` is found
STARTUP = 60.0  # seconds: eight workers that load their libraries at once on a small machine
PATIENCE = 30.0  # seconds that a process is given to end in order
LONGEST_LINE = 1000  # bytes
MOST_QUOTED = 1000  # characters of a log
FLAG = "--until-stdin-closes"


@define(eq=False)
class Child:
    """A process that was started.

    Attributes:
        module: what it runs.
        process: as anyio sees it.
        log: where its standard error goes, unless that is ours.
    """

    module: str
    process: anyio.abc.Process
    log: Path | None = None

    @classmethod
    async def spawn(
        cls,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> Self:
        """Start `python -m MODULE ARGUMENTS --until-stdin-closes`.

        Args:
            module: it prints one line as soon as it is ready, and ends when its standard input closes.
            *arguments: for it.
            environment: its variables; by default, ours.
            log: what it says on standard error is added to this file; without one, we say it.
        """
        with to_add(log) as errors:
            process = await anyio.open_process(
                [sys.executable, "-P", "-m", module, *arguments, FLAG],
                stdin=subprocess.PIPE,
                stderr=errors,
                env={**(os.environ if environment is None else environment), "PYTHONPATH": path()},
                start_new_session=True,  # Ctrl-C in the terminal is for us: calls under way may end
            )
        return cls(module, process, log)

    async def ready(self) -> str:
        """What it says when it is ready; nothing else is to come on its standard output.

        Raises:
            UsageError: it did not start, and is gone.
        """
        assert self.process.stdout is not None
        try:
            with anyio.fail_after(STARTUP):
                out = BufferedByteReceiveStream(self.process.stdout)
                return (await out.receive_until(b"\n", LONGEST_LINE)).decode()
        except (anyio.IncompleteRead, TimeoutError):
            await self.end(0)
            raise UsageError(f"{self.module} did not start: {self._complaint()}") from None

    async def end(self, patience: float = PATIENCE) -> None:
        """Let it end in order; after so many seconds it is killed."""
        assert self.process.stdin is not None
        with anyio.CancelScope(shield=True):
            await self.process.stdin.aclose()
            with anyio.move_on_after(patience):
                await self.process.wait()
            if self.running:
                self.process.kill()
            await self.process.aclose()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def _complaint(self) -> str:
        """Why it did not start."""
        if self.log is None:
            return "what it said stands above."
        return self.log.read_text(errors="replace")[-MOST_QUOTED:].strip() or "it did not say why."


def path() -> str:
    """Where a child finds the modules that we see."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def to_add(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    """A log, opened so that what comes is added to it."""
    return nullcontext() if log is None else log.open("ab")


@asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[str]:
    """A process that runs until the block is left; gives what it said when it was ready.

    Raises:
        UsageError: it did not start.
    """
    started = await Child.spawn(module, *arguments)
    try:
        yield await started.ready()
    finally:
        await started.end()


def when_parent_ends(end: Callable[[], object]) -> None:
    """For a child: have `end` called, in a thread, when its standard input closes."""

    def watch() -> None:
        # Without Python's buffer, whose lock this thread would still hold when the interpreter ends.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        end()

    threading.Thread(target=watch, daemon=True).start()


def terminate() -> None:
    """End this process as SIGTERM would have it end."""
    os.kill(os.getpid(), signal.SIGTERM)  # to the process, so that its main thread wakes

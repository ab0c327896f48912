"""Which text service is asked: the stand-in (the default, so that nobody pays by accident), or the real one.

Both are an `Endpoint` to the worker. They differ in who counts the calls: the stand-in keeps a ledger of
all that reaches it.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.abc
import httpx2
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import frozen

from examples import settings
from examples.errors import UsageError
from examples.report import Ledger, quota_bound
from examples.text import Endpoint, TextService

ROOT = Path(__file__).resolve().parents[1]  # where `examples` is found
KEY = "stand-in"  # it takes any key, and must never see a real one
STARTUP = 30  # seconds
LONGEST_LINE = 1000  # bytes


class Service(Protocol):
    """A text service that can be asked, and the account of what it was asked."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        ...

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    async def ledger(self, text: TextService) -> Ledger:
        """The calls of this run."""
        ...


@frozen
class StandIn:
    """The stand-in services.

    Attributes:
        url: where they are.
        speed: at which they run.
        since: calls before this one belong to earlier runs.
    """

    url: str
    speed: float
    since: int

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"{self.url}/v1", KEY, self.speed)

    @property
    def name(self) -> str:
        return f"stand-in at {self.url}" + (f", {self.speed:g}x speed" if self.speed != 1 else "")

    async def ledger(self, text: TextService) -> Ledger:
        figures = await summary(self.url, self.since)
        return Ledger(
            calls=figures["calls"],
            refused=figures["refused"],
            repeated=figures["repeated"],
            bound_seconds=figures["bound_seconds"],
            counted_by="the stand-in's ledger",
        )


@frozen
class OpenAI:
    """The service itself, or another that speaks its protocol."""

    options: settings.Text

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.options.base_url, self.options.api_key)

    @property
    def name(self) -> str:
        return f"{self.options.model} at {self.options.base_url}"

    async def ledger(self, text: TextService) -> Ledger:
        usage, options = text.usage, self.options
        latency = usage.seconds / usage.calls if usage.calls else 0.0
        bound = quota_bound(usage.calls, options.rate, options.burst, latency)
        return Ledger(usage.calls, usage.refused, None, bound, counted_by="this client")


def real(options: settings.Text, speed: float) -> OpenAI:
    """The service itself. Raises UsageError without a key, or if it is to run faster than it does."""
    if speed != 1:
        raise UsageError("--speed is for the stand-in: --service openai runs at its own.")
    if not options.api_key:
        raise UsageError("--service openai needs an API key in the environment variable OPENAI_API_KEY.")
    return OpenAI(options)


async def running(url: str, speed: float) -> StandIn:
    """A stand-in that runs already, at this speed. Raises UsageError if it does not answer."""
    return StandIn(url.rstrip("/"), speed, since=(await summary(url.rstrip("/"), 0))["next"])


@asynccontextmanager
async def started(speed: float) -> AsyncIterator[StandIn]:
    """A stand-in of our own, in its own process on a free port; it ends with us, even if we are killed."""
    command = [sys.executable, "-P", "-m", "examples.standin", "--speed", str(speed), "--until-stdin-closes"]
    path = [str(ROOT), os.environ.get("PYTHONPATH")]
    process = await anyio.open_process(
        command,
        stdin=subprocess.PIPE,
        stderr=None,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        start_new_session=True,  # Ctrl-C in the terminal is for us: calls under way may end
    )
    async with process:  # at the end of which its standard input closes, and it ends
        yield StandIn(await announced(process), speed, since=0)


async def announced(process: anyio.abc.Process) -> str:
    """The URL in the first line that it prints: it answers from then on."""
    assert process.stdout is not None
    try:
        with anyio.fail_after(STARTUP):
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", LONGEST_LINE)
    except (anyio.IncompleteRead, TimeoutError):
        raise UsageError("The stand-in services did not start; what they said stands above.") from None
    return line.decode().split()[-1]


async def summary(url: str, since: int) -> dict[str, Any]:
    """The figures of a stand-in's ledger, from call `since` on."""
    try:
        async with httpx2.AsyncClient(trust_env=False) as client:  # no proxy on the way to our own machine
            reply = await client.get(f"{url}/standin/summary", params={"since": since})
            figures: dict[str, Any] = reply.raise_for_status().json()
            return figures
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise UsageError(f"No stand-in answers at {url}: {str(error) or type(error).__name__}.") from None

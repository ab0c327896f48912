"""Which services are asked: the stand-in (the default, so that nobody pays by accident), or the real ones.

Each is an `Endpoint` to the workers. They differ in who counts the calls: the stand-in keeps a ledger of all
that reaches it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx2
from attrs import frozen

from examples.children import child
from examples.endpoint import Endpoint
from examples.errors import UsageError
from examples.report import Ledger, quota_bound
from examples.settings import Settings
from examples.text import TextService

KEY = "stand-in"  # it takes any key, and must never see a real one
NOT_ASKED = {"calls": 0, "refused": 0, "repeated": 0, "bound_seconds": None}


class Services(Protocol):
    """The three services that can be asked, and the account of what the first was asked."""

    @property
    def text(self) -> Endpoint:
        """Who writes."""
        ...

    @property
    def picture(self) -> Endpoint:
        """Who draws."""
        ...

    @property
    def sound(self) -> Endpoint:
        """Who speaks."""
        ...

    async def ledger(self, text: TextService) -> Ledger:
        """The calls of this run, for texts."""
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
    def text(self) -> Endpoint:
        return self._endpoint("/v1")

    @property
    def picture(self) -> Endpoint:
        return self._endpoint("/fal")

    @property
    def sound(self) -> Endpoint:
        return self._endpoint("")

    async def ledger(self, text: TextService) -> Ledger:
        figures = (await summary(self.url, self.since))["services"].get("text", NOT_ASKED)
        return Ledger(
            calls=figures["calls"],
            refused=figures["refused"],
            repeated=figures["repeated"],
            bound_seconds=figures["bound_seconds"],
            counted_by="the stand-in's ledger",
        )

    def _endpoint(self, path: str) -> Endpoint:
        name = f"stand-in at {self.url}" + (f", {self.speed:g}x speed" if self.speed != 1 else "")
        return Endpoint(self.url + path, KEY, self.speed, name)


@frozen
class Real:
    """OpenAI, fal and Azure themselves, or others that speak their protocols."""

    config: Settings

    @property
    def text(self) -> Endpoint:
        options = self.config.text
        return Endpoint(options.base_url, options.api_key, name=f"{options.model} at {options.base_url}")

    @property
    def picture(self) -> Endpoint:
        options = self.config.picture
        return Endpoint(options.base_url, options.api_key, name=f"{options.model} at {options.base_url}")

    @property
    def sound(self) -> Endpoint:
        options = self.config.sound
        url = options.base_url.replace("{region}", options.region)
        return Endpoint(url, options.api_key, name=f"{options.voice} at {url}")

    async def ledger(self, text: TextService) -> Ledger:
        usage, options = text.usage, self.config.text
        latency = usage.calling / usage.calls if usage.calls else 0.0
        bound = quota_bound(usage.calls, options.rate, options.burst, latency)
        return Ledger(usage.calls, usage.refused, None, bound, counted_by="this client")


NEEDED = {
    "text": ("OPENAI_API_KEY",),
    "picture": ("FAL_KEY",),
    "sound": ("AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION"),
}  # what an account is known by


def real(config: Settings, speed: float, wanted: Sequence[str] = tuple(NEEDED)) -> Real:
    """The services themselves.

    Raises:
        UsageError: an account of one that is wanted is not named, or they are to run faster than they do.
    """
    if speed != 1:
        raise UsageError("--speed is for the stand-in: the services themselves run at their own.")
    given = {
        "OPENAI_API_KEY": config.text.api_key,
        "FAL_KEY": config.picture.api_key,
        "AZURE_SPEECH_KEY": config.sound.api_key,
        "AZURE_SPEECH_REGION": config.sound.region,
    }
    missing = [name for service in wanted for name in NEEDED[service] if not given[name]]
    if missing:
        raise UsageError(f"The services themselves need the environment variables {', '.join(missing)}.")
    return Real(config)


async def running(url: str, speed: float) -> StandIn:
    """A stand-in that runs already, at this speed. Raises UsageError if it does not answer."""
    return StandIn(url.rstrip("/"), speed, since=(await summary(url.rstrip("/"), 0))["next"])


@asynccontextmanager
async def started(speed: float, switches: Sequence[str] = ()) -> AsyncIterator[StandIn]:
    """A stand-in of our own, in its own process on a free port; it ends with us, even if we are killed.

    Args:
        speed: service seconds in a second.
        switches: that are turned before the first call, such as "text.rate=4".
    """
    turned = [word for switch in switches for word in ("--set", switch)]
    async with child("examples.standin", "--speed", str(speed), *turned) as said:
        yield StandIn(said.split()[-1], speed, since=0)


async def summary(url: str, since: int) -> dict[str, Any]:
    """The figures of a stand-in's ledger, from call `since` on."""
    try:
        async with httpx2.AsyncClient(trust_env=False) as client:  # no proxy on the way to our own machine
            reply = await client.get(f"{url}/standin/summary", params={"since": since})
            figures: dict[str, Any] = reply.raise_for_status().json()
            return figures
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise UsageError(f"No stand-in answers at {url}: {str(error) or type(error).__name__}.") from None

"""Which services are asked: the stand-in (the default, so that nobody pays by accident), or the real ones.

Each is an `Endpoint` to the workers. They differ in who counts the calls: the stand-in keeps a ledger of all
that reaches it.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx2
from attrs import frozen

from examples.errors import UsageError
from examples.fleet.children import child
from examples.reporting.report import Ledger, Use, quota_bound
from examples.services.endpoint import Endpoint
from examples.settings import Settings

KEY = "stand-in"  # it takes any key, and must never see a real one
PATIENCE = 30.0  # seconds for an answer: a ledger may be long
Path = Sequence[Sequence[tuple[str, str]]]  # calls by service and key: stages of calls side by side


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

    async def mark(self) -> int:
        """A moment, to count calls from."""
        ...

    async def ledger(self, uses: Mapping[str, Use], since: int = 0, paths: Sequence[Path] = ()) -> Ledger:
        """The calls of some services since a moment.

        Args:
            uses: what the clients counted, by service; others than these are left out.
            since: the moment.
            paths: which calls each result needed, of several services one after another.
        """
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

    async def mark(self) -> int:
        return int((await summary(self.url, 0))["next"])

    async def ledger(self, uses: Mapping[str, Use], since: int = 0, paths: Sequence[Path] = ()) -> Ledger:
        since = max(since, self.since)
        figures = (await summary(self.url, since))["services"]
        bounds = (await asked(self.url, "POST", "bound", since, paths))["services"]
        services = {
            name: {**figures[name], "bound_seconds": bounds.get(name)} for name in uses if name in figures
        }
        return Ledger(
            calls=sum(of["calls"] for of in services.values()),
            refused=sum(of["refused"] for of in services.values()),
            repeated=sum(of["repeated"] for of in services.values()),
            bound_seconds=largest(of["bound_seconds"] for of in services.values()),
            counted_by="the stand-in's ledger",
            services=services,
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

    async def mark(self) -> int:
        return 0  # it does not tell

    async def ledger(self, uses: Mapping[str, Use], since: int = 0, paths: Sequence[Path] = ()) -> Ledger:
        bursts = {name: getattr(self.config, name).burst for name in uses}
        bounds = {name: bound(use, bursts[name]) for name, use in uses.items()}
        return Ledger(
            calls=sum(use.calls for use in uses.values()),
            refused=sum(use.refused for use in uses.values()),
            repeated=None,
            bound_seconds=largest(bounds.values()),
            counted_by="the clients",
            services={
                name: {"calls": use.calls, "refused": use.refused, "bound_seconds": bounds[name]}
                for name, use in uses.items()
            },
        )


def bound(use: Use, burst: int) -> float | None:
    """About the least time that these calls need."""
    return quota_bound(use.calls, use.rate, burst, use.calling / use.calls if use.calls else 0.0)


def largest(seconds: Iterable[float | None]) -> float | None:
    return max((each for each in seconds if each is not None), default=None)


NEEDED = {
    "text": ("OPENAI_API_KEY",),
    "picture": ("FAL_KEY",),
    "sound": ("AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION"),
}  # what an account is known by
ALL = tuple(NEEDED)


def real(config: Settings, speed: float, wanted: Sequence[str] = ALL) -> Real:
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
    return await asked(url, "GET", "summary", since)


async def turn(url: str, switches: Mapping[str, Mapping[str, object]]) -> None:
    """Turn switches of a stand-in that runs: {"text": {"rate": 1}}."""
    await asked(url, "PUT", "switches", 0, switches)


async def asked(url: str, method: str, what: str, since: int, content: object = None) -> dict[str, Any]:
    """What a stand-in says of itself. Raises UsageError if it says nothing."""
    try:
        # It is on our own machine: no proxy, and no certificates, which take longer to load than the answer.
        async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE) as client:
            reply = await client.request(
                method, f"{url}/standin/{what}", params={"since": since}, json=content
            )
            figures: dict[str, Any] = reply.raise_for_status().json()
            return figures
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise UsageError(f"No stand-in answers at {url}: {str(error) or type(error).__name__}.") from None

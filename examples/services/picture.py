"""The picture service: fal draws what a prompt says, as a job in its queue.

Plain HTTP, and not fal-client: that makes up to ten requests of one, and nothing switches it off: of a
refusal, whatever its `Retry-After` says, and of an order whose answer was lost, which is then drawn and paid
for twice. It takes no permits, asks ten times a second how a job is, knows https only, and runs on asyncio
alone.

Only an order counts, and only what was drawn is paid for. So a question about a job that fails is asked
again, for nothing, and a job that nobody waits for is cancelled.
"""

from contextlib import suppress
from functools import partial
from typing import TypeVar

import anyio
import httpx2
from pydantic import BaseModel, Field, ValidationError

from batchkit import Retry
from batchkit.abc import Limiter, Permit
from batchkit.retries import exponential
from examples import settings
from examples.errors import MalformedAnswer
from examples.media.media import Media, media
from examples.queueing.urgency import Urgency
from examples.services.calls import Calls, may_pass, retry, tried
from examples.services.clock import Clock, RealClock
from examples.services.endpoint import Client, Endpoint

M = TypeVar("M", bound=BaseModel)

PATIENCE = 10.0  # service seconds for an answer: none of them waits until a picture is drawn
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0  # service seconds before a question about a job is asked again


class Job(BaseModel):
    """An order that was taken: whom to ask about it. fal says not to build these addresses oneself."""

    status_url: str
    response_url: str
    cancel_url: str


class Status(BaseModel):
    """How a job is: IN_QUEUE, IN_PROGRESS or COMPLETED."""

    status: str


class File(BaseModel):
    """Where a picture lies."""

    url: str


class Result(BaseModel):
    """What a model returned."""

    images: list[File] = Field(min_length=1)
    has_nsfw_concepts: list[bool] = []  # true where the picture was blackened


class PictureService(Client):
    """Draws pictures.

    Args:
        endpoint: where the service is.
        options: how it is called.
        limiter: lets each order go. A limiter of jobs at once may be part of it: a permit is held until the
            job is done.
        connections: kept open, one for each picture at once.
        transport: for tests, what answers in place of the network.
        clock: for tests, what waits go by.

    Attributes:
        calls: how they are made.
        usage: of orders, counted since the start.
        pictures: made so far, whether they could be used or not: what is paid for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: settings.Picture,
        limiter: Limiter,
        connections: int,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(endpoint.client(timeout=PATIENCE, connections=connections, transport=transport))
        self._clock = clock or RealClock()
        again = retry(options.attempts, endpoint.speed, on=may_pass)
        self.calls = Calls(limiter, again, (httpx2.HTTPError, TimeoutError), self._clock)
        self.usage = self.calls.usage
        self.pictures = 0
        self._url = f"{endpoint.url}/{options.model}"
        self._key = {"authorization": f"Key {endpoint.key}"}
        self._size = options.size
        self._timeout = options.timeout / endpoint.speed
        self._patience = PATIENCE / endpoint.speed
        self._asking = Retry(
            attempts=None,
            backoff=exponential(FIRST_PAUSE / endpoint.speed, LONGEST_PAUSE / endpoint.speed, jitter="equal"),
            timeout=self._timeout,
            budget=None,
        )

    async def draw(self, prompt: str, urgency: Urgency | None = None) -> Media:
        """A picture of what the prompt says.

        Raises:
            ServiceError: which of them says what may help.
        """
        return await self.calls.make(partial(self._attempt, prompt), urgency)

    async def _attempt(self, prompt: str, permit: Permit) -> Media:
        """One job, from the order to the file."""
        job = await self._order(prompt, permit)
        try:
            with anyio.fail_after(self._timeout):
                await tried(partial(self._done, job), self._asking, self._clock)
        except BaseException:
            await self._cancel(job)
            raise
        reply = await self._ask(job.response_url, self._key)
        self.pictures += 1
        result = read(Result, reply.content)
        if any(result.has_nsfw_concepts):
            raise MalformedAnswer("the service takes the picture for indecent")
        return media(await self._ask(result.images[0].url), "image")  # on another host, which needs no key

    async def _order(self, prompt: str, permit: Permit) -> Job:
        """Have a picture drawn. Shielded: only the answer says by which name the job could be cancelled."""
        wanted = {"prompt": prompt, "image_size": self._size, "num_images": 1}
        with anyio.CancelScope(shield=True):
            reply = await self._http.post(self._url, json=wanted, headers=self._key)
            permit.hear(reply)
            return read(Job, reply.raise_for_status().content)
        raise AssertionError("nobody cancels the scope")

    async def _done(self, job: Job) -> None:
        """Return when a job is done, well or not: the server tells each change, and ends the stream then."""
        async with self._http.stream(
            "GET", f"{job.status_url}/stream", headers=self._key, timeout=None
        ) as events:
            if events.is_error:
                await events.aread()
            checked(events)
            told = [line[5:] async for line in events.aiter_lines() if line.startswith("data:")]
        if not told or read(Status, told[-1]).status != "COMPLETED":
            raise httpx2.RemoteProtocolError("the stream of a job ended before the job did")

    async def _ask(self, url: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        """What lies there; asked again for nothing as long as it may help."""

        async def ask() -> httpx2.Response:
            return checked(await self._http.get(url, headers=headers))

        return await tried(ask, self._asking, self._clock)

    async def _cancel(self, job: Job) -> None:
        """Nobody waits for this job: see that it is not made. If that is not heard, it is made in vain."""

        async def cancel() -> None:
            checked(await self._http.put(job.cancel_url, headers=self._key))

        with anyio.move_on_after(self._patience, shield=True), suppress(httpx2.HTTPError, MalformedAnswer):
            await tried(cancel, self._asking, self._clock)


def checked(reply: httpx2.Response) -> httpx2.Response:
    """An answer about a job, if it is a good one. That the service knows no such job is no reason to give up:
    another one may do better.
    """
    if reply.status_code == 404:
        raise MalformedAnswer("the service has lost the job")
    return reply.raise_for_status()


def read(kind: type[M], body: bytes | str) -> M:
    """What a body of JSON says. Raises MalformedAnswer."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise MalformedAnswer(f"the answer is malformed: {error.errors()[0]['msg']}") from error

"""The calls of one service: a permit for each attempt, another attempt where it may help, and an account.

A client's own retries know nothing of the limiter (one refusal would become several calls). So they are off,
and every attempt has a permit of its own instead; in between it waits as long as the server asks.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Final, TypeVar

import httpx2
from attrs import define, field

from batchkit import Retry
from batchkit.abc import Limiter, Permit
from batchkit.feedback import Verdict, classify, is_transient
from batchkit.retries import On, RetryBudget, exponential
from examples.errors import CallFailed, MalformedAnswer, NotAllowed, ServiceError, Unavailable
from examples.queueing.urgency import Urgency
from examples.services.clock import Clock, RealClock

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # service seconds between two attempts, if the server does not say
LONGEST_ASKED = 120.0  # seconds: a server that asks for a longer wait than this is not waited for
FAILURES = 20.0  # the retry budget: when half as many calls have failed, none is tried again for a while
FINAL: Final = frozenset({401, 402, 403, 404})  # no key, no money, no right, no such model


@define
class Usage:
    """What was used.

    Attributes:
        calls: attempts made, however they ended.
        refused: those that came too fast for the service.
        waiting: seconds that they waited for permits, all together.
        calling: seconds that they took.
        total: seconds from question to answer: permits, attempts, and pauses in between.
    """

    calls: int = 0
    refused: int = 0
    waiting: float = 0.0
    calling: float = 0.0
    total: float = 0.0

    @property
    def pausing(self) -> float:
        """Seconds between an attempt that failed and the next one."""
        return max(0.0, self.total - self.waiting - self.calling)


@define(eq=False)
class Calls:
    """Makes the calls of one service.

    Attributes:
        limiter: lets each attempt go, and hears how it ended.
        retry: when a call that failed is made again.
        failures: what the client raises when the service, or the way to it, is at fault.
        clock: what waits and durations go by.
        usage: counted since the start.
    """

    limiter: Limiter
    retry: Retry
    failures: tuple[type[Exception], ...]
    clock: Clock = field(factory=RealClock)
    usage: Usage = field(factory=Usage)

    async def make(self, attempt: Callable[[Permit], Awaitable[T]], urgency: Urgency | None = None) -> T:
        """One call; more urgent ones go first.

        Raises:
            ServiceError: which of them says what may help.
            Lapsed: somebody else may make it by now.
        """
        started, urgency = self.clock.now(), urgency or Urgency()
        try:
            return await tried(partial(self._attempt, attempt, urgency), self.retry, self.clock)
        except self.failures as error:
            raise self._explained(error) from error
        finally:
            self.usage.total += self.clock.now() - started

    async def _attempt(self, attempt: Callable[[Permit], Awaitable[T]], urgency: Urgency) -> T:
        asked = self.clock.now()
        async with AsyncExitStack() as stack:
            permit = await self._permit(stack, urgency)
            self.usage.waiting += self.clock.now() - asked
            with self._measured():
                return await attempt(permit)

    async def _permit(self, stack: AsyncExitStack, urgency: Urgency) -> Permit:
        """A permit, held until the stack is closed. If the call gets more urgent while it stands in line, it
        leaves that and stands in it anew; not once it has its permit.

        Raises:
            Lapsed: it is not to be made any more.
        """
        while True:
            with urgency.in_line():
                wanted = self.limiter.permit(priority=urgency.priority)
                return await stack.enter_async_context(wanted)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Count an attempt, however it ends."""
        self.usage.calls += 1
        started = self.clock.now()
        try:
            yield
        except Exception as error:
            self.usage.refused += is_refused(error)
            raise
        finally:
            self.usage.calling += self.clock.now() - started

    def _explained(self, error: Exception) -> ServiceError:
        """What a failure means for the caller, in words that hold no secret."""
        outage = self.retry.budget is not None and not self.retry.budget.allows
        if is_refused(error) or (outage and is_transient(error)):
            return Unavailable(f"the service is not available for now: {described(error)}")
        response = response_of(error)
        if response is not None and (response.status_code in FINAL or response.status_code == 429):
            return NotAllowed(f"the service refuses all calls: {described(error)}")
        return CallFailed(f"the call failed: {described(error)}")


async def tried(attempt: Callable[[], Awaitable[T]], retry: Retry, clock: Clock) -> T:
    """What an attempt returns, after as many others as it takes and `retry` allows.

    Raises:
        Exception: what the last attempt raised.
    """
    started, number = clock.now(), 1
    while True:
        try:
            answer = await attempt()
        except Exception as error:
            wait = retry.delay(error, number, clock.now() - started)
            if wait is None:
                raise
        else:
            retry.succeeded()
            return answer
        await clock.sleep(wait)
        number += 1


def retry(attempts: int, speed: float, on: On = is_transient) -> Retry:
    """How often a call is tried, and after which waits."""
    return Retry(
        on=on,
        attempts=attempts,
        backoff=exponential(FIRST_WAIT / speed, LONGEST_WAIT / speed),
        budget=RetryBudget(size=FAILURES),
        most_wait=LONGEST_ASKED,
    )


def may_pass(error: Exception) -> bool:
    """Whether another call may do better, where fewer words at once cannot help: also after a malformed
    answer.
    """
    return is_transient(error) or isinstance(error, MalformedAnswer)


def is_refused(error: Exception) -> bool:
    """A refusal for coming too fast; not one because the account has run out of money."""
    said = classify(error)
    return said is not None and said.verdict is Verdict.THROTTLED


def response_of(error: Exception) -> httpx2.Response | None:
    """The answer that an error stands for; None if there was none."""
    response: object = getattr(error, "response", None)
    return response if isinstance(response, httpx2.Response) else None


def described(error: Exception) -> str:
    """What happened. A refused key is not quoted, although OpenAI does so in part."""
    response = response_of(error)
    if response is None:
        return str(error).partition("\n")[0].rstrip(".") or "no answer in time"
    if response.status_code == 401:
        return "it does not accept the API key (401)"
    return f"{response.status_code}, {words(response)}"


def words(response: httpx2.Response) -> str:
    """The service's own words, if it has some."""
    match content(response):
        case {"error": {"message": str(said)}}:  # OpenAI, Azure
            pass
        case {"detail": str(said)} | {"detail": [{"msg": str(said)}, *_]}:  # fal, and its models
            pass
        case _:
            said = response.reason_phrase
    return said.strip().rstrip(".")


def content(response: httpx2.Response) -> object:
    """The JSON of an answer; None if it is none."""
    try:
        return response.json()
    except ValueError:
        return None

"""The text service: a language model writes a mnemonic and an example sentence, for ten words in one call.

The SDK's own retries are off, for they know nothing of the limiter (one 429 would become three calls).
Every attempt has a permit of its own instead, and waits as long as the server asks.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import httpx2
import openai
import stamina
from attrs import define, frozen
from openai.types.chat import ChatCompletionMessageParam, ParsedChatCompletion
from pydantic import ValidationError

from batchkit import TokenBucket
from examples import settings
from examples.errors import CallFailed, MalformedAnswer, NotAllowed, TextError, Unavailable
from examples.prompt import Answer, Question, Text, in_order, messages, parsed
from examples.retries import RetryBudget, described, is_busy, is_final, is_servers_fault, retry_after

IDLE = 60.0  # seconds that an idle connection is kept: longer than any pause between two calls
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds between two attempts, if the server does not say
LONGEST_ASKED = 120.0  # seconds: a server that asks for a longer wait than this is not waited for
# The SDK parses the answer itself, and takes on trust that a reply with status 200 is a completion at all.
MALFORMED = (
    ValueError,
    TypeError,
    AttributeError,
    openai.LengthFinishReasonError,
    openai.ContentFilterFinishReasonError,
)


@define
class Usage:
    """What was used.

    Attributes:
        calls: attempts made, however they ended.
        refused: those answered 429.
        seconds: what they took together, without waiting for permits.
        writing: seconds from question to text, all together: attempts, permits, and pauses before retries.
        input_tokens, output_tokens: sent and received.
    """

    calls: int = 0
    refused: int = 0
    seconds: float = 0.0
    writing: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


@frozen
class Endpoint:
    """Where the service is.

    Attributes:
        url: its base URL.
        key: the API key.
        speed: service seconds in a second; above 1 only for a stand-in.
    """

    url: str
    key: str
    speed: float = 1.0


class TextService:
    """The official SDK behind a limiter and a retry budget.

    Args:
        endpoint: where the service is.
        options: how it is called.
        limiter: lets each attempt go.
        connections: kept open, one for each call at once.
        transport: for tests, what answers in place of the network.

    Attributes:
        limiter: whose permits the calls take.
        usage: counted since the start.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: settings.Text,
        limiter: TokenBucket,
        connections: int,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.limiter = limiter
        self.usage = Usage()
        self._budget = RetryBudget()
        self._model = options.model
        self._client = client(endpoint, options.timeout / endpoint.speed, connections, transport)
        # The SDK imports much of itself when this is first looked at: now, and not when the clock runs.
        self._parse = self._client.chat.completions.parse
        self._retrying = stamina.AsyncRetryingCaller(
            attempts=options.attempts,
            timeout=None,
            wait_initial=FIRST_WAIT / endpoint.speed,
            wait_max=LONGEST_WAIT / endpoint.speed,
            wait_jitter=FIRST_WAIT / endpoint.speed,
        ).on(self._worth_a_retry)

    async def write(self, questions: Sequence[Question]) -> list[Text]:
        """A text for each word, in the order of the words.

        Raises:
            TextError: which of them says what may help.
        """
        started = time.monotonic()
        try:
            completion = await self._retrying(self._attempt, messages(questions))
        except openai.APIError as error:
            raise self._explained(error) from error
        except MALFORMED as error:
            raise MalformedAnswer(f"the answer is malformed: {first_fault(error)}") from error
        finally:
            self.usage.writing += time.monotonic() - started
        return in_order(questions, parsed(completion))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _attempt(self, asked: list[ChatCompletionMessageParam]) -> ParsedChatCompletion[Answer]:
        """One call, with a permit of its own."""
        async with self.limiter.permit():
            with self._measured():
                completion = await self._parse(model=self._model, messages=asked, response_format=Answer)
        self._budget.succeeded()
        if completion.usage:
            self.usage.input_tokens += completion.usage.prompt_tokens
            self.usage.output_tokens += completion.usage.completion_tokens
        return completion

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Count a call, however it ends."""
        self.usage.calls += 1
        started = time.monotonic()
        try:
            yield
        except openai.RateLimitError:
            self.usage.refused += 1
            raise
        finally:
            self.usage.seconds += time.monotonic() - started

    def _worth_a_retry(self, error: Exception) -> bool | float:
        """Whether to try again, or after how many seconds; stamina asks after each failure."""
        if is_servers_fault(error):
            self._budget.failed()
            if not self._budget.open:
                return False
        elif not is_busy(error):
            return False
        wait = retry_after(error.response.headers) if isinstance(error, openai.APIStatusError) else None
        return True if wait is None else wait <= LONGEST_ASKED and wait

    def _explained(self, error: openai.APIError) -> TextError:
        """What a failure means for the caller, in words that hold no secret."""
        if is_busy(error) or (is_servers_fault(error) and not self._budget.open):
            return Unavailable(f"the service is not available for now: {described(error)}")
        if is_final(error):
            return NotAllowed(f"the service refuses all calls: {described(error)}")
        return CallFailed(f"the call failed: {described(error)}")


def client(
    endpoint: Endpoint, timeout: float, connections: int, transport: httpx2.AsyncBaseTransport | None
) -> openai.AsyncOpenAI:
    """The SDK, without retries of its own, and with a connection for each call at once."""
    limits = httpx2.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=IDLE
    )
    # A proxy from the environment could not reach a stand-in on this machine.
    local = httpx2.URL(endpoint.url).host in ("127.0.0.1", "localhost", "::1")
    http_client = openai.DefaultAsyncHttpxClient(
        limits=limits, timeout=timeout, trust_env=not local, transport=transport
    )
    return openai.AsyncOpenAI(
        base_url=endpoint.url,
        api_key=endpoint.key,
        max_retries=0,
        timeout=timeout,
        http_client=http_client,
    )


def first_fault(error: Exception) -> str:
    """What is wrong with an answer, on one line."""
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"]
    return str(error).partition("\n")[0] or type(error).__name__

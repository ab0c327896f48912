"""The text service: a language model writes a mnemonic and an example sentence, for ten words in one call."""

from collections.abc import Sequence
from functools import partial

import httpx2
import openai
from attrs import define
from openai.types.chat import ChatCompletionMessageParam, ParsedChatCompletion
from pydantic import ValidationError

from batchkit.abc import Limiter, Permit
from examples import settings
from examples.errors import MalformedAnswer
from examples.language.prompt import Answer, Question, Text, in_order, messages, parsed
from examples.queueing.urgency import Urgency
from examples.services.calls import Calls, retry
from examples.services.clock import Clock, RealClock
from examples.services.endpoint import Client, Endpoint

# The SDK parses the answer itself, and takes on trust that a reply with status 200 is a completion at all.
MALFORMED = (
    ValueError,
    TypeError,
    AttributeError,
    openai.LengthFinishReasonError,
    openai.ContentFilterFinishReasonError,
)


@define
class Tokens:
    """What is paid for.

    Attributes:
        input, output: sent and received.
    """

    input: int = 0
    output: int = 0


class TextService(Client):
    """The official SDK behind a limiter, its own retries off.

    Args:
        endpoint: where the service is.
        options: how it is called.
        limiter: lets each attempt go.
        connections: kept open, one for each call at once.
        transport: for tests, what answers in place of the network.
        clock: for tests, what waits go by.

    Attributes:
        calls: how they are made.
        usage: of calls, counted since the start.
        tokens: of the answers that could be used.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: settings.Text,
        limiter: Limiter,
        connections: int,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            endpoint.client(timeout=options.timeout, connections=connections, transport=transport)
        )
        again = retry(options.attempts, endpoint.speed)
        self.calls = Calls(limiter, again, (openai.APIError,), clock or RealClock())
        self.usage = self.calls.usage
        self.tokens = Tokens()
        self._model = options.model
        client = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key,
            max_retries=0,
            timeout=options.timeout / endpoint.speed,
            http_client=self._http,
        )
        # The SDK imports much of itself when this is first looked at: now, and not when the clock runs.
        self._parse = client.chat.completions.with_raw_response.parse

    async def write(self, questions: Sequence[Question], urgency: Urgency | None = None) -> list[Text]:
        """A text for each word, in the order of the words.

        Raises:
            ServiceError: which of them says what may help.
        """
        try:
            completion = await self.calls.make(partial(self._attempt, messages(questions)), urgency)
        except MALFORMED as error:
            raise MalformedAnswer(f"the answer is malformed: {first_fault(error)}") from error
        return in_order(questions, parsed(completion))

    async def _attempt(
        self, asked: list[ChatCompletionMessageParam], permit: Permit
    ) -> ParsedChatCompletion[Answer]:
        """One call."""
        reply = await self._parse(model=self._model, messages=asked, response_format=Answer)
        permit.hear(reply)  # its headers say what is left of the limits
        completion = reply.parse()
        if completion.usage:
            self.tokens.input += completion.usage.prompt_tokens
            self.tokens.output += completion.usage.completion_tokens
        return completion


def first_fault(error: Exception) -> str:
    """What is wrong with an answer, on one line."""
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"]
    return str(error).partition("\n")[0] or type(error).__name__

"""The text service's client: what it makes of good and of bad replies, and what each attempt costs."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import pytest
from attrs import evolve

from batchkit import TokenBucket
from examples import settings
from examples.errors import CallFailed, MalformedAnswer, NotAllowed, Unavailable
from examples.language.prompt import Question
from examples.services.endpoint import Endpoint
from examples.services.text import TextService

KEY = "sk-a-secret-key"
FAST = 1000.0  # so that the waits between two attempts take no time
NI_HAO = [Question(word=word, pinyin="", definitions=[]) for word in "你好"]

Reply = httpx2.Response | Exception

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Script:
    """Answers calls in the order of a script; the last reply is for all that follow."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


def service(script: Callable[[httpx2.Request], httpx2.Response], attempts: int = 3) -> TextService:
    return TextService(
        Endpoint("http://127.0.0.1/v1", KEY, FAST),
        evolve(settings.load({}).text, attempts=attempts, timeout=60),
        TokenBucket(rate=1000, burst=100),
        connections=2,
        transport=httpx2.MockTransport(script),
    )


def granted(text: TextService) -> int:
    """Permits that were taken."""
    assert isinstance(text.calls.limiter, TokenBucket)
    return text.calls.limiter.statistics().granted


def answer(words: Sequence[str] = "你好", **choice: Any) -> httpx2.Response:
    """A completion with a card for each word."""
    fields = ("mnemonic", "example", "example_pinyin", "example_translation")
    cards = [{"word": word, **dict.fromkeys(fields, "...")} for word in words]
    message = {"role": "assistant", "content": json.dumps({"cards": cards}), "refusal": None}
    message |= choice.pop("message", {})
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 70, "total_tokens": 100},
    }
    return httpx2.Response(200, json=body)


def failed(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": "no luck"}}, headers=headers)


async def test_a_call_for_many_words() -> None:
    script = Script(answer("好你"))
    async with service(script) as text:
        texts = await text.write(NI_HAO)
    assert [text.word for text in texts] == ["你", "好"]  # in the order asked, whatever the answer's
    (request,) = script.requests
    sent = json.loads(request.content)
    assert [word["word"] for word in json.loads(sent["messages"][-1]["content"])["words"]] == ["你", "好"]
    assert sent["response_format"]["type"] == "json_schema"
    assert (text.usage.calls, text.tokens.input, text.tokens.output) == (1, 30, 70)
    assert granted(text) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer("你"),
        answer("你好学"),
        answer("你学"),
        answer("你你"),
        answer(message={"content": '{"cards": [{"word": "你"'}),
        answer(message={"content": '{"cards": [{"word": "你"}]}'}),
        answer(message={"content": None, "refusal": "I would rather not"}),
        answer(finish_reason="length"),
        answer(finish_reason="content_filter"),
        httpx2.Response(200, text="<html>", headers={"content-type": "text/html"}),
        httpx2.Response(200, text='{"id":', headers={"content-type": "application/json"}),
        httpx2.Response(200, json=[1]),
        httpx2.Response(200, json={"choices": []}),
        httpx2.Response(200, json={}),
    ],
    ids=[
        "a word too few",
        "a word too many",
        "another word",
        "a word twice",
        "broken JSON",
        "a field missing",
        "refused by the model",
        "cut off",
        "filtered",
        "a page in place of an answer",
        "a broken body",
        "a list",
        "no choices",
        "nothing",
    ],
)
async def test_a_malformed_answer_is_not_asked_for_again(reply: httpx2.Response) -> None:
    script = Script(reply)
    async with service(script) as text:
        with pytest.raises(MalformedAnswer) as raised:
            await text.write(NI_HAO)
    assert len(script.requests) == 1
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "trouble",
    [
        failed(429),
        failed(429, **{"retry-after": "0.01"}),
        failed(500),
        failed(503),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("late"),
        httpx2.RemoteProtocolError("cut off"),
    ],
    ids=["429", "429 that says when", "500", "503", "no connection", "no answer in time", "cut off"],
)
async def test_trouble_that_passes_is_tried_again_each_time_with_a_permit(trouble: Reply) -> None:
    script = Script(trouble, trouble, answer())
    async with service(script) as text:
        assert len(await text.write(NI_HAO)) == 2
    assert len(script.requests) == text.usage.calls == granted(text) == 3


async def test_refusals_are_counted() -> None:
    async with service(Script(failed(429), answer())) as text:
        await text.write(NI_HAO)
    assert (text.usage.calls, text.usage.refused) == (2, 1)


async def test_attempts_are_bounded() -> None:
    script = Script(failed(429))
    async with service(script, attempts=4) as text:
        with pytest.raises(Unavailable, match="429, no luck"):
            await text.write(NI_HAO)
    assert len(script.requests) == 4


async def test_nobody_waits_for_an_hour() -> None:
    script = Script(failed(429, **{"retry-after": "3600"}))
    async with service(script) as text:
        with pytest.raises(Unavailable):
            await text.write(NI_HAO)
    assert len(script.requests) == 1


async def test_a_failure_among_successes_may_be_the_fault_of_a_word() -> None:
    async with service(Script(failed(500))) as text:
        with pytest.raises(CallFailed, match="500, no luck"):
            await text.write(NI_HAO)


async def test_in_an_outage_no_call_is_tried_twice_and_no_word_is_blamed() -> None:
    script = Script(failed(500))
    async with service(script, attempts=10) as text:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await text.write(NI_HAO)
    assert len(script.requests) == 10 + 1 + 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_for_good_is_not_tried_again_and_tells_no_secret(status: int) -> None:
    script = Script(failed(status))
    async with service(script) as text:
        with pytest.raises(NotAllowed) as raised:
            await text.write(NI_HAO)
    assert len(script.requests) == 1
    assert KEY not in f"{raised.value} {raised.value!r} {text!r}"


async def test_a_question_that_is_refused_may_be_the_fault_of_a_word() -> None:
    async with service(Script(failed(400))) as text:
        with pytest.raises(CallFailed, match="400"):
            await text.write(NI_HAO)

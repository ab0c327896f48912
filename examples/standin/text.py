"""The text service: OpenAI's chat completions, for whoever asks about Chinese words.

The user's message is {"words": [{"word", "pinyin", "definitions"}, ...]} and the answer {"cards": [...]}.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.standin import openai_wire as wire
from examples.standin.cut_off import CutOff
from examples.standin.faults import Switches
from examples.standin.flashcards import Word, latency, write_cards
from examples.standin.quota import Quota, Refusal
from examples.standin.service import Call, Service


class TextSwitches(Switches):
    """The text service has a second quota; it is wide, so that it is met only by who asks for it."""

    rate: float = Field(default=2.0, gt=0, allow_inf_nan=False, description="calls a service second")
    burst: int = Field(default=5, gt=0, description="calls at once")
    tokens_per_minute: int = Field(
        default=2_000_000, gt=0, description="tokens a service minute, and at once"
    )

    def quotas(self) -> dict[str, Quota]:
        tokens = Quota(Fraction(self.tokens_per_minute, 60), self.tokens_per_minute)
        return {**super().quotas(), "tokens": tokens}


@dataclass(frozen=True, slots=True)
class Question:
    """What a call asks for, and what it will be told."""

    model: str
    words: tuple[Word, ...]
    content: str  # the answer
    prompt_tokens: int
    tokens: int  # of prompt and answer

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(word.word for word in self.words)


class Text:
    """OpenAI's protocol in front of a service."""

    def __init__(self, service: Service[TextSwitches]) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        """GET /v1/models: neither counted nor limited."""
        if not has_key(request):
            return JSONResponse(wire.NO_KEY, status_code=401)
        return JSONResponse(wire.models())

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        if not has_key(request):
            return self.service.turn_away(JSONResponse(wire.NO_KEY, status_code=401))
        try:
            question = self.read(await request.body())
        except ValidationError as fault:
            return self.service.turn_away(JSONResponse(wire.invalid(fault), status_code=400))
        return await self.answer(request, question)

    def read(self, body: bytes) -> Question:
        asked = wire.ChatRequest.model_validate_json(body)
        words = asked.question().words
        content = write_cards(words, self.service.seed).model_dump_json()
        prompt = asked.prompt_tokens()
        return Question(asked.model, tuple(words), content, prompt, prompt + wire.count_tokens(content))

    async def answer(self, request: Request, question: Question) -> Response:
        """A call that can be understood: refused, or answered after a while, well or not."""
        with self.service.call(question.keys, {"requests": 1, "tokens": question.tokens}) as call:
            headers = self.headers(call)
            if call.refusal:
                return call.end("refused", self.refuse(call.refusal, question, headers))
            if not await self.service.work(request, call, self.latency(question)):
                return call.abort()
            return self.reply(call, question, headers)

    def headers(self, call: Call) -> dict[str, str]:
        """What stands in every answer: the limits as they were left when the call arrived."""
        now, time = call.entry.arrived, self.service.time
        headers = {"x-request-id": f"req_standin_{call.entry.index}"}
        for limit, bucket in self.service.buckets.items():
            headers |= wire.limit_headers(
                limit, bucket.quota.burst, bucket.level(now), time.wall(bucket.full_in(now))
            )
        return headers

    def refuse(self, refusal: Refusal, question: Question, headers: dict[str, str]) -> Response:
        """A 429."""
        wait = self.service.time.wall(refusal.wait)
        headers |= wire.retry_headers(self.service.switches.retry_after, wait)
        return JSONResponse(wire.over_quota(question.model, refusal, wait), 429, headers)

    def reply(self, call: Call, question: Question, headers: dict[str, str]) -> Response:
        """The answer, well or not, after the wait for it."""
        headers["openai-processing-ms"] = str(math.ceil(self.service.time.wall(call.elapsed()) * 1000))
        if call.fault == "error":
            return call.end("error", JSONResponse(wire.SERVER_ERROR, 500, headers))
        body = wire.completion(call.entry.index, question.model, question.content, question.prompt_tokens)
        if call.fault == "truncated":
            return call.end("malformed", CutOff(JSONResponse(body, headers=headers)), question.tokens)
        if call.fault == "malformed":
            wire.break_content(body)
            return call.end("malformed", JSONResponse(body, headers=headers), question.tokens)
        if call.fault == "wrong":
            wire.replace_content(body, write_cards([Word(word="错")], self.service.seed).model_dump_json())
            return call.end("malformed", JSONResponse(body, headers=headers), question.tokens)
        return call.end("ok", JSONResponse(body, headers=headers), question.tokens)

    def latency(self, question: Question) -> float:
        return latency(question.words, self.service.dice("latency", question.keys))


def has_key(request: Request) -> bool:
    """Any bearer key will do; it is looked at and forgotten."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(key.strip())

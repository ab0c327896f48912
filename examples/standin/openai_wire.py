"""OpenAI's bodies and headers, as its documentation and its SDK have them: values in, values out.

All durations here are wall time, in which the client lives.
"""

import math
import time
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from examples.standin.flashcards import Words
from examples.standin.quota import Refusal
from examples.standin.retry_after import in_seconds, retry_after

MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1-mini")
LETTERS_A_TOKEN = 4  # of Latin script; a Chinese character is about one token
FIRST_WIDE = "\u2e80"  # from here on: the scripts of East Asia

Json = dict[str, Any]


class Part(BaseModel):
    """A part of a message."""

    text: str = ""


class Message(BaseModel):
    """A message of the conversation."""

    role: str
    content: str | list[Part] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions, as far as the stand-in reads it."""

    model: str
    messages: list[Message]
    stream: Literal[False] = False

    def prompt_tokens(self) -> int:
        return sum(count_tokens(message.text()) for message in self.messages)

    def question(self) -> Words:
        """The words asked for: the JSON of the last message of the user."""
        asked = [message.text() for message in self.messages if message.role == "user"]
        return Words.model_validate_json(asked[-1] if asked else "")


def count_tokens(text: str) -> int:
    """About how many tokens a text has."""
    wide = sum(letter >= FIRST_WIDE for letter in text)
    return wide + math.ceil((len(text) - wide) / LETTERS_A_TOKEN)


def completion(number: int, model: str, content: str, prompt_tokens: int) -> Json:
    """A whole answer."""
    written = count_tokens(content)
    return {
        "id": f"chatcmpl-standin-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": written,
            "total_tokens": prompt_tokens + written,
        },
        "service_tier": "default",
        "system_fingerprint": "fp_standin",
    }


def break_content(body: Json) -> None:
    """Leave the JSON that the model wrote unfinished; the envelope around it stays in order."""
    content = body["choices"][0]["message"]["content"]
    replace_content(body, content[: len(content) // 2])


def replace_content(body: Json, content: str) -> None:
    """Let the model have written something else."""
    body["choices"][0]["message"]["content"] = content


def models() -> Json:
    """The answer of GET /v1/models."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "standin"} for name in MODELS],
    }


def error(message: str, kind: str, code: str | None = None, param: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


NO_KEY = error("You didn't provide an API key (Authorization: Bearer YOUR_KEY).", "invalid_request_error")
SERVER_ERROR = error(
    "The server had an error while processing your request. Sorry about that!", "server_error"
)


def invalid(fault: ValidationError) -> Json:
    """The body of a 400: the first of pydantic's complaints."""
    first = fault.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(step) for step in first["loc"]) or "content"
    return error(f"{place}: {first['msg']}", "invalid_request_error", param="messages")


def over_quota(model: str, refusal: Refusal, wait: Fraction) -> Json:
    """The body of a 429."""
    return error(
        f"Rate limit reached for {model} in organization org-standin on {refusal.limit}: "
        f"Limit {refusal.burst}, Used {refusal.burst - math.floor(refusal.left)}, Requested {refusal.cost}. "
        f"Please try again in {duration(wait)}.",
        kind=refusal.limit,
        code="rate_limit_exceeded",
    )


def limit_headers(limit: str, burst: int, left: Fraction, full_in: Fraction) -> dict[str, str]:
    """How one limit stands.

    As in OpenAI's own example the limit is what may be used at once, and the reset is when all of it is there
    again: so (limit - remaining) / reset is the rate.
    """
    return {
        f"x-ratelimit-limit-{limit}": str(burst),
        f"x-ratelimit-remaining-{limit}": str(math.floor(left)),
        f"x-ratelimit-reset-{limit}": duration(full_in),
    }


def retry_headers(mode: str, wait: Fraction) -> dict[str, str]:
    """How a 429 says when to come again: also in milliseconds, unless that would be finer than asked for."""
    milliseconds = {"retry-after-ms": str(math.ceil(wait * 1000))} if mode == "exact" else {}
    return milliseconds | retry_after(mode, wait)


def duration(seconds: Fraction) -> str:
    """Seconds as OpenAI writes them, rounded up to the millisecond: 500ms, 1.5s, 6m0s, 1h0m0s."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{in_seconds(rest)}s"
    return f"{minutes}m{in_seconds(rest)}s" if minutes else f"{in_seconds(rest)}s"

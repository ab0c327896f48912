"""What an answer, or the error in its place, says about the rate.

Known by their shape, so that no client library is imported: a bare status code; an answer with `status_code`
(httpx, requests, openai's raw responses) or `status` (aiohttp); an error with such an answer in `response`
(httpx, openai, requests; botocore's is a dictionary), or with a `status_code`, `status` or `code` of its own.

Only a refusal for coming too fast says anything against the rate: a 429, or a 503 that asks to come later. A
429 for an account that is out of money (openai's `insufficient_quota`) is a failure like any other, since no
waiting mends it. A 500 or a timeout says nothing; a 404 says that the server took the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Final, cast

from attrs import frozen

from batchkit._core.controller import Verdict
from batchkit.headers import RateLimit, rate_limits, retry_after

__all__ = ["Feedback", "Verdict", "classify", "is_transient"]

_OUT_OF_MONEY: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_TOO_FAST: Final = frozenset(  # the words of botocore, gRPC, and openai amid a stream, for a 429
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "RESOURCE_EXHAUSTED",
        "rate_limit_exceeded",
    }
)

_PASSING: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RequestTimeout", "RequestTimeoutException"})
_UNHEARD: Final = (
    frozenset(  # what Python and clients call an error for: no connection, or no (whole) answer in time
        {
            "APIConnectionError",  # openai, anthropic
            "BrokenResourceError",  # anyio
            "ChunkedEncodingError",  # requests
            "ClientConnectionError",  # aiohttp
            "ClientPayloadError",
            "ConnectionError",  # Python, requests, botocore, redis
            "EndOfStream",  # anyio
            "HTTPClientError",  # botocore
            "IncompleteRead",  # http.client, urllib3
            "NetworkError",  # httpx
            "RemoteProtocolError",
            "Timeout",  # requests
            "TimeoutError",  # Python, redis, urllib3
            "TimeoutException",  # httpx
            "gaierror",  # Python: no address for a name
        }
    )
)


@frozen
class Feedback:
    """What a call's end says.

    Attributes:
        verdict: whether it went well, was refused for coming too fast, or failed otherwise.
        retry_after: seconds that the server asked to wait, if it did.
        limits: what its headers say is left of its limits.
    """

    verdict: Verdict
    retry_after: float | None = None
    limits: tuple[RateLimit, ...] = ()


def classify(answer: object) -> Feedback | None:
    """What an answer, a status code or an exception says; None if it says nothing, as a cancellation does.

    Anything that has no status is a call that went well, and any other `Exception` one that failed. Nothing
    that a server sends raises here.
    """
    if isinstance(answer, BaseExceptionGroup):
        errors = cast(BaseExceptionGroup[BaseException], answer).exceptions
        said = [feedback for error in errors if (feedback := classify(error)) is not None]
        return max(said, key=_gravity, default=None)
    if isinstance(answer, BaseException) and not isinstance(answer, Exception):
        return None
    error = isinstance(answer, Exception)
    status, headers = _told(answer)
    codes = _codes(answer) if error else set[str]()
    wait, limits = (retry_after(headers), rate_limits(headers)) if headers else (None, ())
    if status == 429 or (status == 503 and wait is not None) or codes & _TOO_FAST:
        verdict = Verdict.FAILED if codes & _OUT_OF_MONEY else Verdict.THROTTLED
    elif status is None:
        verdict = Verdict.FAILED if error else Verdict.WENT_WELL
    else:
        verdict = Verdict.FAILED if status >= 500 or status == 408 else Verdict.WENT_WELL
    return Feedback(verdict, wait, limits)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may go well at another time: it was refused for coming too fast, or failed by
    a fault of the server's (5xx), or had no connection, or no answer in time.

    A server that says so itself, by the header `x-should-retry` (OpenAI, Anthropic), is believed. An
    account that is out of money, a wrong argument and an error of Python's own are not mended by waiting.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(each) for each in cast(BaseExceptionGroup[BaseException], error).exceptions)
    said = classify(error)
    if said is None:
        return False
    status, headers = _told(error)
    wish = next((value for name, value in headers.items() if name.lower() == "x-should-retry"), None)
    if wish in ("true", "false"):
        return wish == "true"
    if said.verdict is Verdict.THROTTLED:
        return True
    if status is not None:
        return status == 408 or status >= 500
    return bool(_codes(error) & _PASSING or _kinds(error) & _UNHEARD)


def _gravity(feedback: Feedback) -> tuple[bool, bool, float]:
    """Of several ends of one call, the one that says most counts."""
    throttled, failed = feedback.verdict is Verdict.THROTTLED, feedback.verdict is Verdict.FAILED
    return throttled, failed, -inf if feedback.retry_after is None else feedback.retry_after


def _told(answer: object) -> tuple[int | None, Mapping[str, str]]:
    """The status and the headers of an answer, or of the one that an error has."""
    told = _get(answer, "response") if isinstance(answer, Exception) else None
    source = answer if told is None else told
    status = _status(source)
    return _status(answer) if status is None else status, _headers(source)


def _kinds(error: BaseException) -> set[str]:
    """What its classes are called, and those of the error inside it (urllib)."""
    classes = (*type(error).__mro__, *type(_get(error, "reason")).__mro__)
    return {kind.__name__ for kind in classes}


def _get(source: object, name: str) -> Any:
    """An attribute, or an item of a dictionary; None if there is none, or it cannot be had."""
    try:
        if isinstance(source, Mapping):
            return cast(Mapping[object, Any], source).get(name)
        return getattr(source, name, None)
    except Exception:  # a property of somebody's class: what it raises is no news about the rate
        return None


def _status(source: object) -> int | None:
    """An HTTP status code, 100 to 599, if there is one."""
    metadata = _get(source, "ResponseMetadata")  # botocore
    found = (
        source,
        *(_get(source, name) for name in ("status_code", "status", "code")),
        _get(metadata, "HTTPStatusCode"),
    )
    for status in found:
        if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
            return int(status)
    return None


def _headers(source: object) -> Mapping[str, str]:
    """The headers as text by text, without what is neither."""
    headers = _get(source, "headers")
    if headers is None:
        headers = _get(_get(source, "ResponseMetadata"), "HTTPHeaders")
    if headers is None:
        return {}
    try:
        return {
            name: value for name, value in headers.items() if isinstance(name, str) and isinstance(value, str)
        }
    except Exception:  # no mapping: as if there were no headers
        return {}


def _codes(error: object) -> set[str]:
    """The words by which an error names its kind."""
    body = _get(error, "body")
    response = _get(error, "response")
    code = _get(error, "code")
    if callable(code):  # gRPC
        try:
            code = _get(code(), "name")
        except Exception:  # as if it had none
            code = None
    found = (
        code,
        _get(error, "type"),
        _get(body, "code"),
        _get(body, "type"),
        _get(_get(response, "Error"), "Code"),
    )
    return {word for word in found if isinstance(word, str)}

"""What an answer or an error says: real ones of openai, httpx and urllib, and the shapes of others."""

from __future__ import annotations

import asyncio
import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import anyio
import httpx2 as httpx
import openai
import pytest
import redis.exceptions

from batchkit.feedback import Feedback, Verdict, classify, is_transient
from batchkit.headers import RateLimit
from tests.helpers import DEADLINE
from tests.local_server import Answer, closed_port, serving

WELL, THROTTLED, FAILED = Verdict.WENT_WELL, Verdict.THROTTLED, Verdict.FAILED


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (200, WELL),
        (HTTPStatus.NO_CONTENT, WELL),
        (401, WELL),  # the server took the call: its rate was no matter
        (404, WELL),
        (429, THROTTLED),
        (HTTPStatus.TOO_MANY_REQUESTS, THROTTLED),
        (408, FAILED),
        (500, FAILED),
        (503, FAILED),
        (529, FAILED),
        # what has no status is a call that went well
        (None, WELL),
        ("429", WELL),
        (429.0, WELL),
        (True, WELL),
        (99, WELL),
        (600, WELL),
        ({"word": "好"}, WELL),
        ([429], WELL),
        # and what was raised without one has failed
        (RuntimeError("429"), FAILED),
        (TimeoutError(), FAILED),
        (ConnectionResetError(104, "reset"), FAILED),
    ],
)
def test_a_status_code_or_none(answer: object, verdict: Verdict) -> None:
    assert classify(answer) == Feedback(verdict)


class Shape(Exception):
    """An error of some client library, by its attributes."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


def botocore(code: str, status: int, **headers: str) -> Shape:
    return Shape(
        response={
            "Error": {"Code": code, "Message": "..."},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
        }
    )


class GrpcCode:
    def __init__(self, name: str) -> None:
        self.name = name
        self.value = (8, name.lower())


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        pytest.param(botocore("ThrottlingException", 400), THROTTLED, id="botocore, throttled by a 400"),
        pytest.param(botocore("SlowDown", 503), THROTTLED, id="S3, slow down"),
        pytest.param(botocore("InternalError", 500), FAILED, id="botocore, a 500"),
        pytest.param(botocore("NoSuchKey", 404), WELL, id="botocore, a 404"),
        pytest.param(Shape(code=lambda: GrpcCode("RESOURCE_EXHAUSTED")), THROTTLED, id="gRPC, exhausted"),
        pytest.param(Shape(code=lambda: GrpcCode("UNAVAILABLE")), FAILED, id="gRPC, unavailable"),
        pytest.param(Shape(code=lambda: None), FAILED, id="gRPC, without a code"),
        pytest.param(Shape(status=429, headers={}), THROTTLED, id="aiohttp, 429"),
        pytest.param(Shape(status=502, headers=None), FAILED, id="aiohttp, 502"),
        pytest.param(Shape(code=429, response=None), THROTTLED, id="google, 429"),
        pytest.param(Shape(status_code=429), THROTTLED, id="a status of its own"),
        pytest.param(Shape(response=object(), status_code=429), THROTTLED, id="a response without one"),
        pytest.param(Shape(code="too_many"), FAILED, id="a word that is unknown"),
        pytest.param(Shape(body=[1], type=7, code=None), FAILED, id="no words"),
    ],
)
def test_errors_of_other_libraries_by_their_shape(error: Shape, verdict: Verdict) -> None:
    assert classify(error) == Feedback(verdict)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        # what the server says
        (Shape(status_code=429), True),
        (Shape(status_code=408), True),
        (Shape(status_code=500), True),
        (Shape(status_code=529), True),
        (Shape(status_code=400), False),
        (Shape(status_code=401), False),
        (Shape(status_code=404), False),
        (Shape(status_code=429, body={"code": "insufficient_quota"}), False),
        (Shape(status_code=409, headers={"X-Should-Retry": "true"}), True),
        (Shape(status_code=500, headers={"X-Should-Retry": "false"}), False),
        (Shape(status_code=404, headers={"X-Should-Retry": "perhaps"}), False),
        (botocore("ThrottlingException", 400), True),
        (
            botocore("RequestTimeout", 400),
            False,
        ),  # it took the call, and says by its status that it was wrong
        (botocore("InternalError", 500), True),
        (Shape(code=lambda: GrpcCode("UNAVAILABLE")), True),
        (Shape(code=lambda: GrpcCode("INVALID_ARGUMENT")), False),
        # no connection, or no answer in time
        (TimeoutError(), True),
        (ConnectionRefusedError(111, "refused"), True),
        (socket.gaierror(-3, "temporary failure in name resolution"), True),
        (http.client.IncompleteRead(b""), True),
        (httpx.ConnectError("..."), True),
        (httpx.ReadTimeout("..."), True),
        (httpx.RemoteProtocolError("..."), True),
        (anyio.EndOfStream(), True),
        (redis.exceptions.ConnectionError(), True),
        # what asking again does not mend
        (ValueError("429"), False),
        (TypeError(), False),
        (KeyError("好"), False),
        (RuntimeError("connection"), False),
        (FileNotFoundError(2, "no such file"), False),
        (httpx.UnsupportedProtocol("..."), False),
        (asyncio.CancelledError(), False),
        (KeyboardInterrupt(), False),
        # several at once: all of them have to
        (ExceptionGroup("", [TimeoutError(), Shape(status_code=503)]), True),
        (ExceptionGroup("", [TimeoutError(), ValueError()]), False),
        (BaseExceptionGroup("", [TimeoutError(), asyncio.CancelledError()]), False),
    ],
    ids=repr,
)
def test_what_may_go_better_at_another_time(error: BaseException, transient: bool) -> None:
    assert is_transient(error) is transient


def test_urllib_has_the_error_of_the_connection_inside_its_own() -> None:
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen(closed_port())
    assert is_transient(caught.value)
    assert not is_transient(urllib.error.URLError("unknown url type"))


def test_headers_of_other_libraries() -> None:
    assert classify(botocore("SlowDown", 503, **{"retry-after": "7"})) == Feedback(THROTTLED, 7.0)
    assert classify(Shape(status=429, headers={"Retry-After": "7"})) == Feedback(THROTTLED, 7.0)
    answer = {"ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "7"}}}
    assert classify(answer) == Feedback(THROTTLED, 7.0)
    mixed = {"Retry-After": "7", b"Retry-After": b"9", "X-RateLimit-Remaining": 3}
    assert classify(Shape(status=429, headers=mixed)) == Feedback(THROTTLED, 7.0)


class TestHttpx:
    def test_a_response(self) -> None:
        headers = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "12", "Retry-After": "1"}
        limit = RateLimit("", limit=60, remaining=12)
        assert classify(httpx.Response(200, headers=headers)) == Feedback(WELL, 1.0, (limit,))
        assert classify(httpx.Response(429, headers=headers)) == Feedback(THROTTLED, 1.0, (limit,))

    def test_a_503_is_a_refusal_only_if_it_asks_to_come_later(self) -> None:
        assert classify(httpx.Response(503)) == Feedback(FAILED)
        assert classify(httpx.Response(503, headers={"Retry-After": "soon"})) == Feedback(FAILED)
        assert classify(httpx.Response(503, headers={"Retry-After": "3"})) == Feedback(THROTTLED, 3.0)

    def test_its_errors(self) -> None:
        request = httpx.Request("GET", "http://localhost")
        response = httpx.Response(429, headers={"Retry-After": "3"}, request=request)
        with pytest.raises(httpx.HTTPStatusError) as caught:
            response.raise_for_status()
        assert classify(caught.value) == Feedback(THROTTLED, 3.0)
        assert classify(httpx.ReadTimeout("...", request=request)) == Feedback(FAILED)
        assert classify(httpx.ConnectError("...")) == Feedback(FAILED)  # its `request` raises

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "20"}, 20.0),
            ({"retry-after": " 1.5 "}, 1.5),
            ({"Retry-After": "0"}, 0.0),
            ({"Retry-After": "1000000000"}, 1e9),
            ({"Retry-After": "20", "Retry-After-Ms": "1500"}, 1.5),
            (
                {
                    "Date": "Tue, 24 Nov 2026 10:00:00 GMT",
                    "Retry-After": "Tue, 24 Nov 2026 10:00:30 GMT",
                },
                30.0,
            ),
            (
                {
                    "Date": "Tue, 24 Nov 2026 10:00:00 GMT",
                    "Retry-After": "Tue, 24 Nov 2026 09:00:00 GMT",
                },
                0.0,
            ),
            ({"Retry-After": "Tue, 24 Nov 2026 10:00:30 GMT"}, None),  # since when, nobody said
            ({"Retry-After": "-5"}, None),
            ({"Retry-After": "soon"}, None),
            ({"Retry-After": ""}, None),
            ({"Retry-After": "nan"}, None),
            ({"Retry-After": "1e9999"}, None),
            ({"Retry-After": "9" * 5000}, None),
            ({"Retry-After-Ms": "never", "Retry-After": "4"}, 4.0),
            ({}, None),
        ],
    )
    def test_retry_after_in_all_its_forms(self, headers: dict[str, str], seconds: float | None) -> None:
        assert classify(httpx.Response(429, headers=headers)) == Feedback(THROTTLED, seconds)


def error_body(**words: str) -> bytes:
    return ('{"error": {' + ", ".join(f'"{name}": "{word}"' for name, word in words.items()) + "}}").encode()


def ask(client: openai.OpenAI) -> object:
    return client.models.list()


def ask_raw(client: openai.OpenAI) -> object:
    return client.models.with_raw_response.list()


def ask_in_a_stream(client: openai.OpenAI) -> object:
    stream = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "好"}], stream=True
    )
    return list(stream)


class TestOpenAI:
    """By real calls of the real SDK to a real server."""

    LIMITS = (RateLimit("requests", limit=60, remaining=0, reset=1.0),)

    def call(
        self, answer: Answer, work: Callable[[openai.OpenAI], object], timeout: float = DEADLINE
    ) -> object:
        """What the call returns or raises."""
        with serving(lambda _: answer) as server:
            return self.call_to(server.url, work, timeout)

    def call_to(self, url: str, work: Callable[[openai.OpenAI], object], timeout: float = DEADLINE) -> object:
        with openai.OpenAI(api_key="k", base_url=url, max_retries=0, timeout=timeout) as client:
            try:
                return work(client)
            except openai.OpenAIError as error:
                return error

    def test_too_fast(self) -> None:
        headers = {
            "retry-after-ms": "1500",
            "retry-after": "2",
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1s",
        }
        body = error_body(message="Rate limit reached", type="requests", code="rate_limit_exceeded")
        error = self.call(Answer(429, headers, body), ask)
        assert isinstance(error, openai.RateLimitError)
        assert classify(error) == Feedback(THROTTLED, 1.5, self.LIMITS)
        assert is_transient(error)

    def test_out_of_money(self) -> None:
        body = error_body(message="...", type="insufficient_quota", code="insufficient_quota")
        error = self.call(Answer(429, {}, body), ask)
        assert isinstance(error, openai.RateLimitError)
        assert classify(error) == Feedback(FAILED)
        assert not is_transient(error)

    def test_a_fault_of_the_server(self) -> None:
        error = self.call(Answer(500), ask)
        assert isinstance(error, openai.InternalServerError)
        assert classify(error) == Feedback(FAILED)
        assert is_transient(error)

    def test_a_call_that_the_server_took(self) -> None:
        error = self.call(Answer(404, {}, error_body(message="no such model", code="model_not_found")), ask)
        assert isinstance(error, openai.NotFoundError)
        assert classify(error) == Feedback(WELL)
        assert not is_transient(error)

    def test_a_timeout(self) -> None:
        error = self.call(Answer(None), ask, timeout=0.1)
        assert isinstance(error, openai.APITimeoutError)
        assert classify(error) == Feedback(FAILED)
        assert is_transient(error)

    def test_a_server_that_is_not_there(self) -> None:
        error = self.call_to(closed_port(), ask)
        assert isinstance(error, openai.APIConnectionError)
        assert classify(error) == Feedback(FAILED)
        assert is_transient(error)

    def test_an_answer_with_its_headers(self) -> None:
        headers = {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1s",
        }
        answer = self.call(Answer(200, headers, b'{"object": "list", "data": []}'), ask_raw)
        assert classify(answer) == Feedback(WELL, None, self.LIMITS)

    def test_an_answer_without_them(self) -> None:
        answer = self.call(Answer(200, {}, b'{"object": "list", "data": []}'), ask)
        assert classify(answer) == Feedback(WELL)

    def test_too_fast_amid_a_stream(self) -> None:
        body = error_body(message="Rate limit reached", type="tokens", code="rate_limit_exceeded")
        answer = Answer(200, {"content-type": "text/event-stream"}, b"data: " + body + b"\n\n")
        error = self.call(answer, ask_in_a_stream)
        assert isinstance(error, openai.APIError)
        assert classify(error) == Feedback(THROTTLED)


def test_urllib() -> None:
    with (
        serving(lambda _: Answer(429, {"Retry-After": "3"})) as server,
        pytest.raises(urllib.error.HTTPError) as caught,
    ):
        urllib.request.urlopen(server.url)
    with caught.value:
        assert classify(caught.value) == Feedback(THROTTLED, 3.0)


class TestSeveralAtOnce:
    def test_what_says_most_counts(self) -> None:
        one = Shape(status_code=429, headers={"Retry-After": "3"})
        two = Shape(status_code=429, headers={"Retry-After": "9"})
        plain = Shape(status_code=429)
        group = ExceptionGroup("", [ValueError(), plain, ExceptionGroup("", [one, two]), plain])
        assert classify(group) == Feedback(THROTTLED, 9.0)
        assert classify(ExceptionGroup("", [Shape(status_code=404), ValueError()])) == Feedback(FAILED)
        assert classify(ExceptionGroup("", [Shape(status_code=404)])) == Feedback(WELL)

    def test_a_cancellation_beside_it_says_nothing(self) -> None:
        stopped = asyncio.CancelledError()
        assert classify(BaseExceptionGroup("", [stopped, Shape(status_code=429)])) == Feedback(THROTTLED)
        assert classify(BaseExceptionGroup("", [stopped, KeyboardInterrupt()])) is None


@pytest.mark.parametrize(
    "stop", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1), GeneratorExit()]
)
def test_who_stops_a_call_says_nothing(stop: BaseException) -> None:
    assert classify(stop) is None


class Hostile(Exception):
    """Nothing of it can be read."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError(f"no {name} here")


class HalfHostile(Exception):
    """A 429 whose other parts cannot be read."""

    status_code = 429

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name) if name.startswith("__") else RuntimeError(f"no {name} here")


class Items:
    """Headers that are none."""

    def items(self) -> Any:
        raise OSError("the connection is closed")


def no_code() -> Any:
    raise RuntimeError("not connected")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Hostile(), FAILED),
        (HalfHostile(), THROTTLED),
        (Shape(status_code=429, headers=Items()), THROTTLED),
        (Shape(status_code=429, headers={"Retry-After": None}), THROTTLED),
        (Shape(status_code=429, headers=[("Retry-After", "3")]), THROTTLED),
        (Shape(code=no_code), FAILED),
        (Shape(status_code=10**400), FAILED),
        (Shape(response={"Error": None, "ResponseMetadata": 3}), FAILED),
    ],
)
def test_nothing_that_it_is_given_raises(answer: object, verdict: Verdict) -> None:
    assert classify(answer) == Feedback(verdict)

"""A circuit breaker: what counts against a service, and what is told."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2 as httpx
import pytest

from batchkit import CircuitBreaker, CircuitChanged, CircuitOpen
from batchkit.breaker import is_outage
from batchkit.testing import RecordingHook
from tests.helpers import threads


def refused(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://localhost/")
    answer = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError("refused", request=request, response=answer)


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (refused(500), True),
        (refused(503), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), True),
        (httpx.ReadTimeout("..."), True),
        (refused(429), False),
        (refused(503, **{"Retry-After": "3"}), False),  # it asks to come later
        (refused(404), False),
        (refused(401), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_what_says_that_a_service_is_down(error: Exception, outage: bool) -> None:
    assert is_outage(error) is outage
    breaker = CircuitBreaker(failures=1)
    breaker.heard(error, now=0.0)
    assert breaker.state == ("open" if outage else "closed")


@pytest.mark.parametrize(
    ("answer", "state", "wait"),
    [
        (None, "closed", 0.0),
        (refused(429), "closed", 0.0),
        (refused(404), "closed", 0.0),
        (refused(502), "open", 30.0),
        (ValueError("what it sent is no JSON"), "half-open", 0.0),
        (asyncio.CancelledError(), "half-open", 0.0),
    ],
    ids=repr,
)
def test_how_a_probe_may_end(answer: BaseException | None, state: str, wait: float) -> None:
    breaker = CircuitBreaker(failures=1, reset_after=30)
    breaker.failed(0.0)
    assert breaker.allow(30.0) == 0.0
    breaker.heard(answer, now=31.0)
    assert breaker.state == state
    assert breaker.allow(31.0) == wait


def test_an_answer_in_between_starts_the_row_anew() -> None:
    breaker = CircuitBreaker(failures=2)
    for answer in (refused(500), refused(404), refused(500), None, refused(500), ValueError()):
        breaker.heard(answer, now=0.0)
    assert breaker.allow(0.0) == 0.0
    breaker.heard(refused(500), now=0.0)
    assert breaker.state == "open"


def test_which_errors_count_can_be_said() -> None:
    breaker = CircuitBreaker(failures=1, on=lambda error: isinstance(error, LookupError))
    breaker.heard(refused(500), now=0.0)
    assert breaker.allow(0.0) == 0.0
    breaker.heard(KeyError(), now=0.0)
    assert breaker.state == "open"


def test_who_may_not_go_is_told_until_when() -> None:
    breaker = CircuitBreaker(failures=2, reset_after=30, name="pictures")
    breaker.check(0.0)
    breaker.failed(0.0)
    breaker.failed(1.0)
    with pytest.raises(
        CircuitOpen, match=r"pictures: .* failed 2 times in a row; ask again in 20 s"
    ) as caught:
        breaker.check(11.0)
    assert caught.value.retry_after == 20.0
    breaker.check(31.0)


def test_each_change_is_an_event(hook: RecordingHook) -> None:
    breaker = CircuitBreaker(failures=2, reset_after=30, name="pictures", hooks=[hook])
    breaker.heard(TimeoutError("no answer"), now=0.0)
    breaker.heard(TimeoutError("no answer"), now=1.0)
    breaker.allow(2.0)
    breaker.allow(31.0)
    breaker.allow(31.0)
    breaker.failed(32.0)
    breaker.allow(62.0)
    breaker.succeeded(63.0)
    breaker.succeeded(64.0)
    assert hook.events == [
        CircuitChanged("pictures", "open", "closed", "TimeoutError: no answer"),
        CircuitChanged("pictures", "half-open", "open"),
        CircuitChanged("pictures", "open", "half-open"),
        CircuitChanged("pictures", "half-open", "open"),
        CircuitChanged("pictures", "closed", "half-open"),
    ]


def test_a_hook_may_ask_the_breaker(hook: RecordingHook) -> None:
    waits: list[float] = []
    breaker = CircuitBreaker(failures=1, hooks=[lambda event: waits.append(breaker.allow(0.0))])
    breaker.failed(0.0)
    assert waits == [30.0]


def test_of_many_threads_one_is_the_probe() -> None:
    for _ in range(50):
        breaker, gone = CircuitBreaker(failures=1, reset_after=30), list[int]()
        breaker.failed(0.0)

        def ask(breaker: CircuitBreaker = breaker, gone: list[int] = gone) -> None:
            if breaker.allow(30.0) == 0.0:
                gone.append(1)

        with threads(*[ask] * 4):
            pass
        assert gone == [1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"failures": 0}, "failures"),
        ({"failures": 2.5}, "failures"),
        ({"within": -1}, "within"),
        ({"reset_after": float("nan")}, "reset_after"),
    ],
)
def test_a_number_that_is_none_is_refused(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        CircuitBreaker(**arguments)

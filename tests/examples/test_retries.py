"""Which failures are tried again, and after how long."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import openai
import pytest

from examples.retries import RetryBudget, described, is_busy, is_final, is_servers_fault, retry_after

REQUEST = httpx2.Request("POST", "http://service/v1/chat/completions")


def failure(status: int, body: object = None) -> openai.APIStatusError:
    """The error that the SDK makes of a status."""
    client = openai.OpenAI(api_key="key")
    return client._make_status_error("words", body=body, response=httpx2.Response(status, request=REQUEST))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "1", "retry-after-ms": "150"}, 0.15),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = retry_after({"retry-after": date})
    assert seconds is not None
    assert 55 <= seconds <= 60


@pytest.mark.parametrize(
    ("error", "busy", "final", "servers_fault"),
    [
        (failure(429), True, False, False),
        (failure(429, {"code": "insufficient_quota"}), False, True, False),
        (failure(401), False, True, False),
        (failure(403), False, True, False),
        (failure(404), False, True, False),
        (failure(400), False, False, False),
        (failure(500), False, False, True),
        (failure(503), False, False, True),
        (openai.APIConnectionError(request=REQUEST), False, False, True),
        (openai.APITimeoutError(request=REQUEST), False, False, True),
        (ValueError("another"), False, False, False),
    ],
)
def test_kinds_of_failure(error: Exception, busy: bool, final: bool, servers_fault: bool) -> None:
    assert (is_busy(error), is_final(error), is_servers_fault(error)) == (busy, final, servers_fault)


def test_a_refused_key_is_not_quoted() -> None:
    assert "sk-" not in described(failure(401, {"message": "Incorrect API key provided: sk-ab***yz."}))


def test_the_services_own_words() -> None:
    assert described(failure(500, {"message": "The server is tired."})) == "500, The server is tired"
    assert described(openai.APIConnectionError(request=REQUEST)) == "Connection error"


def test_a_budget_allows_odd_failures_for_ever() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.failed()
        assert budget.open
        for _ in range(10):
            budget.succeeded()


def test_a_budget_closes_in_an_outage_and_opens_after_it() -> None:
    budget = RetryBudget(size=20, gain=0.1)
    for _ in range(9):
        budget.failed()
    assert budget.open
    budget.failed()
    assert not budget.open
    for _ in range(1000):
        budget.failed()
    for _ in range(100):
        budget.succeeded()
    assert not budget.open
    budget.succeeded()
    assert budget.open

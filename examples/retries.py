"""What a failed call means: whether another try is worth it, and after how long."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import openai
from attrs import define

FINAL = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


@define
class RetryBudget:
    """Allows retries while most calls go well: a service that is down is not asked several times over.

    Each failure takes 1 from the budget, each success gives back `gain`. Retries are allowed while more
    than half is
    there: an odd failure is retried, while in an outage the first `size / 2` failures are, and then no
        more. (The way in which gRPC throttles its retries.)

    Attributes:
        size: the full budget, in failures.
        gain: what a success gives back, in failures: at 0.1, one failure in eleven calls can go on for ever.
        left: what is there.
    """

    size: float = 20.0
    gain: float = 0.1
    left: float = 20.0

    def succeeded(self) -> None:
        """A call went well."""
        self.left = min(self.size, self.left + self.gain)

    def failed(self) -> None:
        """A call failed for a reason of the server's."""
        self.left = max(0.0, self.left - 1)

    @property
    def open(self) -> bool:
        """Whether a retry is allowed."""
        return self.left > self.size / 2


def is_servers_fault(error: Exception) -> bool:
    """A failure that may be over at the next try: 5xx, no connection, no answer in time."""
    return isinstance(error, (openai.InternalServerError, openai.APIConnectionError))


def is_busy(error: Exception) -> bool:
    """A refusal for now: 429, unless it means that the account has run out of money."""
    return isinstance(error, openai.RateLimitError) and error.code != "insufficient_quota"


def is_final(error: Exception) -> bool:
    """A refusal that is no word's fault and that no retry mends."""
    return isinstance(error, FINAL) or (isinstance(error, openai.RateLimitError) and not is_busy(error))


def described(error: openai.APIError) -> str:
    """What happened. A refused key is not quoted, although the service does so in part."""
    if isinstance(error, openai.AuthenticationError):
        return "it does not accept the API key (401)"
    status = f"{error.status_code}, " if isinstance(error, openai.APIStatusError) else ""
    return f"{status}{message(error)}"


def message(error: openai.APIError) -> str:
    """The service's own words, if it has some."""
    body = error.body if isinstance(error.body, Mapping) else {}
    return str(body.get("message") or error.message).strip().rstrip(".")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: the finer `retry-after-ms`, or else `Retry-After`.

    None if it does not say, or in no way that is known.
    """
    milliseconds = seconds_of(headers.get("retry-after-ms", ""))
    return seconds_of(headers.get("retry-after", "")) if milliseconds is None else milliseconds / 1000


def seconds_of(text: str) -> float | None:
    """A number of seconds, or the time until a date."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = until(text)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def until(date: str) -> float:
    """Seconds until an HTTP date, at least 0; NaN if it is none."""
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())

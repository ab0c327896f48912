"""What servers say about their limits in the headers of an answer.

Pure parsers: they read no clock and never raise on what a server sends. What makes no sense (garbage,
negative, NaN, infinite) is as if it had not been sent. Nothing is capped here: a server may say 1e9 seconds.

Sources: RFC 9110, section 10.2.3 (`Retry-After`) and 5.6.7 (dates); the `retry-after-ms` of OpenAI and Azure;
OpenAI's `x-ratelimit-*-requests` and `-tokens`; draft-ietf-httpapi-ratelimit-headers (`RateLimit` and
`RateLimit-Policy`), and the three headers (`-Limit`, `-Remaining`, `-Reset`) that came before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

from attrs import frozen

__all__ = ["RateLimit", "rate_limits", "retry_after"]

_LONGEST: Final = 4096  # characters of a header that are looked at
_NUMBER: Final = re.compile(r"\d{1,400}(?:\.\d{0,400})?|\.\d{1,400}", re.ASCII)
_PART: Final = re.compile(r"(\d{1,20}(?:\.\d{0,20})?)(ms|us|µs|ns|d|h|m|s)", re.ASCII)
_UNITS: Final = {
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_EPOCH: Final = 1e8  # seconds: three years from now, or March 1973; no server means either
_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_ITEM: Final = re.compile(
    rf'\s*({_STRING}|[A-Za-z*][^\s;,"]*)((?:\s*;\s*[a-z*][a-z0-9_.*-]*(?:={_STRING}|=[^;,"]*)?)*)\s*'
)
_PARAMETER: Final = re.compile(rf";\s*([a-z*][a-z0-9_.*-]*)=({_STRING}|[^;]*)")
_NAMED: Final = re.compile(r"(?:x-)?ratelimit-(limit|remaining|reset)(?:-([a-z0-9-]{1,40}))?")
_TOLD: Final = re.compile(r"(limit|remaining|reset)\s*=\s*([0-9.]+)")


@frozen
class RateLimit:
    """One limit, as far as the server told.

    Attributes:
        name: what the limit is called or counts: "requests", "tokens", the name of a policy; "" if the server
            has only one.
        limit: permits in a window.
        remaining: permits that are left of them.
        reset: seconds from the answer on until the limit is full again.
        window: seconds.
    """

    name: str
    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    window: float | None = None


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds after which the server wants to be asked again, 0.0 or more; None if it does not say.

    `retry-after-ms` goes before `Retry-After`, since it is finer.

    Args:
        headers: of the answer; upper and lower case are alike.
        now: the time, in seconds since 1970 (POSIX), for a date in the header. Without it the date is held
            against the answer's own `Date`, which no wrong clock of the client can spoil.
    """
    found = _lower(headers)
    if (milliseconds := _number(found.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    value = found.get("retry-after", "")
    if (seconds := _number(value)) is not None:
        return seconds
    until = _date(value)
    since = _date(found.get("date", "")) if now is None else now
    return None if until is None or since is None else max(0.0, until - since)


def rate_limits(headers: Mapping[str, str], *, now: float | None = None) -> tuple[RateLimit, ...]:
    """The limits that the headers tell of, by whichever convention; none if there are none.

    A reset above 100,000,000 is taken for a date in POSIX seconds, anything below for seconds from now on.

    Args:
        headers: of the answer; upper and lower case are alike.
        now: the time, in seconds since 1970 (POSIX), for resets that are dates; without it the answer's own
            `Date` is taken.
    """
    found = _lower(headers)
    since = _date(found.get("date", "")) if now is None else now
    return (*_of_draft(found), *_of_three_headers(found, since))


def _duration(text: str) -> float | None:
    """Seconds of a duration such as `6m0s`, `250ms` or `1.5`; None if it is none."""
    text = text.strip()[:_LONGEST]
    if (seconds := _number(text)) is not None:
        return seconds
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return _sane(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _of_draft(found: Mapping[str, str]) -> list[RateLimit]:
    """`RateLimit: "default";r=50;t=30` and `RateLimit-Policy: "default";q=100;w=60`, joined by name."""
    policies = dict(_items(found.get("ratelimit-policy", "")))
    states = dict(_items(found.get("ratelimit", "")))
    limits: list[RateLimit] = []
    for name in dict.fromkeys([*states, *policies]):
        policy, state = policies.get(name, {}), states.get(name, {})
        quota, left = _whole(policy.get("q")), _whole(state.get("r"))
        if quota is not None or left is not None:
            limits.append(
                RateLimit(name, quota, left, _number(state.get("t", "")), _number(policy.get("w", "")))
            )
    return limits


def _items(value: str) -> list[tuple[str, dict[str, str]]]:
    """The items of a structured list (RFC 9651), each with its parameters."""
    items: list[tuple[str, dict[str, str]]] = []
    position, value = 0, value[:_LONGEST]
    while match := _ITEM.match(value, position):
        items.append((match[1].strip('"'), dict(_PARAMETER.findall(match[2]))))
        position = match.end()
        if value[position : position + 1] != ",":
            break
        position += 1
    return items


def _of_three_headers(found: Mapping[str, str], since: float | None) -> list[RateLimit]:
    """`X-RateLimit-Limit` and its like, and an older draft's `RateLimit: limit=9, remaining=5, reset=2`."""
    one = dict(_TOLD.findall(found.get("ratelimit", "")))
    told: dict[str, dict[str, str]] = {"": one} if one else {}
    for header, value in found.items():
        if match := _NAMED.fullmatch(header):
            told.setdefault(match[2] or "", {})[match[1]] = value
    limits = [_of_three(name, values, since) for name, values in told.items()]
    return [limit for limit in limits if limit.limit is not None or limit.remaining is not None]


def _of_three(name: str, values: Mapping[str, str], since: float | None) -> RateLimit:
    quota, _, policy = values.get("limit", "").partition(",")  # the older drafts: `100, 100;w=60`
    window = dict(_PARAMETER.findall(";" + policy.partition(";")[2])).get("w", "")
    reset = _duration(values.get("reset", ""))
    if reset is not None and reset > _EPOCH:
        reset = None if since is None else max(0.0, reset - since)
    return RateLimit(name, _whole(quota), _whole(values.get("remaining")), reset, _number(window))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {str(name).lower(): str(value).strip()[:_LONGEST] for name, value in headers.items()}


def _number(text: str) -> float | None:
    return _sane(float(text)) if _NUMBER.fullmatch(text.strip()) else None


def _whole(text: str | None) -> int | None:
    number = None if text is None else _number(text)
    return None if number is None else int(number)


def _sane(seconds: float) -> float | None:
    return seconds if isfinite(seconds) else None


def _date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        # all three forms of RFC 9110 mean GMT, though only one of them says so
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None

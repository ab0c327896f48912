"""Headers as servers send them, and as they should not."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit.headers import RateLimit, rate_limits, retry_after

MIDNIGHT = 784080000.0  # Sun, 06 Nov 1994 00:00:00 GMT
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
MOMENT = MIDNIGHT + 8 * 3600 + 49 * 60 + 37

ONE_OF_THEM = st.sampled_from(
    [
        "Retry-After",
        "retry-after-ms",
        "Date",
        "RateLimit",
        "RateLimit-Policy",
        "RateLimit-Limit",
        "X-RateLimit-Reset",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
    ]
)
ALPHABET = "".join(map(chr, range(0x180)))
PIECES = st.sampled_from(
    [
        '"default"',
        ";r=5",
        ";t=",
        ";q=1",
        ";w=60",
        ",",
        "6m0s",
        "1e9",
        "-1",
        "nan",
        "inf",
        "²",
        "9" * 400,
        " ",
        DATE,
    ]
)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"RETRY-AFTER": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1000000000"}, 1e9),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Sun, 99 Nov 1994 08:49:37 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers) == expected


@pytest.mark.parametrize(
    "date",
    [DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
    ids=["imf", "rfc850", "asctime"],
)
def test_retry_after_as_a_date(date: str) -> None:
    assert retry_after({"Retry-After": date}, now=MOMENT - 10) == 10.0
    assert retry_after({"Retry-After": date}, now=MOMENT + 10) == 0.0
    assert retry_after({"Retry-After": date}) is None, "nobody says what time it is"
    own = {"Retry-After": date, "Date": "Sun, 06 Nov 1994 08:49:07 GMT"}
    assert retry_after(own) == 30.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("250ms", 0.25),
        ("1d", 86400.0),
        ("20", 20.0),
        ("6m0", None),
        ("m", None),
        ("-1s", None),
        ("1s 2s", None),
        ("", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": text}
    assert rate_limits(headers) == (RateLimit("tokens", None, 1, seconds),)


def test_openai() -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert rate_limits(headers) == (
        RateLimit("requests", 60, 59, 1.0),
        RateLimit("tokens", 150000, 149984, 360.0),
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"RateLimit": '"default";r=50;t=30'}, (RateLimit("default", None, 50, 30.0),)),
        (
            {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
            (RateLimit("default", 100, 50, 30.0, 60.0),),
        ),
        (
            {
                "RateLimit-Policy": '"second";q=10;w=1, "day";q=1000;w=86400;pk=:abc=:',
                "ratelimit": '"day"; r=0; t=9',
            },
            (RateLimit("day", 1000, 0, 9.0, 86400.0), RateLimit("second", 10, None, None, 1.0)),
        ),
        (
            {"RateLimit": '"a;r=9, b" ; pk="x,;r=7" ; r=5, c;r=6'},
            (RateLimit("a;r=9, b", None, 5), RateLimit("c", None, 6)),
        ),
        ({"RateLimit": "garbage, =;;"}, ()),
        ({"RateLimit": '"default";r=-1'}, ()),
        ({"RateLimit": '"default'}, ()),
    ],
)
def test_ietf_draft(headers: dict[str, str], expected: tuple[RateLimit, ...]) -> None:
    assert rate_limits(headers) == expected


@pytest.mark.parametrize(
    ("headers", "now", "expected"),
    [
        (
            {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": "60"},
            None,
            RateLimit("", 5000, 4999, 60.0),
        ),
        (
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "784080030"},
            MIDNIGHT,
            RateLimit("", None, 0, 30.0),
        ),
        (
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "784080000"},
            MIDNIGHT + 9,
            RateLimit("", None, 0, 0.0),
        ),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "784080030"}, None, RateLimit("", None, 0)),
        (
            {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "5"},
            None,
            RateLimit("", 100, 5, None, 60.0),
        ),
        ({"RateLimit": "limit=100, remaining=50, reset=5"}, None, RateLimit("", 100, 50, 5.0)),
        ({"RateLimit-Limit": "many", "RateLimit-Remaining": "3"}, None, RateLimit("", None, 3)),
    ],
)
def test_the_three_headers(headers: dict[str, str], now: float | None, expected: RateLimit) -> None:
    assert rate_limits(headers, now=now) == (expected,)


@given(
    st.dictionaries(
        ONE_OF_THEM, st.one_of(st.text(ALPHABET, max_size=20), st.lists(PIECES, max_size=6).map("".join))
    )
)
def test_nothing_that_a_server_sends_does_harm(headers: dict[str, str]) -> None:
    seconds = retry_after(headers, now=MIDNIGHT)
    assert seconds is None or (isfinite(seconds) and seconds >= 0)
    for limit in rate_limits(headers, now=MIDNIGHT):
        for number in (limit.limit, limit.remaining, limit.reset, limit.window):
            assert number is None or (isfinite(number) and number >= 0)

"""Fixtures of the tests of faults: limiters that are closed when a test is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from batchkit import RedisDistributedLimiter
from tests.faults.fleet import KEY, StampedHook


class Make(Protocol):
    def __call__(self, target: object, key: str = KEY, **kwargs: Any) -> RedisDistributedLimiter: ...


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes limiters, of 100/s and burst 10 unless told otherwise."""
    with ExitStack() as stack:

        def make(target: object, key: str = KEY, **kwargs: Any) -> RedisDistributedLimiter:
            options: dict[str, Any] = {"rate": 100, "burst": 10}
            limiter = RedisDistributedLimiter(target, key, **(options | kwargs))
            stack.callback(limiter.close)
            return limiter

        yield make


@pytest.fixture
def stamped() -> StampedHook:
    return StampedHook()


@pytest.fixture(params=["threads", "asyncio", "trio"])
def colour(request: pytest.FixtureRequest) -> str:
    """Where callers live."""
    return str(request.param)


@pytest.fixture(params=["raise", "deny", "allow", "local"])
def policy(request: pytest.FixtureRequest) -> str:
    """What a limiter does while Redis is away."""
    return str(request.param)

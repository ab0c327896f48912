"""Fixtures of the tests of what talks to Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.redis.tiers import Make


@pytest.fixture
def make_tier() -> Iterator[Make]:
    """Makes tiers, which are closed when the test is over."""
    with ExitStack() as stack:
        yield Make(stack)

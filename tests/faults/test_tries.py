"""One question and its answer: what a try gets to hear from a real server."""

from __future__ import annotations

import pytest

from batchkit import RedisDistributedLimiter
from tests.faults.conftest import Make
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")


def test_a_try_on_a_full_bucket_goes(valkey: Server, make: Make) -> None:
    limiters: list[RedisDistributedLimiter] = [make(valkey.url(), f"quota {number}") for number in range(30)]
    assert all(limiter.try_acquire() for limiter in limiters)

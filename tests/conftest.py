"""Fixtures of all tests: async tests run on asyncio and on trio, time stands still unless a test moves it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from batchkit.testing import ManualClock, RecordingHook
from tests.helpers import History
from tests.servers import cluster, own_server, redis_server, sentinel, server_cache, session_cluster, valkey  # noqa: F401 - fixtures

# A busy machine is no fault of what is tested.
settings.register_profile("batchkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batchkit")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def hook() -> RecordingHook:
    return RecordingHook()


@pytest.fixture
def history(clock: ManualClock) -> Iterator[History]:
    """What limiters let go; when the test is over, every window of it is looked at."""
    history = History(clock)
    yield history
    history.check()

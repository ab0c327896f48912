"""Fixtures of all tests: async tests run on asyncio and on trio, time stands still unless a test moves it."""

from __future__ import annotations

import pytest

from batchkit.testing import ManualClock, RecordingHook


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def hook() -> RecordingHook:
    return RecordingHook()

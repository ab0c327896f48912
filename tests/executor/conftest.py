"""Fixtures of the tests of the executor."""

from __future__ import annotations

import pytest

from batchkit.testing import ManualClock
from tests.executor.helpers import Work


@pytest.fixture
def work(clock: ManualClock) -> Work:
    return Work(clock)

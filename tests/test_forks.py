"""Forks, and locks that they wait for."""

from __future__ import annotations

import os
import threading
import time

import pytest

from batchkit._forks import FORKS, OwnLock
from tests.helpers import DEADLINE, in_child, threads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def lock() -> OwnLock:
    lock = OwnLock()
    FORKS.wait_for(lock)
    return lock


def test_a_fork_waits_until_no_other_thread_has_the_lock(lock: OwnLock) -> None:
    order: list[str] = []
    held = threading.Event()

    def hold() -> None:
        with lock():
            held.set()
            time.sleep(0.1)  # a fork that does not wait is made by then
            order.append("released")

    with threads(hold):
        assert held.wait(DEADLINE)
        in_child(lambda: order == ["released"])


def test_both_find_it_free_afterwards(lock: OwnLock) -> None:
    in_child(lambda: lock().acquire(blocking=False))
    assert lock().acquire(blocking=False)


def test_a_child_may_fork_in_its_turn(lock: OwnLock) -> None:
    def check() -> bool:
        in_child(lambda: lock().acquire(blocking=False))
        return lock().acquire(blocking=False)

    in_child(check)


def test_threads_that_fork_at_once_wait_for_each_other(lock: OwnLock) -> None:
    def fork() -> None:
        for _ in range(5):
            in_child(lambda: lock().acquire(blocking=False))

    with threads(fork, fork):
        pass
    assert lock().acquire(blocking=False)


def test_one_that_is_gone_is_not_waited_for() -> None:
    lock = OwnLock()
    FORKS.wait_for(lock)
    lock().acquire()
    del lock
    in_child()

"""Processes that die, stand still or fork, and limiters that are shared by everything there is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import anyio
import pytest

from tests.faults.conftest import Make
from tests.faults.fleet import ROOT, Callers, StampedHook, Worker, excess, figures, slack
from tests.helpers import DEADLINE, eventually
from tests.servers import BINARIES, Server

pytestmark = pytest.mark.skipif(not BINARIES or os.name == "nt", reason="no server found")

RATE, BURST = 50, 5
HORIZON = 0.05
PASSED_OVER = 0.4  # seconds after which the others do not wait for a process that died


@pytest.mark.parametrize("waiters", [1, 16])
def test_a_process_is_killed_while_it_waits(waiters: int, redis_server: Server, make: Make) -> None:
    limiter = make(redis_server.url(), rate=RATE, burst=BURST)
    with (
        Callers(limiter) as callers,
        Worker(redis_server.url(), waiters=waiters, rate=RATE, burst=BURST) as worker,
    ):
        callers.go_on(40)
        eventually(lambda: len(worker.gone) > 5)
        worker.process.kill()
        killed = time.monotonic()
        callers.go_on(40)
    after = [killed, *(moment for moment in callers.gone if moment > killed)]
    assert max(later - earlier for earlier, later in pairwise(after)) < PASSED_OVER + 0.2
    assert excess(callers.gone + worker.gone, RATE, BURST) < slack(RATE)
    # at most what was booked for it is lost
    went = len(callers.gone) + len(worker.gone)
    eventually(lambda: 0 <= figures(redis_server).gone - went <= HORIZON * RATE + 1)


@pytest.mark.parametrize("alone", [True, False])
def test_a_process_that_stood_still_lets_no_backlog_go(alone: bool, redis_server: Server, make: Make) -> None:
    limiter = make(redis_server.url(), rate=RATE, burst=BURST)
    with Worker(redis_server.url(), waiters=16, rate=RATE, burst=BURST) as worker:
        with Callers(limiter, count=0 if alone else 16) as callers:
            eventually(lambda: len(worker.gone) > 20)
            worker.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            time.sleep(2)
            meanwhile = [moment for moment in list(callers.gone) if moment > stopped + PASSED_OVER]
            resumed = time.monotonic()
            worker.process.send_signal(signal.SIGCONT)
            before = len(worker.gone)
            eventually(lambda: len(worker.gone) > before + 30)
        gone = sorted(callers.gone + worker.gone)
    assert (
        alone or len(meanwhile) > 0.9 * RATE * (resumed - stopped - PASSED_OVER) - 1
    )  # nobody waited for it
    assert excess(gone, RATE, BURST) < slack(RATE)


FORKED = """
import os, sys
from batchkit import RedisDistributedLimiter

limiter = RedisDistributedLimiter(sys.argv[1], "quota", rate=50, burst=5)
if sys.argv[2] == "used":
    for _ in range(8):
        limiter.acquire_sync()
child = os.fork()
for _ in range(8):
    limiter.acquire_sync(timeout=10)
limiter.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
    limiter.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("used", ["used", "new"])
def test_a_limiter_works_on_both_sides_of_a_fork(used: str, redis_server: Server) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, redis_server.url(), used]
    subprocess.run(command, cwd=ROOT, check=True, timeout=DEADLINE)
    eventually(lambda: figures(redis_server).gone == (24 if used == "used" else 16))


MADE_AT_IMPORT = """
import asyncio, sys, anyio
from batchkit import RedisDistributedLimiter

limiter = RedisDistributedLimiter(sys.argv[1], "quota", rate=50, burst=5)

async def main() -> None:
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(limiter.acquire)

for _ in range(3):
    asyncio.run(main())
anyio.run(main, backend="trio")
"""


def test_a_limiter_made_at_import_time_works_in_one_loop_after_the_other(redis_server: Server) -> None:
    command = [sys.executable, "-W", "error", "-c", MADE_AT_IMPORT, redis_server.url()]
    subprocess.run(command, cwd=ROOT, check=True, timeout=DEADLINE)  # it ends, too, though nobody closes it
    eventually(lambda: figures(redis_server).gone == 20)


def test_threads_asyncio_and_trio_share_a_limiter(
    redis_server: Server, make: Make, stamped: StampedHook
) -> None:
    limiter = make(redis_server.url(), rate=100, burst=10, hooks=[stamped])
    with (
        Callers(limiter, colour="threads") as first,
        Callers(limiter, colour="asyncio") as second,
        Callers(limiter, colour="trio") as third,
    ):
        for callers in (first, second, third):
            callers.go_on(50)
    gone = first.gone + second.gone + third.gone
    assert not first.errors + second.errors + third.errors
    assert not stamped.switches()
    assert excess(gone, 100, 10) < slack(100)
    eventually(lambda: figures(redis_server).gone == len(gone))


def test_an_event_loop_that_is_blocked_holds_up_nobody(redis_server: Server, make: Make) -> None:
    limiter = make(redis_server.url())

    async def block() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(limiter.acquire)
            await asyncio.sleep(0.05)
            time.sleep(1)  # noqa: ASYNC251 - it stands still

    limiter.acquire_sync(cost=10)
    with Callers(limiter) as callers:
        begin = time.monotonic()
        asyncio.run(block())
        meanwhile = [moment for moment in callers.gone if begin < moment < begin + 1]
    assert len(meanwhile) > 80

"""Limiters struck by Ctrl-C, by a fork, and by the end of the interpreter."""

from __future__ import annotations

import dis
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import batchkit
from batchkit import AcquireTimeout, AdaptiveLimiter, ConcurrencyLimiter, TokenBucket, all_of
from batchkit._parking import SyncParker, ThreadParker
from batchkit.testing import ManualClock
from tests.helpers import eventually, threads

HOUSE = str(Path(batchkit.__file__).parent)


class CtrlC:
    """Raises KeyboardInterrupt inside batchkit at the n-th place where CPython looks for signals: at the
    start of a function, after a call, and at the end of a loop.

    Args:
        strike: n.
        harsh: strike also where a Python function returns to another one. CPython does not look there today.
    """

    def __init__(self, strike: int, *, harsh: bool = True) -> None:
        self.left = strike
        self.harsh = harsh
        self.struck = False
        self.before: dict[FrameType, str] = {}

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "call" and not self.harsh and frame.f_back and frame.f_code.co_name != "__init__":
            self.before[frame.f_back] = "a function that returns without a look"
        if not frame.f_code.co_filename.startswith(HOUSE):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = self.before.get(frame, "RESUME")
            self.before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            closes = frame.f_lineno is None or frame.f_lineno < 0  # a generator: nobody hears what it raises
            if before.startswith(("RESUME", "CALL", "JUMP_BACKWARD")) and not closes:
                self.look_for_signals()
        return self.trace

    def look_for_signals(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.struck = True
            raise KeyboardInterrupt

    def strikes(self, call: Callable[[], object]) -> bool:
        """Whether the call was long enough to be struck."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # CPython 3.12 looks for this only when a trace is set
        sys.settrace(self.trace)
        try:
            with suppress(KeyboardInterrupt, AcquireTimeout):
                call()
        finally:
            sys.settrace(before)
        return self.struck


class HurriedClock(ManualClock):
    """Jumps to the end of each wait of a thread."""

    def parker_sync(self) -> SyncParker:
        return _HurriedParker(self)


class _HurriedParker(ThreadParker):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock.now)
        self.clock = clock

    def park_sync(self, until: float = inf) -> None:
        self.clock.advance(max(0.0, until - self.clock.now()))


def first_step(bucket: TokenBucket) -> None:
    with suppress(StopIteration):
        bucket.acquire().send(None)


@pytest.mark.parametrize(
    ("taken", "call"),
    [
        pytest.param(0, TokenBucket.try_acquire, id="a try that goes"),
        pytest.param(3, TokenBucket.try_acquire, id="a try that is refused"),
        pytest.param(0, first_step, id="an async acquire that goes"),
        pytest.param(0, TokenBucket.acquire_sync, id="an acquire that goes"),
        pytest.param(3, TokenBucket.acquire_sync, id="an acquire that waits"),
        pytest.param(3, lambda bucket: bucket.acquire_sync(timeout=0.1), id="one that times out"),
        pytest.param(3, lambda bucket: bucket.charge(-1), id="a refund"),
        pytest.param(3, lambda bucket: bucket.pause_for(1), id="a pause"),
        pytest.param(3, lambda bucket: bucket.change(rate=1), id="a change"),
    ],
)
def test_after_ctrl_c_at_any_moment_the_limiter_works_on(
    taken: int, call: Callable[[TokenBucket], object]
) -> None:
    strike, struck = 0, True
    while struck:
        strike += 1
        clock = HurriedClock()
        bucket = TokenBucket(rate=2, burst=3, clock=clock)
        if taken:
            bucket.try_acquire(taken)
        struck = CtrlC(strike).strikes(partial(call, bucket))
        clock.advance(100)
        assert bucket.try_acquire(3), f"after a strike at {strike}"
        assert not bucket.try_acquire(), f"after a strike at {strike}"
        clock.advance(0.5)
        bucket.acquire_sync()
    assert strike > 3


class Several:
    """Two buckets and a slot, alone and as a group, on one clock; `taken` of each are gone."""

    def __init__(self, taken: int) -> None:
        self.clock = HurriedClock()
        self.one = TokenBucket(rate=2, burst=3, clock=self.clock)
        self.two = TokenBucket(rate=1, burst=3, clock=self.clock)
        self.slots = ConcurrencyLimiter(2, clock=self.clock)
        self.both = all_of(one=self.one, two=self.two)
        self.all = all_of(one=self.one, slots=self.slots)
        if taken:
            self.both.try_acquire(taken)

    def adaptive(self) -> None:
        limiter = AdaptiveLimiter(self.two, min_rate=0.5, max_rate=2)
        with all_of(one=self.one, two=limiter).permit() as permit:
            permit.hear(429)
        self.two.change(rate=1)

    def settled(self) -> None:
        with self.both.permit() as permit:
            permit.settle(one=2, two=2)


@pytest.mark.parametrize(
    ("taken", "call"),
    [
        pytest.param(0, lambda limits: limits.both.try_acquire(), id="a try that goes"),
        pytest.param(3, lambda limits: limits.both.try_acquire(), id="a try that is refused"),
        pytest.param(0, lambda limits: limits.both.acquire_sync(), id="an acquire that goes"),
        pytest.param(3, lambda limits: limits.both.acquire_sync(), id="an acquire that waits"),
        pytest.param(3, lambda limits: limits.both.acquire_sync(timeout=0.7), id="one that times out"),
        pytest.param(0, Several.settled, id="a true cost"),
        pytest.param(0, Several.adaptive, id="one that learns"),
        pytest.param(0, lambda limits: limits.slots.try_acquire(), id="a slot"),
        pytest.param(0, lambda limits: limits.slots.acquire_sync(timeout=1), id="a slot to wait for"),
        pytest.param(0, lambda limits: limits.all.acquire_sync(), id="a slot and a permit"),
        pytest.param(3, lambda limits: limits.all.acquire_sync(), id="a slot and a permit to wait for"),
        pytest.param(0, lambda limits: limits.all.permit().__enter__(), id="a block that begins"),
        pytest.param(3, lambda limits: limits.all.permit().__enter__(), id="a block that waits to begin"),
        pytest.param(0, lambda limits: limits.all.__enter__(), id="a block of the group itself"),
        pytest.param(3, lambda limits: limits.all.__enter__(), id="one that waits to begin"),
    ],
)
def test_after_ctrl_c_at_any_moment_several_limits_work_on(
    taken: int, call: Callable[[Several], object]
) -> None:
    strike, struck = 0, True
    while struck:
        strike += 1
        limits = Several(taken)
        struck = CtrlC(strike, harsh=False).strikes(partial(call, limits))
        where = f"after a strike at {strike}"
        if struck:
            assert limits.slots.statistics().available == 2, where
        else:
            assert limits.slots.statistics().available in (1, 2)
        limits.clock.advance(100)
        assert limits.both.try_acquire(3), where
        assert not limits.one.try_acquire(), where
        assert not limits.two.try_acquire(), where
        limits.clock.advance(1)
        limits.both.acquire_sync(1)
        waiting = [limiter.statistics().waiting for limiter in (limits.one, limits.two, limits.slots)]
        assert waiting == [0, 0, 0], where
    assert strike > 3


def both_wait(bucket: TokenBucket) -> bool:
    return bucket.statistics().waiting == 2


def test_after_ctrl_c_in_one_thread_those_who_wait_in_others_go() -> None:
    strike, struck = 0, True
    while struck:
        strike += 1
        clock = ManualClock()
        bucket = TokenBucket(rate=2, burst=3, clock=clock)
        bucket.try_acquire(3)
        with threads(bucket.acquire_sync, bucket.acquire_sync):
            eventually(partial(both_wait, bucket))
            struck = CtrlC(strike).strikes(partial(bucket.change, rate=1000))

            def all_gone(bucket: TokenBucket = bucket, clock: ManualClock = clock) -> bool:
                clock.advance(0.01)
                return bucket.statistics().granted == 5

            eventually(all_gone)
    assert strike > 3


def run_script(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_leaves_lock_and_waiters_behind() -> None:
    said = run_script(
        """
        import os, threading
        from batchkit import TokenBucket
        from batchkit.testing import ManualClock
        clock = ManualClock()
        bucket = TokenBucket(rate=1, burst=1, clock=clock)
        bucket.try_acquire()
        threading.Thread(target=bucket.acquire_sync, daemon=True).start()
        while bucket.statistics().waiting == 0:
            pass
        with bucket.gate._lock:  # as if another thread were deciding something
            child = os.fork()
        if not child:
            before = bucket.try_acquire(), bucket.statistics().waiting
            clock.advance(1)
            print("child", before, bucket.try_acquire(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("parent", bucket.statistics().waiting)
        """
    )
    assert said.splitlines() == [
        "child (Decision(allowed=False, retry_after=1.0), 0) Decision(allowed=True, retry_after=0.0)",
        "parent 1",
    ]


def test_one_limiter_outlives_event_loops_and_ends_with_the_interpreter() -> None:
    said = run_script(
        """
        import asyncio, threading, trio
        from batchkit import TokenBucket
        bucket = TokenBucket(rate=1000, burst=1)

        async def acquire_five():
            for _ in range(5):
                await bucket.acquire()

        asyncio.run(acquire_five())
        asyncio.run(acquire_five())
        trio.run(acquire_five)
        bucket.pause_for(1e6)
        threading.Thread(target=bucket.acquire_sync, daemon=True).start()
        print(bucket.statistics().granted)
        """
    )
    assert said == "15\n"

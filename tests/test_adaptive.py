"""`AdaptiveLimiter` on asyncio, on trio and in threads, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from math import inf, nan
from typing import Any

import anyio
import pytest

from batchkit import (
    AcquireTimeout,
    AdaptiveLimiter,
    ConcurrencyLimiter,
    InvalidCost,
    Paused,
    RateChanged,
    TokenBucket,
    all_of,
)
from batchkit.abc import Event, Limiter
from batchkit.controllers import AIMD, Adjustment, Cubic, Sample, Verdict
from batchkit.feedback import Feedback
from batchkit.headers import RateLimit
from batchkit.testing import ManualClock, RecordingHook, settle
from tests.helpers import DEADLINE, eventually, threads, worst_excess
from tests.test_limiters_interrupted import CtrlC

pytestmark = pytest.mark.anyio


@pytest.fixture
def bucket(clock: ManualClock, hook: RecordingHook) -> TokenBucket:
    """Rate 10/s, burst 5."""
    return TokenBucket(rate=10, burst=5, name="api", hooks=[hook], clock=clock)


@pytest.fixture
def limiter(bucket: TokenBucket) -> AdaptiveLimiter:
    """Halves its rate when refused."""
    return AdaptiveLimiter(bucket, controller=AIMD(10, min_rate=1, max_rate=100, increase=1))


class TooFast(Exception):
    """A 429, as client libraries raise it."""

    status_code = 429

    def __init__(self, retry_after: float | None = None) -> None:
        self.headers = {} if retry_after is None else {"Retry-After": f"{retry_after:f}"}


async def fail(limiter: Any, clock: ManualClock, seconds: float, error: Exception, cost: int = 1) -> None:
    """A call that takes so long and then raises."""
    async with limiter.permit(cost):
        clock.advance(seconds)
        raise error


class Reply:
    """An answer, as client libraries return it."""

    def __init__(self, status_code: int, **headers: str) -> None:
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Listener:
    """A controller of one's own, by the protocol alone: it writes down what it is told, and says what it is
    asked to say.
    """

    def __init__(self, rate: float = 10.0) -> None:
        self.rate = rate
        self.samples: list[Sample] = []
        self.answer: Adjustment | None = None

    def feed(self, sample: Sample) -> Adjustment | None:
        self.samples.append(sample)
        return self.answer


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def heard(bucket: TokenBucket, listener: Listener) -> AdaptiveLimiter:
    """What it learns is in the listener."""
    return AdaptiveLimiter(bucket, controller=listener)


def rates(hook: RecordingHook) -> list[float]:
    return [event.rate for event in hook.of(RateChanged)]


class TestIsALimiter:
    def test_by_the_protocol(self, limiter: AdaptiveLimiter, bucket: TokenBucket) -> None:
        assert isinstance(limiter, Limiter)
        assert limiter.rate == 10
        assert limiter.clock is bucket.clock
        assert repr(limiter) == "AdaptiveLimiter(TokenBucket(rate=10, burst=5, name='api'))"

    async def test_it_lets_go_what_the_limiter_inside_does(
        self, limiter: AdaptiveLimiter, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        await limiter.acquire(2)
        limiter.acquire_sync()
        async with limiter:
            assert not limiter.try_acquire(2)
        with limiter:
            assert limiter.try_acquire().retry_after == 0.1
        assert limiter.statistics() == bucket.statistics()
        assert limiter.statistics().granted == 5
        with pytest.raises(AcquireTimeout):
            await limiter.acquire(timeout=0.05)
        with pytest.raises(AcquireTimeout):
            limiter.acquire_sync(timeout=0.05)
        await clock.run(limiter.acquire(3, priority=1))
        assert clock.now() == pytest.approx(0.3)

    async def test_only_a_permit_teaches(
        self, heard: AdaptiveLimiter, listener: Listener, clock: ManualClock
    ) -> None:
        await heard.acquire()
        heard.acquire_sync()
        heard.try_acquire()
        assert listener.samples == []
        clock.advance(1)
        async with heard.permit():
            pass
        assert len(listener.samples) == 1


class TestEntered:
    """`async with limiter:` is a permit of cost 1."""

    async def test_it_learns_how_the_block_ended(
        self, heard: AdaptiveLimiter, listener: Listener, clock: ManualClock
    ) -> None:
        clock.advance(1)
        with suppress(TooFast):
            async with heard:
                clock.advance(1)
                raise TooFast
        with pytest.raises(TooFast), heard:
            raise TooFast
        async with heard:
            pass
        refused, well = Verdict.THROTTLED, Verdict.WENT_WELL
        assert [(sample.verdict, sample.sent, sample.now) for sample in listener.samples] == [
            (refused, 1, 2),
            (refused, 2, 2),
            (well, 2, 2),
        ]

    async def test_tasks_and_blocks_within_blocks_do_not_mix_their_permits_up(
        self, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        ears = [Listener(), Listener()]
        outer, inner = (
            AdaptiveLimiter(bucket, controller=ears[0]),
            all_of(b=AdaptiveLimiter(TokenBucket(10, 5, clock=clock), controller=ears[1])),
        )

        async def call(seconds: float) -> None:
            async with outer:
                await clock.sleep(seconds)
                async with inner:
                    await clock.sleep(seconds)

        async with outer, anyio.create_task_group() as tasks:
            for seconds in (1, 2, 3):
                tasks.start_soon(call, seconds)
            await clock.run_for(10)
        assert [(sample.sent, sample.now) for sample in ears[0].samples] == [(0, 2), (0, 4), (0, 6), (0, 10)]
        assert [(sample.sent, sample.now) for sample in ears[1].samples] == [(1, 2), (2, 4), (3, 6)]

    async def test_who_waits_in_vain_is_not_inside(
        self, heard: AdaptiveLimiter, listener: Listener, clock: ManualClock
    ) -> None:
        async with heard:
            clock.advance(0.25)
            heard.acquire_sync(5)
            with anyio.CancelScope() as scope:
                scope.cancel()
                async with heard:
                    raise AssertionError("there was nothing to go by")
        assert [(sample.sent, sample.now) for sample in listener.samples] == [(0, 0.25)]

    def test_left_in_another_context_it_still_gives_its_slot_back(
        self, heard: AdaptiveLimiter, listener: Listener, clock: ManualClock
    ) -> None:
        slots = ConcurrencyLimiter(1, clock=clock)
        group = all_of(api=heard, slots=slots)
        copy_context().run(group.__enter__)
        assert slots.statistics().available == 0
        group.__exit__(TooFast, TooFast(), None)
        assert slots.statistics().available == 1
        assert [sample.verdict for sample in listener.samples] == [Verdict.THROTTLED]


class TestRefused:
    async def test_a_429_cuts_and_says_why(
        self, limiter: AdaptiveLimiter, bucket: TokenBucket, clock: ManualClock, hook: RecordingHook
    ) -> None:
        async with limiter.permit() as permit:
            await settle()
            clock.advance(0.5)
            permit.hear(429)
            assert limiter.rate == bucket.rate == 5
        assert hook.of(RateChanged) == [RateChanged("api", 5, 5, 10, 5, "refused at 10/s")]

    def test_calls_under_way_together_are_one_cut(
        self, bucket: TokenBucket, clock: ManualClock, hook: RecordingHook
    ) -> None:
        bucket.change(burst=100)
        limiter = AdaptiveLimiter(bucket, min_rate=0.1, max_rate=100)
        hook.events.clear()
        permits = [limiter.permit() for _ in range(100)]
        for permit in permits:
            permit.__enter__()
        clock.advance(1)
        for permit in permits:
            permit.hear(429)
            permit.__exit__(None, None, None)
        assert rates(hook) == [8.5]
        with limiter.permit() as permit:  # sent in the very moment of the cut: it may have passed it
            permit.hear(429)
        assert rates(hook) == [8.5]
        clock.advance(0.1)
        with limiter.permit() as permit:
            permit.hear(429)
        assert len(rates(hook)) == 2
        assert limiter.rate < 8.5

    async def test_those_who_wait_go_at_the_new_rate(
        self, limiter: AdaptiveLimiter, clock: ManualClock
    ) -> None:
        limiter.acquire_sync(5)
        gone: list[float] = []

        async def call() -> None:
            await limiter.acquire()
            gone.append(clock.now())

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call)
            await clock.run_for(0.1)
            limiter.learn(429, sent=0.05)
            await clock.run_for(1)
        assert gone == pytest.approx([0.1, 0.3, 0.5])

    async def test_an_error_that_leaves_the_block_is_heard_and_goes_on(
        self, limiter: AdaptiveLimiter, clock: ManualClock
    ) -> None:
        error = TooFast()
        with pytest.raises(TooFast) as caught:
            async with limiter.permit():
                raise error
        assert caught.value is error
        assert limiter.rate == 5
        clock.advance(1)
        with pytest.raises(ExceptionGroup):
            async with limiter.permit(), anyio.create_task_group():
                raise error
        assert limiter.rate == 2.5
        clock.advance(1)
        with pytest.raises(TooFast), limiter.permit():
            raise error
        assert limiter.rate == 1.25

    @pytest.mark.parametrize("end", [500, 408, 502, RuntimeError(), TimeoutError(), ConnectionError()])
    async def test_other_failures_say_nothing(
        self, limiter: AdaptiveLimiter, clock: ManualClock, hook: RecordingHook, end: Any
    ) -> None:
        limiter.acquire_sync(5)
        for _ in range(5):
            clock.advance(1)
            permit = limiter.permit()
            async with permit:
                permit.hear(end)
        assert limiter.rate == 10
        assert hook.events == []

    async def test_a_call_that_was_cancelled_says_nothing_and_costs_what_it_took(
        self, heard: AdaptiveLimiter, listener: Listener, bucket: TokenBucket
    ) -> None:
        permit = heard.permit(2)
        with anyio.CancelScope() as scope:
            async with permit:
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert listener.samples == []
        assert bucket.statistics().available == 3
        permit.hear(429)  # whoever knows better may still say so
        assert len(listener.samples) == 1

    async def test_a_call_that_was_cancelled_while_it_waited_takes_and_says_nothing(
        self, heard: AdaptiveLimiter, listener: Listener, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        heard.acquire_sync(5)

        async def call() -> None:
            async with heard.permit(3):
                raise AssertionError("it was let go")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await clock.run_for(0.2)
            tasks.cancel_scope.cancel()
        clock.advance(0.3)
        assert listener.samples == []
        assert bucket.statistics().waiting == 0
        assert bucket.statistics().available == 5


class TestWentWell:
    async def keep_busy(self, limiter: AdaptiveLimiter, clock: ManualClock, seconds: float) -> None:
        async def work() -> None:
            while True:
                async with limiter.permit():
                    await clock.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(work)
            await clock.run_for(seconds)
            tasks.cancel_scope.cancel()

    async def test_while_others_wait_the_rate_rises(
        self, limiter: AdaptiveLimiter, clock: ManualClock, hook: RecordingHook
    ) -> None:
        await self.keep_busy(limiter, clock, 3)
        assert 12 < limiter.rate <= 13  # 1/s each second
        assert rates(hook) == sorted(rates(hook))
        assert {event.reason for event in hook.of(RateChanged)} == {"calls went well while others waited"}

    async def test_the_default_controller_finds_its_upper_bound(
        self, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        limiter = AdaptiveLimiter(bucket, min_rate=1, max_rate=20)
        await self.keep_busy(limiter, clock, 5)
        assert limiter.rate == 20

    @pytest.mark.parametrize("kind", [AIMD, Cubic])
    async def test_while_the_limiter_does_not_limit_it_does_not(
        self, bucket: TokenBucket, clock: ManualClock, hook: RecordingHook, kind: type[AIMD] | type[Cubic]
    ) -> None:
        limiter = AdaptiveLimiter(bucket, controller=kind(10, min_rate=1, max_rate=100))
        for _ in range(50):
            async with limiter.permit() as permit:
                clock.advance(0.2)
                permit.hear(200)
        assert limiter.rate == 10
        assert hook.events == []


class TestRetryAfter:
    async def gone_after(
        self, limiter: AdaptiveLimiter, clock: ManualClock, retry_after: float
    ) -> list[float]:
        """When those went who waited as a call was refused and asked to wait so long."""
        gone: list[float] = []

        async def call() -> None:
            await limiter.acquire()
            gone.append(clock.now())

        with pytest.raises(TooFast):
            await fail(limiter, clock, 0.01, TooFast(retry_after), cost=5)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call)
            await clock.run_for(2 * retry_after + 1)
        return gone

    async def test_a_long_one_pauses_everybody(
        self, limiter: AdaptiveLimiter, clock: ManualClock, hook: RecordingHook
    ) -> None:
        gone = await self.gone_after(limiter, clock, 30)
        assert gone == [30.01] * 3  # the permits came in meanwhile
        why = "refused at 10/s, asked to wait 30 s"
        assert hook.of(Paused) == [Paused("api", 30, why)]
        assert hook.of(RateChanged)[0].reason == why

    async def test_a_short_one_does_not(
        self, limiter: AdaptiveLimiter, clock: ManualClock, hook: RecordingHook
    ) -> None:
        gone = await self.gone_after(limiter, clock, 1)
        assert gone == pytest.approx([0.19, 0.39, 0.59])  # a tenth of a permit came in before the cut
        assert hook.of(Paused) == []

    async def test_all_who_wait_already_are_told_in_tasks_and_in_threads(
        self, limiter: AdaptiveLimiter, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        limiter.acquire_sync(5)
        gone: list[float] = []

        async def call() -> None:
            async with limiter.permit():
                gone.append(clock.now())

        def call_sync() -> None:
            with limiter.permit():
                gone.append(clock.now())

        with threads(call_sync, call_sync):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                tasks.start_soon(call)
                await settle()
                eventually(lambda: bucket.statistics().waiting == 4)
                clock.advance(0.05)
                assert limiter.learn(TooFast(60), sent=0.0)
                await clock.run_for(60)  # threads are not waited for
            eventually(lambda: len(gone) == 4)
        assert gone == [60.05] * 4

    def test_one_of_thirty_years_is_not_taken_at_its_word(
        self, limiter: AdaptiveLimiter, clock: ManualClock, hook: RecordingHook
    ) -> None:
        clock.advance(1)
        limiter.learn(TooFast(1e9), sent=0.5)
        assert [event.seconds for event in hook.of(Paused)] == [300]


class TestPermit:
    def test_the_first_thing_that_it_hears_counts(self, heard: AdaptiveLimiter, listener: Listener) -> None:
        with heard.permit() as permit:
            permit.hear(asyncio.CancelledError())  # says nothing
            permit.hear(404)
            permit.hear(429)
        with heard.permit() as permit:
            permit.hear(200)
            permit.__exit__(TooFast, TooFast(), None)
        assert [sample.verdict for sample in listener.samples] == [Verdict.WENT_WELL] * 2

    async def test_what_the_controller_is_told(
        self, heard: AdaptiveLimiter, listener: Listener, clock: ManualClock
    ) -> None:
        clock.advance(3)
        async with heard.permit(4):
            clock.advance(0.5)
        heard.acquire_sync(5)

        async def refused() -> None:
            with pytest.raises(TooFast):
                await fail(heard, clock, 1, TooFast(7), cost=2)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused)
            await clock.run_for(0.2)
        assert listener.samples == [
            Sample(Verdict.WENT_WELL, 3.0, 3.5, 4, None, limiting=False),
            Sample(Verdict.THROTTLED, 3.7, 4.7, 2, 7.0, limiting=True),
        ]

    def test_in_a_thread(self, heard: AdaptiveLimiter, listener: Listener, clock: ManualClock) -> None:
        def call() -> None:
            with heard.permit(5):
                pass
            with heard.permit(1):
                pass

        with threads(call):
            eventually(lambda: heard.statistics().waiting == 1)
            clock.advance(0.1)
        assert [sample.limiting for sample in listener.samples] == [False, True]

    def test_used_again_it_learns_again(
        self, heard: AdaptiveLimiter, listener: Listener, clock: ManualClock
    ) -> None:
        permit = heard.permit()
        for moment in range(3):
            with permit:
                permit.hear(200 if moment < 2 else 429)
            clock.advance(1)
        assert [(sample.verdict, sample.sent) for sample in listener.samples] == [
            (Verdict.WENT_WELL, 0),
            (Verdict.WENT_WELL, 1),
            (Verdict.THROTTLED, 2),
        ]

    def test_the_true_cost_is_settled_and_told(
        self, heard: AdaptiveLimiter, listener: Listener, bucket: TokenBucket
    ) -> None:
        with heard.permit(2) as permit:
            permit.settle(4)
            assert permit.cost == 4
            assert bucket.statistics().available == 1
        with heard.permit() as permit:
            permit.settle(0)
        assert bucket.statistics().available == 1
        assert [sample.cost for sample in listener.samples] == [4, 0]
        with heard.permit() as permit, pytest.raises(InvalidCost):
            permit.settle(-1)

    def test_a_wish_that_is_none_is_refused_also_where_nothing_is_waited_for(
        self, limiter: AdaptiveLimiter
    ) -> None:
        with pytest.raises(ValueError, match="timeout"):
            limiter.permit(timeout=-1)
        with pytest.raises(ValueError, match="priority"):
            limiter.permit(priority=1.5)  # type: ignore[arg-type]  # the wrong type is the point
        with pytest.raises(InvalidCost), limiter.permit(0):
            raise AssertionError

    async def test_a_timeout_is_known_at_once_and_says_nothing(
        self, heard: AdaptiveLimiter, listener: Listener
    ) -> None:
        heard.acquire_sync(5)
        with pytest.raises(AcquireTimeout):
            async with heard.permit(timeout=0.05):
                raise AssertionError
        assert listener.samples == []


class TestLearn:
    def test_a_call_that_went_without_a_permit(self, limiter: AdaptiveLimiter, clock: ManualClock) -> None:
        clock.advance(2)
        assert limiter.learn(429, sent=1.5)
        assert limiter.rate == 5
        assert limiter.learn(429, sent=1.9)  # old news, but news
        assert limiter.rate == 5
        assert not limiter.learn(KeyboardInterrupt(), sent=2.5)

    def test_its_words(self, heard: AdaptiveLimiter, listener: Listener) -> None:
        heard.learn("好", sent=0.0, cost=3, limiting=False)
        assert listener.samples == [Sample(Verdict.WENT_WELL, 0.0, 0.0, 3, None, limiting=False)]

    def test_a_classifier_of_ones_own(self, bucket: TokenBucket, listener: Listener) -> None:
        def classify(answer: object) -> Feedback | None:
            return Feedback(Verdict.THROTTLED, retry_after=2.0) if answer == "slow down" else None

        limiter = AdaptiveLimiter(bucket, controller=listener, classify=classify)
        with limiter.permit() as permit:
            permit.hear(429)  # it does not know these
            permit.hear("slow down")
        assert [(sample.verdict, sample.retry_after) for sample in listener.samples] == [
            (Verdict.THROTTLED, 2.0)
        ]


class TestController:
    def test_what_it_says_is_done(
        self, heard: AdaptiveLimiter, listener: Listener, bucket: TokenBucket, hook: RecordingHook
    ) -> None:
        listener.answer = Adjustment(3.0, pause=2.0, reason="a hunch")
        heard.learn(200, sent=0.0)
        assert hook.events == [RateChanged("api", 3, 5, 10, 5, "a hunch"), Paused("api", 2, "a hunch")]
        assert bucket.try_acquire().retry_after == 2
        heard.learn(200, sent=0.0)
        assert len(hook.of(RateChanged)) == 1  # it goes at that rate already

    def test_where_it_starts_the_limiter_does(self, bucket: TokenBucket, hook: RecordingHook) -> None:
        AdaptiveLimiter(bucket, controller=AIMD(2, min_rate=1, max_rate=3))
        assert bucket.rate == 2
        assert hook.of(RateChanged)[0].reason == "where the controller starts"

    def test_one_that_raises_is_reported_and_harms_no_call(
        self, bucket: TokenBucket, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Listener):
            def feed(self, sample: Sample) -> Adjustment | None:
                super().feed(sample)
                raise ZeroDivisionError("a bug in a controller")

        broken = Broken()
        limiter = AdaptiveLimiter(bucket, controller=broken)
        with limiter.permit() as permit:
            permit.hear(200)
        with pytest.raises(TooFast), limiter.permit():
            raise TooFast
        assert len(broken.samples) == 2
        assert caplog.text.count("ZeroDivisionError: a bug in a controller") == 2
        assert "the controller of AdaptiveLimiter(TokenBucket(" in caplog.text

    @pytest.mark.parametrize(
        "adjustment",
        [Adjustment(nan), Adjustment(-1.0), Adjustment(0.0), Adjustment(inf), Adjustment(10.0, pause=inf)],
    )
    def test_one_that_talks_nonsense_is_reported_and_not_heeded(
        self,
        heard: AdaptiveLimiter,
        listener: Listener,
        caplog: pytest.LogCaptureFixture,
        adjustment: Adjustment,
    ) -> None:
        listener.answer = adjustment
        with heard.permit():
            pass
        assert heard.rate == 10
        assert "ValueError" in caplog.text
        listener.answer = Adjustment(7.0)
        assert heard.learn(200, sent=0.0)
        assert heard.rate == 7

    def test_a_classifier_that_raises_is_reported_without_what_the_call_said(
        self, bucket: TokenBucket, caplog: pytest.LogCaptureFixture
    ) -> None:
        def classify(answer: object) -> Feedback | None:
            raise ZeroDivisionError("a bug in a classifier")

        limiter = AdaptiveLimiter(bucket, min_rate=1, max_rate=20, classify=classify)
        with pytest.raises(RuntimeError, match="sk-secret"), limiter.permit():
            raise RuntimeError("401 for https://api/?key=sk-secret")
        assert "ZeroDivisionError: a bug in a classifier" in caplog.text
        assert "classify of AdaptiveLimiter(" in caplog.text
        assert "sk-secret" not in caplog.text
        assert caplog.records[0].levelno == logging.ERROR

    @pytest.mark.parametrize(
        "nonsense", [True, "slow", Feedback(Verdict.WENT_WELL, limits=(RateLimit("requests", remaining=-9),))]
    )
    def test_so_is_one_that_talks_nonsense(
        self, bucket: TokenBucket, caplog: pytest.LogCaptureFixture, nonsense: Any
    ) -> None:
        limiter = AdaptiveLimiter(bucket, min_rate=1, max_rate=20, classify=lambda _: nonsense)
        with limiter.permit():
            pass
        assert "classify of AdaptiveLimiter(" in caplog.text
        assert bucket.statistics().available == 4


def told(**limits: int | None) -> Callable[[object], Feedback]:
    """A classifier of answers whose headers tell what remains, by name."""
    feedback = Feedback(
        Verdict.WENT_WELL,
        limits=tuple(RateLimit(name, 100, remaining) for name, remaining in limits.items()),
    )
    return lambda _: feedback


class TestQuotaHeaders:
    def adaptive(
        self, bucket: TokenBucket, counts: str = "requests", **limits: int | None
    ) -> AdaptiveLimiter:
        return AdaptiveLimiter(bucket, controller=Listener(), classify=told(**limits), counts=counts)

    def available(self, bucket: TokenBucket) -> float:
        return float(bucket.statistics().available)

    @pytest.mark.parametrize(
        ("counts", "limits", "left"),
        [
            ("requests", {"requests": 2}, 2),
            ("requests", {"requests": 0}, 0),
            ("requests", {"requests": 4}, 4),
            ("requests", {"requests": 99}, 4),  # it never gains by them
            ("requests", {"requests": None}, 4),
            ("requests", {"tokens": 0}, 4),
            ("requests", {"": 1}, 1),
            ("requests", {"default": 1}, 1),
            ("tokens", {"requests": 0, "tokens": 3}, 3),
            ("tokens", {"default": 0}, 4),
            ("tokens", {"": 0}, 4),  # so many requests, for all that is known
            ("day", {"day": 1, "requests": 0}, 1),
        ],
    )
    def test_what_is_gone_by_them_is_lost(
        self, bucket: TokenBucket, counts: str, limits: dict[str, int | None], left: float
    ) -> None:
        with self.adaptive(bucket, counts, **limits).permit():
            pass
        assert self.available(bucket) == left

    def test_what_came_in_since_the_call_went_is_not(self, bucket: TokenBucket, clock: ManualClock) -> None:
        limiter = self.adaptive(bucket, requests=0)
        with limiter.permit(5):
            clock.advance(0.25)
        assert self.available(bucket) == 2.5
        clock.advance(1)
        limiter.learn(200, sent=0.975)  # 3 permits may have come in since then, no more
        assert self.available(bucket) == 3
        limiter.learn(200, sent=-1e300)  # as old as can be: it says nothing
        limiter.learn(200, sent=1e300)  # and one out of the future counts as new
        assert self.available(bucket) == 0

    def test_from_the_headers_of_an_answer(self, bucket: TokenBucket) -> None:
        reply = Reply(200, x_ratelimit_limit_requests="60", x_ratelimit_remaining_requests="1")
        with AdaptiveLimiter(bucket, min_rate=1, max_rate=20).permit() as permit:
            permit.hear(reply)
        assert self.available(bucket) == 1

    async def test_bursts_of_slow_calls_are_not_held_up_by_what_was_gone_when_they_went(
        self, clock: ManualClock
    ) -> None:
        bucket = TokenBucket(rate=10, burst=3, clock=clock)
        server = Server(clock, rate=10, burst=3)
        limiter = AdaptiveLimiter(bucket, min_rate=1, max_rate=10)
        begun: list[float] = []

        async def call() -> None:
            async with limiter.permit() as permit:
                begun.append(clock.now())
                permit.hear(await server.call(0.5))  # by its end the server's three are there again

        async def rounds() -> None:
            for _ in range(5):
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(call)

        await clock.run(rounds())
        assert begun == [half / 2 for half in range(5) for _ in range(3)]
        assert server.refused == 0

    async def test_a_quota_that_is_used_to_the_full_costs_no_use_by_its_headers(
        self, clock: ManualClock
    ) -> None:
        bucket = TokenBucket(rate=10, burst=3, clock=clock)
        server = Server(clock, rate=10, burst=3)
        limiter = AdaptiveLimiter(bucket, min_rate=1, max_rate=10)

        async def work() -> None:
            while True:
                async with limiter.permit() as permit:
                    permit.hear(await server.call(0.13))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(work)
            await clock.run_for(20)
            tasks.cancel_scope.cancel()
        assert server.refused == 0
        assert len(server.accepted) >= 0.98 * 200
        assert worst_excess(server.accepted, 10, 3) <= 0


class Server:
    """A server with a quota that nobody but it knows, and headers that tell what is left of it."""

    def __init__(self, clock: ManualClock, rate: float, burst: int) -> None:
        self.clock = clock
        self.rate = rate
        self.burst = burst
        self.left = float(burst)
        self.seen_at = clock.now()
        self.accepted: list[float] = []
        self.refused = 0

    async def call(self, seconds: float) -> Reply:
        now = self.clock.now()
        self.left = min(self.burst, self.left + (now - self.seen_at) * self.rate)
        self.seen_at = now
        took = self.left >= 1 - 1e-9
        if took:
            self.left -= 1
            self.accepted.append(now)
        else:
            self.refused += 1
        left = str(int(self.left + 1e-9))
        await self.clock.sleep(seconds)
        return Reply(200 if took else 429, x_ratelimit_remaining_requests=left)


class TestMaking:
    def test_what_has_no_rate_is_refused(
        self, bucket: TokenBucket, limiter: AdaptiveLimiter, clock: ManualClock
    ) -> None:
        make: Any = partial(AdaptiveLimiter, min_rate=1, max_rate=20)
        with pytest.raises(TypeError, match="ConcurrencyLimiter has no rate that can be changed"):
            make(ConcurrencyLimiter(3))
        with pytest.raises(TypeError, match=r"AllOf has no rate .* of all_of, adapt the members"):
            make(all_of(a=bucket))
        with pytest.raises(TypeError, match="AdaptiveLimiter has no rate"):
            make(limiter)  # one controller is enough
        with pytest.raises(TypeError, match="str has no rate") as caught:
            make("redis://:password@host")
        assert "password" not in str(caught.value)

    @pytest.mark.parametrize("bounds", [{}, {"min_rate": 1}, {"max_rate": 20}])
    def test_without_bounds(self, bucket: TokenBucket, bounds: dict[str, float]) -> None:
        with pytest.raises(TypeError, match="needs min_rate and max_rate, or a controller"):
            AdaptiveLimiter(bucket, **bounds)  # type: ignore[arg-type]  # the same

    @pytest.mark.parametrize("bounds", [{"min_rate": 1.0}, {"max_rate": 20.0}])
    def test_with_bounds_and_a_controller(self, bucket: TokenBucket, bounds: Any) -> None:
        with pytest.raises(TypeError, match="has its own bounds"):
            AdaptiveLimiter(bucket, controller=Listener(), **bounds)

    @pytest.mark.parametrize(("low", "high"), [(11, 20), (1, 9), (0, 20), (1, inf), (nan, 20), (20, 1)])
    def test_with_bounds_that_are_none(self, bucket: TokenBucket, low: float, high: float) -> None:
        with pytest.raises(ValueError, match="rate"):
            AdaptiveLimiter(bucket, min_rate=low, max_rate=high)
        assert bucket.rate == 10


class TestInAGroup:
    def test_a_permit_teaches_those_that_it_took_permits_of(self, clock: ManualClock) -> None:
        ears = {"requests": Listener(), "tokens": Listener(), "images": Listener()}
        members = {
            name: AdaptiveLimiter(TokenBucket(10, 100, name=name, clock=clock), controller=ear)
            for name, ear in ears.items()
        }
        group = all_of(**members, plain=TokenBucket(10, 100, clock=clock))
        with group.permit(requests=1, tokens=60, images=0) as permit:
            clock.advance(1)
            permit.settle(tokens=70)
            permit.hear(429)
            permit.hear(200)
        with pytest.raises(TooFast), group.permit(requests=0, tokens=0):
            raise TooFast
        assert ears["requests"].samples == [Sample(Verdict.THROTTLED, 0, 1, 1, limiting=False)]
        assert ears["tokens"].samples == [Sample(Verdict.THROTTLED, 0, 1, 70, limiting=False)]
        assert ears["images"].samples == [Sample(Verdict.THROTTLED, 1, 1, 1, limiting=False)]

    async def test_it_is_cut_and_paused_for_all_who_use_it(
        self, limiter: AdaptiveLimiter, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        slots = ConcurrencyLimiter(2, clock=clock)
        group = all_of(api=limiter, slots=slots)
        with pytest.raises(TooFast):
            await fail(group, clock, 1, TooFast(30))
        assert bucket.rate == 5
        assert slots.statistics().available == 2
        gone: list[float] = []

        async def call(limiter: Any) -> None:
            await limiter.acquire()
            gone.append(clock.now())

        async with anyio.create_task_group() as tasks:
            for each in (group, limiter, bucket):
                tasks.start_soon(call, each)
            await clock.run_for(30)
        assert gone == [31] * 3

    async def test_whoever_waited_was_held_up(self, heard: AdaptiveLimiter, listener: Listener) -> None:
        clock = heard.clock
        assert isinstance(clock, ManualClock)
        group = all_of(api=heard)
        heard.acquire_sync(5)

        async def call() -> None:
            async with group.permit():
                pass

        await clock.run(call())
        assert [sample.limiting for sample in listener.samples] == [True]

    async def test_only_those_that_held_it_up_were_limiting(self, clock: ManualClock) -> None:
        ears = {"api": Listener(), "tokens": Listener()}
        members = {
            name: AdaptiveLimiter(TokenBucket(10, 5, clock=clock), controller=ear)
            for name, ear in ears.items()
        }
        slots = ConcurrencyLimiter(1, clock=clock)
        group = all_of(**members, slots=slots)

        async def call(tokens: int) -> None:
            async with group.permit(tokens=tokens):
                await clock.sleep(1)

        async with anyio.create_task_group() as tasks:
            for tokens in (1, 5, 5):
                tasks.start_soon(call, tokens)
                await settle()
            await clock.run_for(10)
        assert [sample.limiting for sample in ears["api"].samples] == [False, False, False]
        assert [sample.limiting for sample in ears["tokens"].samples] == [False, True, True]

    def test_what_counts_tokens_is_not_drained_by_a_count_of_requests(self, clock: ManualClock) -> None:
        requests = TokenBucket(1, 10, clock=clock)
        tokens = TokenBucket(100, 1000, clock=clock)
        group = all_of(
            requests=AdaptiveLimiter(requests, min_rate=1, max_rate=10),
            tokens=AdaptiveLimiter(tokens, min_rate=10, max_rate=1000, counts="tokens"),
        )
        with group.permit(tokens=100) as permit:
            permit.hear(Reply(200, RateLimit_Limit="60", RateLimit_Remaining="2"))
        assert requests.statistics().available == 2
        assert tokens.statistics().available == 900


class TestAtTheSameTime:
    def test_threads_and_tasks_of_two_loops_teach_it_together(self) -> None:
        listener = Listener(2000)
        limiter = AdaptiveLimiter(TokenBucket(rate=2000, burst=5), controller=listener)
        listener.answer = Adjustment(1900)

        def thread() -> None:
            for _ in range(50):
                with limiter.permit() as permit:
                    permit.hear(200)

        async def task() -> None:
            for _ in range(50):
                async with limiter.permit() as permit:
                    permit.hear(200)

        async def tasks() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(task)

        with threads(*[thread] * 4, partial(anyio.run, tasks), partial(anyio.run, tasks, backend="trio")):
            pass
        assert len(listener.samples) == 600
        assert sum(sample.cost for sample in listener.samples) == limiter.statistics().granted
        assert limiter.rate == 1900
        assert limiter.statistics().waiting == 0

    def test_the_controller_is_asked_by_one_caller_at_a_time_and_obeyed_in_order(
        self, bucket: TokenBucket, hook: RecordingHook
    ) -> None:
        class Counting(Listener):
            inside = 0

            def feed(self, sample: Sample) -> Adjustment | None:
                self.inside += 1
                assert self.inside == 1
                self.rate += 1.0
                self.samples.append(sample)
                for _ in range(50):  # time for another thread to come
                    pass
                self.inside -= 1
                return Adjustment(self.rate)

        counting = Counting()
        limiter = AdaptiveLimiter(bucket, controller=counting)

        def learn() -> None:
            for _ in range(500):
                limiter.learn(200, sent=0.0)

        with threads(*[learn] * 4):
            pass
        assert rates(hook) == [11.0 + number for number in range(2000)]
        assert limiter.rate == counting.rate == 2010

    def test_a_hook_may_do_with_it_what_it_likes(self, clock: ManualClock, hook: RecordingHook) -> None:
        done: list[object] = []

        def meddle(event: Event) -> None:
            if isinstance(event, RateChanged) and len(done) < 3:
                done.append(adaptive.statistics())
                adaptive.try_acquire()
                adaptive.learn(429, sent=clock.now() + len(done))
                # a lock that is held amid this would keep the other thread out
                other = threading.Thread(target=adaptive.learn, args=(200,), kwargs={"sent": 0.0})
                other.start()
                other.join(DEADLINE)
                assert not other.is_alive()

        bucket = TokenBucket(rate=16, burst=5, hooks=[meddle, hook], clock=clock)
        adaptive = AdaptiveLimiter(bucket, controller=AIMD(16, min_rate=1, max_rate=100))
        clock.advance(1)
        adaptive.learn(429, sent=0.5)
        assert len(done) == 3
        assert rates(hook) == [8, 4, 2, 1]  # each told before the next

    def test_after_ctrl_c_at_any_moment_it_learns_on(self) -> None:
        strike, struck = 0, True
        while struck:
            strike += 1
            clock = ManualClock()
            bucket = TokenBucket(rate=16, burst=5, clock=clock)
            limiter = AdaptiveLimiter(bucket, controller=AIMD(16, min_rate=1, max_rate=100))
            clock.advance(1)
            struck = CtrlC(strike).strikes(partial(limiter.learn, 429, sent=0.5))
            clock.advance(1)
            limiter.learn(429, sent=1.5)
            assert limiter.rate in (4, 8), f"after a strike at {strike}"
            clock.advance(1)
            limiter.learn(429, sent=2.5)
            assert limiter.rate in (2, 4), f"after a strike at {strike}"
        assert strike > 10

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_amid_what_another_thread_learns(self, bucket: TokenBucket, clock: ManualClock) -> None:
        class Slow(Listener):
            def feed(self, sample: Sample) -> Adjustment | None:
                if not entered.is_set():
                    entered.set()
                    leave.wait(DEADLINE)
                return Adjustment(3.0)

        entered, leave = threading.Event(), threading.Event()
        limiter = AdaptiveLimiter(bucket, controller=Slow())
        with threads(partial(limiter.learn, 200, sent=0.0)):
            entered.wait(DEADLINE)
            child = os.fork()
            if child == 0:
                limiter.learn(200, sent=0.0)
                os._exit(0 if limiter.rate == 3 else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert limiter.rate == 10
            leave.set()
        assert limiter.rate == 3


class TestFromEndToEnd:
    async def test_it_finds_a_quota_that_it_is_not_told(self, clock: ManualClock) -> None:
        hook = RecordingHook()
        bucket = TokenBucket(rate=5, burst=1, hooks=[hook], clock=clock)
        limiter = AdaptiveLimiter(bucket, min_rate=0.5, max_rate=200)
        server = Server(clock, rate=20, burst=20)
        sent: list[float] = []
        now = clock.now

        async def work() -> None:
            while True:
                async with limiter.permit() as permit:
                    sent.append(now())
                    permit.hear((await server.call(0.2)).status_code)

        accepted: list[int] = []
        refused: list[int] = []
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(work)
            for rate, seconds in ((20.0, 15), (20.0, 30), (5.0, 5), (5.0, 25)):
                server.rate = rate
                before = len(server.accepted), server.refused
                await clock.run_for(seconds)
                accepted.append(len(server.accepted) - before[0])
                refused.append(server.refused - before[1])
            tasks.cancel_scope.cancel()
        assert accepted[1] >= 0.95 * 20 * 30
        assert refused[1] <= 0.02 * 20 * 30
        assert accepted[3] >= 0.95 * 5 * 25  # of the quarter that was left of the quota
        assert refused[3] <= 0.05 * 5 * 25
        assert worst_excess(sent, max(rates(hook)), 1) <= 0

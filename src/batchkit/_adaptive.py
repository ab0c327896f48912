"""`AdaptiveLimiter`: a limiter whose rate follows what the server answers."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Any, Final, cast

from batchkit._core.controller import Adjustment, Controller, Cubic, Sample, SharedController
from batchkit._forks import FORKS
from batchkit._learning import Entered, LearningPermit
from batchkit._local import LocalLimiter, settled
from batchkit._numbers import check_wish
from batchkit._values import Decision
from batchkit.abc import Adjustable, Shared
from batchkit.feedback import Feedback, classify

_log = logging.getLogger("batchkit")

_NEEDED: Final = ("rate", "change", "pause_for", "drain", "charge", "clock")
_MANY: Final = 2.0**53  # permits; more is as if there were no limit


class AdaptiveLimiter(Entered):
    """A limiter that learns from the answers how fast it may go: a 429 slows it down, answers while others
    wait speed it up, a long `Retry-After` pauses it, and quota headers take away what the server says
    is gone.

    One object stands for one quota: all callers of the process share what it learns. Only calls that go
    through `permit` or `with` (or the executor, the decorator, the transport, or `learn`) teach it anything;
    `acquire` waits at the current rate and says nothing.

    Every change of the rate is a `RateChanged` event of the limiter inside, with the reason, and every pause
    is a `Paused` one. An error in the controller or in `classify` is logged, and harms no call.

    Args:
        limiter: what lets the calls go, such as a `TokenBucket`; its rate is where it starts.
        min_rate: permits a second, never below it.
        max_rate: permits a second, never above it.
        controller: instead of the bounds: what decides on the rate. By default a `Cubic` within the bounds.
        classify: what an answer, or an exception, says; by default what is known of status codes, openai,
            httpx, and others by their shape.
        counts: what a permit stands for in the server's quota headers, such as "requests" or "tokens". A
            limit without a name, or of the name "default", counts requests.

    Raises:
        TypeError: the limiter has no rate that can be changed, such as a group (adapt its members), or
            neither bounds nor a controller are given, or both.
        ValueError: the limiter's rate is out of bounds.

    Example:
        ```python
        limiter = AdaptiveLimiter(TokenBucket(rate=2, burst=1), min_rate=0.2, max_rate=20)
        async with limiter.permit() as permit:
            permit.hear(await client.post(url))
        ```
    """

    def __init__(
        self,
        limiter: Adjustable,
        *,
        min_rate: float | None = None,
        max_rate: float | None = None,
        controller: Controller | None = None,
        classify: Callable[[object], Feedback | None] = classify,
        counts: str = "requests",
    ) -> None:
        if not all(hasattr(limiter, name) for name in _NEEDED):
            raise TypeError(
                f"{type(limiter).__name__} has no rate that can be changed, as a TokenBucket has; of all_of, "
                "adapt the members"
            )
        if controller is None:
            if min_rate is None or max_rate is None:
                raise TypeError("an AdaptiveLimiter needs min_rate and max_rate, or a controller")
            controller = Cubic(limiter.rate, min_rate=min_rate, max_rate=max_rate)
        elif min_rate is not None or max_rate is not None:
            raise TypeError("a controller has its own bounds: give either it or min_rate and max_rate")
        self.limiter = limiter
        self._controller = controller
        self._classify = classify
        self._counted = {counts, "", "default"} if counts == "requests" else {counts}
        self.clock = limiter.clock
        self._samples: deque[Sample] = deque()
        self._turns: dict[int, list[bool]] = {}  # by process; empty while somebody feeds the controller
        self._shared = limiter if isinstance(limiter, Shared) else None
        if self._shared is not None:
            if not (hasattr(controller, "memory") and hasattr(controller, "recall")):
                kind = type(controller).__name__
                raise TypeError(f"to be shared by a fleet, {kind} needs memory and recall, as Cubic has them")
            self._shared.share(cast(SharedController, controller))
        elif controller.rate != limiter.rate:
            limiter.change(rate=controller.rate, reason="where the controller starts")

    @property
    def rate(self) -> float:
        """Permits a second now."""
        return self.limiter.rate

    async def acquire(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go; see the limiter inside. Nothing is learned from such a call, unless
        it is told by `learn`.
        """
        await self.limiter.acquire(cost, priority=priority, timeout=timeout)

    def acquire_sync(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """The blocking twin of `acquire`, for threads."""
        self.limiter.acquire_sync(cost, priority=priority, timeout=timeout)

    def try_acquire(self, cost: int = 1) -> Decision:
        """Go now, or not at all; see the limiter inside."""
        return self.limiter.try_acquire(cost)

    def permit(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> AdaptivePermit:
        """An acquire as a context manager, `async with` or `with`, that learns how the call ended: from what
        `hear` was told, or from the exception that leaves the block, or else that it went well.

        Raises:
            ValueError: a priority that is no whole number, a timeout that is none.
        """
        check_wish(priority, timeout)
        return AdaptivePermit(self, cost, priority, timeout)

    def learn(self, answer: object, *, sent: float, cost: int = 1, limiting: bool = True) -> bool:
        """Take in how a call ended.

        Args:
            answer: an answer, a status code, or an exception; anything else is a call that went well.
            sent: the moment it went, by the limiter's clock.
            cost: permits that it took.
            limiting: whether it had to wait for the limiter.

        Returns:
            Whether that said anything (a cancellation does not).
        """
        now = self.clock.now()
        try:
            feedback = self._classify(answer)
            if feedback is None:
                return False
            self._heed(feedback, now - sent)
            sample = Sample(feedback.verdict, sent, now, cost, feedback.retry_after, limiting)
        except Exception as error:
            self._complain("classify", error)
            return False
        if self._shared is not None:
            self._shared.report(sample)
        else:
            self._samples.append(sample)
            self._catch_up()
        return True

    def statistics(self) -> Any:
        """What the limiter inside did so far."""
        return self.limiter.statistics()

    def __repr__(self) -> str:
        return f"AdaptiveLimiter({self.limiter!r})"

    def _catch_up(self) -> None:
        """Feed the controller, one sample after the other, and do what it says before it gets the next.

        Nobody waits for a lock here, since hooks are called amid it, who may do what they like: whoever finds
        another caller at it leaves the sample to that one.
        """
        turn = self._turns.setdefault(FORKS.count, [True])  # whoever is at it in the parent is not here
        while self._samples:
            try:
                turn.pop()
            except IndexError:  # the other one looks again when it is done
                return
            except BaseException:  # Ctrl-C, just now
                turn.append(True)
                raise
            try:
                self._feed()
            finally:
                turn.append(True)

    def _feed(self) -> None:
        while self._samples:
            sample = self._samples.popleft()
            try:
                adjustment = self._controller.feed(sample)
                if adjustment is not None:
                    self._adjust(adjustment)
            except Exception as error:
                self._complain("the controller", error)

    def _adjust(self, adjustment: Adjustment) -> None:
        if adjustment.rate != self.limiter.rate:
            self.limiter.change(rate=adjustment.rate, reason=adjustment.reason)
        if adjustment.pause:
            self.limiter.pause_for(adjustment.pause, reason=adjustment.reason)

    def _heed(self, feedback: Feedback, elapsed: float) -> None:
        """Lose the permits that are gone by the server's word. It may be as old as the call: what came in
        since then stays, or after slow calls a quota that is full again would go unused.
        """
        since = ceil(min(max(0.0, self.rate * elapsed), _MANY))
        for limit in feedback.limits:
            if limit.name in self._counted and limit.remaining is not None:
                self.limiter.drain(limit.remaining + since)

    def _complain(self, what: str, error: Exception) -> None:
        # without the errors that this one was raised amid: those of the call may tell secrets
        told = "".join(traceback.format_exception(error, chain=False))
        _log.error("%s of %r failed\n%s", what, self, told)


class AdaptivePermit(LearningPermit):
    """The permits of one call to an `AdaptiveLimiter`, as a context manager of both colours."""

    def __init__(self, limiter: AdaptiveLimiter, cost: int, priority: int, timeout: float | None) -> None:
        super().__init__(limiter.clock)
        self._limiter = limiter
        self._priority = priority
        self._timeout = timeout
        self.cost = cost

    def settle(self, actual: int) -> None:
        """Say what the call really cost, in permits: more is charged, as a debt if need be; less is given
        back.

        Raises:
            InvalidCost: not a whole number, or below zero.
        """
        self.cost = settled(self._limiter.limiter.charge, self.cost, actual)

    async def _go(self) -> bool:
        limiter = self._limiter.limiter
        if isinstance(limiter, LocalLimiter):
            return await limiter.go(self.cost, priority=self._priority, timeout=self._timeout)
        if limiter.try_acquire(self.cost).allowed:
            return False
        await limiter.acquire(self.cost, priority=self._priority, timeout=self._timeout)
        return True

    def _go_sync(self) -> bool:
        limiter = self._limiter.limiter
        if isinstance(limiter, LocalLimiter):
            return limiter.go_sync(self.cost, priority=self._priority, timeout=self._timeout)
        if limiter.try_acquire(self.cost).allowed:
            return False
        limiter.acquire_sync(self.cost, priority=self._priority, timeout=self._timeout)
        return True

    def _learn(self, answer: object) -> bool:
        return self._limiter.learn(answer, sent=self._sent, cost=self.cost, limiting=self._limiting)

    def _end(self) -> None:
        """Nothing comes back."""

"""The words that all limiters of a fleet share: acquire and try by way of Redis, close."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Generic, Self, TypeVar

import anyio.to_thread

from batchkit._events import Hook
from batchkit._gate import GO
from batchkit._local import LocalLimiter
from batchkit._numbers import check_wish, checked_seconds
from batchkit._redis.asking import AnyGate
from batchkit._redis.courier import courier_of
from batchkit._redis.questions import Remote, Terms
from batchkit._values import Decision
from batchkit.abc import Clock

S = TypeVar("S", bound=Remote)
G = TypeVar("G", bound=AnyGate)

POLICIES: Final = ("raise", "deny", "allow", "local")


class FleetLimiter(LocalLimiter[S], Generic[S, G]):
    """A limiter whose permits lie in Redis."""

    gate: G

    def __init__(
        self,
        url_or_client: object,
        kind: Callable[..., G],
        store: S,
        terms: Terms,
        *,
        name: str | None,
        hooks: Iterable[Hook],
        patience: float,
        clock: Clock,
    ) -> None:
        if terms.on_unavailable not in POLICIES:
            raise ValueError(f"on_unavailable is one of {', '.join(POLICIES)}, not {terms.on_unavailable!r}")
        if not checked_seconds("timeout", terms.timeout):
            raise ValueError("timeout is a number of seconds above 0")
        self._courier = courier_of(url_or_client, clock, terms.timeout)
        gate = kind(
            store,
            terms=terms,
            courier=self._courier,
            name=terms.key if name is None else name,
            hooks=hooks,
            patience=patience,
            clock=clock,
        )
        super().__init__(gate)

    async def acquire(self, cost: int = 1, *, priority: int = 0, timeout: float | None = None) -> None:
        """Return when the caller may go.

        Args:
            cost: permits.
            priority: higher goes first, in the whole fleet.
            timeout: seconds to wait at most; 0 asks Redis once. None waits as long as it takes.

        Raises:
            AcquireTimeout: as soon as it is certain that the permits do not come in within the timeout.
            LimiterUnavailable: Redis cannot be asked, and that was to be told.
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
            ValueError: a priority that is no whole number, a timeout that is none.
        """
        await self.go(cost, priority=priority, timeout=timeout)

    def try_acquire(self, cost: int = 1) -> Decision:
        """Go now, or not at all: after at most one question to Redis, which blocks. In a task, prefer
        `acquire(timeout=0)`, which waits for the answer without blocking the event loop.

        Returns:
            A true decision, or a false one with `retry_after` (seconds).

        Raises:
            LimiterUnavailable: Redis cannot be asked, and that was to be told.
            InvalidCost: the cost is no whole number above zero.
            CostExceedsBurst: it could never be granted.
        """
        return GO if self._goes_at_once(cost) else self.gate.attempt(cost)

    async def go(self, cost: int, *, priority: int, timeout: float | None) -> bool:
        """Acquire, and say whether the caller had to wait for permits."""
        if priority != 0 or timeout is not None:
            check_wish(priority, timeout)
        if self._goes_at_once(cost):
            return False
        await self.gate.wait(cost, priority, timeout)
        return self.gate.short

    def go_sync(self, cost: int, *, priority: int, timeout: float | None) -> bool:
        """The blocking twin of `go`."""
        if priority != 0 or timeout is not None:
            check_wish(priority, timeout)
        if self._goes_at_once(cost):
            return False
        self.gate.wait_sync(cost, priority, timeout)
        return self.gate.short

    def _goes_at_once(self, cost: int) -> bool:
        """Go with what this process may give away without asking anybody.

        Raises:
            InvalidCost: the cost is no whole number above zero.
        """
        if cost.__class__ is not int or cost < 1:
            raise self.gate.refusal(cost)
        return False

    def _around(self, store: S) -> Self:
        limiter = super()._around(store)
        limiter._courier = self._courier
        return limiter

    def close(self) -> None:
        """Let nobody go any more, here or by a key, and hand back what is held; calls that wait end with
        `LimiterClosed`. The last limiter that goes to the same Redis hangs up, which takes a moment.
        """
        gates = [self.gate, *(limiter.gate for limiter in self._of_keys())]
        for gate in gates:
            gate.alone(gate.end)
        self._courier.leave([gate for gate in gates if gate.over])

    async def aclose(self) -> None:
        """The async twin of `close`."""
        await anyio.to_thread.run_sync(self.close)

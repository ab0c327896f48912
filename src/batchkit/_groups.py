"""`all_of`: several limits in one decision.

A call that needs several limits goes in the one moment in which all of them let it go, by a decision that is
made with all of them in hand; `_joint` has the rules by which it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeGuard, TypeVar

from batchkit._adaptive import AdaptiveLimiter
from batchkit._core.place import Place
from batchkit._core.store import Store
from batchkit._gate import GO, Gate
from batchkit._joint import JointCall, JointOwner, attempt, come, is_worth_asking, take_all
from batchkit._learning import Entered, LearningPermit
from batchkit._local import LocalLimiter, settled
from batchkit._numbers import check_wish
from batchkit._parking import Parker, SyncParker, wait_at, wait_at_sync
from batchkit._values import Decision
from batchkit.exceptions import AcquireTimeout, InvalidCost

R = TypeVar("R")

_TAKEN = frozenset({"cost", "priority", "timeout"})


class AllOf(Entered):
    """Several limiters that let a call go together; made by `all_of`."""

    def __init__(self, members: Mapping[str, LocalLimiter[Any] | AdaptiveLimiter]) -> None:
        self._members = dict(members)
        self._adaptive = {
            name: member for name, member in members.items() if isinstance(member, AdaptiveLimiter)
        }
        self.limiters = {name: _local(name, member) for name, member in members.items()}
        if len({id(limiter) for limiter in self.limiters.values()}) < len(members):
            raise ValueError("the same limiter stands there twice: add its costs up instead")
        clocks = {id(limiter.gate.clock): limiter.gate.clock for limiter in self.limiters.values()}
        if len(clocks) > 1:
            raise ValueError("limiters that decide together need one clock")
        (self.clock,) = clocks.values()
        self._order = sorted(members, key=lambda name: self.limiters[name].gate.number)
        gates = [limiter.gate for limiter in self.limiters.values()]
        for gate in gates:
            gate.meet(gates)

    async def acquire(
        self,
        cost: int | Mapping[str, int] = 1,
        *,
        priority: int = 0,
        timeout: float | None = None,
        **costs: int,
    ) -> None:
        """Return when the caller may go, with the permits of every limiter taken in that moment. Where
        nothing is to be waited for, it does not yield to the event loop.

        Args:
            cost: permits of each limiter that is not named, or a mapping from names to permits.
            priority: higher goes first.
            timeout: seconds to wait at most; 0 tries. None waits as long as it takes.
            costs: permits by the name of the limiter; 0 leaves a limiter out.

        Raises:
            AcquireTimeout: as soon as it is certain that the permits of a limiter do not come in within the
                timeout.
            InvalidCost: a cost is no whole number, or below zero, or all are zero, or a name is unknown.
            CostExceedsBurst: it could never be granted.
            ValueError: a priority that is no whole number, a timeout that is none.
        """
        check_wish(priority, timeout)
        wanted = self._wanted(cost, costs)
        if self.lacking(wanted):
            await self.wait(wanted, priority, timeout)

    def acquire_sync(
        self,
        cost: int | Mapping[str, int] = 1,
        *,
        priority: int = 0,
        timeout: float | None = None,
        **costs: int,
    ) -> None:
        """The blocking twin of `acquire`, for threads."""
        check_wish(priority, timeout)
        wanted = self._wanted(cost, costs)
        if self.lacking(wanted):
            self.wait_sync(wanted, priority, timeout)

    def try_acquire(self, cost: int | Mapping[str, int] = 1, **costs: int) -> Decision:
        """Go now, or not at all; never waits, and never overtakes those who wait. Redis is asked at most once
        about the limiters of a fleet, which blocks: in a task, prefer `acquire(timeout=0)`.

        Returns:
            A true decision, or a false one with the longest `retry_after` of all limiters.

        Raises:
            InvalidCost, CostExceedsBurst: as `acquire` does.
        """
        wanted = self._wanted(cost, costs)
        decision = self._together(self._call(wanted), attempt)
        if decision.allowed or not self._together(self._call(wanted), is_worth_asking):
            return decision
        try:
            self.wait_sync(wanted, 0, 0.0)
        except AcquireTimeout:
            return self._together(self._call(wanted), attempt)
        return GO

    def permit(
        self,
        cost: int | Mapping[str, int] = 1,
        *,
        priority: int = 0,
        timeout: float | None = None,
        **costs: int,
    ) -> GroupPermit:
        """An acquire as a context manager, `async with` or `with`, that gives slots back and lets the true
        costs be settled.

        Example:
            ```python
            async with both.permit(requests=1, tokens=1200) as permit:
                reply = await call()
                permit.settle(tokens=reply.usage.total_tokens)
            ```
        """
        check_wish(priority, timeout)
        return GroupPermit(self, self._adaptive, self._wanted(cost, costs), priority, timeout)

    def release(self, cost: int | Mapping[str, int] = 1, **costs: int) -> None:
        """Give the slots of a call back that was let go by `acquire` or `try_acquire` of those costs: it has
        ended. What is not a `ConcurrencyLimiter` keeps its permits.
        """
        self.end_call(self._wanted(cost, costs))

    def end_call(self, wanted: Mapping[str, int]) -> None:
        """A call that took so many permits is over."""
        for name, cost in wanted.items():
            self.limiters[name].end_call(cost)

    def statistics(self) -> dict[str, Any]:
        """What each limiter did so far, by its name."""
        return {name: limiter.statistics() for name, limiter in self.limiters.items()}

    def __repr__(self) -> str:
        return f"all_of({', '.join(f'{name}={limiter!r}' for name, limiter in self._members.items())})"

    def _wanted(self, cost: int | Mapping[str, int], costs: Mapping[str, int]) -> dict[str, int]:
        """The permits that a call wants, by name, without those that it leaves out."""
        if isinstance(cost, Mapping):
            costs = {**cost, **costs}
            cost = 1
        if unknown := costs.keys() - self.limiters.keys():
            raise InvalidCost(f"no limiter is called {sorted(unknown)}; there are {sorted(self.limiters)}")
        wanted = {name: costs.get(name, cost) for name in self._order}
        for name, permits in wanted.items():
            if permits.__class__ is not int or permits < 0:
                raise InvalidCost(f"a cost is a whole number of permits, not {permits!r} of {name}")
            gate = self.limiters[name].gate
            if permits > gate.store.burst:
                raise gate.refusal(permits)
        wanted = {name: permits for name, permits in wanted.items() if permits}
        if not wanted:
            raise InvalidCost("a call has to cost something: every limiter was left out")
        return wanted

    def lacking(self, wanted: Mapping[str, int]) -> list[Gate[Store]]:
        """Go now, with so many permits by name, if all of them are there and nobody is before this call.

        Returns:
            The gates that do not let it go; empty if it goes.
        """
        return self._together(self._call(wanted), take_all)

    async def wait(self, wanted: Mapping[str, int], priority: int, timeout: float | None) -> None:
        """Return when a call may go that wants so many permits by name."""
        parker = self.clock.parker()
        call = self._waiting_call(wanted, priority, timeout, parker)
        await wait_at(call, parker, self._come, JointCall.abandon)

    def wait_sync(self, wanted: Mapping[str, int], priority: int, timeout: float | None) -> None:
        """The blocking twin of `wait`."""
        parker = self.clock.parker_sync()
        call = self._waiting_call(wanted, priority, timeout, parker)
        wait_at_sync(call, parker, self._come, JointCall.abandon)

    def _call(self, wanted: Mapping[str, int]) -> JointCall:
        return JointCall([(self.limiters[name].gate, Place(cost)) for name, cost in wanted.items()])

    def _waiting_call(
        self, wanted: Mapping[str, int], priority: int, timeout: float | None, parker: Parker | SyncParker
    ) -> JointCall:
        gates = [(self.limiters[name].gate, cost) for name, cost in wanted.items()]
        call = JointCall([(gate, gate.place(cost, priority, timeout, parker)) for gate, cost in gates])
        owner = JointOwner(call, parker)
        for _, place in call.parts:
            place.owner, place.joint = owner, True
        return call

    def _come(self, call: JointCall) -> float | None:
        """The owner of a call is here: None if it goes, or the moment until which it waits for a wake-up."""
        until = Gate.together(call.gates, partial(come, call))
        if until is None:
            for gate, place in call.parts:
                gate.tell(place)
            return None
        if call.ended is not None:
            gate, place = call.ended
            raise gate.ending(place)
        return until

    def _together(self, call: JointCall, decide: Callable[[JointCall, float], R]) -> R:
        try:
            return Gate.together(call.gates, partial(decide, call))
        except BaseException:
            call.abandon()
            raise


class GroupPermit(LearningPermit):
    """The permits of one call, as a context manager of both colours.

    Attributes:
        cost: permits that it took of each limiter, by name; after `settle`, what the call really cost.
    """

    def __init__(
        self,
        group: AllOf,
        adaptive: Mapping[str, AdaptiveLimiter],
        cost: dict[str, int],
        priority: int,
        timeout: float | None,
    ) -> None:
        super().__init__(group.clock)
        self._group = group
        self._adaptive = adaptive
        self._lacked: list[Gate[Store]] = []  # those that it had to wait for
        self._priority = priority
        self._timeout = timeout
        self.cost = cost

    def settle(self, actual: Mapping[str, int] | None = None, /, **named: int) -> None:
        """Say what the call really cost, in permits by the name of the limiter: more is charged, as a debt if
        need be; less is given back. What is not named cost what it took.

        Raises:
            InvalidCost: not a whole number, or below zero, or a name that the call took no permits of.
        """
        for name, permits in {**(actual or {}), **named}.items():
            if name not in self.cost:
                raise InvalidCost(f"this call took no permits of {name!r}, but of {sorted(self.cost)}")
            self.cost[name] = settled(self._group.limiters[name].charge, self.cost[name], permits)

    async def _go(self) -> bool:
        self._lacked = self._group.lacking(self.cost)
        if self._lacked:
            await self._group.wait(self.cost, self._priority, self._timeout)
        return self._lacked != []  # no call here, in which Ctrl-C could strike

    def _go_sync(self) -> bool:
        self._lacked = self._group.lacking(self.cost)
        if self._lacked:
            self._group.wait_sync(self.cost, self._priority, self._timeout)
        return self._lacked != []  # no call here, in which Ctrl-C could strike

    def _learn(self, answer: object) -> bool:
        group = self._group
        news = [
            limiter.learn(
                answer,
                sent=self._sent,
                cost=self.cost[name],
                limiting=group.limiters[name].gate in self._lacked,
            )
            for name, limiter in self._adaptive.items()
            if name in self.cost
        ]
        return any(news)

    def _end(self) -> None:
        self._group.end_call(self.cost)


def all_of(**limiters: LocalLimiter[Any] | AdaptiveLimiter) -> AllOf:
    """Several limiters as one: a call goes in the moment in which all of them let it go, and takes the
    permits of each in that moment or of none. Requests and tokens a minute, a second's and a day's quota, a
    quota and the number of calls at once.

    A call waits as one waiter, first come first served in every line; groups that share limiters, in whatever
    order, do not wait for each other in a circle. A call that waits for one limiter does not block those who
    need only another one.

    The limiters may be used on their own, and in other groups, at the same time.

    Args:
        limiters: `TokenBucket`s, `ConcurrencyLimiter`s, and `AdaptiveLimiter`s around such, by name; the
            names are the words for the costs.

    Raises:
        ValueError: none, the same one twice, or limiters of different clocks.
        TypeError: something that is no limiter of this process, or is a group itself; or a limiter is called
            cost, priority or timeout.

    Example:
        ```python
        both = all_of(requests=TokenBucket(rate=8, burst=10), tokens=TokenBucket(rate=500, burst=4000))
        await both.acquire(requests=1, tokens=1200)
        ```
    """
    if not limiters:
        raise ValueError("all_of needs at least one limiter")
    if names := sorted(_TAKEN & limiters.keys()):
        raise TypeError(
            f"a limiter cannot be called {', '.join(names)}: acquire has an argument of that name"
        )
    return AllOf(limiters)


def _local(name: str, member: object) -> LocalLimiter[Any]:
    """The limiter that is in a group's hands."""
    limiter = member.limiter if isinstance(member, AdaptiveLimiter) else member
    if not _is_local(limiter):
        raise TypeError(f"{name} is no TokenBucket or ConcurrencyLimiter, nor an AdaptiveLimiter around one")
    return limiter


def _is_local(limiter: object) -> TypeGuard[LocalLimiter[Any]]:
    return isinstance(limiter, LocalLimiter)

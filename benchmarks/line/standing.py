"""A process in the line that stands in Redis: batchkit's own gate and script, but no threads."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Hashable
from functools import partial
from math import inf

from attrs import evolve

from batchkit._core.place import Place
from batchkit._redis.asking import AnyGate
from batchkit._redis.gate import BucketGate, BucketTerms
from batchkit._redis.questions import Question
from batchkit._redis.ration import Ration
from batchkit._redis.scripts import BUCKET
from batchkit._redis.wire import Ask
from benchmarks.line.world import Call, Limit, World

HORIZON = 0.05  # seconds; the limiter's own
PATIENCE = 10.0  # seconds of waiting that a step of priority is worth; the limiter's own


class Standing:
    """What a limiter is to its callers, and the courier that asks for its gate.

    Leases are off: they are for permits that nobody waits for.
    """

    def __init__(self, world: World, name: str, limit: Limit) -> None:
        self.name = name
        self.world = world
        self.dead = False
        self._script = world.load(BUCKET.text)
        self._asks = False
        self._waiting: dict[Call, _Owner] = {}
        self._burst = limit.burst
        terms = BucketTerms(
            prefix="line",
            key="quota",
            tag=None,
            cold=False,
            timeout=1.0,
            on_unavailable="raise",
            rate=limit.rate,
            burst=limit.burst,
            horizon=HORIZON,
            lease=False,
        )
        self.gate = BucketGate(
            Ration(limit.rate, limit.burst),
            terms=terms,
            courier=self,
            name=name,
            hooks=(),
            patience=PATIENCE,
            clock=world.clock,
        )

    # what a process is to its fleet

    def acquire(self, call: Call) -> None:
        owner = self._waiting[call] = _Owner(self, call)
        owner.come()

    def cancel(self, call: Call) -> None:
        self.gate.abandon(self._waiting.pop(call).place)

    def change(self, rate: float) -> None:
        self.gate.order_change(rate, self._burst)
        self.gate.alone(self.gate.change, rate, self._burst)

    def kill(self) -> None:
        self.dead = True

    def go(self, call: Call) -> None:
        """One of its calls goes."""
        del self._waiting[call]
        self.world.let_go(call)

    def waits(self, call: Call) -> bool:
        """Whether somebody waits for what becomes of a call."""
        return not self.dead and call in self._waiting

    # what a courier is to its gate

    def enter(self, gate: AnyGate) -> None:
        """There is only one."""

    def call(self, gate: AnyGate, moment: float) -> None:
        self.world.at(moment, self._ask_if_due)

    def hurry(self, gate: AnyGate, *, here: bool, loop: AbstractEventLoop | None = None) -> None:
        self._ask()

    def hurry_in(self, loop: AbstractEventLoop, gate: AnyGate, *, soon: bool) -> None:
        self._ask()

    def _ask_if_due(self) -> None:
        if self.gate.planned <= self.world.now:
            self._ask()

    def _ask(self) -> None:
        if self.dead or self._asks:
            return
        question = self.gate.alone(self.gate.ask)
        if question is not None:
            self._asks = True
            named = evolve(question.ask, process=self.name)  # its own name is up to chance
            self.world.ask(
                self._script, question.command[1], named.words(), partial(self._answered, question)
            )

    def _answered(self, question: Question[Ask], answer: bytes) -> None:
        self._asks = False
        if not self.dead:
            self.gate.alone(self.gate.answered, question.ask.read(answer))


class _Owner:
    """Waits at a place as a task does: woken by others, or by its timer."""

    def __init__(self, process: Standing, call: Call) -> None:
        self.domain: Hashable = process.name
        self.place = Place(1, self, self.domain, call.priority)
        self._process = process
        self._call = call
        self._woken = False
        self._timer = 0

    def unpark(self) -> bool:
        if not self._woken:
            self._woken = True
            world = self._process.world
            world.at(world.now, self.come)
        return True

    def come(self) -> None:
        self._woken = False
        if not self._process.waits(self._call):
            return
        self._timer += 1
        until = self._process.gate.come(self.place)
        if until is None:
            self._process.go(self._call)
        elif until < inf:
            self._process.world.at(until, partial(self._ring, self._timer))

    def _ring(self, timer: int) -> None:
        if timer == self._timer:  # or it was set anew
            self.come()

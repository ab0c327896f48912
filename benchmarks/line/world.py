"""A simulated fleet before a real server: events in the order of their moments, and no wall time.

Questions are answered by scripts in the server, which are told what the time is. How long a question is on
its way is up to chance, by a seed: the same seed gives the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any, Protocol

import redis

from batchkit.testing import ManualClock
from benchmarks.fleet.server import server

WAY = (0.0001, 0.0003)  # seconds, at least and at most; there, and back again
BEGIN = 1_700_000_000_000_000  # microseconds that the server's clock shows at first
CLOCK = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n"


def nothing() -> None:
    """What happens after a call that does not come again."""


@dataclass(eq=False)
class Call:
    """A call for one permit.

    Attributes:
        process: the name of its process.
        came: when, in seconds.
        priority: higher goes first.
        then: what happens when it went.
        went: when; infinite as long as it did not.
    """

    process: str
    came: float
    priority: int = 0
    then: Callable[[], object] = nothing
    went: float = inf


class Process(Protocol):
    """A process of the fleet, whatever way it gets its permits."""

    name: str

    def acquire(self, call: Call) -> None:
        """A call comes; the world is told when it goes."""
        ...

    def cancel(self, call: Call) -> None:
        """A call that waits is given up."""
        ...

    def change(self, rate: float) -> None:
        """This process gets to know that the fleet has to go on at another rate."""
        ...

    def kill(self) -> None:
        """It is gone at once, and says no more."""
        ...


@dataclass(frozen=True)
class Limit:
    """What the fleet is allowed.

    Attributes:
        rate: permits a second.
        burst: permits at once.
    """

    rate: float
    burst: int


Way = Callable[["World", str, Limit], Process]  # how a process of that name gets its permits


@dataclass
class World:
    """Clock, server and calls.

    Attributes:
        seed: of the times that questions are on their way.
        clock: what all processes read.
        commands: questions to the server.
        calls: all that came.
        gone: those that went, in order.
    """

    seed: int
    clock: ManualClock = field(default_factory=ManualClock)
    commands: int = 0
    calls: list[Call] = field(default_factory=list[Call])
    gone: list[Call] = field(default_factory=list[Call])

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._serials = count()
        server().forget()
        self._client = redis.Redis.from_url(server().url)

    @property
    def now(self) -> float:
        return self.clock.now()

    def at(self, moment: float, event: Callable[[], object]) -> None:
        """Have something happen at that moment, or at once if it is over."""
        heappush(self._events, (max(moment, self.now), next(self._serials), event))

    def run(self, *, until: Callable[[], bool]) -> None:
        """Let time pass until something holds, or nothing happens any more."""
        while self._events and not until():
            moment, _, event = heappop(self._events)
            while self.now < moment:  # what is added to reach it may fall short by one bit
                self.clock.advance(moment - self.now)
            event()

    def run_to(self, moment: float) -> None:
        """Let time pass up to that moment."""
        self.at(moment, nothing)
        self.run(until=lambda: self.now >= moment)

    def close(self) -> None:
        self._client.close()

    def come(self, process: Process, *, priority: int = 0, again: bool = False) -> Call:
        """A call comes to a process; `again`: and another one as soon as it went."""
        then = partial(self.come, process, priority=priority, again=True) if again else nothing
        call = Call(process.name, self.now, priority, then)
        self.calls.append(call)
        process.acquire(call)
        return call

    def let_go(self, call: Call) -> None:
        """A call has its permit."""
        call.went = self.now
        self.gone.append(call)
        self.at(self.now, call.then)

    def load(self, script: str) -> str:
        """Have the server know a script, to which the time comes as a last argument; returned is its name."""
        if script.count("'TIME'") != 1 or script.count(CLOCK) != 1:
            raise ValueError("the script does not read the clock as is known here")
        loaded: Any = self._client.script_load(script.replace(CLOCK, "local now = tonumber(ARGV[#ARGV])\n"))
        return str(loaded)

    def ask(
        self,
        script: str,
        keys: Sequence[str],
        words: Sequence[str | bytes],
        answered: Callable[[bytes], object],
    ) -> None:
        """Ask a script that the server knows by that name."""
        self.commands += 1
        self.at(self.now + self._way(), partial(self._arrive, script, keys, words, answered))

    def _arrive(
        self,
        script: str,
        keys: Sequence[str],
        words: Sequence[str | bytes],
        answered: Callable[[bytes], object],
    ) -> None:
        moment = str(BEGIN + round(self.now * 1e6))
        answer: Any = self._client.evalsha(script, len(keys), *keys, *words, moment)
        self.at(self.now + self._way(), partial(answered, answer))

    def _way(self) -> float:
        return self._random.uniform(*WAY)

"""The script on a real server, with a clock that the test moves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import evolve

from batchkit._redis.names import name
from batchkit._redis.scripts import BUCKET, BUCKETS
from batchkit._redis.wire import MICROSECONDS, Answer, Ask, Calls, Orders, TooLate, read, runs
from tests.servers import Server

BEGIN: Final = 1_700_000_000_000_000  # microseconds
CLOCK: Final = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n"
NO_ORDERS: Final = Orders()
_PLACE: Final = 32  # bytes before the name

_limiters = itertools.count()


def virtual_script(text: str = BUCKET.text) -> str:
    """A script, but what the time is comes as a last argument."""
    assert text.count(CLOCK) == 1, "the two lines that read the clock are not as they were"
    assert text.count("'TIME'") == 1, "the clock is read elsewhere, too"
    return text.replace(CLOCK, "local now = tonumber(ARGV[#ARGV])\n")


def one(age: float = 0.0, cost: int = 1, count: int = 1) -> list[Calls]:
    """Calls of one cost."""
    return [Calls(count, cost, age)]


class Virtual:
    """A script in a server, and the clock that it goes by.

    Attributes:
        now: microseconds of the virtual clock.
        key: of a limiter of its own.
        serials: the numbers of the last question of each process.
    """

    def __init__(self, server: Server, script: str) -> None:
        self.server = server
        self.now = BEGIN
        self.key = name("test", f"limiter {next(_limiters)}", None)
        self.serials: dict[str, int] = {}
        self._client = server.client()
        self.sha: str = self.run("SCRIPT", "LOAD", script).decode()

    def at(self, seconds: float) -> None:
        """Set the virtual clock to so many seconds after its beginning."""
        self.now = BEGIN + round(seconds * MICROSECONDS)

    def advance(self, seconds: float) -> None:
        """Move the virtual clock."""
        self.now += round(seconds * MICROSECONDS)

    @property
    def seconds(self) -> float:
        """What the virtual clock shows, since its beginning."""
        return (self.now - BEGIN) / MICROSECONDS

    def serial(self, process: str) -> int:
        """The number of the next question of a process."""
        self.serials[process] = self.serials.get(process, 0) + 1
        return self.serials[process]

    def run(self, *command: str | bytes | float) -> Any:
        """One command."""
        execute: Callable[..., Any] = self._client.execute_command
        return execute(*command)


class Fleet(Virtual):
    """One limiter in a server, as its processes see it.

    Attributes:
        asked: questions so far.
        prompt: whether what may go at once does, and the next question of its process says so.
    """

    def __init__(
        self, server: Server, rate: float, burst: int, *, horizon: float = 0.0, virtual: bool = True
    ) -> None:
        super().__init__(server, virtual_script() if virtual else BUCKET.text)
        self.rate, self.burst, self.horizon = rate, burst, horizon
        self.asked = 0
        self.prompt = True
        self._went: dict[str, int] = {}
        self._virtual = virtual

    @property
    def reach(self) -> float:
        """Permits that may be booked ahead: those of the horizon, and two more unless the rate is low."""
        return self.rate * self.horizon + (2 if self.rate >= 4 else 0)

    def question(
        self,
        process: str = "a",
        calls: Sequence[Calls] = (),
        *,
        serial: int | None = None,
        deadline: float = 0.0,
        presence: int = 0,
        rate: float | None = None,
        burst: int | None = None,
        cold: bool = False,
        orders: Orders = NO_ORDERS,
        extra: int = 0,
        stands: bool = True,
    ) -> Ask:
        """A question; each one of a process has a number of its own unless one is given."""
        orders = evolve(orders, went=orders.went + self._went.pop(process, 0))
        return Ask(
            process,
            self.serial(process) if serial is None else serial,
            deadline,
            presence,
            rate or self.rate,
            burst or self.burst,
            cold,
            self.horizon,
            orders,
            extra,
            stands,
            calls,
        )

    def put(self, ask: Ask) -> Answer | TooLate:
        """Have the script answer a question."""
        self.asked += 1
        now = (str(self.now),) if self._virtual else ()
        return read(self.run("EVALSHA", self.sha, 1, self.key, *ask.words(), *now))

    def ask(self, process: str = "a", calls: Sequence[Calls] = (), **kwargs: Any) -> Answer:
        """Put a question that is not too late."""
        answer = self.put(self.question(process, calls, **kwargs))
        assert isinstance(answer, Answer)
        if self.prompt and not answer.again:
            moments = dues(answer, calls)
            self._went[process] = sum(cost for moment, cost in moments if moment <= self.seconds + 1e-6)
        return answer

    def takes(self, process: str = "a", cost: int = 1, **kwargs: Any) -> bool:
        """Whether a call that does not stand in line may go now."""
        calls = one(cost=cost)
        moments = dues(self.ask(process, calls, stands=False, **kwargs), calls)
        return bool(moments) and moments[0][0] <= self.seconds + 1e-6

    def fields(self) -> set[str]:
        """What its key holds."""
        return {field.decode() for field in self.run("HKEYS", self.key)}

    def standing(self) -> list[str]:
        """The processes in line, in order."""
        line: bytes = self.run("HGET", self.key, "line") or b""
        names: list[str] = []
        while line:
            name, _, line = line[_PLACE:].partition(b"\0")
            names.append(name.decode())
        return names


class Group:
    """Several limiters of one server that are asked together."""

    def __init__(self, *fleets: Fleet) -> None:
        self.fleets = fleets
        self._sha = fleets[0].run("SCRIPT", "LOAD", virtual_script(BUCKETS.text)).decode()

    def at(self, seconds: float) -> None:
        """Set the virtual clock to so many seconds after its beginning."""
        for fleet in self.fleets:
            fleet.at(seconds)

    def put(self, asks: Sequence[Ask], calls: Sequence[tuple[int, tuple[int, ...], float]]) -> list[Any]:
        """Have the script answer questions, and serve calls: how many, the permits of each limiter, and their
        age.
        """
        words = [word for ask in asks for word in ask.heading()]
        words.append(runs((count, age, wants) for count, wants, age in calls))
        keys = [fleet.key for fleet in self.fleets]
        first = self.fleets[0]
        said = first.run("EVALSHA", self._sha, len(keys), *keys, *words, str(first.now))
        return [read(answer) for answer in said]

    def ask(
        self, process: str = "a", calls: Sequence[tuple[int, tuple[int, ...], float]] = (), **kwargs: Any
    ) -> list[Answer]:
        """Put questions that are not too late."""
        answers = self.put([fleet.question(process, **kwargs) for fleet in self.fleets], calls)
        assert all(isinstance(answer, Answer) for answer in answers)
        return answers


def dues(answer: Answer, asked: Sequence[Calls]) -> list[tuple[float, int]]:
    """When each call that was served may go, by the virtual clock in seconds, and its cost."""
    now = (answer.now - BEGIN) / MICROSECONDS
    granted, used = answer.at_once + answer.later, 0
    moments: list[tuple[float, int]] = []
    for number, calls in enumerate(asked):
        served = answer.served[number] if answer.served else min(calls.count, (granted - used) // calls.cost)
        for _ in range(served):
            used += calls.cost
            ahead = answer.start + used - answer.at_once if used > answer.at_once else 0.0
            moments.append((now + max(0.0, ahead / answer.rate, answer.closed), calls.cost))
    assert used == granted, "what is granted is what calls want"
    return moments


def worst_excess(gone: Sequence[tuple[float, int]], rate: float, burst: int) -> float:
    """The permits by which the worst window exceeds `rate * T + burst`: if none does, a bucket that is owed
    them all is never owed more than its burst.
    """
    owed, before, worst = 0.0, 0.0, 0.0
    for moment, cost in sorted(gone):
        owed = max(0.0, owed - (moment - before) * rate) + cost
        before = moment
        worst = max(worst, owed)
    return worst - burst

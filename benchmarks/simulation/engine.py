"""The run: events in the order of their moments, the same ones for the same seed."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random

from batchkit._core.controller import Sample, Verdict
from benchmarks.simulation.server import Server
from benchmarks.simulation.strategies import Strategy


@dataclass(frozen=True)
class Network:
    """The way there and back takes `latency` seconds, each way up to `jitter` seconds more."""

    latency: float = 0.08
    jitter: float = 0.02


@dataclass(frozen=True)
class Record:
    """When the server decided on the calls (seconds), and the rate over time."""

    admitted: array[float] = field(default_factory=lambda: array("d"))
    refused: array[float] = field(default_factory=lambda: array("d"))
    others: array[float] = field(default_factory=lambda: array("d"))  # admitted, of other clients
    moments: array[float] = field(default_factory=lambda: array("d"))  # of answers
    rates: array[float] = field(default_factory=lambda: array("d"))  # the limiter's after them, permits/s


class Simulation:
    """Workers with endless items against one server. `run` once."""

    def __init__(
        self, server: Server, strategy: Strategy, *, workers: int, network: Network, random: Random
    ) -> None:
        self.record = Record()
        self._server = server
        self._strategy = strategy
        self._network = network
        self._random = random
        self._attempts = [0] * workers  # refusals of the item at hand
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._look_at: float | None = None
        self._asked = [0.0] * workers  # when it joined the line
        for worker in range(workers):
            self._later(random.random() * 0.1, partial(self._take_up, worker))

    def other_client(self, moment: float) -> None:
        """A call of somebody else, who shares the quota, at that moment."""
        self._later(moment, self._other)

    def run(self, seconds: float) -> Record:
        while self._events and self._events[0][0] <= seconds:
            self._now, _, event = heappop(self._events)
            event()
        return self.record

    def _later(self, delay: float, event: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._events, (self._now + delay, self._serial, event))

    def _take_up(self, worker: int) -> None:
        limiter = self._strategy.limiter
        if limiter is None:
            self._send(worker, limiting=False)
            return
        self._asked[worker] = self._now
        limiter.join(worker)
        self._serve()

    def _serve(self) -> None:
        limiter = self._strategy.limiter
        if limiter is None:
            return
        for worker in limiter.serve(self._now):
            self._send(worker, limiting=self._now > self._asked[worker])
        moment = limiter.next_look(self._now)
        if moment is not None and (self._look_at is None or moment < self._look_at):
            self._look_at = moment
            self._later(moment - self._now, partial(self._look, moment))

    def _look(self, moment: float) -> None:
        if self._look_at == moment:
            self._look_at = None
            self._now = max(self._now, moment)  # what was added and taken away again may be off by one bit
            self._serve()

    def _send(self, worker: int, *, limiting: bool) -> None:
        self._later(self._way(), partial(self._arrive, worker, self._now, limiting))

    def _way(self) -> float:
        return self._network.latency / 2 + self._random.random() * self._network.jitter

    def _arrive(self, worker: int, sent: float, limiting: bool) -> None:
        admitted = self._server.admit(self._now)
        (self.record.admitted if admitted else self.record.refused).append(self._now)
        advice = None if admitted else self._server.advice(self._now)
        verdict = Verdict.WENT_WELL if admitted else Verdict.THROTTLED
        self._later(self._way(), partial(self._answer, worker, verdict, sent, advice, limiting))

    def _answer(
        self, worker: int, verdict: Verdict, sent: float, advice: float | None, limiting: bool
    ) -> None:
        self._strategy.feed(Sample(verdict, sent, self._now, 1, advice, limiting))
        if (limiter := self._strategy.limiter) is not None:
            self.record.moments.append(self._now)
            self.record.rates.append(limiter.rate)
        self._serve()  # at the new rate
        if verdict is Verdict.WENT_WELL:
            self._attempts[worker] = 0
            self._take_up(worker)
        else:
            self._later(self._back_off(worker, advice), partial(self._take_up, worker))

    def _back_off(self, worker: int, advice: float | None) -> float:
        """Seconds, doubled with each refusal, at random up to that ("full jitter"), at most 20."""
        delay = self._random.random() * min(20.0, 2.0 ** self._attempts[worker])
        self._attempts[worker] += 1
        return delay if advice is None else max(delay, advice)

    def _other(self) -> None:
        if self._server.admit(self._now):
            self.record.others.append(self._now)

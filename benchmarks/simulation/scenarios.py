"""The situations, what is read from each, and the figures that ours has to reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from attrs import define, frozen

from benchmarks.simulation.engine import Network, Record, Simulation
from benchmarks.simulation.measures import back, count, refused_share, settled, use
from benchmarks.simulation.server import RetryAfter, Schedule, Server, constant, step
from benchmarks.simulation.strategies import MAX_RATE, STRATEGIES

Figures = dict[str, float]
NETWORK = Network()
DOWN, UP, END = 100.0, 160.0, 260.0  # of the step, in seconds


@frozen
class Target:
    """A bound on a figure: at most `most`, or at least `least`."""

    most: float | None = None
    least: float | None = None

    def met(self, value: float) -> bool:
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    @property
    def bound(self) -> float:
        return self.most if self.most is not None else self.least or 0.0


@define(kw_only=True)
class Scenario:
    """A quota, who calls, and the figures with their targets."""

    name: str
    schedule: Schedule
    seconds: float
    read: Callable[[Record], Figures]
    targets: dict[str, Target]
    burst: float = 1.0  # the server's, in seconds of its rate
    retry_after: RetryAfter = "none"
    workers: int = 20
    start: float  # the limiter's rate at first, permits/s
    most: float = MAX_RATE  # the rate that it never exceeds
    others: Callable[[Random], Iterator[float]] | None = None  # moments of calls of other clients

    def run(self, strategy: str, seed: int) -> Record:
        random = Random(f"{self.name} {seed}")  # the same network for every strategy
        simulation = Simulation(
            Server(self.schedule, self.burst, self.retry_after),
            STRATEGIES[strategy](self.start, self.most),
            workers=self.workers,
            network=NETWORK,
            random=random,
        )
        for moment in self.others(random) if self.others else ():
            simulation.other_client(moment)
        return simulation.run(self.seconds)

    def figures(self, strategy: str, seed: int) -> Figures:
        record = self.run(strategy, seed)
        return {
            "429s": float(len(record.refused)),
            "share": refused_share(record, 0.0, self.seconds),
            "use": use(record, self.schedule, 0.0, self.seconds),
            **self.read(record),
        }


def steady_bound(rate: float) -> float:
    """429s among the calls while nothing changes: 0.5 %, or 1.5 in 10 s."""
    return max(0.005, 1.5 / (10.0 * rate))


def _steps(rate: float, burst: float, retry_after: RetryAfter, workers: int = 20) -> Scenario:
    def read(record: Record) -> Figures:
        return {
            "steady": refused_share(record, DOWN - 60.0, DOWN) / 2
            + refused_share(record, END - 60.0, END) / 2,
            "settled": settled(record, DOWN, rate / 4),
            "back": back(record, UP, rate),
        }

    return Scenario(
        name=f"step, C {rate:g}, burst {burst:g} s, Retry-After {retry_after}"
        + ("" if workers == 20 else f", {workers} workers"),
        schedule=step(rate, rate / 4, DOWN, UP),
        seconds=END,
        burst=burst,
        retry_after=retry_after,
        workers=workers,
        start=rate / 2,
        read=read,
        targets={
            "fewer": Target(least=0.97),
            "share": Target(most=0.01),
            "use": Target(least=0.95 if burst >= 1.0 else 0.9),
            "steady": Target(most=steady_bound(rate)),
            "settled": Target(most=2.0),
            "back": Target(most=15.0),
        },
    )


def _cold(burst: float) -> Scenario:
    rate = 100.0
    return Scenario(
        name=f"cold start from 10, C {rate:g}, burst {burst:g} s",
        schedule=constant(rate),
        seconds=60.0,
        burst=burst,
        start=10.0,
        read=lambda record: {"use, 20 s": count(record.admitted, 0.0, 20.0) / (20.0 * rate)},
        targets={"use, 20 s": Target(least=0.8)},
    )


def _known(rate: float, burst: float) -> Scenario:
    return Scenario(
        name=f"known quota, C {rate:g}, burst {burst:g} s",
        schedule=constant(rate),
        seconds=100.0,
        burst=burst,
        start=rate,
        most=rate,
        read=lambda record: {},
        targets={"429s": Target(most=0.0), "use": Target(least=0.99)},
    )


def _drift(rate: float) -> Scenario:
    points = ((0.0, rate), (60.0, rate / 2), (120.0, rate), (180.0, rate / 2), (240.0, rate))
    return Scenario(
        name=f"drift, C {rate:g} to {rate / 2:g} and back in 2 minutes",
        schedule=Schedule(points),
        seconds=240.0,
        start=rate / 2,
        read=lambda record: {},
        targets={"share": Target(most=0.01), "use": Target(least=0.9)},
    )


def _others(rate: float) -> Scenario:
    def calls(random: Random) -> Iterator[float]:
        """Half of the quota for 3 s, on average each 20 s."""
        begin = random.expovariate(1 / 20)
        while begin < 240.0:
            moment = begin
            while (moment := moment + random.expovariate(rate / 2)) < begin + 3.0:
                yield moment
            begin += 3.0 + random.expovariate(1 / 20)

    return Scenario(
        name=f"other clients take half of C {rate:g} now and then",
        schedule=constant(rate),
        seconds=240.0,
        start=rate / 2,
        others=calls,
        read=lambda record: {},
        targets={"share": Target(most=0.01), "use": Target(least=0.9)},
    )


def scenarios(*, quick: bool = False) -> list[Scenario]:
    """All of them, or those without which nothing is said."""
    advice: tuple[RetryAfter, ...] = ("none",) if quick else ("none", "exact", "seconds")
    rates = (20.0,) if quick else (20.0, 100.0)
    found = [_steps(rate, burst, asked) for asked in advice for rate in rates for burst in (1.0, 0.1)]
    found += [_cold(burst) for burst in (1.0, 0.1)]
    found += [_known(rate, burst) for rate in rates for burst in (1.0, 0.1)]
    if not quick:
        found += [_steps(20.0, 1.0, "none", workers=workers) for workers in (1, 5, 100)]
        found += [make(rate) for make in (_drift, _others) for rate in rates]
    return found

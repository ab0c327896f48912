"""What all services share: a call arrives, is admitted or refused, takes its time, and ends."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Generic, TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import Response

from examples.standin.clock import ServiceTime
from examples.standin.faults import Fault, Switches
from examples.standin.ledger import Answer, Entry, Ledger
from examples.standin.quota import Bucket, Refusal, admit

S = TypeVar("S", bound=Switches)

GONE = 499  # "client closed request": nobody is there to read it


class Call:
    """One call, from its arrival to its end."""

    def __init__(self, entry: Entry, refusal: Refusal | None, fault: Fault | None, time: ServiceTime) -> None:
        self.entry = entry
        self.refusal = refusal
        self.fault = fault
        self._time = time

    def elapsed(self) -> Fraction:
        """Service seconds since it arrived."""
        return self._time.now() - self.entry.arrived

    def end(self, answer: Answer, response: Response, billed: int = 0) -> Response:
        """Write down how it went, and hand the response on."""
        self.entry.end(self._time.now(), answer, response.status_code, billed)
        return response

    def abort(self) -> Response:
        """The client went away."""
        self.entry.end(self._time.now(), "aborted", None)
        return Response(status_code=GONE)


class Service(Generic[S]):
    """One service: its quota, its faults, its lines in the ledger. How it speaks is its protocol's affair."""

    def __init__(self, name: str, switches: S, time: ServiceTime, ledger: Ledger, seed: int) -> None:
        self.name = name
        self.switches = switches
        self.time = time
        self.seed = seed
        self._ledger = ledger
        self.reset()

    def reset(self) -> None:
        """Begin a new run: with full buckets, and nothing asked before."""
        now = self.time.now()
        self.buckets = {name: Bucket(quota, now) for name, quota in self.switches.quotas().items()}
        self._asked = Counter[tuple[str, ...]]()

    def turn(self, switches: S) -> None:
        """Go on with other switches; calls under way keep the fault they were dealt."""
        self.switches = switches
        for name, quota in switches.quotas().items():
            self.buckets[name].change(self.time.now(), quota)

    def catch_up(self) -> None:
        """Write down what ended by itself in the meantime; a call that is a request ends with it."""

    def arrive(self, keys: tuple[str, ...], costs: Mapping[str, int]) -> Call:
        """A call that arrives now."""
        now = self.time.now()
        refusal = admit(self.buckets, costs, now)
        quota = self.buckets["requests"].quota
        entry = self._ledger.open(self.name, now, keys, costs["requests"], refusal is None, quota)
        return Call(entry, refusal, None if refusal else self._fault(keys), self.time)

    @contextmanager
    def call(self, keys: tuple[str, ...], costs: Mapping[str, int]) -> Generator[Call]:
        """A call that arrives now. Whoever leaves it without an end (cancelled, say) aborted it."""
        call = self.arrive(keys, costs)
        try:
            yield call
        finally:
            if call.entry.answer is None:
                call.abort()

    def turn_away(self, response: Response, keys: tuple[str, ...] = ()) -> Response:
        """A call that is wrong in itself, such as one without a key: written down, not charged."""
        now = self.time.now()
        entry = self._ledger.open(self.name, now, keys, 1, False, self.buckets["requests"].quota)
        return Call(entry, None, None, self.time).end("error", response)

    def dice(self, *about: object) -> random.Random:
        """Random numbers that depend on the seed and on what they are about, not on when they are thrown."""
        return random.Random(repr((self.seed, self.name, *about)))

    async def work(self, request: Request, call: Call, seconds: float) -> bool:
        """Take this many service seconds, for ever if the call hangs. False: the client went away."""
        if call.fault == "hang":
            return await stays(request, anyio.sleep_forever)
        return await stays(request, lambda: self.time.sleep(seconds * self.switches.slow))

    def _fault(self, keys: tuple[str, ...]) -> Fault | None:
        self._asked[keys] += 1
        return self.switches.fault(keys, self.dice("fault", keys, self._asked[keys]))


async def stays(request: Request, wait: Callable[[], Awaitable[None]]) -> bool:
    """Whether the client stays to the end of the wait, which ends when it goes. Read the body before."""
    there = True

    async def watch() -> None:
        nonlocal there
        while (await request.receive())["type"] != "http.disconnect":
            pass
        there = False
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await wait()
        group.cancel_scope.cancel()
    return there

"""A service whose calls are jobs: ordered in one request, done by themselves, fetched by another.

A call counts against the quota when it is ordered, and against the jobs at once while it is in progress.
It is billed when something was made, whether or not anybody fetches that. So does fal: it bills what was
made, and neither the time in its queue nor what failed by a fault of its own.
"""

import uuid
from dataclasses import dataclass
from fractions import Fraction

import anyio
from pydantic import Field

from examples.standin.clock import ServiceTime, exact
from examples.standin.faults import Share, Switches
from examples.standin.ledger import Answer, Ledger
from examples.standin.queue import Job, Queue
from examples.standin.service import Call, Service

SOON = 1e-6  # seconds: a moment that was rounded down to a float is reached by then


class JobSwitches(Switches):
    """Beside the rate, how many jobs are in progress at once; and questions about them may fail, too."""

    concurrency: int = Field(gt=0, description="jobs in progress at once; the others wait")
    flaky_rate: Share = Field(
        default=0.0, ge=0, le=1, description="share of the questions about a job that are answered 502"
    )


@dataclass(slots=True, eq=False, kw_only=True)
class Order(Job):
    """A job, and what it is about.

    Attributes:
        prompt: what is to be made.
        call: its line in the ledger, and what goes wrong with it.
        complaint: why it cannot be made at all.
        questions: asked about it so far.
    """

    id: str
    prompt: str
    call: Call
    complaint: object = None
    questions: int = 0

    def outcome(self) -> tuple[Answer, int | None, int]:
        """How it ended: the answer, its status, and what is billed."""
        if self.cancelled:
            return "aborted", None, 0
        if self.complaint:
            return "error", 422, 0
        match self.call.fault:
            case "error":
                return "error", 500, 0
            case "malformed" | "wrong":
                return "malformed", 200, 1
            case _:
                return "ok", 200, 1


class JobService(Service[JobSwitches]):
    """The jobs of one account."""

    def __init__(
        self, name: str, switches: JobSwitches, time: ServiceTime, ledger: Ledger, seed: int
    ) -> None:
        self.orders: dict[str, Order] = {}  # by id
        super().__init__(name, switches, time, ledger, seed)

    def reset(self) -> None:
        for order in self.orders.values():
            self.cancel(order)
        super().reset()
        self.orders = {}
        self._queue = Queue[Order](self.switches.concurrency)
        self._news = anyio.Event()

    def turn(self, switches: JobSwitches) -> None:
        super().turn(switches)
        self._settle(self._queue.change(switches.concurrency, self.time.now()))

    def catch_up(self) -> None:
        self._settle(self._queue.look(self.time.now()))

    def order(self, call: Call, prompt: str, latency: float, complaint: object = None) -> Order:
        """Take a job that was admitted; it takes `latency` service seconds, unless it hangs."""
        seconds = None if call.fault == "hang" else exact(latency * self.switches.slow)
        number = self.dice("id", call.entry.index).getrandbits(128)
        order = Order(
            seconds=Fraction(0) if complaint else seconds,
            id=str(uuid.UUID(int=number, version=4)),
            prompt=prompt,
            call=call,
            complaint=complaint,
        )
        self.orders[order.id] = order
        self._settle(self._queue.submit(order, self.time.now()))
        return order

    def find(self, request_id: str) -> Order | None:
        """A job as it is now."""
        self.catch_up()
        return self.orders.get(request_id)

    def cancel(self, order: Order) -> None:
        """Cancel a job that has not ended."""
        self._settle(self._queue.cancel(order, self.time.now()))

    def position(self, order: Order) -> int:
        """How many jobs wait before this one; 0 if it does not wait."""
        return self._queue.position(order) if order.started is None and order.ended is None else 0

    def is_flaky(self, order: Order) -> bool:
        """Whether this question about a job fails."""
        order.questions += 1
        dice = self.dice("flaky", order.prompt, order.questions)
        return dice.random() < self.switches.flaky_rate

    async def news(self) -> None:
        """Wait until some job ends, by itself or because it is cancelled."""
        news, end = self._news, self._queue.next_end()
        async with anyio.create_task_group() as group:
            if end is not None:
                group.start_soon(self._look_at, end)
            await news.wait()
            group.cancel_scope.cancel()

    async def _look_at(self, moment: Fraction) -> None:
        while (left := moment - self.time.now()) > 0:
            await self.time.sleep(max(float(left), SOON))
        self.catch_up()

    def _settle(self, ended: list[Order]) -> None:
        for order in ended:
            assert order.ended is not None
            order.call.entry.end(order.ended, *order.outcome())
        if ended:
            self._news.set()
            self._news = anyio.Event()

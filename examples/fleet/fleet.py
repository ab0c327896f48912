"""A small fleet on this machine: embedded Valkey, stand-in services, and worker processes.

What runs already comes by its address instead. What is started here ends with the block, and with us if
we are killed.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import anyio
from attrs import define, field, frozen

from examples.fleet import embedded
from examples.fleet.children import PATIENCE, Child
from examples.services import services
from examples.services.services import Services, StandIn

EACH = MappingProxyType({"card": 1, "deck": 1, "import": 1})  # processes of each kind


@frozen(kw_only=True)
class Plan:
    """What a fleet is made of.

    Attributes:
        folder: for the logs of the workers.
        workers: processes of each kind: card, deck, import.
        speed: of the stand-in: service seconds in a second.
        switches: of the stand-in, such as "text.rate=1".
        standin: the URL of one that runs already, at that speed; empty to start one.
        real: the services themselves, if they are to be asked and not a stand-in.
        redis_url: of a server that runs already; empty to start one.
        environment: variables of the workers, on top of ours.
        module: of the workers.
    """

    folder: Path
    workers: Mapping[str, int] = EACH
    speed: float = 1.0
    switches: Sequence[str] = ()
    standin: str = ""
    real: Services | None = None
    redis_url: str = ""
    environment: Mapping[str, str] = field(factory=dict[str, str])
    module: str = "examples.worker"


@define(eq=False)
class Fleet:
    """A fleet that runs.

    Attributes:
        plan: what it is made of.
        redis_url: where its queue and its limiters are.
        services: whom it asks.
        environment: all variables of its workers; who else needs the fleet's addresses takes them from here.
        workers: that were started and not ended, in that order.
    """

    plan: Plan
    redis_url: str
    services: Services
    environment: dict[str, str]
    workers: list[Child] = field(factory=list[Child])
    _started: int = 0

    async def add(self, *kinds: str) -> list[Child]:
        """More workers, of these kinds, when they take jobs.

        Raises:
            UsageError: one did not start; with the end of its log.
        """
        added = [await self._spawn(kind) for kind in kinds]  # all at once: each loads its libraries first
        for worker in added:
            await worker.ready()
        return added

    async def end(self, worker: Child, patience: float = PATIENCE) -> None:
        """Let a worker finish what it does, for so many seconds at most; it takes no more jobs."""
        await worker.end(patience)
        self.workers.remove(worker)

    async def end_all(self, patience: float = PATIENCE) -> None:
        """End all workers, all at once."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for worker in [*self.workers]:
                    group.start_soon(self.end, worker, patience)

    async def kill(self, worker: Child) -> None:
        """End a worker as a crash would."""
        worker.kill()
        await self.end(worker)

    async def _spawn(self, kind: str) -> Child:
        self._started += 1
        log = self.plan.folder / f"worker-{self._started}-{kind}.log"
        worker = await Child.spawn(self.plan.module, kind, environment=self.environment, log=log)
        self.workers.append(worker)
        return worker


@asynccontextmanager
async def started(plan: Plan) -> AsyncIterator[Fleet]:
    """A fleet whose workers take jobs.

    Raises:
        UsageError: a part of it did not start.
    """
    async with AsyncExitStack() as stack:
        redis_url = plan.redis_url or await stack.enter_async_context(embedded.started())
        asked: Services = await stack.enter_async_context(standin(plan)) if plan.real is None else plan.real
        fleet = Fleet(plan, redis_url, asked, environment(plan, redis_url, asked))
        patience = 0.0  # whoever leaves by an error, or is cancelled, does not wait
        try:
            await fleet.add(*(kind for kind, count in plan.workers.items() for _ in range(count)))
            yield fleet
            patience = PATIENCE
        finally:
            await fleet.end_all(patience)


@asynccontextmanager
async def standin(plan: Plan) -> AsyncIterator[StandIn]:
    """The stand-in that runs already, or one that ends with the block."""
    if plan.standin:
        yield await services.running(plan.standin, plan.speed)
    else:
        async with services.started(plan.speed, plan.switches) as started:
            yield started


def environment(plan: Plan, redis_url: str, asked: Services) -> dict[str, str]:
    """The variables that tell a worker where everything is."""
    variables = {**os.environ, **plan.environment, "REDIS_URL": redis_url}
    if isinstance(asked, StandIn):
        variables["FLASHCARDS_SERVICES_STANDIN"] = asked.url
        variables["FLASHCARDS_SERVICES_SPEED"] = str(asked.speed)
    return variables

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

from examples import embedded, services
from examples.children import PATIENCE, Child
from examples.services import StandIn

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
        redis_url: of a server that runs already; empty to start one.
        environment: variables of the workers, on top of ours.
    """

    folder: Path
    workers: Mapping[str, int] = EACH
    speed: float = 1.0
    switches: Sequence[str] = ()
    standin: str = ""
    redis_url: str = ""
    environment: Mapping[str, str] = field(factory=dict[str, str])


@define(eq=False)
class Fleet:
    """A fleet that runs.

    Attributes:
        folder: where its logs are.
        redis_url: where its queue and its limiters are.
        services: whom it asks.
        environment: all variables of its workers; who else needs the fleet's addresses takes them from here.
        workers: that were started and not ended, in that order.
    """

    folder: Path
    redis_url: str
    services: StandIn
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

    async def end_all(self) -> None:
        """End all workers, all at once."""
        async with anyio.create_task_group() as group:
            for worker in [*self.workers]:
                group.start_soon(self.end, worker)

    async def kill(self, worker: Child) -> None:
        """End a worker as a crash would."""
        worker.kill()
        await self.end(worker)

    async def _spawn(self, kind: str) -> Child:
        self._started += 1
        log = self.folder / f"worker-{self._started}-{kind}.log"
        worker = await Child.spawn("examples.worker", kind, environment=self.environment, log=log)
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
        if plan.standin:
            standin = await services.running(plan.standin, plan.speed)
        else:
            standin = await stack.enter_async_context(services.started(plan.speed, plan.switches))
        fleet = Fleet(plan.folder, redis_url, standin, environment(plan, redis_url, standin))
        stack.push_async_callback(fleet.end_all)
        await fleet.add(*(kind for kind, count in plan.workers.items() for _ in range(count)))
        yield fleet


def environment(plan: Plan, redis_url: str, standin: StandIn) -> dict[str, str]:
    """The variables that tell a worker where everything is."""
    return {
        **os.environ,
        **plan.environment,
        "REDIS_URL": redis_url,
        "FLASHCARDS_SERVICES_STANDIN": standin.url,
        "FLASHCARDS_SERVICES_SPEED": str(standin.speed),
    }

"""A worker process: `python -m examples.worker card`, or deck, or import; or `all`, a small fleet of them.

It runs until it is told to end (SIGTERM, Ctrl-C): then it takes no more jobs, and what is under way comes to
an end. Start as many as you like, on as many machines; they share the queue and the quotas in REDIS_URL.
"""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import anyio
from attrs import frozen

from examples import settings, studio
from examples.errors import UsageError
from examples.fleet import address, fleet
from examples.fleet.children import FLAG, Child, terminate, when_parent_ends
from examples.fleet.fleet import EACH, Fleet, Plan
from examples.fleet.interrupt import until_stopped
from examples.queueing.jobs import Jobs
from examples.queueing.queue import KINDS, JobQueue, redis_error
from examples.queueing.scaling import Bounds
from examples.services import services
from examples.settings import Settings
from examples.studio import MakeLimits, fleet_limits

LOST, USAGE = 1, 2  # exit codes
LOOK = 1.0  # seconds between two looks whether all workers live
TOO_LATE = 10  # seconds after the grace at which the process ends, whatever it waits for
STOPPING = "Stopping: what is under way comes to an end."
ASKED = {"card": services.ALL, "deck": services.ALL, "import": ("text",)}  # which services a worker asks
FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"

log = logging.getLogger("examples.worker")


def main(arguments: Sequence[str] | None = None, limits: MakeLimits = fleet_limits) -> int:
    """Work; returns the exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    for chatty in ("httpx2", "coredis"):  # a line for each request, and for each try to connect
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if options.until_stdin_closes:
        when_parent_ends(terminate)
    try:
        config = settings.load()
        if options.kind == "all":
            anyio.run(whole_fleet, config)
        else:
            anyio.run(work, options.kind, config, limits)
    except UsageError as error:
        print(f"worker: {error}", file=sys.stderr)
        return USAGE
    except BaseExceptionGroup as group:
        if (lost := redis_error(group)) is None:
            raise
        print(f"worker: Redis is lost: {lost}", file=sys.stderr)
        return LOST
    return 0


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(prog="python -m examples.worker", description=__doc__)
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument(FLAG, action="store_true", help="end when the parent process does")
    return parser


async def work(kind: str, config: Settings, limits: MakeLimits = fleet_limits) -> None:
    """Run jobs of a kind until this process is told to end."""
    queue = JobQueue(kind, config.queue, bounds(kind, config))
    async with studio.opened(config, limits, ASKED[kind]) as opened, JobQueue("deck", config.queue) as decks:
        queue.handle(Process(Jobs(opened, queue, decks), config.queue.grace))
        async with anyio.create_task_group() as group:
            await group.start(queue.run_async)
            print(f"{kind} worker {queue.id} takes jobs", flush=True)


def bounds(kind: str, config: Settings) -> Bounds:
    """How many jobs of a kind a worker runs at once."""
    options = {"card": config.card, "deck": config.deck, "import": config.bulk_import}[kind]
    return Bounds(config.scaled(options.jobs), config.scaled(options.most_jobs))


@frozen
class Process:
    """Runs the jobs of this process, and sees that it ends in time."""

    jobs: Jobs
    grace: float

    async def run(self, job_id: str, arguments: Mapping[str, Any]) -> object:
        """Run a job."""
        return await self.jobs.run(job_id, arguments)

    def leave(self) -> None:
        """Let the jobs come to an end, even if Redis or the database is away just then."""
        self.jobs.leave()
        last = threading.Timer(self.grace + TOO_LATE, os._exit, [LOST])
        last.daemon = True
        last.start()


async def whole_fleet(config: Settings) -> None:
    """A worker of each kind, with a Valkey and a stand-in if the settings name none; until a signal."""
    options, folder = config.services, Path(mkdtemp(prefix="flashcards-"))
    plan = Plan(folder=folder, speed=options.speed, standin=options.standin, redis_url=config.queue.redis_url)
    stop = anyio.Event()
    async with fleet.started(plan) as running:
        print(f"Workers take jobs. REDIS_URL={running.redis_url}; their logs are in {folder}", flush=True)
        with address.told(config, running.redis_url):
            await until_stopped(lambda: kept_up(running, stop), stop.set, LOOK, lambda _: print(STOPPING))


async def kept_up(running: Fleet, stop: anyio.Event) -> None:
    """Start a worker for each one that died, until it is enough."""
    kinds = dict[Child, str](zip(running.workers, EACH, strict=True))
    while not stop.is_set():
        await anyio.sleep(LOOK)
        for worker in [worker for worker in kinds if not worker.running]:
            log.warning("the %s worker has died: another one takes its place", kinds[worker])
            await running.end(worker)
            (new,) = await running.add(kinds[worker])
            kinds[new] = kinds.pop(worker)


if __name__ == "__main__":
    sys.exit(main())

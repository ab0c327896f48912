"""A worker process: `python -m examples.worker card`, or deck, or import; or `all`, a small fleet of them.

It runs until it is told to end (SIGTERM, Ctrl-C): then it takes no more jobs, and what is under way comes to
an end. Start as many as you like, on as many machines; they share the queue and the quotas in REDIS_URL.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

import anyio

from examples import settings, studio
from examples.children import FLAG, terminate, when_parent_ends
from examples.errors import UsageError
from examples.jobs import Jobs
from examples.queueing import KINDS, JobQueue
from examples.scaling import Bounds
from examples.settings import Settings

USAGE = 2  # exit code
FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Work; returns the exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it says a line for each request
    if options.until_stdin_closes:
        when_parent_ends(terminate)
    try:
        config = settings.load()
        anyio.run(work, options.kind, config)
    except UsageError as error:
        print(f"worker: {error}", file=sys.stderr)
        return USAGE
    return 0


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(prog="python -m examples.worker", description=__doc__)
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument(FLAG, action="store_true", help="end when the parent process does")
    return parser


async def work(kind: str, config: Settings) -> None:
    """Run jobs of a kind until this process is told to end."""
    queue = JobQueue(kind, config.queue, bounds(kind, config))
    async with studio.opened(config) as opened, JobQueue("deck", config.queue) as decks:
        queue.handle(Jobs(opened, queue, decks))
        async with anyio.create_task_group() as group:
            await group.start(queue.run_async)
            print(f"{kind} worker {queue.id} takes jobs", flush=True)


def bounds(kind: str, config: Settings) -> Bounds:
    """How many jobs of a kind a worker runs at once."""
    options = {"card": config.card, "deck": config.deck, "import": config.bulk_import}[kind]
    return Bounds(config.scaled(options.jobs), config.scaled(options.most_jobs))


if __name__ == "__main__":
    sys.exit(main())

"""Who sends jobs to a fleet, waits until they are done, and reports on them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from attrs import define, field, frozen
from streaq.task import TaskResult

from examples.database import Card, Database, Deck
from examples.language import words
from examples.queueing.priorities import Priority
from examples.queueing.queue import KINDS, JobQueue
from examples.reporting.report import Report
from examples.reporting.tally import Result, Tally
from examples.services.services import Path, Services
from examples.settings import Settings

ALL = ("text", "picture", "sound")
MEDIA = ("picture", "sound")


@frozen
class Done:
    """What became of some jobs.

    Attributes:
        results: what they returned, also those that failed after they had done something.
        causes: why some of them failed for good.
    """

    results: list[Result] = field(factory=list[Result])
    causes: list[str] = field(factory=list[str])


@define(eq=False)
class Client:
    """Sends jobs.

    Attributes:
        config: the settings of the fleet.
        database: where the cards are.
        services: whom the fleet asks.
        queues: by kind of job.
    """

    config: Settings
    database: Database
    services: Services
    queues: Mapping[str, JobQueue]

    async def decks(self, decks: Sequence[Deck], priority: Priority = Priority.NORMAL) -> Done:
        """Have the cards of decks made, and wait."""
        for deck in decks:
            await self.database.save_deck(deck)
        return await self.done("deck", [{"deck": deck.name} for deck in decks], priority)

    async def done(self, kind: str, jobs: Sequence[Mapping[str, object]], priority: Priority) -> Done:
        """Send jobs, and wait until they are done or have failed for good."""
        return await self.wait(kind, await self.send(kind, jobs, priority))

    async def send(self, kind: str, jobs: Sequence[Mapping[str, object]], priority: Priority) -> list[str]:
        """Send jobs; returns their ids."""
        queue = self.queues[kind]
        return [await queue.send({**job, "priority": int(priority)}, priority) for job in jobs]

    async def wait(self, kind: str, ids: Sequence[str]) -> Done:
        """Wait until jobs are done or have failed for good."""
        done = Done()

        async def one(job_id: str) -> None:
            result = await self.queues[kind].result_by_id(job_id)
            said: Any = result.result if result.success else result.exception
            if not result.success:
                done.causes.append(str(said["error"]))
                said = said["result"]
            if said:
                done.results.append(said if result.tries == 1 else since_sent(said, result))

        async with anyio.create_task_group() as group:
            for job_id in ids:
                group.start_soon(one, job_id)
        return done

    async def report(
        self, kind: str, done: Done, wanted: Sequence[str], since: int, asked: Sequence[str] = ALL
    ) -> Report:
        """The report on jobs of one kind.

        Args:
            kind: of the jobs.
            done: what became of them.
            wanted: the words that they were about.
            since: the mark of the ledger at which their calls began.
            asked: the services whose calls were theirs.
        """
        tally, cards = Tally(kind, done.results, self.config), await self.database.cards(wanted)
        uses = {name: use for name, use in tally.uses().items() if name in asked}
        ledger = await self.services.ledger(uses, since, [path(card, asked) for card in cards])
        whole = [card for card in cards if "picture" not in asked or not card.missing]
        return tally.report(ledger, items=len(wanted), saved=len(whole))


def since_sent(said: Result, result: TaskResult[object]) -> Result:
    """What a job returned that was begun more than once: its time is that of all attempts."""
    began, ended = result.created_time / 1000, result.finish_time / 1000
    return {**said, "began": began, "seconds": ended - began}


def path(card: Card, asked: Sequence[str] = ALL) -> Path:
    """The calls that a card needs of some services: stages one after another, of calls side by side."""
    text = [("text", card.word)]
    media = [("picture", words.picture(card)), ("sound", card.word), ("sound", card.example)]
    stages = [[step for step in stage if step[0] in asked] for stage in (text, media)]
    return [stage for stage in stages if stage]


@asynccontextmanager
async def opened(config: Settings, database: Database, services: Services) -> AsyncIterator[Client]:
    """A client of the fleet that the settings name."""
    async with AsyncExitStack() as stack:
        queues = {kind: await stack.enter_async_context(JobQueue(kind, config.queue)) for kind in KINDS}
        yield Client(config, database, services, queues)

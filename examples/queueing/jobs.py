"""What becomes of a job: it is run, tried again when that may help, or buried with its cause."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import anyio
from attrs import define, field
from sqlalchemy.exc import SQLAlchemyError
from streaq import StreaqRetry

from examples.card_worker import CardJob
from examples.database import DeadLetter, worth_waiting_for
from examples.deck_worker import DeckJob
from examples.errors import Unfinished
from examples.import_worker import ImportJob
from examples.queueing.attempts import HOPELESS, Attempts, is_excused, pause
from examples.queueing.priorities import Priority
from examples.queueing.queue import JobQueue
from examples.studio import Studio

MOST_SAID = 500  # characters of a cause

log = logging.getLogger("examples.queueing.jobs")


class Job(Protocol):
    """What a worker runs."""

    async def run(self) -> dict[str, object]:
        """Do it; returns what was done, as JSON."""
        ...

    def stop(self) -> None:
        """Begin nothing new."""
        ...


class Buried(Exception):
    """A job failed for good; the message is the cause.

    Args:
        cause: a sentence.
        result: what it did.
    """

    def __init__(self, cause: str, result: object = None) -> None:
        super().__init__(cause)
        self.result = result


@define(eq=False)
class Jobs:
    """Runs the jobs of one kind in this process.

    Attributes:
        queue: where they come from.
        decks: where the jobs of decks go to.
    """

    studio: Studio
    queue: JobQueue
    decks: JobQueue
    _running: set[Job] = field(factory=set[Job], init=False)
    _leaving: bool = field(default=False, init=False)

    async def run(self, job_id: str, arguments: Mapping[str, Any]) -> dict[str, object]:
        """Run a job, to whatever end; returns what was done, as JSON.

        Raises:
            StreaqRetry: it is to be tried again.
            Buried: it failed for good.
        """
        attempts = Attempts(self.queue.redis, f"{self.queue.prefix}:attempts:{job_id}")
        deaths = await attempts.begin()
        if deaths >= self.queue.options.deaths:
            raise await self.bury(
                job_id, arguments, Unfinished(f"{deaths} workers died of it", False), deaths
            )
        try:
            result = await self.attempt(job_id, arguments)
        except Exception as error:
            raise await self.verdict(job_id, arguments, attempts, error) from error
        finally:
            with anyio.CancelScope(shield=True):
                await attempts.end()
        await attempts.forget()
        return result

    def leave(self) -> None:
        """Have all jobs under way come to an end."""
        self._leaving = True
        for job in self._running:
            job.stop()

    async def attempt(self, job_id: str, arguments: Mapping[str, Any]) -> dict[str, object]:
        """Run a job once."""
        async with self.noted(self.job(job_id, **arguments)) as job:
            return await job.run()

    @asynccontextmanager
    async def noted(self, job: Job) -> AsyncIterator[Job]:
        """A job that can be told to stop until the block ends."""
        self._running.add(job)
        try:
            if self._leaving:
                job.stop()
            yield job
        finally:
            self._running.discard(job)

    def job(self, job_id: str, **arguments: Any) -> Job:
        """The job of some arguments."""
        match self.queue.kind:
            case "card":
                return CardJob(self.studio, **arguments)
            case "deck":
                return DeckJob(self.studio, **arguments)
            case _:
                return ImportJob(self.studio, **arguments, send=partial(self.send_deck, job_id))

    async def send_deck(self, import_id: str, deck: str) -> None:
        """Have the media of a deck made when there is nothing more urgent."""
        arguments = {"deck": deck, "priority": int(Priority.BULK)}
        await self.decks.send(arguments, Priority.BULK, f"{import_id}:{deck}")

    async def verdict(
        self, job_id: str, arguments: Mapping[str, Any], attempts: Attempts, error: Exception
    ) -> Exception:
        """What is to be raised for a job that failed."""
        excused = is_excused(error) or worth_waiting_for(error)
        number = await attempts.failed(excused)
        options = self.queue.options
        if not excused and (number >= options.tries or isinstance(error, HOPELESS)):
            return await self.bury(job_id, arguments, error, number)
        delay = 0.0 if self._leaving else pause(options, number)
        log.warning(
            "%s %s failed, and is tried again in %g s: %s", self.queue.kind, job_id, delay, said(error)
        )
        return StreaqRetry(said(error), delay=timedelta(seconds=delay))

    async def bury(
        self, job_id: str, arguments: Mapping[str, Any], error: Exception, attempts: int
    ) -> Exception:
        """List a job as a dead letter; returns what is to be raised."""
        cause = said(error)
        letter = DeadLetter(job_id, self.queue.kind, dict(arguments), cause, attempts, datetime.now(UTC))
        try:
            await self.studio.database.bury(letter)
        except SQLAlchemyError as away:
            return StreaqRetry(said(away), delay=timedelta(seconds=self.queue.options.longest_pause))
        log.error("%s %s failed for good: %s", self.queue.kind, job_id, cause)
        return Buried(cause, getattr(error, "result", None))


def said(error: Exception) -> str:
    """An error in a line."""
    words = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return (words or type(error).__name__)[:MOST_SAID]

"""Workers as processes: killed, or told to end; nothing is lost, and nothing is paid for twice."""

import signal
from pathlib import Path

import anyio
import pytest

from examples.database import Deck, opened
from examples.queueing.priorities import Priority
from examples.queueing.queue import JobQueue
from examples.settings import Settings
from tests.examples.conftest import load
from tests.examples.workshop import DEADLINE, Workshop, own_workshop, standin_url, until  # noqa: F401 - fixtures
from tests.postgres import Postgres, postgres  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

WORDS = "一二三四五六七八九十上下大小人口手山水火"
NORMAL = Priority.NORMAL


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_database_that_is_away_is_waited_for(
    own_workshop: Workshop,  # noqa: F811
    postgres: Postgres,  # noqa: F811
) -> None:
    workshop, place = own_workshop, postgres.new_database()
    await load(place)
    config = workshop.config(FLASHCARDS_DATABASE_URL=place)
    await save_deck(config)
    workshop.turn(text={"slow": 1}, picture={"slow": 1}, sound={"slow": 1})
    async with workshop.working("deck", FLASHCARDS_DATABASE_URL=place) as queue:
        job = await queue.send({"deck": "deck", "priority": 0}, NORMAL)
        await until(lambda: workshop.calls.get("text", 0) >= 3)
        await anyio.to_thread.run_sync(postgres.stop)
        await anyio.sleep(2)
        await anyio.to_thread.run_sync(postgres.start)
        assert (await queue.result_by_id(job, DEADLINE)).result["saved"] == len(WORDS)
    assert set(workshop.answered.values()) == {1}


async def save_deck(config: Settings) -> None:
    async with opened(config.database) as database:
        await database.save_deck(Deck("deck", WORDS))


async def test_a_killed_worker_s_job_runs_again_elsewhere_and_pays_only_for_what_was_under_way(
    own_workshop: Workshop,  # noqa: F811
    tmp_path: Path,
) -> None:
    workshop, config = own_workshop, own_workshop.config()
    await save_deck(config)
    workshop.turn(text={"slow": 1}, picture={"slow": 1}, sound={"slow": 1})
    async with JobQueue("deck", config.queue) as queue:
        with workshop.process("deck", tmp_path / "log") as first:
            job = await queue.send({"deck": "deck", "priority": 0}, NORMAL)
            await until(lambda: workshop.calls.get("picture", 0) >= 5)
            first.kill()
        async with workshop.working("deck"):
            result = await queue.result_by_id(job, DEADLINE)
    assert result.success
    assert result.result["saved"] == len(WORDS)
    repeated = sum(count - 1 for count in workshop.answered.values())
    assert repeated <= 3 * config.deck.concurrency  # of 80: of each card three calls may be under way


async def test_a_worker_that_is_told_to_end_finishes_its_cards_and_leaves_the_rest(
    own_workshop: Workshop,  # noqa: F811
    tmp_path: Path,
) -> None:
    workshop, config = own_workshop, own_workshop.config()
    await save_deck(config)
    workshop.turn(text={"slow": 1}, picture={"slow": 1}, sound={"slow": 1})
    more = {"FLASHCARDS_DECK_CONCURRENCY": "4"}
    async with JobQueue("deck", config.queue) as queue:
        with workshop.process("deck", tmp_path / "log", **more) as first:
            job = await queue.send({"deck": "deck", "priority": 0}, NORMAL)
            await until(lambda: workshop.calls.get("picture", 0) >= 2)
            first.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(first.wait, DEADLINE) == 0
        async with opened(config.database) as database:
            progress = await database.progress("deck")
        assert 0 < progress.complete == progress.texts < len(WORDS)
        async with workshop.working("deck"):
            assert (await queue.result_by_id(job, DEADLINE)).result["saved"] == len(WORDS)
    assert set(workshop.answered.values()) == {1}

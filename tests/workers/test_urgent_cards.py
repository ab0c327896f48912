"""A card that a user asks for goes first everywhere: its time is nearly that on an idle fleet."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import pytest

from examples import fleet, settings
from examples.database import Database, Deck, opened
from examples.fleet import Fleet, Plan
from examples.priorities import Priority
from examples.queueing import JobQueue
from examples.sources import from_hsk
from tests.examples.conftest import loaded_file  # noqa: F401 - a fixture

SPEED = 1.9  # the quotas of texts and pictures stay so low that no permit is booked ahead
WORDS = from_hsk(1500).wanted

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def started(folder: Path, loaded: Path) -> AsyncIterator[Fleet]:
    """A fleet with the dictionary's characters."""
    shutil.copy(loaded, folder / "cards.db")
    places = {
        "FLASHCARDS_DATABASE_URL": str(folder / "cards.db"),
        "FLASHCARDS_MEDIA_FOLDER": str(folder / "m"),
    }
    workers = {"card": 1, "deck": 2, "import": 1}
    async with fleet.started(Plan(folder=folder, workers=workers, speed=SPEED, environment=places)) as all_:
        yield all_


async def against_its_path(cards: JobQueue, word: str) -> float:
    """What a card takes, against what its text and its picture took."""
    began = anyio.current_time()
    job = await cards.send({"word": word, "priority": int(Priority.INTERACTIVE)}, Priority.INTERACTIVE)
    done: Any = (await cards.result_by_id(job, 60)).result
    path: float = done["text"]["calling"] + done["picture"]["calling"]
    return (anyio.current_time() - began) / path


async def make_busy(database: Database, decks: JobQueue, imports: JobQueue) -> None:
    """Three decks, and an import of a thousand characters."""
    for number in range(3):
        name, at = f"deck {number}", 1100 + 100 * number
        await database.save_deck(Deck(name, WORDS[at : at + 100]))
        await decks.send({"deck": name, "priority": int(Priority.NORMAL)}, Priority.NORMAL)
    await imports.send({"name": "hsk", "words": WORDS[100:1100], "priority": 0}, Priority.BULK)


async def test_a_card_takes_hardly_longer_while_an_import_and_three_decks_run(
    tmp_path: Path,
    loaded_file: Path,  # noqa: F811
) -> None:
    async with started(tmp_path, loaded_file) as all_:
        config = settings.load(all_.environment)
        async with (
            opened(config.database) as database,
            JobQueue("card", config.queue) as cards,
            JobQueue("deck", config.queue) as decks,
            JobQueue("import", config.queue) as imports,
        ):
            idle = [await against_its_path(cards, word) for word in WORDS[:3]]
            await make_busy(database, decks, imports)
            await anyio.sleep(10 / SPEED)
            busy = [await against_its_path(cards, word) for word in WORDS[10:14]]
            assert (await decks.depth()).running == 3
            assert (await imports.depth()).running == 1
    assert median(busy) <= 1.2 * median(idle), (idle, busy)

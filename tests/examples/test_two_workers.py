"""Two workers that have the same job, as happens after an outage of Redis for long."""

import anyio
import pytest

from examples import studio
from examples.database import Deck
from examples.deck_worker import DeckJob
from examples.import_worker import ImportJob
from examples.queueing import claims
from examples.queueing.priorities import Priority
from tests.examples.workshop import Workshop, own_workshop, standin_url, until  # noqa: F401 - fixtures
from tests.servers import Server

pytestmark = pytest.mark.anyio

WORDS = "一二三四五六七八九十上下大小"
NORMAL = int(Priority.NORMAL)
LEASE = 1.5  # seconds
AWAY = 3.0
SCARCE = {"FLASHCARDS_TEXT_RATE": "0.1", "FLASHCARDS_TEXT_BURST": "2"}  # two calls a second


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("cut", ["killed", "silent"])
async def test_a_deck_that_two_workers_make_after_an_outage_is_paid_for_once(
    own_workshop: Workshop,  # noqa: F811
    own_server: Server,
    cut: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "LEASE", LEASE)
    workshop, config = own_workshop, own_workshop.config(**SCARCE)
    own_server.do("CONFIG", "SET", "appendonly", "yes")
    begin, end = (
        (own_server.kill, own_server.start) if cut == "killed" else (own_server.pause, own_server.resume)
    )
    async with studio.opened(config) as one, studio.opened(config) as other:
        await one.database.save_deck(Deck("deck", WORDS))
        async with anyio.create_task_group() as group:
            group.start_soon(DeckJob(one, "deck", NORMAL).run)
            await until(lambda: workshop.calls.get("text", 0) >= 3)
            await anyio.to_thread.run_sync(begin)
            await anyio.sleep(AWAY)
            await anyio.to_thread.run_sync(end)
            group.start_soon(DeckJob(other, "deck", NORMAL).run)
        assert (await one.database.progress("deck")).complete == len(WORDS)
    assert set(workshop.answered.values()) == {1}
    assert len(workshop.answered) == 4 * len(WORDS)


async def test_an_import_that_two_workers_make_after_an_outage_is_paid_for_once(
    own_workshop: Workshop,  # noqa: F811
    own_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "LEASE", LEASE)
    workshop = own_workshop
    config = workshop.config(**SCARCE, FLASHCARDS_BULK_IMPORT_BATCH_SIZE="2")
    sent: list[str] = []

    async def send(deck: str) -> None:
        sent.append(deck)

    async with (
        studio.opened(config) as one,
        studio.opened(config) as other,
        anyio.create_task_group() as group,
    ):
        group.start_soon(ImportJob(one, "hsk", WORDS, 0, send).run)
        await until(lambda: workshop.calls.get("text", 0) >= 2)
        await anyio.to_thread.run_sync(own_server.pause)
        await anyio.sleep(AWAY)
        await anyio.to_thread.run_sync(own_server.resume)
        group.start_soon(ImportJob(other, "hsk", WORDS, 0, send).run)
    assert set(workshop.answered.values()) == {1}
    assert workshop.calls == {"text": len(WORDS)}
    assert sent == ["hsk-01", "hsk-01"]  # of one id, so that the queue takes it once

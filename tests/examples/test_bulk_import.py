"""The worker in process: real database, real dictionary, the SDK, and a stand-in without a network."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from sqlalchemy import text as sql
from starlette.applications import Starlette

from batchkit import CallStarted
from batchkit.presets import Quota
from batchkit.testing import RecordingHook
from examples import settings
from examples.bulk_import import BulkImport
from examples.database import Database
from examples.database.dictionary import Dictionary, Entry
from examples.errors import NotAllowed, NotSaved
from examples.language.prompt import Text
from examples.language.words import Word, card, question
from examples.services.endpoint import Endpoint
from examples.services.text import TextService
from examples.standin import Config, create_app

SPEED = 100.0
CHARACTERS = "一二三四五六七八九十上下大小人口手山水火木日月"
UNKNOWN = "𠀀"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class House:
    """A worker with all that it needs."""

    def __init__(self, database: Database, app: Starlette, key: str = "a key") -> None:
        self.database, self.app = database, app
        self.config = settings.load({})
        self.hook = RecordingHook()
        limiter = Quota(rate=2 * SPEED, burst=5).bucket()
        transport = httpx2.ASGITransport(app)
        self.text = TextService(
            Endpoint("http://127.0.0.1/v1", key, SPEED), self.config.text, limiter, 14, transport
        )

    def importer(self) -> BulkImport:
        return BulkImport(self.database, Dictionary(self.database), self.text, self.config, [self.hook])

    async def run(self, words: str) -> BulkImport:
        importer = self.importer()
        await importer.run(await importer.new(list(words)))
        return importer

    async def saved(self) -> set[str]:
        return await self.database.known([*CHARACTERS, *UNKNOWN])

    @property
    def answers(self) -> list[Any]:
        return [entry.answer for entry in self.app.state.ledger.entries]


@asynccontextmanager
async def house(loaded: Database, **switches: object) -> AsyncIterator[House]:
    chosen: Mapping[str, Mapping[str, object]] = {"text": switches}
    opened = House(loaded, create_app(Config(speed=SPEED, switches=chosen)))
    async with opened.text:
        yield opened


async def test_few_words_share_a_burst_of_calls_and_there_is_one_save_for_a_batch(loaded: Database) -> None:
    async with house(loaded) as worker:
        importer = await worker.run(CHARACTERS)
        assert await worker.saved() == set(CHARACTERS)
        assert worker.answers == ["ok"] * 5  # 23 words
        assert loaded.traffic.rows == 23
        assert importer.seconds > 0
        assert not importer.failures


async def test_what_is_there_is_not_asked_for(loaded: Database) -> None:
    async with house(loaded) as worker:
        await worker.run(CHARACTERS[:10])
        await worker.run(CHARACTERS)
        assert worker.answers == ["ok"] * (2 + 3)
        assert await worker.importer().new(list(CHARACTERS)) == []


async def test_what_the_dictionary_does_not_know_is_left_out(loaded: Database) -> None:
    async with house(loaded) as worker:
        importer = await worker.run(UNKNOWN + "好")
        assert importer.unknown == [UNKNOWN]
        assert not importer.failures
        assert worker.answers == ["ok"]


async def test_a_bad_word_stands_alone_and_is_named(loaded: Database) -> None:
    async with house(loaded, poison=["六"]) as worker:
        importer = await worker.run(CHARACTERS[:10])
        assert list(importer.failures) == ["六"]
        assert "malformed" in importer.failures["六"]
        assert await worker.saved() == set(CHARACTERS[:10]) - {"六"}
        assert len(worker.answers) <= 9  # 1 + 2 * ceil(log2 10)


async def test_in_an_outage_nothing_is_split_and_everything_is_named(loaded: Database) -> None:
    async with house(loaded, error_rate=1.0) as worker:
        importer = await worker.run(CHARACTERS)
        budget = worker.text.calls.retry.budget
        assert budget
        while budget.failed():
            pass
        calls = len(worker.answers)
        importer = await worker.run(CHARACTERS)
        assert len(worker.answers) == calls + 5
        assert importer.failures.keys() == set(CHARACTERS)


async def test_a_key_that_is_refused_ends_the_run(loaded: Database) -> None:
    async def refuse(scope: object, receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    worker = House(loaded, Starlette())
    worker.text = TextService(
        Endpoint("http://127.0.0.1/v1", "sk-secret", SPEED),
        worker.config.text,
        worker.text.calls.limiter,
        14,
        httpx2.ASGITransport(refuse),
    )
    async with worker.text:
        with pytest.raises(NotAllowed, match="does not accept the API key"):
            await worker.run(CHARACTERS)


async def test_a_database_that_takes_nothing_ends_the_run(loaded: Database) -> None:
    async with loaded.engine.begin() as connection:
        await connection.execute(sql("drop table cards"))
    async with house(loaded) as worker:
        with pytest.raises(NotSaved, match=r"no such table|does not exist"):
            await worker.importer().run(CHARACTERS)


async def test_stop_takes_no_more_and_keeps_what_was_begun(loaded: Database) -> None:
    async with house(loaded) as worker:
        importer = worker.importer()
        importer.hooks = [lambda event: importer.stop() if isinstance(event, CallStarted) else None]
        await importer.run([chr(code) for code in range(0x4E00, 0x4E00 + 1000)])
        assert 10 <= await loaded.count() < 1000
        assert set(worker.answers) == {"ok"}


async def test_two_workers_at_once_on_one_database(loaded_place: str) -> None:
    databases = [await Database.open(loaded_place) for _ in range(2)]
    async with house(databases[0]) as one, house(databases[1]) as other, anyio.create_task_group() as group:
        group.start_soon(one.run, CHARACTERS)
        group.start_soon(other.run, CHARACTERS)
    assert await databases[0].known(CHARACTERS) == set(CHARACTERS)
    assert await databases[0].count() == len(CHARACTERS)
    for database in databases:
        await database.close()


def test_the_model_is_told_the_usual_meanings() -> None:
    word = Word("好", (Entry("hǎo", tuple("123456")), Entry("hào", tuple("7890")), Entry("Hǎo", ("name",))))
    asked = question(word)
    assert (asked.word, asked.pinyin) == ("好", "hǎo, hào")
    assert asked.definitions == list("12345678")


def test_a_card_has_all_meanings_by_reading() -> None:
    word = Word(
        "后", (Entry("hòu", ("empress",)), Entry("hòu", ("back", "after")), Entry("Hòu", ("surname",)))
    )
    made = card(word, Text(word="后", mnemonic="m", example="e", example_pinyin="p", example_translation="t"))
    assert made.definitions == {"hòu": ["empress", "back", "after"], "Hòu": ["surname"]}
    assert (made.pinyin, made.mnemonic, made.example_translation) == ("hòu", "m", "t")

"""Cards are kept, whole batches at a time, and brought up to date instead of doubled."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from sqlalchemy import delete

from examples.database import Card, Database, cards, chunks
from examples.dictionary import Dictionary
from examples.errors import UsageError

POSTGRESQL = os.environ.get("TEST_POSTGRESQL")  # a URL with an empty database, for whoever has one


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def card(word: str, mnemonic: str = "a hook") -> Card:
    return Card(word, "hǎo", {"hǎo": ["good"]}, mnemonic, "你好！", "nǐ hǎo", "Hello!")


@pytest.mark.anyio
async def test_a_batch_is_one_round_trip(database: Database) -> None:
    before = database.traffic.round_trips
    assert sorted(await database.save([card(word) for word in "一二三四五六七八九十"])) == sorted(
        "一二三四五六七八九十"
    )
    assert (database.traffic.round_trips - before, database.traffic.rows) == (1, 10)
    assert await database.count() == 10


@pytest.mark.anyio
async def test_saving_again_brings_up_to_date(database: Database) -> None:
    await database.save([card("好"), card("你")])
    await database.save([card("好", "another hook")])
    assert await database.cards(["你", "好", "学"]) == [card("你"), card("好", "another hook")]
    assert await database.count() == 2


@pytest.mark.anyio
async def test_known_is_one_query_for_many_words(database: Database) -> None:
    await database.save([card("好"), card("你")])
    before = database.traffic.round_trips
    assert await database.known([*map(chr, range(0x4E00, 0x4E00 + 9000)), "好"]) == {"好", "你"}
    assert database.traffic.round_trips - before == 1


@pytest.mark.anyio
async def test_many_callers_save_at_once(database: Database) -> None:
    async with anyio.create_task_group() as group:
        for batch in chunks(map(chr, range(0x4E00, 0x4E00 + 400)), 10):
            group.start_soon(database.save, [card(word) for word in batch])
    assert await database.count() == 400


@pytest.mark.anyio
async def test_a_plain_path_is_a_file_and_stays_one(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        file = tmp_path / name
        database = await Database.open(str(file) if name == "a.db" else f"sqlite:///{file}")
        await database.save([card("好")])
        assert database.place == str(file)
        await database.close()
        with closing(sqlite3.connect(file)) as connection, connection:
            assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
            assert connection.execute("select word from cards").fetchall() == [("好",)]
        connection.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("mysql://root:secret@host/name", "only SQLite files and PostgreSQL"),
        ("sqlite://", "names no file"),
        ("://", "no URL that can be read"),
        ("no/such/folder/cards.db", "There is no folder"),
        ("postgresql://user:secret@127.0.0.1:1/name", "cannot be used"),
    ],
)
async def test_what_cannot_be_opened_is_one_sentence(place: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as raised:
        await Database.open(place)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.anyio
async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(UsageError, match="not a database"):
        await Database.open(str(tmp_path / "letter.txt"))


@pytest.fixture
async def postgresql() -> AsyncIterator[Database]:
    database = await Database.open(POSTGRESQL or "")
    async with database.engine.begin() as connection:
        await connection.execute(delete(cards))
    yield database
    await database.close()


@pytest.mark.anyio
@pytest.mark.skipif(not POSTGRESQL, reason="TEST_POSTGRESQL names no database")
async def test_the_same_on_postgresql(postgresql: Database) -> None:
    await Dictionary(postgresql).load()
    assert await Dictionary(postgresql).load() is False
    assert [entry.pinyin for entry in (await Dictionary(postgresql).look_up(["好"]))["好"]] == ["hǎo", "hào"]
    before = postgresql.traffic.round_trips
    await postgresql.save([card("好"), card("你")])
    assert postgresql.traffic.round_trips - before == 1
    await postgresql.save([card("好", "another hook")])
    assert await postgresql.known("你好学") == {"你", "好"}
    assert await postgresql.cards(["好"]) == [card("好", "another hook")]

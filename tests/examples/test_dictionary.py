"""The dictionary is loaded whole or not at all, and knows all readings of a word."""

import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import anyio
import pytest
from sqlalchemy import func, select

from examples.database import Database, dictionary
from examples.database.dictionary import Dictionary, Entry, entries, usual_first


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def size(database: Database) -> int:
    async with database.engine.connect() as connection:
        return (await connection.scalars(select(func.count()).select_from(entries))).one()


@pytest.mark.anyio
async def test_all_of_it_is_loaded_once(database: Database) -> None:
    assert await Dictionary(database).load() is True
    assert await size(database) == 122_143
    assert await Dictionary(database).load() is False


@pytest.mark.anyio
async def test_fifty_words_are_one_query(loaded: Database) -> None:
    words = [chr(code) for code in range(0x4E00, 0x4E00 + 50)]
    before = loaded.traffic.round_trips
    found = await Dictionary(loaded).look_up(words)
    assert list(found) == words
    assert loaded.traffic.round_trips - before == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("word", "readings"),
    [
        ("好", ["hǎo", "hào"]),
        ("愛", ["ài"]),
        ("爱", ["ài"]),
        ("女", ["nǚ", "rǔ"]),
        ("〇", ["líng"]),
        ("𠀀", []),
    ],
)
async def test_all_readings_of_a_word(loaded: Database, word: str, readings: list[str]) -> None:
    found = (await Dictionary(loaded).look_up([word]))[word]
    assert [entry.pinyin for entry in found] == readings
    assert all(entry.definitions for entry in found)


@pytest.mark.anyio
async def test_an_interrupted_load_leaves_nothing_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def broken_off() -> Iterator[dict[str, object]]:
        yield from rows[:15_000]  # up to the second of the statements
        raise Killed

    rows = list(islice(dictionary.read_cedict(), 20_000))
    monkeypatch.setattr(dictionary, "read_cedict", broken_off)
    with pytest.raises(Killed):
        await Dictionary(database).load()
    assert await size(database) == 0
    monkeypatch.setattr(dictionary, "read_cedict", lambda: iter(rows))
    assert await Dictionary(database).load() is True
    assert await size(database) == 20_000


@pytest.mark.anyio
async def test_two_that_load_at_once_load_once(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"simplified": "好", "traditional": "好", "pinyin": "hao3", "definitions": ["good"]}
    monkeypatch.setattr(dictionary, "read_cedict", lambda: iter([row]))
    databases = [await Database.open(place) for _ in range(2)]
    loaded: list[bool] = []

    async def load(database: Database) -> None:
        loaded.append(await Dictionary(database).load())

    async with anyio.create_task_group() as group:
        for database in databases:
            group.start_soon(load, database)
    assert sorted(loaded) == [False, True]
    assert await size(databases[0]) == 1
    for database in databases:
        await database.close()


@pytest.mark.anyio
async def test_a_newer_edition_takes_the_place_of_the_old_one(
    loaded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"simplified": "好", "traditional": "好", "pinyin": "hao3", "definitions": ["good"]}
    monkeypatch.setattr(dictionary, "read_cedict", lambda: iter([row]))
    monkeypatch.setattr(dictionary, "SOURCE", "a newer edition")
    assert await Dictionary(loaded).load() is True
    assert await size(loaded) == 1
    assert await Dictionary(loaded).load() is False


def test_the_file_has_what_its_head_says(loaded_file: Path) -> None:
    connection = sqlite3.connect(loaded_file)
    assert connection.execute("select source from dictionary_loads").fetchall() == [(dictionary.SOURCE,)]
    connection.close()


def test_names_come_after_words() -> None:
    name, word = Entry("Hǎo", ("surname Hao",)), Entry("hǎo", ("good",))
    assert usual_first([name, word]) == (word, name)

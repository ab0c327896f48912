"""Databases for the examples' tests: each test runs on SQLite and on PostgreSQL.

SQLAlchemy's asyncio layer knows asyncio only, so a module that uses these has its `anyio_backend` say so.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from examples.database import Database, dictionary
from tests.postgres import Postgres, postgres, session_postgres  # noqa: F401 - fixtures
from tests.s3 import s3, s3_port  # noqa: F401 - fixtures


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database: the name of a file, or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "flashcards.db")
    server: Postgres = request.getfixturevalue("session_postgres")
    return server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def loaded_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database with the dictionary's characters and no cards."""
    if request.param == "sqlite":
        return str(shutil.copy(request.getfixturevalue("loaded_file"), tmp_path / "loaded.db"))
    server: Postgres = request.getfixturevalue("session_postgres")
    template: str = request.getfixturevalue("loaded_template")
    return server.new_database(template)


@pytest.fixture(scope="session")
def loaded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the characters of the dictionary in it; to be copied."""
    file = tmp_path_factory.mktemp("loaded") / "flashcards.db"
    anyio.run(load, str(file))
    return file


@pytest.fixture(scope="session")
def loaded_template(session_postgres: Postgres) -> str:  # noqa: F811
    """The name of a database of PostgreSQL with the characters of the dictionary; to be copied."""
    url = session_postgres.new_database()
    anyio.run(load, url)
    return urlsplit(url).path.removeprefix("/")


async def load(place: str) -> None:
    """Load those words of the dictionary that are one character: a tenth of it."""
    characters = [row for row in dictionary.read_cedict() if len(str(row["simplified"])) == 1]
    database = await Database.open(place)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(dictionary, "read_cedict", lambda: iter(characters))
        await dictionary.Dictionary(database).load()
    await database.close()


@pytest.fixture
async def database(place: str) -> AsyncIterator[Database]:
    """An empty database."""
    database = await Database.open(place)
    yield database
    await database.close()


@pytest.fixture
async def loaded(loaded_place: str) -> AsyncIterator[Database]:
    """A database with the dictionary's characters and no cards."""
    database = await Database.open(loaded_place)
    yield database
    await database.close()

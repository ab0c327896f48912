"""Databases for the examples' tests.

SQLAlchemy's asyncio layer knows asyncio only, so a module that uses these has its `anyio_backend` say so.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from examples.database import Database
from examples.dictionary import Dictionary


@pytest.fixture(scope="session")
def loaded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the dictionary in it; to be copied."""

    async def load() -> None:
        database = await Database.open(str(file))
        await Dictionary(database).load()
        await database.close()

    file = tmp_path_factory.mktemp("loaded") / "flashcards.db"
    anyio.run(load)
    return file


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    database = await Database.open(str(tmp_path / "flashcards.db"))
    yield database
    await database.close()


@pytest.fixture
async def loaded(tmp_path: Path, loaded_file: Path) -> AsyncIterator[Database]:
    """A database with the dictionary and no cards."""
    database = await Database.open(str(shutil.copy(loaded_file, tmp_path / "loaded.db")))
    yield database
    await database.close()

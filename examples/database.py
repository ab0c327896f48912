"""Where the cards are kept: an SQLite file, or PostgreSQL.

What costs time with a database is the number of round trips and of commits, not the number of rows. So a
batch of cards is one transaction with one statement, and both are counted.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio
from attrs import asdict, define, field, frozen
from sqlalchemy import JSON, Column, DateTime, MetaData, String, Table, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from examples.errors import UsageError

T = TypeVar("T")

KEYS_IN_A_QUERY = 10_000  # SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535
LOCK_TIMEOUT = 30  # seconds that SQLite waits while another program writes into the file
OLDEST_SQLITE = (3, 35)  # the first with `returning`

metadata = MetaData()
cards = Table(
    "cards",
    metadata,
    Column("word", String, primary_key=True),
    Column("pinyin", String, nullable=False),
    Column("definitions", JSON, nullable=False),  # by reading: {"hǎo": ["good", ...], "hào": [...]}
    Column("mnemonic", String, nullable=False),
    Column("example", String, nullable=False),
    Column("example_pinyin", String, nullable=False),
    Column("example_translation", String, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("updated", DateTime(timezone=True), nullable=False),
)


@frozen
class Card:
    """A flashcard.

    Attributes:
        word: what is to be learnt, as it was given (simplified or traditional).
        pinyin: its readings, the usual one first.
        definitions: what it means, by reading.
        mnemonic: how to remember it.
        example: a sentence with it; its pinyin and translation follow.
    """

    word: str
    pinyin: str
    definitions: dict[str, list[str]]
    mnemonic: str
    example: str
    example_pinyin: str
    example_translation: str


@define
class Traffic:
    """What went over the wire.

    Attributes:
        round_trips: statements sent.
        rows: cards written.
    """

    round_trips: int = 0
    rows: int = 0


@define(eq=False)
class Database:
    """The cards, and whatever else the workers keep.

    Attributes:
        engine: SQLAlchemy's, for tables of others.
        traffic: counted since the start.
    """

    engine: AsyncEngine
    traffic: Traffic = field(factory=Traffic)

    @classmethod
    async def open(cls, file_or_url: str) -> Self:
        """The database, with its tables; an SQLite file is made if there is none.

        Raises:
            UsageError: it cannot be opened, or is of a kind that this does not know.
        """
        url = parsed_url(file_or_url)
        database = cls(create_async_engine(url, **engine_options(url)))
        event.listen(database.engine.sync_engine, "before_cursor_execute", database._count)
        if is_sqlite(url):
            event.listen(database.engine.sync_engine, "connect", set_pragmas)
        try:
            with said_in_a_sentence(url):
                async with database.transaction() as connection:
                    await connection.run_sync(metadata.create_all)
        except UsageError:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction of its own.

        Shielded from cancellation: what is written here was paid for, and takes milliseconds. (Besides, a
        statement that an anyio scope cancels leaves a task of aiosqlite 0.22 behind which never ends.)
        """
        with anyio.CancelScope(shield=True):
            async with self.engine.begin() as connection:
                yield connection

    async def save(self, batch: Sequence[Card]) -> list[str]:
        """Insert cards, or bring them up to date: one transaction, one statement. Returns their words.

        The words of a batch are distinct, as PostgreSQL demands.
        """
        now = datetime.now(UTC)
        rows = [{**asdict(card), "created": now, "updated": now} for card in batch]
        async with self.transaction() as connection:
            result = await connection.execute(upsert(self.engine.dialect.name), rows)
            saved = [word for (word,) in result]
        self.traffic.rows += len(saved)
        return saved

    async def known(self, words: Iterable[str]) -> set[str]:
        """Those of the words that have a card."""
        found: set[str] = set()
        async with self.transaction() as connection:
            for chunk in chunks(words, KEYS_IN_A_QUERY):
                found.update(await connection.scalars(select(cards.c.word).where(cards.c.word.in_(chunk))))
        return found

    async def cards(self, words: Sequence[str]) -> list[Card]:
        """A few cards, in the order of their words."""
        columns = [column for column in cards.c if column.name not in ("created", "updated")]
        async with self.transaction() as connection:
            rows = await connection.execute(select(*columns).where(cards.c.word.in_(words)))
            found = {row.word: Card(**row._mapping) for row in rows}
        return [found[word] for word in words if word in found]

    async def count(self) -> int:
        """How many cards there are."""
        async with self.transaction() as connection:
            return (await connection.scalars(select(func.count()).select_from(cards))).one()

    async def close(self) -> None:
        """Give the connections back."""
        await self.engine.dispose()

    @property
    def place(self) -> str:
        """Where the cards are, without the password."""
        url = self.engine.url
        return str(url.database) if is_sqlite(url) else url.set(drivername="postgresql").render_as_string()

    def _count(self, *_: object) -> None:
        self.traffic.round_trips += 1


def upsert(dialect: str) -> Any:
    """Insert, or update all but `created`, and say which words there are now."""
    statement = sqlite.insert(cards) if dialect == "sqlite" else postgresql.insert(cards)
    fresh = {
        column.name: statement.excluded[column.name]
        for column in cards.c
        if column.name not in ("word", "created")
    }
    return statement.on_conflict_do_update(index_elements=[cards.c.word], set_=fresh).returning(cards.c.word)


def parsed_url(file_or_url: str) -> URL:
    """The URL of an SQLite file or of PostgreSQL, with the driver that is used here."""
    if "://" not in file_or_url:
        return sqlite_url(file_or_url)
    try:
        url = make_url(file_or_url)
    except (ArgumentError, ValueError):
        raise UsageError("--database is no URL that can be read: try postgresql://user@host/name.") from None
    match url.drivername.partition("+")[0]:
        case "sqlite":
            return sqlite_url(url.database or "")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise UsageError(f"--database {other}://...: only SQLite files and PostgreSQL are known here.")


def sqlite_url(file: str) -> URL:
    """The URL of an SQLite file."""
    if not file:
        raise UsageError("--database names no file.")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise UsageError(f"SQLite 3.35 or newer is needed; this Python has {sqlite3.sqlite_version}.")
    path = Path(file).absolute()
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent} for the database {path.name}.")
    return URL.create("sqlite+aiosqlite", database=str(path))


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def engine_options(url: URL) -> dict[str, Any]:
    """How to connect. SQLite has one writer, so one connection: whose line is fair, as a lock's is not."""
    if is_sqlite(url):
        return {"pool_size": 1, "max_overflow": 0, "connect_args": {"timeout": LOCK_TIMEOUT}}
    return {"pool_size": 5, "pool_pre_ping": True}


def set_pragmas(connection: Any, _: object) -> None:
    """What SQLite needs to know about each connection."""
    cursor = connection.cursor()
    cursor.execute("pragma journal_mode = wal")  # readers and the writer do not wait for each other
    cursor.execute("pragma synchronous = normal")  # safe when a process is killed; one sync less for a commit
    cursor.close()


@contextmanager
def said_in_a_sentence(url: URL) -> Iterator[None]:
    """What goes wrong when a database is opened, as one sentence without the password."""
    place = url.render_as_string()  # which hides the password
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise UsageError(f"The database {place} cannot be used: {cause}.") from None


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk

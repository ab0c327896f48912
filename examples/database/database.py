"""The database, as the workers see it: whole batches, each in one round trip."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, ParamSpec, Self, TypeVar

import anyio
from attrs import asdict, define, field
from sqlalchemy import Executable, Row, delete, event, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from examples import settings
from examples.database import schema, statements
from examples.database.connecting import (
    CONNECTIONS,
    LOCK_TIMEOUT,
    engine_for,
    is_sqlite,
    said_in_a_sentence,
)
from examples.database.model import (
    Card,
    DeadLetter,
    Deck,
    Progress,
    cards,
    dead_letters,
    deck_words,
    decks,
    metadata,
)
from examples.database.waiting import is_locked, worth_waiting_for
from examples.errors import UsageError
from examples.media.patience import patient

T = TypeVar("T")
P = ParamSpec("P")

PATIENCE = 60.0  # seconds that a database is waited for: a restart or a fail-over takes up to 30
ANSWER_TIMEOUT = 30.0  # seconds for a statement
TRANSACTION_TIMEOUT = 300.0  # seconds for several of them
A_MOMENT = 0.005  # seconds: what most statements take
ROWS_IN_A_STATEMENT = 1000  # what SQLAlchemy puts into one
KEYS_IN_A_QUERY = 10_000  # SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535


@define
class Traffic:
    """What went over the wire.

    Attributes:
        round_trips: statements sent, among them the beginning and the end of a transaction that has several.
        rows: cards written.
    """

    round_trips: int = 0
    rows: int = 0


@define(eq=False)
class Database:
    """The cards, and whatever else the workers keep. Waits for a database that is away for a while.

    Attributes:
        engine: SQLAlchemy's, for tables of others; a statement is a transaction of its own.
        patience: seconds that a call waits for a database which is away, or an SQLite file which is locked.
        traffic: counted since the start.
    """

    engine: AsyncEngine
    patience: float = PATIENCE
    traffic: Traffic = field(factory=Traffic)
    _under_way: int = 0

    @classmethod
    async def open(
        cls, file_or_url: str, *, patience: float = PATIENCE, connections: int = CONNECTIONS
    ) -> Self:
        """The database, with its tables; an SQLite file is made if there is none.

        Args:
            file_or_url: an SQLite file, or a PostgreSQL URL.
            patience: seconds that a call waits for a database which is away; opening waits for nothing but
                an SQLite file that is locked, and that for seconds at most.
            connections: to PostgreSQL, at most.

        Raises:
            UsageError: it cannot be opened, or is of a kind that this does not know.
        """
        database = cls(engine_for(file_or_url, connections), patience)
        event.listen(database.engine.sync_engine, "before_cursor_execute", database._count)
        try:
            with said_in_a_sentence(database.engine.url):
                # SQLite does not wait for another process when it switches a new file to its log.
                await patient(LOCK_TIMEOUT, is_locked)(database._make_tables)
        except UsageError:
            await database.close()
            raise
        return database

    async def save(self, batch: Iterable[Card]) -> list[Card]:
        """Insert cards, or add to those that are there, by one statement. Returns them as they are then.

        Steps that are None are left alone, and a text that is there stays: so two workers may write the same
        card. To have one made anew, `forget` it first.

        Args:
            batch: of distinct words, as PostgreSQL demands.
        """
        now = datetime.now(UTC)
        rows = {card.word: {**asdict(card), "created": now, "updated": now} for card in batch}
        saved: dict[str, Card] = {}
        # In one order for all: else workers that save the same cards would lock each other out.
        for some in chunks(sorted(rows), ROWS_IN_A_STATEMENT):
            statement = statements.upsert_cards(self._dialect)
            found = await self.execute(statement, [rows[word] for word in some])
            saved.update(by_word(found))
        self.traffic.rows += len(saved)
        return [saved[word] for word in rows]

    async def known(self, words: Iterable[str]) -> set[str]:
        """Those of the words that have a card."""
        found: set[str] = set()
        for chunk in chunks(words, KEYS_IN_A_QUERY):
            rows = await self.execute(select(cards.c.word).where(cards.c.word.in_(chunk)))
            found.update(word for (word,) in rows)
        return found

    async def cards(self, words: Iterable[str]) -> list[Card]:
        """The cards of the words that have one, in the order of the words; one query."""
        wanted = list(words)
        found: dict[str, Card] = {}
        for chunk in chunks(wanted, KEYS_IN_A_QUERY):
            query = select(*statements.CARD).where(cards.c.word.in_(chunk))
            found.update(by_word(await self.execute(query)))
        return [found[word] for word in wanted if word in found]

    async def count(self) -> int:
        """How many cards there are."""
        ((count,),) = await self.execute(select(func.count()).select_from(cards))
        return int(count)

    async def forget(self, words: Iterable[str]) -> None:
        """Drop cards; their media stay in the store."""
        for chunk in chunks(words, KEYS_IN_A_QUERY):
            await self.execute(delete(cards).where(cards.c.word.in_(chunk)))

    async def save_deck(self, deck: Deck) -> None:
        """Save a deck, in place of one of the same name. Its words need no cards yet."""
        await self.patiently(self._save_deck, deck)

    async def deck(self, name: str) -> Deck | None:
        """A deck; one query."""
        rows = await self.execute(statements.deck_in_order(name))
        return Deck(name, [word for (word,) in rows if word is not None]) if rows else None

    async def progress(self, deck: str) -> Progress:
        """How far a deck is; one query."""
        ((words, texts, complete),) = await self.execute(statements.deck_progress(deck))
        return Progress(words, texts, complete)

    async def bury(self, letter: DeadLetter) -> None:
        """List a job that failed for good, so that somebody may look at it and send it again."""
        statement = statements.upsert(dead_letters, self._dialect)
        await self.execute(statement, [{**asdict(letter), "arguments": dict(letter.arguments)}])

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Jobs that failed for good, the last ones first."""
        rows = await self.execute(statements.newest_dead_letters(limit))
        return [dead_letter(row) for row in rows]

    async def unbury(self, ids: Iterable[str]) -> None:
        """Take jobs off that list: after they were sent again, so that none is lost between."""
        await self.execute(delete(dead_letters).where(dead_letters.c.id.in_(list(ids))))

    async def execute(self, statement: Executable, rows: Sequence[Any] | None = None) -> Sequence[Any]:
        """One statement, which is a transaction of its own; returns the rows of its answer.

        It is sent again if the database went away before it answered: so it has to be one that does no harm
        when it is carried out twice.
        """
        return await self.patiently(self._execute, statement, rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which several statements are carried out together, or none."""
        begin = "begin immediate" if self._dialect == "sqlite" else "begin"  # or its lock may come too late
        with self._undisturbed(TRANSACTION_TIMEOUT):
            async with self.engine.connect() as connection:  # which rolls back what is not committed
                await connection.exec_driver_sql(begin)
                yield connection
                await connection.exec_driver_sql("commit")

    async def patiently(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns; it is done anew as long as the database is away, for `patience` seconds."""
        return await patient(self.patience, worth_waiting_for)(work, *args, **kwargs)

    async def close(self) -> None:
        """Give the connections back, when what is under way has ended, also if nobody waits for it."""
        with anyio.CancelScope(shield=True):
            while self._under_way:  # noqa: ASYNC110 - that ends in milliseconds, and only here is it asked
                await anyio.sleep(A_MOMENT)
            await self.engine.dispose()

    @property
    def place(self) -> str:
        """Where the cards are, without the password."""
        url = self.engine.url
        return str(url.database) if is_sqlite(url) else url.set(drivername="postgresql").render_as_string()

    @property
    def _dialect(self) -> str:
        return self.engine.dialect.name

    async def _make_tables(self) -> None:
        async with self.engine.connect() as connection:
            if await connection.run_sync(schema.is_complete, metadata):
                return
        async with self.transaction() as connection:
            await connection.run_sync(schema.complete, metadata)

    async def _execute(self, statement: Executable, rows: Sequence[Any] | None) -> Sequence[Any]:
        with self._undisturbed(ANSWER_TIMEOUT):
            async with self.engine.connect() as connection:
                result = await connection.execute(statement, rows)
                return result.all() if result.returns_rows else ()

    async def _save_deck(self, deck: Deck) -> None:
        row = {"name": deck.name, "created": datetime.now(UTC)}
        async with self.transaction() as connection:
            await connection.execute(
                statements.upsert(decks, self._dialect), [row]
            )  # who saves it, too, waits
            await connection.execute(delete(deck_words).where(deck_words.c.deck == deck.name))
            if deck.words:
                await connection.execute(statements.insert(deck_words, self._dialect), deck_rows(deck))

    @contextmanager
    def _undisturbed(self, seconds: float) -> Iterator[None]:
        """Shielded from cancellation: what is written here was paid for, and takes milliseconds.

        A PostgreSQL that does not answer is given up. (SQLite ends by itself. A statement of aiosqlite 0.22
            that is cancelled leaves a task behind which never ends.)
        """
        longest = None if self._dialect == "sqlite" else seconds
        self._under_way += 1
        try:
            with anyio.CancelScope(shield=True), anyio.fail_after(longest):
                yield
        except TimeoutError:
            raise TimeoutError(f"no answer within {seconds:g} s") from None
        finally:
            self._under_way -= 1

    def _count(self, *_: object) -> None:
        self.traffic.round_trips += 1


@asynccontextmanager
async def opened(options: settings.Database) -> AsyncIterator[Database]:
    """The database of the settings; it is closed at the end of the block. Raises UsageError."""
    database = await Database.open(options.url, patience=options.patience, connections=options.connections)
    try:
        yield database
    finally:
        await database.close()


def by_word(rows: Iterable[Row[Any]]) -> dict[str, Card]:
    """The cards of some rows."""
    return {row.word: Card(**row._mapping) for row in rows}


def deck_rows(deck: Deck) -> list[dict[str, object]]:
    return [{"deck": deck.name, "position": place, "word": word} for place, word in enumerate(deck.words)]


def dead_letter(row: Row[Any]) -> DeadLetter:
    """The value of a row. SQLite keeps no time zone: it is UTC."""
    failed = row.failed if row.failed.tzinfo else row.failed.replace(tzinfo=UTC)
    return DeadLetter(**{**row._mapping, "failed": failed})


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk

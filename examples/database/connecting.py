"""From a file name or a URL to an engine, and what goes wrong on the way in a sentence."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from examples.errors import UsageError

CONNECTIONS = 5  # of a process to PostgreSQL, which takes 100 in all by default
CONNECT_TIMEOUT = 5  # seconds
LOCK_TIMEOUT = 5  # seconds that SQLite waits while another program writes into the file
OLDEST_SQLITE = (3, 35)  # the first with `returning`


def engine_for(file_or_url: str, connections: int = CONNECTIONS) -> AsyncEngine:
    """An engine whose statements are transactions of their own; it connects when it is used.

    Raises:
        UsageError: this is neither an SQLite file nor a PostgreSQL URL.
    """
    url = parsed_url(file_or_url)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", **engine_options(url, connections))
    if is_sqlite(url):
        event.listen(engine.sync_engine, "connect", set_pragmas)
    return engine


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


def engine_options(url: URL, connections: int) -> dict[str, Any]:
    """How to connect. SQLite has one writer, so one connection: whose line is fair, as a lock's is not."""
    if is_sqlite(url):
        return {"pool_size": 1, "max_overflow": 0, "connect_args": {"timeout": LOCK_TIMEOUT}}
    arguments = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "flashcards"}
    return {"pool_size": connections, "max_overflow": 0, "connect_args": arguments}


def set_pragmas(connection: Any, _: object) -> None:
    """What SQLite needs to know about each connection."""
    cursor = connection.cursor()
    cursor.execute("pragma journal_mode = wal")  # readers and the writer do not wait for each other
    cursor.execute("pragma synchronous = normal")  # safe when a process is killed; one sync less for a commit
    cursor.execute("pragma foreign_keys = on")  # as they are everywhere else
    cursor.close()


@contextmanager
def said_in_a_sentence(url: URL) -> Iterator[None]:
    """What goes wrong when a database is opened, as one sentence without the password."""
    place = url.render_as_string()  # which hides the password
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise UsageError(f"The database {place} cannot be used: {cause or type(error).__name__}.") from None

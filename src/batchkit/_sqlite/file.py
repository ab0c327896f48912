"""A database file in which checkpoints are: how it is opened, its format, and words for what goes wrong."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Literal

from batchkit._clock import MONOTONIC
from batchkit.exceptions import CheckpointError

Synchronous = Literal["normal", "full"]

_PROGRAM: Final = 0x62617463  # "batc": by this number, in its header, a file is known as ours
_FORMAT: Final = 1
_PATIENCE: Final = 30.0  # seconds for which another process that writes to the file is waited for
_PAUSE: Final = 0.01  # seconds between two looks whether it is free
_TABLES: Final = (
    """
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        UNIQUE (name, version)
    )
    """,
    """
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY,
        journal INTEGER NOT NULL REFERENCES journal,
        key TEXT NOT NULL,
        value BLOB,
        error TEXT,
        item TEXT,
        attempts INTEGER NOT NULL,
        seconds REAL NOT NULL,
        UNIQUE (journal, key)
    )
    """,
    "CREATE INDEX failed ON entry (journal) WHERE error IS NOT NULL",
)
_DAMAGED: Final = "the file is damaged, or no database: restore it, or remove it to begin anew"
_WORDS: Final = {
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file, or its folder, is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened, or made",
    sqlite3.SQLITE_PERM: "there is no right to the file",
    sqlite3.SQLITE_BUSY: f"another process kept the file busy for {_PATIENCE:g} s",
    sqlite3.SQLITE_IOERR: "the disk does not do what it is told",
}


def connect(path: str, synchronous: Synchronous) -> sqlite3.Connection:
    """A connection to the file, which is made if it is not there; for any thread, one at a time.

    Raises:
        CheckpointError: it is not ours, or cannot be used.
    """
    with speaking(path):
        connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            with transaction(connection, "DEFERRED"):
                is_new = not _is_ours(connection, path)
            if is_new:
                _make(connection, path)
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute(f"PRAGMA fullfsync = {int(synchronous == 'full')}")  # heard on macOS only
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def speaking(path: str) -> Generator[None]:
    """Have errors of the database raised as ours."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        words = _WORDS.get(code, "the database cannot do it")
        raise CheckpointError(f"{path}: {words} ({error})") from error


@contextmanager
def transaction(
    connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE"
) -> Generator[None]:
    """Do all of it, or nothing; see the file as it was at one moment."""
    if connection.in_transaction:  # one that Ctrl-C struck before it was in our hands
        connection.execute("ROLLBACK")
    try:
        connection.execute(f"BEGIN {kind}")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors end it by themselves
            connection.execute("ROLLBACK")
        raise


def size(path: str) -> int:
    """Bytes of the file and its log."""
    return sum(os.path.getsize(part) for part in (path, f"{path}-wal") if os.path.exists(part))


def _is_ours(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the tables are there; not in a new file, which is empty."""
    program, format_ = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if program == _PROGRAM and format_ <= _FORMAT:
        return True
    if program == _PROGRAM:
        raise CheckpointError(
            f"{path}: a newer batchkit wrote the file (format {format_}; this one knows {_FORMAT}): upgrade"
        )
    if program or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise CheckpointError(f"{path}: the file is the database of another program: choose another path")
    return False


def _make(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has to come before all else
    _write_ahead(connection)
    with transaction(connection):
        if not _is_ours(connection, path):  # another process may have been faster
            for table in _TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id = {_PROGRAM}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch the log on. Alone of all statements it does not wait for another process that looks at the file
    just then, such as one that makes it, too.
    """
    for _ in range(int(_PATIENCE / _PAUSE)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            MONOTONIC.sleep_sync(_PAUSE)
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

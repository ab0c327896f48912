"""The journal of one executor and one version of its function, as rows in a database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from batchkit._sqlite.file import transaction

# key, value as bytes, error, attempts, seconds, item as JSON
Row: TypeAlias = tuple[str, bytes | None, str | None, int, float, str | None]

_AT_ONCE: Final = 500  # keys in one question: every SQLite takes 999
_FIELDS: Final = "key, value, error, attempts, seconds, item"
_FIND: Final = f"SELECT {_FIELDS} FROM entry WHERE journal = ? AND key IN "
_FAILED: Final = f"SELECT {_FIELDS} FROM entry WHERE journal = ? AND error IS NOT NULL ORDER BY id"
_WRITE: Final = f"""
    INSERT INTO entry (journal, {_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (journal, key) DO UPDATE SET
        value = excluded.value, error = excluded.error, attempts = excluded.attempts,
        seconds = excluded.seconds, item = excluded.item
"""
_OUTDATED: Final = "(SELECT id FROM journal WHERE name = ? AND id <> ?)"


class Journal:
    """Reads and writes the rows. Errors are the database's.

    Args:
        connection: to the file.
        name: the executor's.
        version: the function's.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, version: str) -> None:
        self._connection = connection
        self._name = name
        with transaction(connection):
            connection.execute("INSERT OR IGNORE INTO journal (name, version) VALUES (?, ?)", (name, version))
        question = "SELECT id FROM journal WHERE name = ? AND version = ?"
        self._id: int = connection.execute(question, (name, version)).fetchone()[0]

    def find(self, keys: Sequence[str]) -> list[Row]:
        """The rows of these keys that are there."""
        rows: list[Row] = []
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            rows += self._connection.execute(f"{_FIND} ({marks})", (self._id, *part))
        return rows

    def failed(self) -> list[Row]:
        """The rows with an error, in the order in which their items came in first."""
        return self._connection.execute(_FAILED, (self._id,)).fetchall()

    def write(self, rows: Iterable[Row]) -> None:
        """Keep all of them, in place of what was there for their keys, or none."""
        with transaction(self._connection):
            self._connection.executemany(_WRITE, ((self._id, *row) for row in rows))

    def compact(self) -> int:
        """Drop what other versions left, make the file smaller, and return the number of rows dropped."""
        others = (self._name, self._id)
        with transaction(self._connection):
            dropped = self._connection.execute(f"DELETE FROM entry WHERE journal IN {_OUTDATED}", others)
            self._connection.execute(f"DELETE FROM journal WHERE id IN {_OUTDATED}", others)
        # one page with each step; `execute` makes one step only, since no step brings a row
        self._connection.executescript("PRAGMA incremental_vacuum")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return dropped.rowcount

    def count(self) -> tuple[int, int, int]:
        """Rows with a value, with an error, and of other versions."""
        everything = self._one("SELECT count(*) FROM entry WHERE journal = ?", self._id)
        failed = self._one("SELECT count(*) FROM entry WHERE journal = ? AND error IS NOT NULL", self._id)
        outdated = self._one(f"SELECT count(*) FROM entry WHERE journal IN {_OUTDATED}", self._name, self._id)
        return everything - failed, failed, outdated

    def _one(self, question: str, *values: object) -> int:
        return int(self._connection.execute(question, values).fetchone()[0])

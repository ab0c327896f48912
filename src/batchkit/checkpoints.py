"""Checkpoints: what became of each item, on disk, so that a run that was killed goes on where it was.

`SQLiteCheckpoint` is a journal in a file of SQLite. A checkpoint of your own is an object with the methods
of [`Checkpoint`][batchkit.abc.Checkpoint].
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote
from weakref import WeakSet

from batchkit._forks import FORKS, OwnLock
from batchkit._sqlite.lock import FileLock, Taken
from batchkit._values import CheckpointStatistics, Entry
from batchkit.abc import Codec
from batchkit.codecs import JSON
from batchkit.exceptions import CheckpointError, CheckpointLocked, NotStorable

if TYPE_CHECKING:
    import sqlite3

    from batchkit._sqlite.file import Synchronous
    from batchkit._sqlite.journal import Journal, Row

__all__ = ["CheckpointStatistics", "Entry", "SQLiteCheckpoint"]


class SQLiteCheckpoint:
    """A journal in a file of SQLite, by the executor's name, the function's version and the item's key.

    A file may hold the journals of several executors, each with a checkpoint of its own, and of several
    processes. One journal belongs to one run at a time; another one is refused with `CheckpointLocked`. The
    lock ends with the process, even if that is killed.

    When `write` returns, its entries outlive the process, however that ends. If the machine loses power, the
    last writes may be missing, and their items are called again; the file stays whole. With
    `synchronous="full"` each write waits for the disk and outlives that, too.

    The file belongs on a local disk: on most network file systems the locks of SQLite do not work. Beside it
    lie its log (`-wal`, `-shm`) and a lock file for each journal, as long as they are in use.

    Args:
        path: of the file, which is made. Its folder is not.
        version: of the function, as you count it. Change it when the values that are there would be wrong
            now: all items are called again. What other versions left stays until `compact`.
        codec: how values become bytes: an object, or module, with `encode` and `decode`. JSON by default, and
            of that only what comes back as it was: no tuples, which would be lists, and in a dict no keys but
            texts.
        retry_failed: whether items that failed in an earlier run are called again. Otherwise they fail again
            at once, without a call.
        synchronous: "normal" or "full", in SQLite's words.

    Attributes:
        path, version: as given, the path in full.

    Raises:
        ValueError: the path is no file's, or `synchronous` is neither.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        version: str,
        codec: Codec = JSON,
        retry_failed: bool = False,
        synchronous: Synchronous = "normal",
    ) -> None:
        if os.fspath(path) in ("", ":memory:"):
            raise ValueError("a checkpoint is to outlive the process: it needs the path of a file")
        if synchronous not in ("normal", "full"):
            raise ValueError(f'synchronous is "normal" or "full", not {synchronous!r}')
        self.path = os.path.realpath(path)
        self.version = version
        self._codec = codec
        self._retry_failed = retry_failed
        self._synchronous: Synchronous = synchronous
        self._guard = OwnLock()
        FORKS.wait_for(self._guard)
        self._lock: FileLock | None = None
        self._connection: sqlite3.Connection | None = None
        self._journal: Journal | None = None

    def open(self, name: str) -> None:
        """Begin to work for the executor of that name.

        Raises:
            CheckpointLocked: another run has its journal.
            CheckpointError: the file is damaged, another program's or a newer version's, or cannot be made.
        """
        with self._guard():
            if self._lock is not None:
                raise CheckpointLocked(
                    f"{self.path}: this checkpoint is in use: runs at the same time need one each, and names"
                    " of their own",
                    process=os.getpid(),
                )
            self._lock = FileLock(_lock_path(self.path, name))
            try:
                self._acquire(self._lock, name)
                self._connect(name)
                _OPEN.add(self)
            except BaseException:
                self._release()
                raise

    def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """What is known about these items; those that are to be called are not among them.

        Raises:
            CheckpointError: it cannot be read, or the codec does not know the values.
        """
        with self._opened() as journal:
            rows = journal.find([self._checked(key) for key in keys])
        entries = map(self._entry, rows)
        return {entry.key: entry for entry in entries if entry.ok or not self._retry_failed}

    def write(self, entries: Sequence[Entry]) -> None:
        """Keep all of these, or none if it raises. When it returns, they outlive the process.

        Raises:
            NotStorable: a value that the codec cannot keep.
            CheckpointError: they cannot be written: the disk is full, or read-only.
        """
        rows = [self._row(entry) for entry in entries]
        with self._opened() as journal:
            journal.write(rows)

    def dead_letters(self) -> list[Entry]:
        """The items that failed, with error and attempts, in the order in which they came.

        To call just these again, run the same items with `retry_failed=True`: all others are known.
        """
        with self._opened() as journal:
            rows = journal.failed()
        return [self._entry(row) for row in rows]

    def statistics(self) -> CheckpointStatistics:
        """How much is there."""
        from batchkit._sqlite import file

        with self._opened() as journal:
            succeeded, failed, outdated = journal.count()
        return CheckpointStatistics(succeeded, failed, outdated, file.size(self.path))

    def compact(self) -> int:
        """Drop what other versions of the function left, and give the room back to the disk.

        Returns:
            Items that were dropped.
        """
        with self._opened() as journal:
            return journal.compact()

    def close(self) -> None:
        """End the work, and let others have the journal. May be called again."""
        with self._guard():
            self._release()

    @contextmanager
    def opened(self, name: str) -> Generator[Self]:
        """Open it for a block, to look into it when no run is on."""
        self.open(name)
        try:
            yield self
        finally:
            self.close()

    def __repr__(self) -> str:
        return f"SQLiteCheckpoint({self.path!r}, version={self.version!r})"

    def _acquire(self, lock: FileLock, name: str) -> None:
        try:
            lock.acquire()
        except Taken as taken:
            by = "another process" if taken.process is None else f"process {taken.process}"
            raise CheckpointLocked(
                f"{self.path}: {by} has the journal of {name!r}: wait until that run is over, or take"
                " another name or file",
                process=taken.process,
            ) from None
        except OSError as error:
            raise CheckpointError(f"{self.path}: no lock file can be made beside it ({error})") from error

    def _connect(self, name: str) -> None:
        # late, so that `import batchkit` does not load a database
        from batchkit._sqlite import file, journal

        self._connection = file.connect(self.path, self._synchronous)
        with file.speaking(self.path):
            name, version = self._checked(name), self._checked(self.version)
            self._journal = journal.Journal(self._connection, name, version)

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._lock is not None:
            self._lock.release()
        self._journal = self._connection = self._lock = None
        _OPEN.discard(self)

    @contextmanager
    def _opened(self) -> Generator[Journal]:
        from batchkit._sqlite.file import speaking

        with self._guard(), speaking(self.path):
            if self._journal is None:
                raise CheckpointError(f"{self.path}: it is not open in this process: open(name) comes first")
            yield self._journal

    def _row(self, entry: Entry) -> Row:
        key, words = self._checked(entry.key), entry.error
        value = self._encoded(entry) if words is None else None
        item = None if words is None or entry.item is None else _told(entry.item)
        if words is not None:
            words = words.encode(errors="backslashreplace").decode()
        return key, value, words, entry.attempts, entry.seconds, item

    def _entry(self, row: Row) -> Entry:
        key, data, words, attempts, seconds, item = row
        try:
            value = None if data is None else self._codec.decode(data)
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: the codec {self._codec!r} cannot read the value of {key!r}: if it was written"
                " with another one, change version"
            ) from error
        return Entry(key, value, words, attempts, seconds, None if item is None else json.loads(item))

    def _encoded(self, entry: Entry) -> bytes:
        try:
            data = self._codec.encode(entry.value)
            if self._codec is JSON and JSON.decode(data) != entry.value:
                raise TypeError("it would come back as another one")
        except Exception as error:
            hint = ", such as one with a tuple, a set or NaN" if self._codec is JSON else ""
            raise NotStorable(
                f"{self.path}: {self._codec!r} cannot keep the value of {entry.key!r}{hint} ({error}): return"
                " another one, or give a codec=",
                key=entry.key,
            ) from error
        return data

    def _checked(self, text: str) -> str:
        """The text, if a database can hold it."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise NotStorable(f"{self.path}: {text!r} is no text that can be kept", key=text) from error
        return text

    def leave_to_parent(self) -> None:
        """In the child of a fork: be as if it had never been open."""
        if self._connection is not None:
            _FORSAKEN.append(self._connection)
        self._journal = self._connection = self._lock = None


def _lock_path(path: str, name: str) -> str:
    """Beside the file; of any name a short one, which no two names share."""
    digest = blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{path}-{quote(name, safe='', errors='replace')[:40]}-{digest}.lock"


def _told(item: Any) -> str:
    """The item as JSON, if need be of its repr."""
    try:
        return json.dumps(item)
    except Exception:  # whatever its encoder cannot hold
        return json.dumps(repr(item))


# The child of a fork must not use a connection of its parent, not even close it: one that is dropped is
# closed, so it is kept. It may open one of its own, for forks wait until no thread is amid SQLite.
_OPEN: Final[WeakSet[SQLiteCheckpoint]] = WeakSet()
_FORSAKEN: Final[list[sqlite3.Connection]] = []


def _leave_to_parent() -> None:
    for checkpoint in list(_OPEN):
        checkpoint.leave_to_parent()
    _OPEN.clear()


FORKS.then(_leave_to_parent)

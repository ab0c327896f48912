"""A file that one process at a time has. However that process ends, the lock ends with it."""

from __future__ import annotations

import os
import sys
from weakref import WeakSet

from batchkit._forks import FORKS

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # a byte beyond the text, since what is locked cannot be read there

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Taken(Exception):
    """Somebody else has the file.

    Attributes:
        process: its number, if it is known.
    """

    def __init__(self, process: int | None) -> None:
        self.process = process


class FileLock:
    """A lock on a file of its own, which holds the number of the process that has it.

    The file goes when the lock is released. A process that is killed leaves the file behind, but not the
    lock. A child of a fork does not have its parent's lock.

    Args:
        path: the file; made if it is not there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take it, or raise.

        Raises:
            Taken: another one has it, in this process or another.
            OSError: the file cannot be made, or locked.
        """
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._descriptor = self._taken(descriptor)
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        _HELD.add(self)

    def release(self) -> None:
        """Give it back; nothing happens if it is not held."""
        descriptor = self._descriptor
        if descriptor is None:
            return
        _HELD.discard(self)
        if sys.platform != "win32" and self._is_there(descriptor):  # there nobody can remove an open file
            os.unlink(self._path)
        self._descriptor = None
        os.close(descriptor)

    def drop(self) -> None:
        """Forget it without giving it back: it is the parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _taken(self, descriptor: int) -> int | None:
        """The descriptor, locked; None if its owner removed the file just then, so that it is no lock any
        more.
        """
        try:
            _take(descriptor)
        except (BlockingIOError, PermissionError):
            raise Taken(_number(os.read(descriptor, 20))) from None
        if not self._is_there(descriptor):
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        return descriptor

    def _is_there(self, descriptor: int) -> bool:
        """Whether the file that is open is the one at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() else None


_HELD: WeakSet[FileLock] = WeakSet()


def _drop_in_child() -> None:
    for lock in list(_HELD):
        lock.drop()
    _HELD.clear()


FORKS.then(_drop_in_child)

"""Who looks up what an earlier run left, and keeps what is done: a task, or a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

from batchkit._running.archive import Archive
from batchkit._running.desk import Desk
from batchkit._running.lobby import Lobby
from batchkit.abc import Clock

T = TypeVar("T")
R = TypeVar("R")


class Archiving(Generic[T, R]):
    """Tends the archive of a run in an event loop.

    Args:
        archive, desk, lobby, clock: the run's.
        heard: called when there may be something to call, or to read.
        failed: called when the run cannot go on.
    """

    def __init__(
        self,
        archive: Archive[T, R],
        desk: Desk[T, R],
        lobby: Lobby,
        clock: Clock,
        *,
        heard: Callable[[], object],
        failed: Callable[[], object],
    ) -> None:
        self._archive = archive
        self._desk = desk
        self._lobby = lobby
        self._clock = clock
        self._heard = heard
        self._failed = failed

    async def open(self, name: str) -> None:
        """Begin."""
        await anyio.to_thread.run_sync(self._archive.open, name)

    async def tend(self) -> None:
        """Do what there is to do, until cancelled."""
        try:
            while True:
                await self._look_up()
                await self._commit()
                if not self._desk.has_paperwork:
                    parker = self._clock.parker()
                    self._lobby.helpers.append(parker)
                    await parker.park()
        except Exception as error:
            self._desk.ending.fails(error)
            self._failed()

    async def close(self) -> None:
        """Keep the rest, and end."""
        with anyio.CancelScope(shield=True):
            try:
                await self._commit()
            except Exception as error:
                self._desk.ending.fails(error)
            await anyio.to_thread.run_sync(self._archive.close)

    async def _look_up(self) -> None:
        if jobs := self._desk.take_unknown():
            self._desk.place_known(jobs, await anyio.to_thread.run_sync(self._archive.find, jobs))
            self._heard()

    async def _commit(self) -> None:
        """Keep what is done, and then deliver it."""
        while self._archive.pending:
            with anyio.CancelScope(shield=True):
                kept = await anyio.to_thread.run_sync(self._archive.keep, self._archive.take())
                self._desk.delivery.deliver(kept)
                kept.clear()  # the thread may have it a little longer
            self._heard()


class ThreadArchiving(Generic[T, R]):
    """The twin for plain threads.

    Args:
        archive, desk: the run's.
        lock: held by whoever comes to the desk.
        heard: called, with the lock held, when there may be something to call or to read.
        failed: called, with the lock held, when the run cannot go on.
    """

    def __init__(
        self,
        archive: Archive[T, R],
        desk: Desk[T, R],
        lock: threading.RLock,
        *,
        heard: Callable[[], object],
        failed: Callable[[], object],
    ) -> None:
        self._archive = archive
        self._desk = desk
        self._lock = lock
        self._heard = heard
        self._failed = failed
        self._one_at_a_time = threading.Lock()
        self._closed = False

    def open(self, name: str) -> None:
        """Begin."""
        self._archive.open(name)

    def tend(self) -> None:
        """Do what there is to do now."""
        with self._one_at_a_time:
            if not self._closed:
                self._work()

    def close(self) -> None:
        """Keep the rest, and end."""
        with self._one_at_a_time:
            self._work()
            self._archive.close()
            self._closed = True

    def _work(self) -> None:
        try:
            self._look_up()
            self._commit()
        except Exception as error:
            with self._lock:
                self._desk.ending.fails(error)
                self._failed()

    def _look_up(self) -> None:
        with self._lock:
            jobs = self._desk.take_unknown()
        if jobs:
            known = self._archive.find(jobs)
            with self._lock:
                self._desk.place_known(jobs, known)
                self._heard()

    def _commit(self) -> None:
        while self._archive.pending:
            with self._lock:
                pending = self._archive.take()
            kept = self._archive.keep(pending)
            with self._lock:
                self._desk.delivery.deliver(kept)
                kept.clear()  # or else they would live on while the next ones are kept
                self._heard()

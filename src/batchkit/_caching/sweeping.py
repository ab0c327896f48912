"""Sweeps of a cache from time to time, in a task or in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import anyio

from batchkit._background import Cancellable, spawn
from batchkit.abc import Clock, SyncParker


class Sweeping:
    """Sweeps a cache from time to time while its block runs: `async with` in a task, `with` in a thread.

    Its sweeps are in parts, between which others go on.
    """

    def __init__(self, every: float, sweep_in_parts: Callable[[], Iterator[int]], clock: Clock) -> None:
        self._every = every
        self._sweep_in_parts = sweep_in_parts
        self._clock = clock
        self._task: Cancellable | None = None
        self._ended: anyio.Event | None = None
        self._thread: tuple[threading.Thread, SyncParker] | None = None
        self._over = False

    async def __aenter__(self) -> None:
        self._refuse_twice()
        self._ended = anyio.Event()
        self._task = spawn(self._sweep, self._ended.set)

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._task is not None
        assert self._ended is not None
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
        self._task = self._ended = None

    def __enter__(self) -> None:
        self._refuse_twice()
        self._over = False
        parker = self._clock.parker_sync()
        thread = threading.Thread(target=self._sweep_sync, args=(parker,), name="batchkit sweep", daemon=True)
        self._thread = thread, parker
        thread.start()

    def __exit__(self, *exc_info: object) -> None:
        assert self._thread is not None
        thread, parker = self._thread
        self._over = True
        parker.unpark()
        thread.join()
        self._thread = None

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(self._every)
            for _ in self._sweep_in_parts():
                await anyio.lowlevel.checkpoint()

    def _sweep_sync(self, parker: SyncParker) -> None:
        until = self._clock.now() + self._every
        while not self._over:
            parker.park_sync(until)
            if self._clock.now() >= until:
                for _ in self._sweep_in_parts():
                    if self._over:
                        return
                until = self._clock.now() + self._every

    def _refuse_twice(self) -> None:
        if self._task is not None or self._thread is not None:
            raise RuntimeError("these sweeps run already")

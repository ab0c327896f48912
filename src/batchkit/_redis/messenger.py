"""Who carries the questions of a tier to Redis: one at a time, and with it all questions that others have
meanwhile, in one round trip.

A thread carries its own question; for tasks, whatever their event loop, a thread of the messenger does so.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, Final

from attrs import define

from batchkit._clock import MONOTONIC
from batchkit._parking import Parker, SyncParker
from batchkit._redis.bundles import apart, bundled, handed_out, size, together
from batchkit._redis.link import ERRORS, Link, bare, is_scattered
from batchkit._redis.scripts import Command

_log = logging.getLogger("batchkit")

_IDLE: Final = 5.0  # seconds after which the thread ends
_FEW: Final = 2  # commands, that have nothing in common
_AT_ONCE: Final = 1024  # keys, about, in one round trip


@define(eq=False)
class _Letter:
    commands: Sequence[Command]
    parker: Parker | None = None
    replies: list[Any] | None = None

    @property
    def size(self) -> int:
        """For how many keys it is."""
        return sum(map(size, self.commands))


class Messenger:
    """Asks Redis.

    Args:
        link: the way to Redis.
        timeout: seconds within which Redis has to answer.
    """

    def __init__(self, link: Link, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._scattered = False  # whether keys of one command have to be of one slot
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # held by whoever carries
        self._inbox: deque[_Letter] = deque()
        self._carried: list[_Letter] = []
        self._parker: SyncParker | None = None  # of the thread

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to some commands; those that were refused, or that nobody answers, are errors."""
        parker = MONOTONIC.parker()
        letter = _Letter(commands, parker)
        self._hand_over(letter)
        while letter.replies is None:
            await parker.park()
        return letter.replies

    def ask_sync(self, commands: Sequence[Command]) -> list[Any]:
        """The blocking twin of `ask`."""
        letter = _Letter(commands)
        self._inbox.append(letter)
        with self._turn:
            try:
                while letter.replies is None:  # or who had the turn before took it along
                    self._carry()
            except BaseException:  # Ctrl-C: others wait for what was carried along
                self._wake()
                raise
        return letter.replies

    def post(self, commands: Sequence[Command]) -> None:
        """Tell Redis something whose answer nobody waits for, before whatever is asked from now on."""
        self._hand_over(_Letter(commands))

    def close(self) -> None:
        """Hang up, once what was posted is told."""
        with self._turn:
            while self._inbox or self._carried:
                self._carry()
            self._link.close()

    def _hand_over(self, letter: _Letter) -> None:
        self._inbox.append(letter)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._parker is None:
                self._parker = MONOTONIC.parker_sync()
                name = "batchkit-messenger"
                threading.Thread(target=self._run, args=(self._parker,), name=name, daemon=True).start()
            self._parker.unpark()

    def _run(self, parker: SyncParker) -> None:
        while True:
            if self._inbox or self._carried:
                with self._turn:
                    self._carry()
                continue
            idle_at = MONOTONIC.now() + _IDLE
            parker.park_sync(idle_at)
            if MONOTONIC.now() >= idle_at and self._leave():
                return

    def _leave(self) -> bool:
        """End the thread, unless somebody came just now."""
        with self._lock:
            if self._inbox:
                return False
            self._parker = None
            return True

    def _carry(self) -> None:
        """Carry what is there; a letter stays until it has its answers, whatever happens."""
        carried = self._carried
        count = sum(letter.size for letter in carried)
        while self._inbox and count < _AT_ONCE:
            carried.append(self._inbox[0])
            count += self._inbox.popleft().size
        replies = iter(self._exchange([command for letter in carried for command in letter.commands]))
        for letter in carried:
            letter.replies = [next(replies) for _ in letter.commands]
            if letter.parker is not None:
                letter.parker.unpark()
        carried.clear()

    def _exchange(self, commands: Sequence[Command]) -> Sequence[Any]:
        if not commands:
            return []
        try:
            return self._exchange_well(commands)
        except ERRORS as error:
            return [bare(error)] * len(commands)
        except Exception as error:
            _log.error("a question to Redis failed", exc_info=error)
            return [bare(error)] * len(commands)

    def _exchange_well(self, commands: Sequence[Command]) -> Sequence[Any]:
        if not self._link.together:
            return self._link.exchange(commands, self._timeout)
        if not self._scattered:
            replies = self._exchange_bundled(commands)
            self._scattered = any(map(is_scattered, replies))
            if not self._scattered:
                return replies
        return self._exchange_apart(commands)

    def _exchange_bundled(self, commands: Sequence[Command]) -> Sequence[Any]:
        if len(commands) <= _FEW:
            return self._link.exchange(commands, self._timeout)
        bundles = bundled(commands)
        return handed_out(bundles, self._link.exchange([bundle.command for bundle in bundles], self._timeout))

    def _exchange_apart(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Each key by itself. To ask again what was answered before changes nothing."""
        parts = [apart(command) for command in commands]
        replies = iter(self._link.exchange(list(chain.from_iterable(parts)), self._timeout))
        return [
            together(command, list(islice(replies, len(own))))
            for command, own in zip(commands, parts, strict=True)
        ]

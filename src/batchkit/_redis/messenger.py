"""Who carries the questions of a tier to Redis: one at a time, and with it all questions that others have
meanwhile, in one round trip.

A thread carries its own question; for tasks, whatever their event loop, a thread of the messenger does so.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from attrs import define

from batchkit._clock import MONOTONIC
from batchkit._forks import FORKS
from batchkit._parking import Parker, SyncParker
from batchkit._redis.link import ERRORS, Command, Link, bare

_log = logging.getLogger("batchkit")

_IDLE: Final = 5.0  # seconds after which the thread ends
_AT_ONCE: Final = 1024  # commands, about, in one round trip


@define(eq=False)
class _Letter:
    commands: Sequence[Command]
    parker: Parker | None = None
    replies: list[Any] | None = None


class Messenger:
    """Asks Redis.

    Args:
        link: the way to Redis.
        timeout: seconds within which Redis has to answer.
    """

    def __init__(self, link: Link, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._start_anew()

    def _start_anew(self) -> None:
        self._process = FORKS.count
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # held by whoever carries
        self._inbox: deque[_Letter] = deque()
        self._carried: list[_Letter] = []
        self._parker: SyncParker | None = None  # of the thread
        self._link.forget()

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
        self._enter(letter)
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

    def _enter(self, letter: _Letter) -> None:
        if self._process != FORKS.count:
            self._start_anew()
        self._inbox.append(letter)

    def _hand_over(self, letter: _Letter) -> None:
        self._enter(letter)
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
        count = sum(len(letter.commands) for letter in carried)
        while self._inbox and count < _AT_ONCE:
            carried.append(self._inbox[0])
            count += len(self._inbox.popleft().commands)
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
            return self._link.exchange(commands, self._timeout)
        except ERRORS as error:
            return [bare(error)] * len(commands)
        except Exception as error:
            _log.error("a question to Redis failed", exc_info=error)
            return [bare(error)] * len(commands)

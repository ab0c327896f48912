"""Who hears of changes in Redis: one thread, with a connection to each server.

It hears by client tracking of all keys with a prefix. Where that is refused (by a proxy, or for want of
rights) it hears what the scripts of a tier publish. It is also the one who finds out that a server is there
again.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from random import SystemRandom
from typing import Any, Final, Protocol

from batchkit._clock import MONOTONIC
from batchkit._redis.entries import Names
from batchkit._redis.link import ERRORS, Line, Link
from batchkit._redis.resp import Refusal

_log = logging.getLogger("batchkit")

_BEAT: Final = 1.0  # seconds of silence after which a server is asked whether it is there
_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 0.4
_DEAF: Final = 30.0  # seconds after which it is tried again whether we may listen


class Owner(Protocol):
    """Whom the listener listens for."""

    def heard(self, names: list[str] | None) -> None:
        """These keys were changed; None: it is not known which."""
        ...

    def there(self, place: str) -> None:
        """A server answers, and what changes there is heard from now on."""
        ...

    def tick(self, now: float) -> None:
        """It is a while since."""
        ...


class Ear:
    """What is heard of one server.

    Args:
        pool: of whose kind the connection is.
        names: of the tier's keys.
        timeout: seconds within which the server has to answer.

    Attributes:
        line: the connection, if there is one.
        way: how changes are heard: "tracking", "pubsub", or "" for not at all.
        due: the moment at which something is to be done.
    """

    def __init__(self, pool: Any, names: Names, timeout: float) -> None:
        self.line: Line | None = None
        self.way = ""
        self.due = MONOTONIC.now()
        self._pool = pool
        self._names = names
        self._timeout = timeout
        self._failures = 0
        self._asked = False  # whether the server is there

    def open(self) -> bool:
        """Connect, and ask to be told; false if that failed."""
        try:
            line = Line(self._pool, self._timeout)
        except ERRORS:
            self.close()
            return False
        try:
            self.way = _tune_in(line, self._names)
        except (*ERRORS, ValueError):
            line.close()
            self.close()
            return False
        self.line, self._failures, self._asked = line, 0, False
        self.due = MONOTONIC.now() + (_BEAT if self.way else _DEAF)
        return True

    def hear(self) -> list[str] | None:
        """The names of what was changed; None if all may have been."""
        assert self.line is not None
        names: list[str] = []
        for said in self.line.hear():
            changed = _changed(said)
            if changed is None:
                return None
            names += changed
        self._asked, self.due = False, MONOTONIC.now() + _BEAT
        return names

    def beat(self) -> bool:
        """Ask whether the server is there; false if it did not answer the last time."""
        assert self.line is not None
        if self._asked or not self.way:  # a deaf one connects anew: it may have got rights
            return False
        self._asked, self.due = True, MONOTONIC.now() + self._timeout
        self.line.say("PING")
        return True

    def close(self) -> None:
        """Hang up, and come again soon."""
        if self.line is not None:
            self.line.close()
            self.line = None
        wait = min(_FIRST_RETRY * 2**self._failures, _LONGEST_RETRY)
        self._failures = min(self._failures + 1, 10)
        self.due = MONOTONIC.now() + wait * SystemRandom().uniform(0.75, 1.0)


def _tune_in(line: Line, names: Names) -> str:
    """Ask to be told of changes, and say by what way that is."""
    if line.newest:
        said = line.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", names.start)
        if not isinstance(said, Refusal):
            return "tracking"
    if not isinstance(line.ask("SUBSCRIBE", names.channel), Refusal):
        return "pubsub"
    return ""


def _changed(said: Any) -> list[str] | None:
    """The names that a server says were changed; None for all of them."""
    if said.__class__ is not list:
        return []
    if said[0] == b"invalidate":
        names: list[bytes] | None = said[1]
        return None if names is None else [name.decode(errors="replace") for name in names]
    return [said[2].decode(errors="replace")] if said[0] == b"message" else []


class Listener:
    """Listens until it is closed, or its owner is gone.

    Args:
        link: where the servers are.
        names: of the tier's keys.
        timeout: seconds within which a server has to answer.
        pause: seconds after which the owner is called at the latest.
        owner: gives whom to tell, or None if that is gone.
    """

    def __init__(
        self, link: Link, names: Names, timeout: float, pause: float, owner: Callable[[], Owner | None]
    ) -> None:
        self._link = link
        self._names = names
        self._timeout = timeout
        self._pause = min(pause, _BEAT)
        self._owner = owner
        self._ears: dict[str, Ear] = {}
        self._doubts: deque[str] = deque()
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._rung, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="batchkit-listener", daemon=True)

    @property
    def ways(self) -> set[str]:
        """How it hears of changes: "tracking", "pubsub", or "" for not at all."""
        return {ear.way if ear.line is not None else "" for ear in list(self._ears.values())} or {""}

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def doubt(self, place: str) -> None:
        """A server does not answer: connect to it anew, and say when it is there."""
        self._doubts.append(place)
        self._ring()

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        self._ring()

    def _ring(self) -> None:
        try:
            self._bell.send(b".")
        except OSError:  # it rings already, or nobody is there to hear it
            return

    def _run(self) -> None:
        try:
            while not self._closed and self._round():
                continue
        finally:
            for ear in self._ears.values():
                ear.close()
            self._selector.close()
            self._bell.close()
            self._rung.close()

    def _round(self) -> bool:
        """Do what is due, and wait for news; false if the owner is gone."""
        owner = self._owner()
        if owner is None:
            return False
        try:
            self._visit(owner)
            owner.tick(MONOTONIC.now())
            del owner  # who may go while nothing happens
            ready = self._wait()
            if (owner := self._owner()) is not None:
                self._hear_all(ready, owner)
        except Exception as error:
            _log.error("the listener failed", exc_info=error)
        return True

    def _visit(self, owner: Owner) -> None:
        while self._doubts:
            if (ear := self._ears.get(self._doubts.popleft())) is not None:
                self._lose(ear, owner)
                ear.due = MONOTONIC.now()
        self._follow_the_servers(owner)
        for place, ear in self._ears.items():
            if ear.due > MONOTONIC.now():
                continue
            if ear.line is None:
                self._open(place, ear, owner)
            else:
                self._beat(ear, owner)

    def _follow_the_servers(self, owner: Owner) -> None:
        """Listen to those that came, and no more to those that are gone."""
        places = self._link.places()
        for place in self._ears.keys() - places.keys():
            self._lose(self._ears.pop(place), owner)
        for place in places.keys() - self._ears.keys():
            self._ears[place] = Ear(places[place], self._names, self._timeout)

    def _open(self, place: str, ear: Ear, owner: Owner) -> None:
        if ear.open() and ear.line is not None:
            self._selector.register(ear.line.socket, selectors.EVENT_READ, ear)
            owner.there(place)
            owner.heard(None)  # nobody heard what was changed before

    def _beat(self, ear: Ear, owner: Owner) -> None:
        try:
            answered = ear.beat()
        except ERRORS:
            answered = False
        if not answered:
            self._lose(ear, owner)

    def _hear(self, ear: Ear, owner: Owner) -> None:
        try:
            names = ear.hear()
        except (*ERRORS, ValueError):
            self._lose(ear, owner)
        else:
            if names != []:
                owner.heard(names)

    def _lose(self, ear: Ear, owner: Owner) -> None:
        if ear.line is not None:
            self._selector.unregister(ear.line.socket)
            ear.close()
            owner.heard(None)

    def _wait(self) -> set[Any]:
        """Wait for news, or until something is due; which ears have something to hear."""
        until = min([ear.due for ear in self._ears.values()], default=0.0)
        if any(ear.line is not None and ear.line.waiting for ear in self._ears.values()):
            until = 0.0
        pause = min(max(0.0, until - MONOTONIC.now()), self._pause)
        ready = {key.data for key, _ in self._selector.select(pause)}
        if None in ready:
            self._rung.recv(1024)
        return ready

    def _hear_all(self, ready: set[Any], owner: Owner) -> None:
        for ear in list(self._ears.values()):
            if ear.line is not None and (ear in ready or ear.line.waiting):
                self._hear(ear, owner)

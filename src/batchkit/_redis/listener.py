"""Who hears of changes in Redis: one thread, with a connection to each server. It is also the one who finds
out that a server is there again.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from batchkit._clock import MONOTONIC
from batchkit._redis.ear import BEAT, Ear
from batchkit._redis.entries import Names
from batchkit._redis.link import ERRORS, Link

_log = logging.getLogger("batchkit")


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
        self._pause = min(pause, BEAT)
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

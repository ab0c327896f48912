"""What is heard of one server, on a connection of its own.

Changes are heard by client tracking of all keys with a prefix. Where that is refused (by a proxy, or for want
of rights) what the scripts of a tier publish is heard.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Any, Final

from batchkit._clock import MONOTONIC
from batchkit._redis.entries import Names
from batchkit._redis.link import ERRORS, Line
from batchkit._redis.resp import Refusal

BEAT: Final = 1.0  # seconds of silence after which a server is asked whether it is there
_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 0.4
_DEAF: Final = 30.0  # seconds after which it is tried again whether we may listen


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
        self.due = MONOTONIC.now() + (BEAT if self.way else _DEAF)
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
        self._asked, self.due = False, MONOTONIC.now() + BEAT
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

"""Whether a tier's Redis is there: what goes on without it, and what it has to be told when it is back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Final

from attrs import frozen

from batchkit._clock import MONOTONIC
from batchkit._events import Event, Hook, Reconnected, Unavailable, emit
from batchkit._redis.bundles import apart
from batchkit._redis.link import AWAY, ERRORS
from batchkit._redis.scripts import Command, Script

POLICIES: Final = ("local", "raise")
_MOST_OWED: Final = 10_000  # keys, tags and prefixes
_DOUBTED: Final = 5.0  # seconds after which a server is asked again, unless the listener finds it sooner


def refusal(answer: Any) -> Exception | None:
    """Why a command was refused, or was so for one of its keys."""
    if isinstance(answer, Exception):
        return answer
    if answer.__class__ is not list:
        return None
    return next((part for part in answer if isinstance(part, Exception)), None)


@frozen
class Trip:
    """Commands on their way.

    Attributes:
        asked: what is sent: what is owed, and those commands whose servers are there.
        owed: how many of them were owed.
        indexes: which of the commands the others are.
        replies: the answers to the commands, as far as they are known.
    """

    asked: list[Command]
    owed: int
    indexes: list[int]
    replies: list[Any]


class Presence:
    """Which servers are there.

    Args:
        name: of the tier, for events.
        policy: what it does without Redis.
        hooks: who hears of the switches.
        place: which server has a key.

    Attributes:
        policy: as given.
        alone: keys that were loaded without asking, since a server was away.
    """

    def __init__(self, name: str, policy: str, hooks: Iterable[Hook], place: Callable[[str], str]) -> None:
        if policy not in POLICIES:
            raise ValueError(f"on_unavailable is one of {', '.join(POLICIES)}, not {policy!r}")
        self.policy = policy
        self._name = name
        self._hooks = tuple(hooks)
        self._place_of = place
        self.alone = 0
        self._lock = threading.Lock()
        self._away: dict[str, tuple[Exception, float]] = {}  # servers, and when they are asked again
        self._refused: dict[Script | str, Exception] = {}
        self._owed: dict[Command, None] = {}
        self._since = inf
        self._alone_before = 0

    @property
    def unavailable(self) -> bool:
        """Whether Redis does not do what it is asked."""
        return bool(self._away or self._refused)

    @property
    def owes(self) -> bool:
        """Whether there is something to tell a server that is there."""
        return any(self._is_there(command, -inf) for command in list(self._owed))

    def owe(self, command: Command, instead: Command) -> None:
        """Tell Redis when it is back; `instead` stands for all, if that gets too much."""
        with self._lock:
            self._owed.update(dict.fromkeys(apart(command)))
            if len(self._owed) > _MOST_OWED:
                self._owed = {instead: None}

    def reachable(self, commands: Iterable[Command]) -> list[Command]:
        """Those whose servers are there."""
        now = MONOTONIC.now()
        return [command for command in commands if self._is_there(command, now)]

    def begin(self, commands: Sequence[Command]) -> Trip:
        """What can be asked now."""
        now = MONOTONIC.now()
        with self._lock:
            owed = [command for command in self._owed if self._is_there(command, now)]
            for command in owed:
                del self._owed[command]
            replies: list[Any] = [self._error(command, now) for command in commands]
        indexes = [index for index, reply in enumerate(replies) if reply is None]
        return Trip([*owed, *(commands[index] for index in indexes)], len(owed), indexes, replies)

    def end(self, trip: Trip, answers: Sequence[Any]) -> list[str]:
        """Take in the answers; returns the servers that are not there."""
        for index, answer in zip(trip.indexes, answers[trip.owed :], strict=True):
            trip.replies[index] = answer
        lost: dict[str, None] = {}
        with self._lock:
            for command, answer in zip(trip.asked, answers, strict=True):
                if isinstance(answer, AWAY):
                    lost[self._lose(command, answer)] = None
                elif (error := refusal(answer)) is not None:
                    self._refused[command[0]] = error
                else:
                    self._refused.pop(command[0], None)
            for command, answer in zip(trip.asked[: trip.owed], answers, strict=False):
                if isinstance(answer, Exception):
                    self._owed[command] = None
            event = self._switch()
        self._emit(event)
        return list(lost)

    def there(self, place: str) -> None:
        """A server is there again."""
        with self._lock:
            self._away.pop(place, None)
            event = self._switch()
        self._emit(event)

    def place(self, command: Command) -> str:
        """Which server a command is for."""
        try:
            return self._place_of(command[1][0])
        except ERRORS:  # nobody has that slot
            return ""

    def _is_there(self, command: Command, now: float) -> bool:
        return self._error(command, now) is None

    def _error(self, command: Command, now: float) -> Exception | None:
        if not self._away:
            return None
        error, until = self._away.get(self.place(command), (None, inf))
        return error if now < until else None

    def _lose(self, command: Command, error: Exception) -> str:
        place = self.place(command)
        self._away[place] = error, MONOTONIC.now() + _DOUBTED
        return place

    def _switch(self) -> Event | None:
        now = MONOTONIC.now()
        if self.unavailable == (self._since < inf):
            return None
        if self.unavailable:
            self._since, self._alone_before = now, self.alone
            errors = [*(error for error, _ in self._away.values()), *self._refused.values()]
            return Unavailable(self._name, self.policy, f"{type(errors[0]).__name__}: {errors[0]}")
        seconds, self._since = now - self._since, inf
        return Reconnected(self._name, seconds, self.alone - self._alone_before)

    def _emit(self, event: Event | None) -> None:
        if event is not None:
            emit(self._hooks, event)

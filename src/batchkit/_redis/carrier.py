"""Who carries the talks of a tier to Redis, in a task or in a thread, as far as Redis is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from batchkit._redis.bulletin import Talk
from batchkit._redis.messenger import Messenger
from batchkit._redis.presence import Presence, Trip, refusal
from batchkit._redis.scripts import Command
from batchkit.exceptions import TierUnavailable

T = TypeVar("T")


class Carrier:
    """Carries talks.

    Args:
        name: of the tier, for errors.
        messenger: who brings commands to Redis.
        presence: which servers are there.
        doubt: called with a server that did not answer.
    """

    def __init__(
        self, name: str, messenger: Messenger, presence: Presence, doubt: Callable[[str], None]
    ) -> None:
        self._name = name
        self._messenger = messenger
        self._presence = presence
        self._doubt = doubt

    async def run(self, talk: Talk[T]) -> T:
        """What comes of a talk.

        Raises:
            TierUnavailable: Redis cannot be asked, and that is to be told.
        """
        try:
            commands = next(talk)
            while True:
                trip = self._presence.begin(commands)
                answers = await self._messenger.ask(trip.asked) if trip.asked else []
                commands = talk.send(self._end(trip, answers))
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            talk.close()

    def run_sync(self, talk: Talk[T]) -> T:
        """The blocking twin of `run`."""
        try:
            commands = next(talk)
            while True:
                trip = self._presence.begin(commands)
                answers = self._messenger.ask_sync(trip.asked) if trip.asked else []
                commands = talk.send(self._end(trip, answers))
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            talk.close()

    def say(self, commands: Sequence[Command]) -> None:
        """Say something of which no answer is needed, and whatever is owed."""
        if commands or self._presence.owes:
            trip = self._presence.begin(commands)
            self._presence.end(trip, self._messenger.ask_sync(trip.asked))

    def post(self, commands: Sequence[Command]) -> None:
        """Have something said without waiting for it, to those servers that are there."""
        if reachable := self._presence.reachable(commands):
            self._messenger.post(reachable)

    def _end(self, trip: Trip, answers: Sequence[Any]) -> list[Any]:
        for place in self._presence.end(trip, answers):
            self._doubt(place)
        if self._presence.policy == "raise":
            error = next(filter(None, map(refusal, trip.replies)), None)
            if error is not None:
                reason = f"{type(error).__name__}: {error}"
                raise TierUnavailable(f"{self._name} cannot ask Redis ({reason})") from error
        return trip.replies

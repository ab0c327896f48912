"""How often a job was tried, and what is to become of it when it fails."""

from typing import Any

from attrs import define

from examples import settings
from examples.errors import (
    MediaAway,
    MediaRefused,
    NotAllowed,
    NotSaved,
    Unavailable,
    Unfinished,
    UnknownWord,
)

DAY = 86_400  # seconds that the counts of a job are kept after they changed last
HOPELESS = (NotAllowed, MediaRefused, UnknownWord)  # trying again changes nothing


def is_excused(error: Exception) -> bool:
    """Whether a failure is no fault of the job, and over after a while: something that it needs is away."""
    if isinstance(error, (NotSaved, Unfinished)):
        return error.passing
    return isinstance(error, (Unavailable, MediaAway))


def pause(options: settings.Queue, number: int) -> float:
    """Seconds before a job is tried again that failed for the `number`th time."""
    return float(min(options.longest_pause, options.pause * 2 ** min(number - 1, 30)))


@define(eq=False)
class Attempts:
    """The counts of one job, in Redis, since the next worker that tries it has to know them.

    Attributes:
        redis: a client of coredis.
        key: where they are.
    """

    redis: Any
    key: str

    async def begin(self) -> int:
        """Count a beginning; returns how many workers died of the job, or at least under it."""
        begun = await self._add("begun", 1)
        return begun - 1

    async def end(self) -> None:
        """The attempt came to an end, good or bad: its worker lives."""
        await self._add("begun", -1)

    async def failed(self, excused: bool) -> int:
        """Count a failure; returns how many of its kind there were."""
        return await self._add("excused" if excused else "failed", 1)

    async def forget(self) -> None:
        """The job is over."""
        await self.redis.delete([self.key])

    async def _add(self, what: str, number: int) -> int:
        count = await self.redis.hincrby(self.key, what, number)
        await self.redis.expire(self.key, DAY)
        return int(count)

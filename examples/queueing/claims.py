"""A card has one worker at a time in the whole fleet, so that nothing is paid for twice.

Two decks may share words, and a job runs again while the worker that had it is only slow. The claims lie in
Redis and are those of a `RedisTier`, which keeps nothing else there: what is known about a card is in the
database. The claims of a process that died lapse after some seconds; while Redis is away each process goes
its own way.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from attrs import define

from batchkit.abc import Tier


@define(eq=False)
class Claims:
    """Claims to words, by way of a tier of caches."""

    tier: Tier[str]

    @asynccontextmanager
    async def some(self, words: Sequence[str]) -> AsyncIterator[list[str]]:
        """Those of the words that nobody else works on, at least one: they are ours until the block ends.

        Look only then what the database has of them. Who wants the others asks again afterwards, so that
        nobody waits while he has something that somebody else may wait for.
        """
        while True:
            claim = await self.tier.claim(words)
            try:
                if claim.mine:
                    yield list(claim.mine)
                    return
                await claim.wait()
            finally:
                claim.release()

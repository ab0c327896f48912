"""A card has one worker at a time in the whole fleet, so that nothing is paid for twice.

Two decks may share words, and a job runs again while the worker that had it is only slow. The claims lie in
Redis and are those of a `RedisTier`, which keeps nothing else there: what is known about a card is in the
database. The claims of a process that died lapse after some seconds. So do those of a process that is cut
off from Redis: it finishes the calls under way, makes no others, and claims anew when Redis is back.

Who waits for a word says to the fleet how urgent it is, and whoever has it hurries: a card that a user asks
for does not stand at the end of a deck's line because the deck came first. That is published, and kept
nowhere; so it may be lost, and is said again as long as somebody waits.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import NoReturn

import anyio
from attrs import define, field
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from batchkit import Event, RedisTier, TierUnavailable, Unavailable
from batchkit.abc import Claim, Tier
from examples.queueing.urgency import Urgency

AWAY = (RedisError, OSError)  # what the client raises while Redis is not there
SAY_AGAIN = 2.0  # seconds after which who still waits says so once more
ANSWER = 1.0  # seconds for an answer of Redis
PAUSE = 1.0  # seconds before a Redis that is away is tried again
LEASE = 10.0  # seconds after which the words of a process that is silent are free for others
BEAT = 10  # seconds of silence after which Redis is asked whether it is there

log = logging.getLogger("examples.claims")


@define(eq=False)
class Claims:
    """Claims to words, by way of a tier of caches.

    Attributes:
        redis: where it is said what is urgent.
        channel: under this name.
    """

    tier: Tier[str]
    redis: Redis
    channel: str
    _held: dict[Urgency, frozenset[str]] = field(factory=dict[Urgency, frozenset[str]], init=False)

    @asynccontextmanager
    async def some(self, words: Sequence[str], urgency: Urgency) -> AsyncIterator[list[str]]:
        """Those of the words that nobody else works on, at least one: they are ours until the block ends.

        Look only then what the database has of them. Who wants the others asks again afterwards, so that
        nobody waits while he has something that somebody else may wait for.

        Args:
            words: the words.
            urgency: of this work alone. It rises when somebody with more of it waits for one of them, and
                lapses when they may be somebody else's.
        """
        while True:
            claim = await self._claim(words)
            try:
                if claim.mine:
                    with self._holding(claim.mine, urgency):
                        yield list(claim.mine)
                    return
                await self._say(claim.others, urgency.priority)
                with anyio.move_on_after(SAY_AGAIN):
                    await claim.wait()
            finally:
                claim.release()

    def doubt(self) -> None:
        """Redis is away: when it is back, what is held may be somebody else's."""
        for urgency in self._held:
            urgency.lapse()

    async def _claim(self, words: Sequence[str]) -> Claim[str]:
        """Claim words, as soon as Redis is there."""
        while True:
            try:
                return await self.tier.claim(words)
            except TierUnavailable as error:
                log.info("%s cannot be claimed yet: %s", ", ".join(words), error)
            await anyio.sleep(PAUSE)

    @contextmanager
    def _holding(self, words: Sequence[str], urgency: Urgency) -> Iterator[None]:
        self._held[urgency] = frozenset(words)
        try:
            yield
        finally:
            del self._held[urgency]

    async def _say(self, words: Sequence[str], priority: int) -> None:
        """Tell all processes that somebody waits; nobody, while Redis is away."""
        try:
            await self.redis.publish(self.channel, json.dumps({"words": words, "priority": priority}))
        except AWAY as error:
            log.info("nobody hears who waits for %s: %s", ", ".join(words), error)

    def _hear(self, words: Sequence[str], priority: int) -> None:
        """Somebody waits for words."""
        for urgency, held in self._held.items():
            if not held.isdisjoint(words):
                urgency.raise_to(priority)

    async def listen(self) -> NoReturn:
        """Hear who waits, also once Redis was away for a while."""
        while True:
            try:
                async with self.redis.pubsub(ignore_subscribe_messages=True) as heard:
                    await heard.subscribe(self.channel)
                    while True:
                        if message := await heard.get_message(timeout=BEAT):
                            self._hear(**json.loads(message["data"]))
            except AWAY as error:
                log.info("it is not heard who waits: %s", error)
            await anyio.sleep(PAUSE)


@asynccontextmanager
async def opened(redis_url: str, prefix: str) -> AsyncIterator[Claims]:
    """Claims that all processes share which use the same Redis and the same prefix.

    Args:
        redis_url: of Redis.
        prefix: of the names there.
    """
    loop = asyncio.get_running_loop()

    def hear(event: Event) -> None:
        if isinstance(event, Unavailable):  # the tier may say so in a thread of its own
            loop.call_soon_threadsafe(claims.doubt)

    tier = RedisTier[str](redis_url, f"{prefix}:claims", lease=LEASE, on_unavailable="raise", hooks=[hear])
    redis = Redis.from_url(
        redis_url,
        socket_timeout=ANSWER,
        socket_connect_timeout=ANSWER,
        health_check_interval=BEAT,
        retry=Retry(NoBackoff(), 1),  # once, since a connection may have been cut that nobody used for long
    )
    claims = Claims(tier, redis, f"{prefix}:urgent")
    async with aclosing(tier), redis, anyio.create_task_group() as group:
        group.start_soon(claims.listen)
        try:
            yield claims
        finally:
            group.cancel_scope.cancel()

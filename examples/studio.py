"""All that a worker process has open: database, dictionary, media store, services and their limiters."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from attrs import define, frozen

from batchkit import Batcher, TTLCache
from batchkit.presets import Quota
from examples import database as databases
from examples import settings
from examples.database import Card, Database
from examples.database.dictionary import Dictionary, Entry
from examples.database.saving import Saves
from examples.errors import UsageError
from examples.media.store import MediaStore
from examples.queueing import claims
from examples.queueing.claims import Claims
from examples.services import services
from examples.services.endpoint import Endpoint
from examples.services.limits import FleetLimits, Limit, Limits
from examples.services.picture import PictureService
from examples.services.services import Services
from examples.services.sound import SoundService
from examples.services.text import TextService
from examples.settings import Settings

CONNECTIONS = 200  # to a service, at most: more calls than a worker has under way at once


@define(eq=False)
class Studio:
    """What workers work with.

    Attributes:
        words: what the dictionary knows of a word, 50 in a query.
        entries: what it said lately.
        cards: what the database has of a word, None if nothing; many in a query.
        claims: so that nobody else makes the same card at once.
        saves: of cards, several in a transaction.
        speed: service seconds in a second.
    """

    config: Settings
    database: Database
    dictionary: Dictionary
    words: Batcher[str, tuple[Entry, ...]]
    entries: TTLCache[str, tuple[Entry, ...]]
    cards: Batcher[str, Card | None]
    claims: Claims
    saves: Saves
    media: MediaStore
    text: TextService
    picture: PictureService
    sound: SoundService
    speed: float


MakeLimits = Callable[[Settings], Limits]


def fleet_limits(config: Settings) -> Limits:
    """Quotas that the whole fleet shares."""
    return FleetLimits(config.queue.redis_url, config.queue.prefix)


@asynccontextmanager
async def opened(
    config: Settings, limits: MakeLimits = fleet_limits, wanted: Sequence[str] = services.ALL
) -> AsyncIterator[Studio]:
    """A studio; the dictionary is loaded into the database if it is not there.

    Args:
        config: the settings.
        limits: who makes the limiters; by default, they are those of the fleet.
        wanted: the services that will be asked; others need no account.

    Raises:
        UsageError: something is missing.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(databases.opened(config.database))
        dictionary = Dictionary(database)
        await dictionary.load()
        options = config.dictionary
        entries = TTLCache[str, tuple[Entry, ...]](
            maxsize=options.cache_size, ttl=options.cache_ttl, name="dictionary"
        )
        media = await MediaStore.open(config.media)
        for cache in (entries, media.cache):
            await stack.enter_async_context(cache.sweeping(config.sweep_every))
        desk = Desk(await asked(config, wanted), config, await stack.enter_async_context(limits(config)))
        yield Studio(
            config=config,
            database=database,
            dictionary=dictionary,
            words=Batcher(
                dictionary.look_up,
                max_batch_size=options.batch_size,
                max_wait=options.max_wait,
                cache=entries,
                name="dictionary",
            ),
            entries=entries,
            cards=Batcher(Cards(database), max_batch_size=options.batch_size, name="cards"),
            claims=await stack.enter_async_context(
                claims.opened(config.queue.redis_url, config.queue.prefix)
            ),
            saves=Saves(database, config.database),
            media=media,
            text=await stack.enter_async_context(desk.text()),
            picture=await stack.enter_async_context(desk.picture()),
            sound=await stack.enter_async_context(desk.sound()),
            speed=desk.services.text.speed,
        )


async def asked(config: Settings, wanted: Sequence[str]) -> Services:
    """The services that the settings name.

    Raises:
        UsageError: there is no stand-in, or no account of one that is wanted.
    """
    options = config.services
    if options.kind == "real":
        return services.real(config, options.speed, wanted)
    if not options.standin:
        raise UsageError(
            "services.standin names no stand-in: set FLASHCARDS_SERVICES_STANDIN to the URL of one that runs "
            "(python -m examples.standin), or services.kind to real."
        )
    return await services.running(options.standin, options.speed)


@frozen
class Cards:
    """Looks cards up; what a Batcher calls."""

    database: Database

    async def __call__(self, words: Sequence[str]) -> dict[str, Card | None]:
        """The card of each word, None if it has none; one query."""
        found = {card.word: card for card in await self.database.cards(words)}
        return {word: found.get(word) for word in words}


@frozen
class Desk:
    """Makes the clients of the services, each behind its limiter."""

    services: Services
    config: Settings
    limits: Limits

    def text(self) -> TextService:
        """Who writes."""
        options, endpoint = self.config.text, self.services.text
        return TextService(
            endpoint, options, self.limits.limiter(limit("text", options, endpoint)), CONNECTIONS
        )

    def picture(self) -> PictureService:
        """Who draws; fal limits how many pictures are in progress, too."""
        options, endpoint = self.config.picture, self.services.picture
        limiter = self.limits.limiter(limit("picture", options, endpoint, options.concurrency))
        return PictureService(endpoint, options, limiter, CONNECTIONS)

    def sound(self) -> SoundService:
        """Who speaks."""
        options, endpoint = self.config.sound, self.services.sound
        return SoundService(
            endpoint, options, self.limits.limiter(limit("sound", options, endpoint)), CONNECTIONS
        )


def limit(service: str, options: settings.Called, endpoint: Endpoint, at_once: int | None = None) -> Limit:
    """What a service allows, at the speed at which it runs."""
    quota = Quota(rate=options.rate, burst=options.burst).scaled(endpoint.speed)
    return Limit(service, quota, options.jitter, at_once)

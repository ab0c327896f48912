"""The sequential twins of the workers, which the load test measures against: one call after the other.

There is no limiter, no batch and no pre-fetch: each word is looked up by a query of its own, each step
waits for the one before it, and each row is saved as soon as it is there. That is how such workers begin,
and what the original's "before" was like, with two cards at once.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import anyio
from attrs import evolve, frozen

from examples import enrichment
from examples.database import Card, Database, opened
from examples.database.dictionary import Dictionary
from examples.language import words
from examples.language.words import Word
from examples.media.media import Media
from examples.media.store import MediaStore
from examples.services.limits import LocalLimits
from examples.services.picture import PictureService
from examples.services.services import Services
from examples.services.sound import SoundService
from examples.services.text import TextService
from examples.settings import Settings
from examples.studio import Desk


@frozen
class Baseline:
    """Workers that do one thing at a time."""

    database: Database
    media: MediaStore
    text: TextService
    picture: PictureService
    sound: SoundService

    async def card(self, word: str) -> None:
        """A card with all its media: four calls, four rows saved."""
        card = await self.character(word)
        card = evolve(card, picture=await self._kept(await self.picture.draw(words.picture(card))))
        card = evolve(await self._save(card), word_sound=await self._kept(await self.sound.speak(card.word)))
        card = await self._save(card)
        await self._save(evolve(card, sentence_sound=await self._kept(await self.sound.speak(card.example))))

    async def character(self, word: str) -> Card:
        """A card with its text."""
        entries = (await Dictionary(self.database).look_up([word]))[word]
        asked = Word(word, entries)
        (text,) = await self.text.write([words.question(asked)])
        return await self._save(words.card(asked, text))

    async def _kept(self, media: Media) -> str:
        return await self.media.put(media.content, enrichment.suffix(media))

    async def _save(self, card: Card) -> Card:
        (saved,) = await self.database.save([card])
        return saved


async def measure(
    kind: str, wanted: Sequence[str], config: Settings, services: Services, at_once: int = 1
) -> float:
    """Service seconds that a twin takes.

    Args:
        kind: import, or deck or card.
        wanted: words that the dictionary knows.
        config: its database is a new one, and so is its media store.
        services: whom to ask.
        at_once: cards at once.
    """
    desk = Desk(services, config, LocalLimits())
    async with (
        opened(config.database) as database,
        desk.text() as text,
        desk.picture() as picture,
        desk.sound() as sound,
    ):
        await Dictionary(database).load()
        twin = Baseline(database, await MediaStore.open(config.media), text, picture, sound)
        started = time.monotonic()
        await one_after_the_other(twin.character if kind == "import" else twin.card, wanted, at_once)
        return (time.monotonic() - started) * services.text.speed


async def one_after_the_other(
    work: Callable[[str], Awaitable[object]], wanted: Sequence[str], at_once: int
) -> None:
    """Do the work for each word; so many words at once."""

    async def take(rest: Iterator[str]) -> None:
        for word in rest:
            await work(word)

    rest = iter(wanted)
    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(take, rest)

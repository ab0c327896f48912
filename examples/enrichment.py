"""The steps of one card: text, then picture and both sounds side by side; each is saved as soon as made.

    word -> claimed for us alone -> looked up -> text ---+-> saved
                                                         +-> picture ------------> kept, saved
                                                         +-> sound of the word --> kept, saved
                                                         +-> sound of the example -> kept, saved

So the critical path is text and picture. A card that has some of its steps gets only the others: whoever is
killed repeats the calls that were under way, and no others.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import anyio
from attrs import define

from examples.database import Card
from examples.errors import Lapsed, MalformedAnswer, MediaRefused, NotAllowed, NotSaved, UnknownWord
from examples.language import words
from examples.language.words import Word
from examples.media.media import Media
from examples.media.store import suffix_for
from examples.queueing.urgency import Urgency
from examples.studio import Studio

IN_VAIN = (NotAllowed, NotSaved, MediaRefused)  # after these, further calls would be
FIRST = (*IN_VAIN, Lapsed)  # of several errors these say best how to go on


@define(eq=False)
class Enrichment:
    """Makes cards whole."""

    studio: Studio

    async def enrich(self, word: str, priority: int) -> Card:
        """The card of a word, with all its steps; higher priorities go first. Somebody who waits for the same
        card gives it his own, if that is higher.

        Raises:
            UnknownWord: the dictionary does not have it.
            ServiceError, MediaError, NotSaved: a step failed; the others were done all the same.
        """
        while True:
            with suppress(Lapsed):
                return await self._enrich(word, Urgency(priority))

    async def _enrich(self, word: str, urgency: Urgency) -> Card:
        """The same, as long as the word is ours. Raises Lapsed."""
        async with self.studio.claims.some([word], urgency):
            card = await self.studio.cards.load(word)
            if card is None:
                return await self._complete(await self._new(word, urgency), urgency, is_new=True)
            return await self._complete(await self._as_kept(card), urgency)

    async def _as_kept(self, card: Card) -> Card:
        """A card without those of its media that the store has lost: they are made again."""
        there = await self.studio.media.existing(card.media.values())
        return card.with_media({step: None for step, key in card.media.items() if key not in there})

    async def _new(self, word: str, urgency: Urgency) -> Card:
        """A card with its text, not yet saved."""
        entries = await self.studio.words.load(word)
        if not entries:
            raise UnknownWord(f"the dictionary does not have {word}")
        asked = Word(word, entries)
        (text,) = await self.studio.text.write([words.question(asked)], urgency)
        return words.card(asked, text)

    async def _complete(self, card: Card, urgency: Urgency, is_new: bool = False) -> Card:
        """Do the steps that a card lacks, side by side and each to its end; returns it as it is then."""
        steps = [partial(self._make, card, step, urgency) for step in card.missing]
        if is_new:
            steps.append(partial(self._save, card))
        for saved in await all_of_them(steps):
            card = card.with_media(saved.media)
        return card

    async def _make(self, card: Card, step: str, urgency: Urgency) -> Card:
        """Make one of the media, and save it. Shielded from there on, since it is paid for."""
        media = await self._made(card, step, urgency)
        with anyio.CancelScope(shield=True):
            key = await self.studio.media.put(media.content, suffix(media))
            return await self._save(card.with_media({step: key}))
        raise AssertionError("nobody cancels the scope")

    async def _made(self, card: Card, step: str, urgency: Urgency) -> Media:
        match step:
            case "picture":
                return await self.studio.picture.draw(words.picture(card), urgency)
            case "word_sound":
                return await self.studio.sound.speak(card.word, urgency)
            case _:
                return await self.studio.sound.speak(card.example, urgency)

    async def _save(self, card: Card) -> Card:
        with anyio.CancelScope(shield=True):
            return await self.studio.saves.save(card)
        raise AssertionError("nobody cancels the scope")


def suffix(media: Media) -> str:
    """How the name of a file ends. Raises MalformedAnswer."""
    try:
        return suffix_for(media.content_type)
    except ValueError as error:
        raise MalformedAnswer(f"the file is of a kind that is not kept: {error}") from None


async def all_of_them(steps: Sequence[Callable[[], Awaitable[Card]]]) -> list[Card]:
    """What the steps return, done side by side.

    Raises:
        Exception: the error of one that failed, when all have ended; one that says how to go on before
            others.
    """
    done: list[Card] = []
    failures: list[Exception] = []

    async def do(step: Callable[[], Awaitable[Card]]) -> None:
        try:
            done.append(await step())
        except Exception as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for step in steps:
            group.start_soon(do, step)
    if failures:
        raise next((error for error in failures if isinstance(error, FIRST)), failures[0])
    return done

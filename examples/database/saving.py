"""Saving cards step by step, and yet few at a time: saves that come together are one transaction.

What is paid for is saved at once, so that a worker that is killed repeats at most the calls under way. That
would be a transaction for each step. But a `Batcher` gathers what comes while a save is under way: at two
cards a second each save leaves on its own, and at two hundred, ten cards share one.
"""

import time
from collections.abc import Sequence

from attrs import define, field, frozen
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from batchkit import Batcher
from examples import settings
from examples.database import Card, Database, worth_waiting_for
from examples.errors import NotSaved

# What is no word's fault: the database was waited for in vain, or is not what it should be.
NOT_THERE = (OperationalError, InterfaceError, ProgrammingError, NoConnectionFree, TimeoutError)


@frozen(eq=False)
class Save:
    """One save: of a card, with those steps that are new."""

    card: Card


@define(eq=False)
class Saves:
    """Saves cards.

    Attributes:
        seconds: that saves took, all together.
    """

    database: Database
    options: settings.Database
    seconds: float = 0.0
    _batches: Batcher[Save, Card] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._batches = Batcher(
            self._save_together,
            max_batch_size=self.options.batch_size,
            max_wait=self.options.max_wait,
            max_in_flight=1,  # what comes meanwhile gathers; SQLite has one writer anyway
            split=False,
            name="saves",
        )

    async def save(self, card: Card) -> Card:
        """Save a card, or add steps to it; returns it as it is then. Raises NotSaved."""
        return await self._batches.load(Save(card))

    async def save_many(self, cards: Sequence[Card]) -> list[Card]:
        """Save a batch of distinct words at once. Raises NotSaved."""
        started = time.monotonic()
        try:
            return await self.database.save(cards)
        except NOT_THERE as error:
            cause = getattr(error, "orig", None) or error
            raise NotSaved(
                f"the database does not take the cards: {cause}", worth_waiting_for(error)
            ) from error
        finally:
            self.seconds += time.monotonic() - started

    async def _save_together(self, saves: list[Save]) -> list[Card]:
        cards: dict[str, Card] = {}
        for save in saves:
            word = save.card.word
            cards[word] = cards.get(word, save.card).with_media(save.card.media)
        saved = {card.word: card for card in await self.save_many([*cards.values()])}
        return [saved[save.card.word] for save in saves]

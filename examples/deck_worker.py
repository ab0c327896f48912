"""The deck worker: every card of a deck is made whole, as fast as the quotas of three services allow.

    words of the deck -> their cards, and the dictionary's entries of the others   two queries for all of them
                      -> those whose card is whole are done already
                      -> the others, 14 at once                                    `BatchedExecutor`
                      -> the steps of each                                         `Enrichment`

The database is the checkpoint, card by card and step by step: a deck that is made again asks for what is
missing.
"""

from collections.abc import Mapping, Sequence

from attrs import define, field

from batchkit import BatchedExecutor, Hook, Outcome, OutcomeStream
from examples.database import Card
from examples.database.prefetch import prefetch
from examples.enrichment import IN_VAIN, Enrichment
from examples.errors import MediaAway, Unavailable, Unfinished
from examples.reporting.figures import Meter
from examples.studio import Studio

PASSING = (Unavailable, MediaAway)  # no word's fault, and over after a while


@define(eq=False)
class DeckJob:
    """Makes the cards of one deck whole.

    Attributes:
        hooks: called with each event of the executor.
        failures: words whose card is not whole, with the error.
    """

    studio: Studio
    deck: str
    priority: int
    hooks: Sequence[Hook] = ()
    failures: dict[str, Exception] = field(factory=dict[str, Exception], init=False)
    _stream: OutcomeStream[str, Card] | None = field(default=None, init=False)
    _stopping: bool = field(default=False, init=False)

    async def run(self) -> dict[str, object]:
        """What was done, as JSON.

        Raises:
            Unfinished: not all cards are whole; those that are stay so.
            NotAllowed, NotSaved, MediaRefused: going on would be in vain.
        """
        meter = Meter(self.studio)
        words = await self.words()
        known = await prefetch(words, self.studio.database, self.studio.words.load_many)
        whole = await self.whole(known.cards)
        await self.enrich([word for word in words if word not in whole and word not in known.unknown])
        progress = await self.studio.database.progress(self.deck)
        result: dict[str, object] = {
            "deck": self.deck,
            "words": len(words),
            "saved": progress.complete,
            "already_there": len(whole),
            "unknown": list(known.unknown),
            "failed": {word: str(error) for word, error in self.failures.items()},
            "slots": self.studio.config.scaled(self.studio.config.deck.concurrency),
            **meter.read(),
        }
        self.judge(len(words) - len(known.unknown) - progress.complete, result)
        return result

    def stop(self) -> None:
        """Begin no further card; those that were begun are finished."""
        self._stopping = True
        if self._stream is not None:
            self._stream.drain(self.studio.config.queue.grace)

    async def words(self) -> tuple[str, ...]:
        """The words of the deck. Raises Unfinished if there is no such deck."""
        deck = await self.studio.database.deck(self.deck)
        if deck is None:
            raise Unfinished(f"there is no deck {self.deck}", passing=False)
        return deck.words

    async def whole(self, cards: Mapping[str, Card]) -> set[str]:
        """The words whose card has all its media, and the media store has them, too."""
        complete = [card for card in cards.values() if not card.missing]
        there = await self.studio.media.existing(key for card in complete for key in card.media.values())
        return {card.word for card in complete if there.issuperset(card.media.values())}

    async def enrich(self, words: Sequence[str]) -> None:
        """Make the cards of these words whole. Raises an error after which further calls would be in vain."""
        options = self.studio.config.deck
        enrichment = Enrichment(self.studio)

        async def enrich(word: str) -> Card:
            return await enrichment.enrich(word, self.priority)

        executor = BatchedExecutor[str, Card](
            enrich,
            batch_size=options.batch_size,
            concurrency=self.studio.config.scaled(options.concurrency),
            barrier=options.barrier,
            pause=options.pause,
            priority=self.priority,
            name=f"deck {self.deck}",
            hooks=self.hooks,
        )
        async with executor.map(words) as self._stream:
            if self._stopping:
                self.stop()
            async for outcome in self._stream:
                self.note(outcome)

    def note(self, outcome: Outcome[str, Card]) -> None:
        """Remember a failure, or give up."""
        if isinstance(outcome.error, IN_VAIN):
            raise outcome.error
        if outcome.state == "error":
            assert outcome.error
            self.failures[outcome.item] = outcome.error

    def judge(self, missing: int, result: dict[str, object]) -> None:
        """Raise Unfinished if cards are missing, with what can be done about it."""
        if not missing:
            return
        faults = {word: error for word, error in self.failures.items() if not isinstance(error, PASSING)}
        why = "; ".join(f"{word}: {error}" for word, error in [*(faults or self.failures).items()][:3])
        why = f"{missing:,} of the cards are not whole ({why or 'it was stopped'})"
        raise Unfinished(why, passing=not faults, result=result)

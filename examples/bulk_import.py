"""The bulk import worker: characters become flashcards, as fast as the quota of the text service allows.

    words -> without those that have a card (one query)
          -> looked up, 50 in a query               `Batcher` and `TTLCache`
          -> written about, 5 to 10 in a call       `BatchedExecutor`; a permit of a `TokenBucket` for each
          -> saved, 10 in a transaction             one statement

Each step begins as soon as the one before has something for it. The database is the checkpoint: a card
that is saved is never asked for again, so a run that was stopped or killed goes on where it was, and
repeats at most the calls under way.
"""

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress

from attrs import Factory, define, field

from batchkit import BatchedExecutor, Batcher, Hook, Outcome, TTLCache
from examples.database import Card, Database, chunks
from examples.database.dictionary import Dictionary, Entry
from examples.database.saving import Saves
from examples.errors import Lapsed, NotAllowed, NotSaved, Unavailable
from examples.language.words import Word, card, question
from examples.queueing.claims import Claims
from examples.queueing.scaling import Bounds, batch_size
from examples.queueing.urgency import Urgency
from examples.services.text import TextService
from examples.settings import Settings


def new_cache(importer: "BulkImport") -> TTLCache[str, tuple[Entry, ...]]:
    """A cache of the dictionary's answers."""
    options = importer.settings.dictionary
    return TTLCache(maxsize=options.cache_size, ttl=options.cache_ttl, name="dictionary")


def new_saves(importer: "BulkImport") -> Saves:
    """Saves of its own."""
    return Saves(importer.database, importer.settings.database)


@define(eq=False)
class BulkImport:
    """One import.

    Attributes:
        claims: so that no other worker writes about the same words at once; not needed by one alone.
        priority: of its calls; higher goes first. That of a call rises if somebody waits for a word of it.
        unknown: words that are not in the dictionary, in the order in which they were looked up.
        failures: words that got no card, with the cause.
        cache: what the dictionary answered.
        saves: of cards, and how long they take.
        blamed: whether a word failed for its own sake, and not since the service was away.
        seconds: how long it ran, on the wall: from the first word taken to the last card saved.
        starved: whether calls waited for words, says the executor.
    """

    database: Database
    dictionary: Dictionary
    text: TextService
    settings: Settings
    hooks: Sequence[Hook] = ()
    claims: Claims | None = None
    priority: int = 0
    unknown: list[str] = field(factory=list[str])
    failures: dict[str, str] = field(factory=dict[str, str])
    cache: TTLCache[str, tuple[Entry, ...]] = field(default=Factory(new_cache, takes_self=True), kw_only=True)
    saves: Saves = field(default=Factory(new_saves, takes_self=True), kw_only=True)
    blamed: bool = False
    seconds: float = 0.0
    starved: bool = False
    _stopping: bool = False

    async def new(self, words: Sequence[str]) -> list[str]:
        """The words that have no card yet, in their order."""
        known = await self.database.known(words)
        return [word for word in words if word not in known]

    async def run(self, words: Sequence[str]) -> None:
        """Make cards of the words.

        Raises:
            NotAllowed, NotSaved: going on would be in vain. What is saved by then is kept.
        """
        options = self.settings.bulk_import
        executor = BatchedExecutor[Word, Card].of_batches(
            self.write_and_save,
            batch_size=batch_size(
                len(words), self.settings.text.burst, Bounds(options.least_batch_size, options.batch_size)
            ),
            concurrency=self.settings.scaled(options.concurrency),
            hooks=self.hooks,
            name="import",
        )
        started = time.monotonic()
        try:
            async with executor.map(self.look_up(words)) as outcomes:
                async for outcome in outcomes:
                    self.note(outcome)
                self.starved = outcomes.report().limited_by == "input"
        finally:
            self.seconds = time.monotonic() - started

    def stop(self) -> None:
        """Take no further words; those that were taken are finished."""
        self._stopping = True

    async def look_up(self, words: Iterable[str]) -> AsyncIterator[Word]:
        """The words that the dictionary knows; 50 in a query, and each query when it is needed."""
        options = self.settings.dictionary
        lookup = Batcher(
            self.dictionary.look_up,
            max_batch_size=options.batch_size,
            max_wait=options.max_wait,
            cache=self.cache,
            name="dictionary",
        )
        for chunk in chunks(words, options.batch_size):
            for word, entries in (await lookup.load_many(chunk)).items():
                if self._stopping:
                    return
                if entries:
                    yield Word(word, entries)
                else:
                    self.unknown.append(word)

    async def write_and_save(self, words: list[Word]) -> list[Card | Exception]:
        """One call of the text service, one transaction. If it raises, the executor splits the batch."""
        try:
            return [*await self.cards(words)]
        except (Unavailable, NotAllowed, NotSaved) as error:
            return [error] * len(words)  # no word is to blame: fewer at once would fare no better

    async def cards(self, words: list[Word]) -> list[Card]:
        """The cards of the words; those that another worker works on, when it has done so."""
        if self.claims is None:
            return await self.write(words, Urgency(self.priority))
        rest, done = {word.word: word for word in words}, dict[str, Card]()
        while rest:
            urgency = Urgency(self.priority)  # of all of them, since they are asked for together
            with suppress(Lapsed):
                async with self.claims.some([*rest], urgency) as ours:
                    there = {card.word: card for card in await self.database.cards(ours)}
                    new = await self.write([rest[word] for word in ours if word not in there], urgency)
                    done |= there | {card.word: card for card in new}
            rest = {word: rest[word] for word in rest if word not in done}
        return [done[word.word] for word in words]

    async def write(self, words: list[Word], urgency: Urgency) -> list[Card]:
        """New cards."""
        if not words:
            return []
        texts = await self.text.write([question(word) for word in words], urgency)
        return await self.saves.save_many([card(word, text) for word, text in zip(words, texts, strict=True)])

    def note(self, outcome: Outcome[Word, Card]) -> None:
        """Remember a failure, or give up."""
        if isinstance(outcome.error, (NotAllowed, NotSaved)):
            raise outcome.error
        if outcome.error:
            self.failures[outcome.item.word] = str(outcome.error)
            self.blamed |= not isinstance(outcome.error, Unavailable)

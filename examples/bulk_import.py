"""The bulk import worker: characters become flashcards, as fast as the quota of the text service allows.

    words -> without those that have a card (one query)
          -> looked up, 50 in a query               `Batcher` and `TTLCache`
          -> written about, 10 in a call            `BatchedExecutor`; a permit of a `TokenBucket` for each
          -> saved, 10 in a transaction             one statement

Each step begins as soon as the one before has something for it. The database is the checkpoint: a card
that is saved is never asked for again, so a run that was stopped or killed goes on where it was, and
repeats at most the calls under way.
"""

import time
from collections.abc import AsyncIterator, Iterable, Sequence

from attrs import define, field, frozen
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from batchkit import BatchedExecutor, Batcher, Hook, Outcome, TTLCache
from examples.database import Card, Database, chunks
from examples.dictionary import Dictionary, Entry
from examples.errors import NotAllowed, NotSaved, Unavailable
from examples.prompt import Question, Text
from examples.settings import Settings
from examples.text import TextService

# What is no word's fault: the database was waited for in vain, or is not what it should be.
NOT_THERE = (OperationalError, InterfaceError, ProgrammingError, NoConnectionFree, TimeoutError)
MOST_DEFINITIONS = 8  # that the model is told of a word: the usual meanings; more cost tokens and help little


@frozen
class Word:
    """A word with all its readings."""

    word: str
    entries: tuple[Entry, ...]

    @property
    def pinyin(self) -> str:
        """Its readings, each sound once, though a name is written with a capital."""
        sounds: dict[str, str] = {}
        for entry in self.entries:
            sounds.setdefault(entry.pinyin.lower(), entry.pinyin)
        return ", ".join(sounds.values())

    @property
    def definitions(self) -> dict[str, list[str]]:
        """What it means, by reading."""
        by_reading: dict[str, list[str]] = {}
        for entry in self.entries:
            by_reading.setdefault(entry.pinyin, []).extend(entry.definitions)
        return by_reading


@define(eq=False)
class BulkImport:
    """One import.

    Attributes:
        unknown: words that are not in the dictionary, in the order in which they were looked up.
        failures: words that got no card, with the cause.
        cache: what the dictionary answered.
        seconds: how long it ran, on the wall: from the first word taken to the last card saved.
        saving: seconds that calls spent on saving, all together.
        starved: whether calls waited for words, says the executor.
    """

    database: Database
    dictionary: Dictionary
    text: TextService
    settings: Settings
    hooks: Sequence[Hook] = ()
    unknown: list[str] = field(factory=list[str])
    failures: dict[str, str] = field(factory=dict[str, str])
    cache: TTLCache[str, tuple[Entry, ...]] = field(init=False)
    seconds: float = 0.0
    saving: float = 0.0
    starved: bool = False
    _stopping: bool = False

    def __attrs_post_init__(self) -> None:
        options = self.settings.dictionary
        self.cache = TTLCache(maxsize=options.cache_size, ttl=options.cache_ttl, name="dictionary")

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
            batch_size=options.batch_size,
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
            texts = await self.text.write([question(word) for word in words])
            return [*await self.save([card(word, text) for word, text in zip(words, texts, strict=True)])]
        except (Unavailable, NotAllowed, NotSaved) as error:
            return [error] * len(words)  # no word is to blame: fewer at once would fare no better

    async def save(self, batch: list[Card]) -> list[Card]:
        """Save a batch. A database that is not there is no word's fault."""
        started = time.monotonic()
        try:
            return await self.database.save(batch)
        except NOT_THERE as error:
            cause = getattr(error, "orig", None) or error
            raise NotSaved(f"the database does not take the cards: {cause}") from error
        finally:
            self.saving += time.monotonic() - started

    def note(self, outcome: Outcome[Word, Card]) -> None:
        """Remember a failure, or give up."""
        if isinstance(outcome.error, (NotAllowed, NotSaved)):
            raise outcome.error
        if outcome.error:
            self.failures[outcome.item.word] = str(outcome.error)


def question(word: Word) -> Question:
    """What the model is told about a word."""
    definitions = [definition for entry in word.entries for definition in entry.definitions]
    return Question(word=word.word, pinyin=word.pinyin, definitions=definitions[:MOST_DEFINITIONS])


def card(word: Word, text: Text) -> Card:
    """The card of a word."""
    return Card(
        word=word.word,
        pinyin=word.pinyin,
        definitions=word.definitions,
        mnemonic=text.mnemonic,
        example=text.example,
        example_pinyin=text.example_pinyin,
        example_translation=text.example_translation,
    )

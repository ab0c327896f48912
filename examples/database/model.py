"""What is kept: cards, decks, and jobs that failed for good; each as a table and as a value."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from attrs import evolve, field, frozen
from sqlalchemy import JSON, Column, DateTime, ForeignKey, Integer, MetaData, String, Table, Text

MEDIA = ("picture", "word_sound", "sentence_sound")  # the steps that are left when a card has its text

metadata = MetaData()
cards = Table(
    "cards",
    metadata,
    Column("word", String, primary_key=True),
    Column("pinyin", String, nullable=False),
    Column("definitions", JSON, nullable=False),  # by reading: {"hǎo": ["good", ...], "hào": [...]}
    Column("mnemonic", String, nullable=False),
    Column("example", String, nullable=False),
    Column("example_pinyin", String, nullable=False),
    Column("example_translation", String, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("updated", DateTime(timezone=True), nullable=False),
    *(Column(step, String) for step in MEDIA),
)
decks = Table(
    "decks",
    metadata,
    Column("name", String, primary_key=True),
    Column("created", DateTime(timezone=True), nullable=False),
)
deck_words = Table(
    "deck_words",
    metadata,
    Column("deck", ForeignKey(decks.c.name, ondelete="cascade"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("word", String, nullable=False),  # which may have no card yet
)
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", String, primary_key=True),
    Column("job", String, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("cause", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failed", DateTime(timezone=True), nullable=False, index=True),
)


@frozen
class Card:
    """A flashcard. It has its text from the start; each of its media is None until it is made.

    Attributes:
        word: what is to be learnt, as it was given (simplified or traditional).
        pinyin: its readings, the usual one first.
        definitions: what it means, by reading.
        mnemonic: how to remember it.
        example: a sentence with it; its pinyin and translation follow.
        picture, word_sound, sentence_sound: their keys in the media store.
    """

    word: str
    pinyin: str
    definitions: dict[str, list[str]]
    mnemonic: str
    example: str
    example_pinyin: str
    example_translation: str
    picture: str | None = None
    word_sound: str | None = None
    sentence_sound: str | None = None

    @property
    def media(self) -> dict[str, str]:
        """The keys of the media that are there, by step."""
        return {step: key for step in MEDIA if (key := getattr(self, step)) is not None}

    def with_media(self, keys: Mapping[str, str | None]) -> "Card":
        """The same card with other keys of media, by step."""
        changes: Any = keys
        return evolve(self, **changes)

    @property
    def missing(self) -> tuple[str, ...]:
        """The steps that are still to be done."""
        return tuple(step for step in MEDIA if getattr(self, step) is None)


def distinct(words: Iterable[str]) -> tuple[str, ...]:
    """Each word once, at its first place."""
    return tuple(dict.fromkeys(words))


@frozen
class Deck:
    """A list of words to learn together, in order; each of them once."""

    name: str
    words: tuple[str, ...] = field(converter=distinct)


@frozen
class Progress:
    """How far a deck is.

    Attributes:
        words: in the deck.
        texts: of them, those that have a card.
        complete: of these, those with all their media.
    """

    words: int
    texts: int
    complete: int


@frozen
class DeadLetter:
    """A job that failed for good, with what is needed to send it again.

    Attributes:
        id: of the job in the queue; the same job is listed once.
        job: its name.
        arguments: by name; JSON.
        cause: the last error, as a sentence without secrets.
        attempts: how often it was tried.
        failed: when it failed last.
    """

    id: str
    job: str
    arguments: Mapping[str, object]
    cause: str
    attempts: int
    failed: datetime

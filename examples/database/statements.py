"""The statements that say more than they look, for both kinds of database."""

from typing import Any

from attrs import fields
from sqlalchemy import Table, and_, case, func, select
from sqlalchemy.dialects import postgresql, sqlite

from examples.database.model import MEDIA, Card, cards, dead_letters, deck_words, decks

TEXT = ("mnemonic", "example", "example_pinyin", "example_translation")
PER_TEXT = ("picture", "sentence_sound")  # media that were made for a text, and go with no other
CARD = [cards.c[attribute.name] for attribute in fields(Card)]


def insert(table: Table, dialect: str) -> Any:
    """An `insert` that knows `on conflict`."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def upsert_cards(dialect: str) -> Any:
    """Insert cards, or add to those that are there; says what they are then.

    Nothing that was paid for is lost, whoever else writes the same card: a text that is there stays, and a
    step that this writer has not done is left alone. Media that were made for another text than the one that
    stays are not taken.
    """
    statement = insert(cards, dialect)
    old, new = cards.c, statement.excluded
    same_text = and_(*(old[name] == new[name] for name in TEXT))
    fresh: dict[str, Any] = {name: new[name] for name in ("pinyin", "definitions", "updated")}
    fresh |= {step: func.coalesce(new[step], old[step]) for step in MEDIA}
    fresh |= {step: case((same_text, fresh[step]), else_=old[step]) for step in PER_TEXT}
    return statement.on_conflict_do_update(index_elements=[old.word], set_=fresh).returning(*CARD)


def upsert(table: Table, dialect: str) -> Any:
    """Insert rows, or put them in the place of those that are there."""
    statement = insert(table, dialect)
    key = list(table.primary_key)
    fresh = {column.name: statement.excluded[column.name] for column in table.c}
    return statement.on_conflict_do_update(index_elements=key, set_=fresh)


def deck_in_order(name: str) -> Any:
    """The words of a deck; one row without a word if it is empty, and none if there is no such deck."""
    words = decks.outerjoin(deck_words, deck_words.c.deck == decks.c.name)
    return (
        select(deck_words.c.word)
        .select_from(words)
        .where(decks.c.name == name)
        .order_by(deck_words.c.position)
    )


def deck_progress(name: str) -> Any:
    """How many words a deck has, how many of them have a card, and how many of these all media."""
    there = deck_words.outerjoin(cards, cards.c.word == deck_words.c.word)
    complete = case((and_(*(cards.c[step].is_not(None) for step in MEDIA)), 1))
    counts = func.count(), func.count(cards.c.word), func.count(complete)
    return select(*counts).select_from(there).where(deck_words.c.deck == name)


def newest_dead_letters(limit: int) -> Any:
    """The jobs that failed for good, the last ones first."""
    return select(dead_letters).order_by(dead_letters.c.failed.desc()).limit(limit)

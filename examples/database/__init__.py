"""Where the cards are kept: an SQLite file, or PostgreSQL.

What costs time with a database is the number of round trips and of commits, not the number of rows. So a
batch of cards is one statement, which is a transaction of its own, and all of them are counted.
"""

from examples.database.database import Database, Traffic, chunks, opened
from examples.database.model import Card, DeadLetter, Deck, Progress, cards, metadata
from examples.database.waiting import worth_waiting_for

__all__ = [
    "Card",
    "Database",
    "DeadLetter",
    "Deck",
    "Progress",
    "Traffic",
    "cards",
    "chunks",
    "metadata",
    "opened",
    "worth_waiting_for",
]

"""All that a batch of words needs before the first call is made, in at most two queries."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import frozen

from examples.database import Card, Database
from examples.database.dictionary import Entry

LookUp = Callable[[Sequence[str]], Awaitable[Mapping[str, tuple[Entry, ...]]]]


@frozen
class Prefetched:
    """What is known about the words of a batch.

    Attributes:
        cards: of the words that have one, with the media that are there.
        entries: of the other words that the dictionary knows.
        unknown: words that have no card and are not in the dictionary.
    """

    cards: dict[str, Card]
    entries: dict[str, tuple[Entry, ...]]
    unknown: tuple[str, ...]


async def prefetch(words: Sequence[str], database: Database, look_up: LookUp) -> Prefetched:
    """Fetch the cards of the words, and the dictionary's entries of those that have none.

    Args:
        words: as many as a query takes, which is some thousands.
        database: where the cards are.
        look_up: `Dictionary.look_up`; or `Batcher.load_many` around it, whose cache may save the query.
    """
    cards = {card.word: card for card in await database.cards(words)}
    new = [word for word in words if word not in cards]
    found = await look_up(new) if new else {}
    entries = {word: found[word] for word in new if found[word]}
    return Prefetched(cards, entries, tuple(word for word in new if word not in entries))

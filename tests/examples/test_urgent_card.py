"""A user asks for a card that a deck has just then: the deck's own calls for it go first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from examples import studio
from examples.bulk_import import BulkImport
from examples.card_worker import CardJob
from examples.database import Card, Deck
from examples.deck_worker import DeckJob
from examples.language import words
from examples.queueing.priorities import Priority
from examples.studio import Studio
from tests.examples.workshop import Workshop, own_workshop, standin_url, until  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

WORDS = "一二三四五六七八九十上下大小"  # as many cards as a deck makes at once
AMONG = 2  # calls that may go between a question and the call that it makes urgent


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def two(workshop: Workshop, scarce: str) -> AsyncIterator[tuple[Studio, Studio]]:
    """Two workers that share quotas and claims; of one service, two calls a second are allowed."""
    quota = {f"FLASHCARDS_{scarce.upper()}_RATE": "0.1", f"FLASHCARDS_{scarce.upper()}_BURST": "2"}
    config = workshop.config(**quota)
    async with studio.opened(config) as one, studio.opened(config) as other:
        yield one, other


def keys(workshop: Workshop, service: str) -> list[str]:
    """What the calls of a service were about, in their order."""
    return [key for line in workshop.lines(service) for key in line["keys"]]


async def test_the_text_of_a_card_at_the_end_of_a_decks_line_is_next(own_workshop: Workshop) -> None:  # noqa: F811
    workshop, last = own_workshop, WORDS[-1]
    async with two(workshop, "text") as (one, other), anyio.create_task_group() as group:
        await one.database.save_deck(Deck("deck", WORDS))
        group.start_soon(DeckJob(one, "deck", int(Priority.NORMAL)).run)
        await until(lambda: len(keys(workshop, "text")) >= 3)
        before = len(keys(workshop, "text"))
        await CardJob(other, last, int(Priority.INTERACTIVE)).run()
        assert before <= keys(workshop, "text").index(last) <= before + AMONG
    assert set(workshop.answered.values()) == {1}
    assert len(workshop.answered) == 4 * len(WORDS)


async def test_the_picture_of_a_card_at_the_end_of_a_decks_line_is_next(own_workshop: Workshop) -> None:  # noqa: F811
    workshop = own_workshop
    async with two(workshop, "picture") as (one, other), anyio.create_task_group() as group:
        await one.database.save_deck(Deck("deck", WORDS))
        group.start_soon(DeckJob(one, "deck", int(Priority.NORMAL)).run)
        cards: list[Card] = []
        while len(cards) < len(WORDS):
            await until(lambda: workshop.calls.get("text") == len(WORDS))
            cards = await one.database.cards(WORDS)
        asked = keys(workshop, "picture")
        last = next(card for card in reversed(cards) if words.picture(card) not in asked)
        await CardJob(other, last.word, int(Priority.INTERACTIVE)).run()
        place = keys(workshop, "picture").index(words.picture(last))
        assert len(asked) <= place <= len(asked) + AMONG
    assert set(workshop.answered.values()) == {1}
    assert len(workshop.answered) == 4 * len(WORDS)


async def test_the_ten_words_that_an_import_asks_for_together_are_as_urgent_as_one_of_them(
    own_workshop: Workshop,  # noqa: F811
) -> None:
    workshop, last = own_workshop, WORDS[-1]
    async with two(workshop, "text") as (one, other), anyio.create_task_group() as group:
        config = workshop.config(FLASHCARDS_BULK_IMPORT_BATCH_SIZE="2")
        importer = BulkImport(one.database, one.dictionary, one.text, config, claims=one.claims)
        group.start_soon(importer.run, WORDS)
        await until(lambda: len(workshop.lines("text")) >= 3)
        before = len(workshop.lines("text"))
        await CardJob(other, last, int(Priority.INTERACTIVE)).run()
        place = keys(workshop, "text").index(last) // 2
        assert before <= place <= before + AMONG
    assert workshop.calls["text"] == len(WORDS)
    assert set(workshop.answered.values()) == {1}

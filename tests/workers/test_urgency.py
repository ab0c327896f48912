"""A card that three decks' calls stand before is asked for by a user: its own calls go next, from then on."""

from __future__ import annotations

import anyio
import pytest

from examples.database import Card
from examples.language import words
from examples.language.sources import from_hsk
from examples.standin.ledger import Line
from tests.workers.places import Place, Town

pytestmark = pytest.mark.anyio

DECKS, CARDS = 3, 14  # all of which a worker makes at once: of texts there are 2 a second
AMONG = 3  # calls that may go between a question and the call that it makes urgent
SPEED = 2.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def arrived(town: Town, service: str) -> list[Line]:
    """The calls of a service, in their order."""
    return [line for line in await town.lines() if line["service"] == service]


async def test_a_card_at_the_end_of_the_decks_lines_is_made_at_once_for_a_user(place: Place) -> None:
    wanted = from_hsk(DECKS * CARDS).wanted
    decks = [wanted[number * CARDS :][:CARDS] for number in range(DECKS)]
    async with place.fleet({"card": 1, "deck": 1}, speed=SPEED) as town:
        told: list[tuple[int, str, Card]] = []
        async with anyio.create_task_group() as group:
            for number, deck in enumerate(decks):
                group.start_soon(town.deck, f"deck {number}", deck)
            told.append(await asked_for(town, wanted))
        ((asked, last, made),) = told
        texts, pictures = await arrived(town, "text"), await arrived(town, "picture")
        mine, drawn = about(texts, last), about(pictures, words.picture(made))
        assert texts.index(mine) <= asked + AMONG
        assert between(pictures, ended(mine), drawn["arrived"]) <= AMONG
        assert await town.check(sorted(wanted)) == []


async def asked_for(town: Town, wanted: tuple[str, ...]) -> tuple[int, str, Card]:
    """Ask for a card at the end of the line; how many texts were asked for before, its word, and the card."""
    await town.until_well("text", 4)
    asked = {key for line in await arrived(town, "text") for key in line["keys"]}
    last = [word for word in wanted if word not in asked][-1]
    assert (await town.card(last)).causes == []
    cards, (made,) = await town.database.cards(wanted), await town.database.cards([last])
    assert sum(not card.missing for card in cards) <= DECKS * CARDS // 2  # most of them stand in line
    return len(asked), last, made


def about(lines: list[Line], key: str) -> Line:
    """The call about a key."""
    (line,) = (line for line in lines if key in line["keys"])
    return line


def ended(line: Line) -> float:
    """When a call was answered."""
    assert line["seconds"] is not None
    return line["arrived"] + line["seconds"]


def between(lines: list[Line], begin: float, end: float) -> int:
    """How many calls arrived between two moments."""
    return sum(begin < line["arrived"] < end for line in lines)

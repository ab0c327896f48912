"""A card that a user asks for goes before an import and three decks, and no service is asked too fast."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

import anyio
import pytest

from examples.language.sources import from_hsk
from examples.standin.ledger import Line
from tests.workers.places import Place, Town, steps

pytestmark = [pytest.mark.alone, pytest.mark.anyio]

ASKED = 3  # cards on an idle fleet, and as many on a busy one
CHARACTERS = 1000
DECKS, CARDS = 3, 100
SPEED = 1.9  # the quotas of texts and pictures stay so low that no permit is booked ahead
# What a busy machine adds to a call is far more than a network does, and here no call may come too early.
HEADROOM = {f"FLASHCARDS_{service}_JITTER": "0.5" for service in ("TEXT", "PICTURE", "SOUND")}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def answered(town: Town, words: Sequence[str]) -> list[float]:
    """How long each card takes from the request to the answer, of what its calls take one after another."""
    taken: list[float] = []
    for word in words:
        began = time.monotonic()
        assert (await town.card(word)).causes == []
        taken.append((time.monotonic() - began) * town.speed)
    return [seconds / await critical_path(town, word) for seconds, word in zip(taken, words, strict=True)]


async def critical_path(town: Town, word: str) -> float:
    """Service seconds of a card's text, and then of the slowest of its media."""
    (card,) = await town.database.cards([word])
    text, *media = [seconds(await town.lines(), step) for step in steps(card)]
    return text + max(media)


def seconds(lines: Sequence[Line], step: tuple[str, str]) -> float:
    """What the call of a step took."""
    (line,) = (line for line in lines if line["service"] == step[0] and step[1] in line["keys"])
    assert line["seconds"] is not None
    return line["seconds"]


async def goes_first(place: Place, workers: Mapping[str, int]) -> None:
    """A card takes hardly longer while all else is made, and nothing is refused."""
    words = from_hsk(2 * ASKED + CHARACTERS + DECKS * CARDS).wanted
    idle, busy, others = words[:ASKED], words[ASKED : 2 * ASKED], words[2 * ASKED :]
    async with place.fleet(workers, HEADROOM, speed=SPEED) as town:
        alone, among_others = await answered(town, idle), list[float]()
        async with anyio.create_task_group() as group:
            group.start_soon(town.imported, "import", others[:CHARACTERS])
            for number in range(DECKS):
                share = others[CHARACTERS + number * CARDS :][:CARDS]
                group.start_soon(town.deck, f"deck {number}", share)
            await town.until_well("picture", 2 * ASKED + 5)
            among_others += await answered(town, busy)
            group.cancel_scope.cancel()
        refused = [line for line in await town.lines() if line["answer"] == "refused"]
    assert median(among_others) <= 1.2 * median(alone), f"idle {alone}, busy {among_others}"
    assert refused == []


async def test_a_card_goes_first_in_a_fleet_of_a_process_of_each_kind(embedded: Place) -> None:
    await goes_first(embedded, {"card": 1, "deck": 1, "import": 1})


async def test_a_card_goes_first_in_a_fleet_of_eight_processes(own_servers: Place) -> None:
    await goes_first(own_servers, {"card": 2, "deck": 5, "import": 1})

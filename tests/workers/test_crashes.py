"""Workers of the examples that are killed, or told to end: nothing is lost, little paid for twice."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence

import anyio
import pytest
from attrs import frozen

from examples.fleet.children import Child
from examples.language.sources import from_hsk
from examples.loadtest import FAULTS
from tests.workers.places import FULL, Place, Step, Town, steps_of

pytestmark = pytest.mark.anyio

KILLS, CARDS = (30, 500) if FULL else (10, 160)
IMPORTED = CARDS * 2 // 5  # of the cards; the others are in decks from the start
DECK = 60  # cards of a deck, of which the last ten are in the next one, too
SHARED = 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@frozen
class Kill:
    """What the ledger and the database said when a worker had just died.

    Attributes:
        lines: calls that there were.
        in_flight: of them, those whose answer nobody may have: under way, or answered and not saved.
    """

    lines: int
    in_flight: set[tuple[int, Step]]


async def killed(town: Town, worker: Child, words: Sequence[str]) -> Kill:
    """Kill a worker."""
    await town.fleet.kill(worker)
    await town.heard()
    lines = await town.lines()
    saved = await town.saved(words)
    return Kill(
        len(lines),
        {
            (line["index"], step)
            for line in lines
            for step in steps_of(line)
            if line["answer"] is None or (line["answer"] == "ok" and step not in saved)
        },
    )


async def test_workers_killed_at_random_lose_nothing_and_repeat_only_what_was_in_flight(
    place: Place,
) -> None:
    words = from_hsk(CARDS).wanted
    decks = [words[start : start + DECK] for start in range(IMPORTED, CARDS, DECK - SHARED)]
    kills: list[Kill] = []
    variables = {
        "FLASHCARDS_BULK_IMPORT_DECK_SIZE": "50",
        "FLASHCARDS_QUEUE_DEATHS": str(KILLS),  # none of these is a job's fault
    }
    async with place.fleet({"deck": 2, "import": 1}, variables, switches=FAULTS) as town:
        ready = [*town.fleet.workers]

        async def replace(worker: Child) -> None:
            ready.append(await town.add(town.kinds[worker]))

        async def kill_them() -> None:
            """One after the other, spread over the run; another one starts in the place of each."""
            for number in range(KILLS):
                await town.until_well("picture", round((number + random.random()) * CARDS / (KILLS + 3)))
                while not ready:  # noqa: ASYNC110 - a process says so
                    await anyio.sleep(0.05)
                worker = ready.pop(random.randrange(len(ready)))
                kills.append(await killed(town, worker, words))
                group.start_soon(replace, worker)

        with anyio.fail_after(600):
            async with anyio.create_task_group() as group:
                group.start_soon(kill_them)
                group.start_soon(town.imported, "import", words[:IMPORTED])
                for number, deck in enumerate(decks):
                    group.start_soon(town.deck, f"deck {number}", deck)
        repeats = await town.check(words)
        assert await town.database.dead_letters() == []
    assert len(kills) == KILLS
    for step, first, second in repeats:
        assert any(
            (first["index"], step) in kill.in_flight and second["index"] >= kill.lines for kill in kills
        ), f"{step} was paid for twice although it was saved: {first}, {second}"
    assert repeats, "kills that hit nothing prove nothing"


async def test_workers_that_are_told_to_end_finish_what_they_began_and_hand_over_the_rest(
    place: Place,
) -> None:
    words = from_hsk(130).wanted
    imported, deck, cards = words[:60], words[60:110], words[110:]
    async with place.fleet({"deck": 1, "import": 1, "card": 1}) as town:
        async with anyio.create_task_group() as group:
            group.start_soon(town.imported, "import", imported)
            group.start_soon(town.deck, "deck", deck)
            for word in cards:
                group.start_soon(town.card, word)
            await town.until_well("picture", 12)
            with anyio.fail_after(town.client.config.queue.grace):
                for worker in town.fleet.workers:
                    worker.process.send_signal(signal.SIGTERM)
                codes = [await worker.process.wait() for worker in town.fleet.workers]
            assert codes == [0, 0, 0]
            await town.fleet.end_all()
            lines = await town.lines()
            assert {line["answer"] for line in lines} <= {"ok", "refused"}  # none was given up
            begun = {step for line in lines for step in steps_of(line)}
            assert begun == await town.saved(words)
            assert len(begun) < 4 * len(words)
            for kind in ("deck", "import", "card"):
                await town.add(kind)
        assert await town.check(words) == []

"""A card's steps: each is done once, saved as soon as it is paid for, and never done again."""

import anyio
import pytest
from sqlalchemy import update

from examples.database import Card, cards
from examples.enrichment import Enrichment
from examples.errors import ServiceError, UnknownWord
from examples.studio import Studio
from tests.examples.workshop import DEADLINE, SLOW, Workshop, standin_url, until, workshop  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

WORD = "好"
ALL_STEPS = {"text": 1, "picture": 1, "sound": 2}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def saved(studio: Studio) -> Card:
    (card,) = await studio.database.cards([WORD])
    return card


async def test_a_card_is_made_whole(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        card = await Enrichment(studio).enrich(WORD, 0)
        assert card == await saved(studio)
        assert not card.missing
        assert await studio.media.existing(card.media.values()) == set(card.media.values())
    assert workshop.calls == ALL_STEPS


async def test_picture_and_sounds_are_made_side_by_side_after_the_text(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        await Enrichment(studio).enrich(WORD, 0)
    lines = {line["service"]: line for line in workshop.lines()}
    (text,), (picture,) = workshop.lines("text"), workshop.lines("picture")
    assert text["seconds"] is not None
    assert picture["seconds"] is not None
    assert picture["arrived"] >= text["arrived"] + text["seconds"]
    for sound in workshop.lines("sound"):
        assert text["arrived"] + text["seconds"] <= sound["arrived"] < picture["arrived"] + picture["seconds"]
    assert len(lines) == 3


async def test_a_whole_card_asks_nothing(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        made = await Enrichment(studio).enrich(WORD, 0)
        assert await Enrichment(studio).enrich(WORD, 0) == made
    assert workshop.calls == ALL_STEPS


async def test_only_the_steps_that_are_missing_are_done(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        made = await Enrichment(studio).enrich(WORD, 0)
        await studio.database.execute(update(cards).values(word_sound=None))
        assert await Enrichment(studio).enrich(WORD, 0) == made
    assert workshop.calls == ALL_STEPS | {"sound": 3}


async def test_media_that_the_store_has_lost_are_made_again(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        made = await Enrichment(studio).enrich(WORD, 0)
        assert made.picture
        await anyio.Path(studio.config.media.folder, made.picture).unlink()
        studio.media.cache.clear()
        again = await Enrichment(studio).enrich(WORD, 0)
        assert again.picture
        assert await studio.media.get(again.picture)
    assert workshop.calls == ALL_STEPS | {"picture": 2}


async def test_when_a_step_fails_the_others_are_saved_all_the_same(workshop: Workshop) -> None:  # noqa: F811
    workshop.turn(picture={"error_rate": 1})
    async with workshop.studio(FLASHCARDS_PICTURE_ATTEMPTS="1") as studio:
        with pytest.raises(ServiceError):
            await Enrichment(studio).enrich(WORD, 0)
        assert (await saved(studio)).missing == ("picture",)
        workshop.turn(picture={"error_rate": 0})
        assert not (await Enrichment(studio).enrich(WORD, 0)).missing
    assert workshop.calls == ALL_STEPS


async def test_what_is_paid_for_is_saved_though_the_rest_is_cancelled(workshop: Workshop) -> None:  # noqa: F811
    workshop.turn(picture={"slow": 1000})
    async with workshop.studio(FLASHCARDS_PICTURE_TIMEOUT="3600") as studio:
        async with anyio.create_task_group() as group:
            group.start_soon(Enrichment(studio).enrich, WORD, 0)
            await until(lambda: len(workshop.answered) == 3)  # the text, and both sounds
            with anyio.fail_after(DEADLINE):
                while (await saved(studio)).missing != ("picture",):  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            group.cancel_scope.cancel()
        workshop.turn(picture={"slow": SLOW})
        assert not (await Enrichment(studio).enrich(WORD, 0)).missing
    assert workshop.calls == ALL_STEPS


async def test_workers_that_want_the_same_card_at_once_pay_for_it_once(workshop: Workshop) -> None:  # noqa: F811
    async with (
        workshop.studio() as one,
        workshop.studio() as other,
        anyio.create_task_group() as group,
    ):
        for studio in (one, other, one, other):
            group.start_soon(Enrichment(studio).enrich, WORD, 0)
    assert workshop.calls == ALL_STEPS


async def test_a_word_that_nobody_knows_asks_nothing(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        with pytest.raises(UnknownWord, match="does not have 𠀀"):
            await Enrichment(studio).enrich("𠀀", 0)
    assert not workshop.lines()

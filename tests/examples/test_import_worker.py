"""An import makes texts, and leaves decks for the media; it shares words with whoever works on them, too."""

import anyio
import pytest

from examples.database import Deck
from examples.deck_worker import DeckJob
from examples.errors import Unfinished
from examples.import_worker import ImportJob
from examples.studio import Studio
from tests.examples.workshop import Workshop, of, standin_url, workshop  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

WORDS = "一二三四五六七八九十上下大小人口手山水火木日月"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def job(studio: Studio, sent: list[str] | None = None, words: str = WORDS) -> ImportJob:
    async def send(deck: str) -> None:
        (sent if sent is not None else []).append(deck)

    return ImportJob(studio, "hsk", words, 0, send)


async def test_texts_of_many_are_written_ten_in_a_call_and_decks_are_left(workshop: Workshop) -> None:  # noqa: F811
    sent: list[str] = []
    many = {"FLASHCARDS_TEXT_BURST": "2", "FLASHCARDS_BULK_IMPORT_DECK_SIZE": "10"}
    async with workshop.studio(**many) as studio:
        done = await job(studio, sent).run()
        decks = [await studio.database.deck(name) for name in sent]
    assert (done["words"], done["saved"], done["failed"]) == (23, 23, {})
    assert sent == done["decks"] == ["hsk-01", "hsk-02", "hsk-03"]
    assert decks == [Deck(name, WORDS[at : at + 10]) for name, at in zip(sent, (0, 10, 20), strict=True)]
    assert len(workshop.lines()) == 3


async def test_what_its_saves_took_is_told(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        done = await job(studio, words=WORDS[:10]).run()
        assert of(done["saving"]) == studio.saves.seconds > 0


async def test_words_that_have_a_card_are_not_asked_for_but_are_in_the_decks(workshop: Workshop) -> None:  # noqa: F811
    sent: list[str] = []
    async with workshop.studio() as studio:
        await job(studio, words=WORDS[:10]).run()
        done = await job(studio, sent).run()
        deck = await studio.database.deck("hsk-01")
    assert done["already_there"] == 10
    assert deck == Deck("hsk-01", WORDS)
    assert set(workshop.answered.values()) == {1}


async def test_an_import_and_decks_of_the_same_words_pay_for_them_once(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as one, workshop.studio() as other, anyio.create_task_group() as group:
        await one.database.save_deck(Deck("all", WORDS))
        group.start_soon(DeckJob(one, "all", 0).run)
        group.start_soon(job(other).run)
        group.start_soon(job(one).run)
    assert workshop.calls["text"] == len(WORDS)
    assert set(workshop.answered.values()) == {1}


async def test_a_bad_word_is_named_and_the_others_get_their_decks(workshop: Workshop) -> None:  # noqa: F811
    workshop.turn(text={"poison": ["六"]})
    sent: list[str] = []
    async with workshop.studio() as studio:
        with pytest.raises(Unfinished, match=r"1 words have no card \(六: ") as raised:
            await job(studio, sent).run()
        deck = await studio.database.deck("hsk-01")
    assert not raised.value.passing
    assert of(raised.value.result)["saved"] == 22
    assert deck == Deck("hsk-01", WORDS.replace("六", ""))


async def test_stopped_it_leaves_no_decks_yet(workshop: Workshop) -> None:  # noqa: F811
    sent: list[str] = []
    async with workshop.studio() as studio:
        importing = job(studio, sent)
        importing.stop()
        with pytest.raises(Unfinished, match="stopped") as raised:
            await importing.run()
    assert raised.value.passing
    assert not sent

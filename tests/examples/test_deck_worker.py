"""A deck is made card by card: what is whole stays, what fails is named, and it may be stopped."""

import anyio
import pytest

from batchkit import CallStarted
from examples.database import Deck
from examples.deck_worker import DeckJob
from examples.errors import NotAllowed, Unfinished
from examples.services.text import TextService
from examples.studio import Studio
from tests.examples.workshop import Workshop, of, standin_url, workshop  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

WORDS = "一二三四五六七八九十上下大小人口手山水火"
UNKNOWN = "𠀀"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def job(studio: Studio, words: str = WORDS) -> DeckJob:
    await studio.database.save_deck(Deck("numbers", words))
    return DeckJob(studio, "numbers", 0)


async def test_every_card_of_a_deck_is_made_whole(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        done = await (await job(studio)).run()
        progress = await studio.database.progress("numbers")
    assert (done["words"], done["saved"], done["already_there"], done["failed"]) == (20, 20, 0, {})
    assert progress.complete == 20
    assert set(workshop.answered.values()) == {1}
    assert workshop.calls == {"text": 20, "picture": 20, "sound": 40}


async def test_a_deck_that_is_whole_takes_three_queries_and_no_call(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        await (await job(studio)).run()
        calls = len(workshop.lines())
        done = await DeckJob(studio, "numbers", 0).run()
    assert (done["saved"], done["already_there"]) == (20, 20)
    assert done["round_trips"] == 3  # the deck, its cards, how far it is
    assert len(workshop.lines()) == calls


async def test_what_the_dictionary_does_not_know_is_left_out(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        done = await (await job(studio, UNKNOWN + "好")).run()
    assert (done["unknown"], done["saved"]) == ([UNKNOWN], 1)


async def test_a_card_that_fails_is_named_and_the_rest_is_made(workshop: Workshop) -> None:  # noqa: F811
    workshop.turn(text={"poison": ["六"]})
    async with workshop.studio() as studio:
        with pytest.raises(Unfinished, match=r"1 of the cards are not whole .*六.*malformed") as raised:
            await (await job(studio)).run()
        assert not raised.value.passing
        assert list(of(raised.value.result)["failed"]) == ["六"]
        assert (await studio.database.progress("numbers")).complete == 19
        workshop.turn(text={"poison": []})
        await DeckJob(studio, "numbers", 0).run()
    assert set(workshop.answered.values()) == {1}


async def test_an_outage_is_no_fault_of_the_deck(workshop: Workshop) -> None:  # noqa: F811
    workshop.turn(text={"rate": 0.001, "burst": 1, "retry_after": "none"})
    async with workshop.studio(FLASHCARDS_TEXT_ATTEMPTS="1") as studio:
        with pytest.raises(Unfinished) as raised:
            await (await job(studio)).run()
        assert raised.value.passing


async def test_a_key_that_is_refused_ends_it_at_once(
    workshop: Workshop,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object) -> object:
        raise NotAllowed("it does not accept the API key (401)")

    monkeypatch.setattr(TextService, "write", refuse)
    async with workshop.studio() as studio:
        with pytest.raises(NotAllowed, match="API key"):
            await (await job(studio)).run()
    assert not workshop.lines()


async def test_stopped_it_finishes_what_it_began_and_says_so(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        making = await job(studio)
        making.hooks = [lambda event: making.stop() if isinstance(event, CallStarted) else None]
        with pytest.raises(Unfinished, match="it was stopped") as raised:
            await making.run()
        progress = await studio.database.progress("numbers")
        assert raised.value.passing
        assert 0 < progress.complete == progress.texts < 20
        await DeckJob(studio, "numbers", 0).run()
    assert set(workshop.answered.values()) == {1}


async def test_no_more_cards_at_once_than_it_was_told(workshop: Workshop) -> None:  # noqa: F811
    at_once = [0, 0]

    def count(event: object) -> None:
        at_once[0] += {"CallStarted": 1, "CallFinished": -1}.get(type(event).__name__, 0)
        at_once[1] = max(at_once)

    async with workshop.studio(FLASHCARDS_DECK_CONCURRENCY="4") as studio:
        making = await job(studio)
        making.hooks = [count]
        await making.run()
    assert at_once[1] == 4


async def test_decks_that_share_words_pay_for_them_once(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as one, workshop.studio() as other, anyio.create_task_group() as group:
        await one.database.save_deck(Deck("other", WORDS[::-1]))
        group.start_soon((await job(one)).run)
        group.start_soon(DeckJob(other, "other", 0).run)
    assert set(workshop.answered.values()) == {1}
    assert workshop.calls == {"text": 20, "picture": 20, "sound": 40}


async def test_a_deck_that_is_not_there_is_no_passing_matter(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.studio() as studio:
        with pytest.raises(Unfinished, match="no deck nothing") as raised:
            await DeckJob(studio, "nothing", 0).run()
    assert not raised.value.passing

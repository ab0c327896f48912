"""What becomes of jobs: done, tried again, or buried with the cause and sent again by hand."""

from typing import Any

import anyio
import pytest

from examples import enqueue
from examples.database import DeadLetter, Deck, opened
from examples.queueing.attempts import Attempts, pause
from examples.queueing.priorities import Priority
from examples.queueing.queue import JobQueue
from examples.settings import Settings
from tests.examples.workshop import DEADLINE, Workshop, standin_url, until, workshop  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

WORDS = "一二三四五六七八九十上下大小人口手山水火"
INTERACTIVE, NORMAL = Priority.INTERACTIVE, Priority.NORMAL


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def done(queue: JobQueue, arguments: dict[str, object], priority: Priority = INTERACTIVE) -> Any:
    """What a job returned, or the error that it ended with."""
    job = await queue.send({**arguments, "priority": int(priority)}, priority)
    result = await queue.result_by_id(job, DEADLINE)
    return result.result if result.success else result.exception


async def letters(config: Settings) -> list[DeadLetter]:
    async with opened(config.database) as database:
        return await database.dead_letters()


async def save_deck(config: Settings, words: str = WORDS) -> None:
    async with opened(config.database) as database:
        await database.save_deck(Deck("deck", words))


async def test_a_card_comes_back_whole(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.working("card") as queue:
        result = await done(queue, {"word": "好"})
    assert (result["card"]["word"], result["card"]["pinyin"]) == ("好", "hǎo, hào")
    assert all(result["card"][step] for step in ("picture", "word_sound", "sentence_sound"))


async def test_an_import_has_its_decks_made_whole(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.working("import") as queue:
        await queue.send({"name": "hsk", "words": WORDS, "priority": 0}, Priority.BULK, "an id")
        result = (await queue.result_by_id("an id", DEADLINE)).result
        async with workshop.working("deck") as decks:
            await decks.result_by_id("an id:hsk-01", DEADLINE)
    assert result["decks"] == ["hsk-01"]
    assert workshop.calls["picture"] == 20
    assert set(workshop.answered.values()) == {1}


async def test_a_job_that_fails_again_and_again_is_buried_and_sent_again(
    workshop: Workshop,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = workshop.config()
    await save_deck(config)
    workshop.turn(text={"poison": ["六"]})
    async with workshop.working("deck") as queue:
        said = await done(queue, {"deck": "deck"}, NORMAL)
        assert "1 of the cards are not whole" in said["error"]
        assert list(said["result"]["failed"]) == ["六"]
        (letter,) = await letters(config)
        assert (letter.job, letter.attempts) == ("deck", config.queue.tries)
        assert letter.arguments == {"deck": "deck", "priority": int(NORMAL)}
        assert "六" in letter.cause

        workshop.turn(text={"poison": []})
        for name, value in workshop.environment.items():
            monkeypatch.setenv(name, value)
        assert await anyio.to_thread.run_sync(enqueue.main, ["again", letter.id]) == 0
        job = capsys.readouterr().out.strip()
        assert (await queue.result_by_id(job, DEADLINE)).success
        assert await letters(config) == []
    assert set(workshop.answered.values()) == {1}


async def test_an_outage_uses_up_no_tries(workshop: Workshop) -> None:  # noqa: F811
    more = {"FLASHCARDS_TEXT_ATTEMPTS": "1", "FLASHCARDS_QUEUE_TRIES": "1"}
    workshop.turn(text={"rate": 0.001, "burst": 1, "retry_after": "none"})
    config = workshop.config(**more)
    await save_deck(config, WORDS[:5])
    async with workshop.working("deck", **more) as queue, anyio.create_task_group() as group:

        async def repair() -> None:
            await until(lambda: len(workshop.lines("text")) >= 20)
            workshop.turn(text={"rate": 1000, "burst": 1000})

        group.start_soon(repair)
        assert (await done(queue, {"deck": "deck"}, NORMAL))["saved"] == 5
    assert await letters(config) == []


async def test_what_will_never_go_well_is_buried_at_once(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.working("card") as queue:
        assert "does not have 𠀀" in (await done(queue, {"word": "𠀀"}))["error"]
    (letter,) = await letters(workshop.config())
    assert letter.attempts == 1


async def test_a_job_under_which_worker_after_worker_dies_is_buried(workshop: Workshop) -> None:  # noqa: F811
    async with workshop.working("card") as queue:
        attempts = Attempts(queue.redis, f"{queue.prefix}:attempts:an id")
        for _ in range(queue.options.deaths):
            await attempts.begin()
        await queue.send({"word": "好", "priority": 0}, NORMAL, "an id")
        result = await queue.result_by_id("an id", DEADLINE)
    assert not result.success
    (letter,) = await letters(workshop.config())
    assert "20 workers died" in letter.cause
    assert not workshop.lines()


def test_the_pauses_between_two_tries_double(standin_url: str) -> None:  # noqa: F811
    options = Workshop(standin_url, {}).config().queue
    assert [pause(options, number) for number in (1, 2, 3, 6, 7, 1000)] == [2, 4, 8, 60, 60, 60]

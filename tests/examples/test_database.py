"""Cards are kept, whole batches at a time, and nothing that was paid for is lost, whoever else writes."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from examples.database import Card, Database, DeadLetter, Deck, Progress, cards, chunks
from examples.database.model import decks
from examples.errors import UsageError
from tests.helpers import eventually
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def card(word: str, mnemonic: str = "a hook", **media: str) -> Card:
    return Card(word, "hǎo", {"hǎo": ["good"]}, mnemonic, "你好！", "nǐ hǎo", "Hello!", **media)


WHOLE = card("好", picture="a.webp", word_sound="b.mp3", sentence_sound="c.mp3")


class Counted:
    """How many round trips a block took."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> "Counted":
        self._before = self._database.traffic.round_trips
        return self

    def __exit__(self, *_: object) -> None:
        self.trips = self._database.traffic.round_trips - self._before


async def test_a_batch_is_one_round_trip(database: Database) -> None:
    batch = [card(word) for word in "一二三四五六七八九十"]
    with Counted(database) as counted:
        assert await database.save(batch) == batch
    assert (counted.trips, database.traffic.rows) == (1, 10)
    assert await database.count() == 10


async def test_a_batch_of_thousands_is_a_statement_for_each_thousand(database: Database) -> None:
    batch = [card(chr(code)) for code in range(0x4E00, 0x4E00 + 2500)]
    with Counted(database) as counted:
        assert await database.save(reversed(batch)) == batch[::-1]
    assert counted.trips == 3
    assert await database.cards([kept.word for kept in batch]) == batch


async def test_steps_are_added_one_by_one(database: Database) -> None:
    assert await database.save([card("好")]) == [card("好")]
    for step in ("picture", "word_sound", "sentence_sound"):
        await database.save([card("好", **{step: getattr(WHOLE, step)})])
    (kept,) = await database.cards("好")
    assert kept == WHOLE
    assert kept.missing == ()


async def test_a_card_says_what_is_there_and_what_is_missing() -> None:
    half = card("好", picture="a.webp")
    assert half.media == {"picture": "a.webp"}
    assert half.missing == ("word_sound", "sentence_sound")


async def test_the_text_that_was_there_first_stays_and_the_second_writer_is_told(database: Database) -> None:
    await database.save([card("好", "first", word_sound="old.mp3")])
    second = card("好", "second", picture="a.webp", word_sound="new.mp3", sentence_sound="c.mp3")
    kept = card("好", "first", word_sound="new.mp3")  # a picture of the second text would not fit
    assert await database.save([second]) == [kept]
    assert await database.cards("好") == [kept]


async def test_a_picture_that_was_lost_is_replaced(database: Database) -> None:
    await database.save([WHOLE])
    again = evolve(WHOLE, picture="again.webp", word_sound=None)
    assert await database.save([again]) == [evolve(WHOLE, picture="again.webp")]


async def test_what_the_dictionary_says_is_brought_up_to_date(database: Database) -> None:
    await database.save([card("好")])
    newer = evolve(card("好"), pinyin="hǎo, hào", definitions={"hǎo": ["good"], "hào": ["to be fond of"]})
    assert await database.save([newer]) == [newer]
    assert await database.count() == 1


async def test_a_card_that_is_forgotten_is_made_anew(database: Database) -> None:
    await database.save([WHOLE, card("你")])
    await database.forget("好吗")
    assert await database.known("你好吗") == {"你"}
    assert await database.save([card("好", "second")]) == [card("好", "second")]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.permutations(["picture", "word_sound", "sentence_sound", "text"]))
async def test_writers_of_single_steps_lose_nothing_in_any_order(
    database: Database, steps: list[str]
) -> None:
    await database.forget("好")
    async with anyio.create_task_group() as group:
        for step in steps:
            media = {} if step == "text" else {step: getattr(WHOLE, step)}
            group.start_soon(database.save, [card("好", **media)])
    assert await database.cards("好") == [WHOLE]


async def test_writers_of_the_same_cards_in_other_orders_do_not_lock_each_other_out(
    session_postgres: Postgres,
) -> None:
    url, words = session_postgres.new_database(), "一二三四五"
    name = urlsplit(url).path.removeprefix("/")
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    first, second, third = [await Database.open(url) for _ in range(3)]
    await third.save([card(word) for word in words])

    async def blocked(count: int) -> None:
        query = f"{waiting} and datname = '{name}'"
        await anyio.to_thread.run_sync(eventually, lambda: session_postgres.do(query) == [(count,)])

    async with anyio.create_task_group() as group, third.transaction() as connection:
        # holds the card that both come to in the middle
        await connection.execute(update(cards).where(cards.c.word == "三").values(pinyin="sān"))
        group.start_soon(first.save, [card(word, picture="a.webp") for word in words])
        await blocked(1)
        group.start_soon(second.save, [card(word, word_sound="b.mp3") for word in reversed(words)])
        await blocked(2)
    both = [card(word, picture="a.webp", word_sound="b.mp3") for word in words]
    assert await third.cards(words) == both
    for database in (first, second, third):
        await database.close()
    deadlocks = f"select deadlocks from pg_stat_database where datname = '{name}'"
    assert session_postgres.do(deadlocks) == [(0,)]


async def test_known_is_one_query_for_many_words(database: Database) -> None:
    await database.save([card("好"), card("你")])
    with Counted(database) as counted:
        assert await database.known([*map(chr, range(0x4E00, 0x4E00 + 9000)), "好"]) == {"好", "你"}
    assert counted.trips == 1


async def test_cards_come_in_the_order_of_their_words_by_one_query(database: Database) -> None:
    await database.save([card("好"), card("你")])
    with Counted(database) as counted:
        assert await database.cards("学你好") == [card("你"), card("好")]
    assert counted.trips == 1


async def test_nothing_to_do_is_no_round_trip(database: Database) -> None:
    with Counted(database) as counted:
        assert await database.save([]) == []
        assert await database.cards([]) == []
        assert await database.known([]) == set()
    assert counted.trips == 0


async def test_many_callers_save_at_once(database: Database) -> None:
    async with anyio.create_task_group() as group:
        for batch in chunks(map(chr, range(0x4E00, 0x4E00 + 400)), 10):
            group.start_soon(database.save, [card(word) for word in batch])
    assert await database.count() == 400


async def test_a_deck_keeps_its_words_in_order_and_each_once(database: Database) -> None:
    await database.save_deck(Deck("greetings", "你好吗你"))
    with Counted(database) as counted:
        assert await database.deck("greetings") == Deck("greetings", ("你", "好", "吗"))
    assert counted.trips == 1
    assert await database.deck("farewells") is None


async def test_a_deck_is_replaced_whole(database: Database) -> None:
    await database.save_deck(Deck("first", "一二三四五"))
    await database.save_deck(Deck("other", "九"))
    await database.save_deck(Deck("first", "三一"))
    assert await database.deck("first") == Deck("first", ("三", "一"))
    await database.save_deck(Deck("first", ""))
    assert await database.deck("first") == Deck("first", ())
    assert await database.deck("other") == Deck("other", ("九",))


async def test_writers_of_one_deck_leave_the_deck_of_one_of_them(place: str) -> None:
    databases = [await Database.open(place) for _ in range(4)]
    versions = [Deck("same", [chr(0x4E00 + number + step) for step in range(50)]) for number in range(4)]
    async with anyio.create_task_group() as group:
        for database, deck in zip(databases, versions, strict=True):
            for _ in range(5):
                group.start_soon(database.save_deck, deck)
    assert await databases[0].deck("same") in versions
    for database in databases:
        await database.close()


async def test_the_progress_of_a_deck(database: Database) -> None:
    await database.save_deck(Deck("greetings", "你好吗"))
    assert await database.progress("greetings") == Progress(words=3, texts=0, complete=0)
    await database.save([WHOLE, card("你", picture="a.webp"), card("不", picture="a.webp")])
    with Counted(database) as counted:
        assert await database.progress("greetings") == Progress(words=3, texts=2, complete=1)
    assert counted.trips == 1


async def test_a_job_that_failed_for_good_is_listed_until_it_is_sent_again(database: Database) -> None:
    noon = datetime(2026, 1, 1, 12, 0, 0, 123456, UTC)
    first = DeadLetter("id-1", "card", {"word": "好", "priority": 2}, "the key is refused", 3, noon)
    last = DeadLetter("id-2", "deck", {"name": "greetings"}, "no such deck", 1, noon + timedelta(hours=1))
    await database.bury(first)
    await database.bury(last)
    assert await database.dead_letters() == [last, first]
    assert await database.dead_letters(limit=1) == [last]
    await database.unbury(["id-2", "unknown"])
    assert await database.dead_letters() == [first]


async def test_a_job_that_fails_again_is_listed_once_with_its_last_cause(database: Database) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    letter = DeadLetter("id-1", "card", {"word": "好"}, "first cause", 3, noon)
    again = evolve(letter, cause="second cause", attempts=6, failed=noon + timedelta(days=1))
    await database.bury(letter)
    await database.bury(again)
    assert await database.dead_letters() == [again]


async def test_a_transaction_is_carried_out_whole_or_not_at_all(database: Database) -> None:
    class Killed(Exception):
        pass

    async def half() -> None:
        async with database.transaction() as connection:
            await connection.execute(insert(decks).values(name="half", created=datetime.now(UTC)))
            raise Killed

    with pytest.raises(Killed):
        await half()
    assert await database.deck("half") is None


async def test_a_plain_path_is_a_file_and_stays_one(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        file = tmp_path / name
        database = await Database.open(str(file) if name == "a.db" else f"sqlite:///{file}")
        await database.save([card("好")])
        assert database.place == str(file)
        await database.close()
        with closing(sqlite3.connect(file)) as connection, connection:
            assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
            assert connection.execute("select word from cards").fetchall() == [("好",)]
        connection.close()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("mysql://root:secret@host/name", "only SQLite files and PostgreSQL"),
        ("sqlite://", "names no file"),
        ("://", "no URL that can be read"),
        ("no/such/folder/cards.db", "There is no folder"),
        ("postgresql://user:secret@127.0.0.1:1/name", "cannot be used"),
    ],
)
async def test_what_cannot_be_opened_is_one_sentence(place: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as raised:
        await Database.open(place)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(UsageError, match="not a database"):
        await Database.open(str(tmp_path / "letter.txt"))

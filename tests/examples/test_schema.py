"""Tables are made on the first run and grow with the code, whoever starts first; old files go on working."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from attrs import evolve
from sqlalchemy import text

from examples.database import Card, Database, Deck
from examples.database.connecting import engine_for
from tests.postgres import Postgres

ROOT = Path(__file__).parents[2]
STARTED = (
    "import sys, anyio; from examples.database import dictionary; from examples.database import Database"
)
OPEN = f"""{STARTED}
async def main():
    print("ready", flush=True)
    for place in sys.stdin:
        database = await Database.open(place.strip())
        print(await database.count(), flush=True)
        await database.close()
anyio.run(main)
"""

# What the first release of the demo made, with its types, and how it saves.
FIRST = """
create table cards (
    word varchar not null, pinyin varchar not null, definitions json not null, mnemonic varchar not null,
    example varchar not null, example_pinyin varchar not null, example_translation varchar not null,
    created {moment} not null, updated {moment} not null, primary key (word)
)"""
SAVE_AS_THE_FIRST = """
insert into cards (word, pinyin, definitions, mnemonic, example, example_pinyin, example_translation,
    created, updated)
values ('{word}', 'hǎo', '{{"h\\u01ceo": ["good"]}}', 'a hook', '你好！', 'nǐ hǎo', 'Hello!',
    '2026-11-26 16:25:26.497991', '2026-11-26 16:25:26.497991')
on conflict (word) do update set mnemonic = excluded.mnemonic, updated = excluded.updated
returning word"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def card(word: str) -> Card:
    return Card(word, "hǎo", {"hǎo": ["good"]}, "a hook", "你好！", "nǐ hǎo", "Hello!")


async def run(place: str, *statements: str) -> None:
    engine = engine_for(place)
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement.replace(":", "\\:")))
    await engine.dispose()


@pytest.fixture
async def old_place(place: str) -> str:
    """A database of the first release with one card in it."""
    moment = "timestamp with time zone" if "://" in place else "datetime"
    await run(place, FIRST.format(moment=moment), SAVE_AS_THE_FIRST.format(word="好"))
    return place


async def test_a_database_of_the_first_release_goes_on_working(old_place: str) -> None:
    database = await Database.open(old_place)
    assert await database.cards("好") == [card("好")]
    assert await database.known("好你") == {"好"}
    whole = evolve(card("好"), picture="a.webp", word_sound="b.mp3", sentence_sound="c.mp3")
    assert await database.save([whole]) == [whole]
    await database.save_deck(Deck("greetings", "你好"))
    assert (await database.progress("greetings")).complete == 1
    await database.close()


async def test_a_worker_of_the_first_release_goes_on_working_beside_new_ones(old_place: str) -> None:
    database = await Database.open(old_place)
    await database.save([evolve(card("好"), picture="a.webp")])
    await run(old_place, SAVE_AS_THE_FIRST.format(word="好"), SAVE_AS_THE_FIRST.format(word="你"))
    assert await database.cards("好你") == [evolve(card("好"), picture="a.webp"), card("你")]
    await database.close()


async def test_what_is_complete_is_only_looked_at(place: str) -> None:
    await (await Database.open(place)).close()
    database = await Database.open(place)
    assert database.traffic.round_trips <= 10
    await database.close()


async def test_a_user_who_may_not_make_tables_may_use_those_there_are(session_postgres: Postgres) -> None:
    url = session_postgres.new_database()
    await (await Database.open(url)).close()
    await run(
        url,
        "drop role if exists worker",
        "create role worker login",
        "grant select, insert, update, delete on all tables in schema public to worker",
    )
    database = await Database.open(url.replace("postgres@", "worker@"))
    assert await database.save([card("好")]) == [card("好")]
    await database.close()
    await run(url, "drop owned by worker", "drop role worker")


@contextmanager
def workers(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have imported all they need, and open each database that they are told."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", OPEN],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield started


async def test_a_new_file_into_which_another_program_writes_is_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "new.db"
    with closing(sqlite3.connect(place, check_same_thread=False)) as other:
        other.execute("create table theirs (word text)")
        other.execute("begin immediate")
        timer = threading.Timer(0.2, other.rollback)
        timer.start()
        database = await Database.open(str(place))
        timer.join()
    assert await database.known("好") == set()
    await database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_workers_that_start_together_on_a_fresh_database(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite":
        places = [str(tmp_path / f"{number}.db") for number in range(10)]
    else:
        server: Postgres = request.getfixturevalue("session_postgres")
        places = [server.new_database() for _ in range(5)]
    with workers(4) as started:
        for place in places:
            for process in started:
                assert process.stdin
                process.stdin.write(f"{place}\n")
                process.stdin.flush()
            for process in started:
                assert process.stdout
                if process.stdout.readline() != "0\n":
                    pytest.fail(process.communicate()[1])
        for process in started:
            process.communicate()

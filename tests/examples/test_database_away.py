"""A database that is away for a while is waited for, and what will not pass is said at once."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import anyio
import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from examples.database import Card, Database, connecting, database, worth_waiting_for
from examples.errors import UsageError
from tests.helpers import DEADLINE
from tests.postgres import Postgres

A_MOMENT = 0.5  # seconds for which something is away

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def card(word: str) -> Card:
    return Card(word, "hǎo", {"hǎo": ["good"]}, "a hook", "你好！", "nǐ hǎo", "Hello!")


@pytest.fixture
async def cards(postgres: Postgres) -> AsyncIterator[Database]:
    """On a server of this test's own."""
    opened = await Database.open(postgres.new_database(), patience=30)
    yield opened
    await opened.close()


async def test_a_restart_is_waited_for(postgres: Postgres, cards: Database) -> None:
    await cards.save([card("好")])
    postgres.stop()
    async with anyio.create_task_group() as group:
        group.start_soon(cards.save, [card("你")])
        group.start_soon(cards.known, "好")
        await anyio.sleep(A_MOMENT)
        await anyio.to_thread.run_sync(postgres.start)
    assert await cards.known("你好吗") == {"你", "好"}


async def test_what_was_saved_before_a_crash_is_there_and_saving_goes_on(
    postgres: Postgres, cards: Database
) -> None:
    numbers, saved = count(0x4E00), list[str]()

    async def save_until(crashes: anyio.Event) -> None:
        after = 0
        while after < 3:
            batch = [card(chr(next(numbers))) for _ in range(10)]
            saved.extend(kept.word for kept in await cards.save(batch))
            after += crashes.is_set()

    over = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(save_until, over)
        for _ in range(2):
            await anyio.sleep(A_MOMENT)
            await anyio.to_thread.run_sync(postgres.crash)
            await anyio.to_thread.run_sync(postgres.start)
        over.set()
    assert await cards.known(saved) == set(saved)
    assert await cards.count() == len(saved) == next(numbers) - 0x4E00


async def test_a_server_that_does_not_answer_is_given_up_and_asked_again(
    postgres: Postgres, cards: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ANSWER_TIMEOUT", 0.2)
    async with anyio.create_task_group() as group:
        with postgres.paused():
            given_up = anyio.Event()
            event.listen(cards.engine.sync_engine, "close", lambda *_: given_up.set())
            group.start_soon(cards.save, [card("好")])
            with anyio.fail_after(DEADLINE):
                await given_up.wait()
    assert await cards.known("好") == {"好"}


async def test_patience_ends(postgres: Postgres, cards: Database) -> None:
    postgres.stop()
    cards.patience = 0.3
    with anyio.fail_after(10), pytest.raises(OperationalError, match=r"refused|closed") as raised:
        await cards.save([card("好")])
    assert worth_waiting_for(raised.value)


async def test_a_caller_that_is_cancelled_does_not_wait(postgres: Postgres, cards: Database) -> None:
    postgres.stop()
    with anyio.fail_after(10), anyio.move_on_after(A_MOMENT) as scope:
        await cards.save([card("好")])
    assert scope.cancelled_caught


async def test_a_connection_beyond_the_limit_is_waited_for(postgres: Postgres) -> None:
    url = postgres.new_database()
    await (await Database.open(url)).close()
    with psycopg.connect(url) as connection:
        connection.execute("create role worker login connection limit 3")  # two less than we would have
        connection.execute("grant all on all tables in schema public to worker")
    opened = await Database.open(url.replace("postgres@", "worker@"), patience=30)
    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(opened.save, [card(chr(0x4E00 + number))])
    assert await opened.count() == 40
    assert opened.traffic.rows == 40
    await opened.close()


async def test_a_missing_table_is_not_waited_for(database: Database) -> None:
    await database.execute(text("drop table cards"))
    before = database.traffic.round_trips
    with pytest.raises((OperationalError, ProgrammingError), match=r"no such table|does not exist") as raised:
        await database.count()
    assert not worth_waiting_for(raised.value)
    assert database.traffic.round_trips - before == 1


async def test_a_wrong_password_and_a_wrong_name_are_said_at_once(postgres: Postgres) -> None:
    url = postgres.new_database()
    postgres.do("create role worker login password 'right'")
    postgres.ask_for_a_password("worker")
    locked = url.replace("postgres@", "worker:secret@")
    with pytest.raises(UsageError, match="password authentication failed") as raised:
        await Database.open(locked)
    assert "secret" not in str(raised.value)
    with pytest.raises(UsageError, match="does not exist"):
        await Database.open(f"{url}_not")
    opened = Database(connecting.engine_for(locked))
    with anyio.fail_after(10), pytest.raises(OperationalError, match="authentication failed"):
        await opened.count()
    await opened.close()


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Another program writes into the file as long as the block runs."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


async def test_a_file_that_is_locked_for_longer_than_sqlite_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "LOCK_TIMEOUT", 0.05)
    opened = await Database.open(str(tmp_path / "cards.db"), patience=30)
    async with anyio.create_task_group() as group:
        with held(tmp_path / "cards.db"):
            group.start_soon(opened.save, [card("好")])
            await anyio.sleep(A_MOMENT)
            assert await opened.known("好") == set()  # readers do not wait
    assert await opened.known("好") == {"好"}
    opened.patience = 0.1
    with held(tmp_path / "cards.db"), pytest.raises(OperationalError, match="locked") as raised:
        await opened.save([card("你")])
    assert worth_waiting_for(raised.value)
    await opened.close()


def refused(code: str) -> DBAPIError:
    """What SQLAlchemy raises for an SQLSTATE."""
    return OperationalError("select 1", {}, psycopg.errors.lookup(code)("refused"))


@pytest.mark.parametrize("code", ["57P01", "57P03", "53300", "40001", "40P01", "08006", "08001"])
def test_codes_that_pass(code: str) -> None:
    assert worth_waiting_for(refused(code))


@pytest.mark.parametrize("code", ["53100", "28P01", "42P01", "23505", "22001", "25006", "57014"])
def test_codes_that_do_not(code: str) -> None:
    assert not worth_waiting_for(refused(code))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.OperationalError("connection failed: Connection refused"), True),
        (psycopg.OperationalError("FATAL:  the database system is starting up"), True),
        (psycopg.OperationalError('FATAL:  database "cards" does not exist'), False),
        (psycopg.OperationalError("FATAL:  no pg_hba.conf entry for host"), False),
        (NoConnectionFree("QueuePool limit of size 5 reached"), True),
        (TimeoutError("no answer within 30 s"), True),
        (sqlite3.OperationalError("no such table: cards"), False),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), False),
        (ValueError("a bug of ours"), False),
    ],
)
def test_errors_without_a_code(error: Exception, passes: bool) -> None:
    assert worth_waiting_for(error) is passes

"""Redis or the database is gone for a while: work waits and goes on, and nobody's memory grows meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing

import anyio
import pytest

from examples.language.sources import from_hsk
from tests.workers.places import Place, Town, resident

pytestmark = pytest.mark.anyio

AWAY = 30.0  # service seconds
CARDS = 120
GROWTH = 30.0  # megabytes
# coredis leaves streams of anyio's to the garbage collector when a connection is lost.
UNCLOSED = "ignore::pytest.PytestUnraisableExceptionWarning"
Outage = Callable[[Town], AbstractAsyncContextManager[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def redis_stands_still(town: Town) -> AsyncIterator[None]:
    """It takes connections, and answers nobody."""
    pid = town.redis_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def redis_is_killed(town: Town) -> AsyncIterator[None]:
    """It comes back with its data."""
    server = town.place.server
    assert server is not None
    server.kill()
    try:
        yield
    finally:
        await anyio.to_thread.run_sync(server.start)


@asynccontextmanager
async def redis_loses_all(town: Town) -> AsyncIterator[None]:
    """It comes back empty: quotas, claims and the queue are gone, and what streaq had put there."""
    async with redis_is_killed(town):
        yield
        server = town.place.server
        assert server is not None
        server.forget()


@asynccontextmanager
async def database_is_away(town: Town) -> AsyncIterator[None]:
    """PostgreSQL is stopped and started; another process writes into the SQLite file all the time."""
    if (postgres := town.place.postgres) is not None:
        await anyio.to_thread.run_sync(postgres.stop)
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(postgres.start)
    else:
        with closing(sqlite3.connect(town.place.database_url, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            yield
            connection.execute("rollback")


async def survives(place: Place, outage: Outage) -> None:
    """A deck and an import are made, in the midst of which something is gone for a while."""
    words = from_hsk(CARDS).wanted
    half = CARDS // 2
    memory: list[list[float]] = []
    async with place.fleet({"deck": 1, "import": 1}, {"FLASHCARDS_BULK_IMPORT_DECK_SIZE": "30"}) as town:
        with anyio.fail_after(240):
            async with anyio.create_task_group() as group:
                group.start_soon(town.deck, "deck", words[:half])
                group.start_soon(town.imported, "import", words[half:])
                await town.until_well("picture", CARDS // 4)
                memory.append([resident(worker) for worker in town.fleet.workers])
                async with outage(town):
                    await anyio.sleep(AWAY / town.speed)
                    memory.append([resident(worker) for worker in town.fleet.workers])
        memory.append([resident(worker) for worker in town.fleet.workers])
        assert all(worker.running for worker in town.fleet.workers)
        assert await town.check(words) == []
        assert await town.database.dead_letters() == []
    for before, *later in zip(*memory, strict=True):
        assert max(later) - before < GROWTH, f"{before} MB grew to {later} in and after the outage"


async def test_a_redis_that_answers_nobody_is_waited_for(place: Place) -> None:
    await survives(place, redis_stands_still)


@pytest.mark.filterwarnings(UNCLOSED)
async def test_a_redis_that_crashes_and_comes_back_with_its_data_is_waited_for(
    own_servers: Place,
) -> None:
    await survives(own_servers, redis_is_killed)


@pytest.mark.filterwarnings(UNCLOSED)
async def test_workers_go_on_when_redis_comes_back_without_its_data(own_servers: Place) -> None:
    words = from_hsk(CARDS).wanted
    async with own_servers.fleet({"deck": 1}) as town, anyio.create_task_group() as group:
        group.start_soon(town.deck, "deck", words)
        await town.until_well("picture", CARDS // 4)
        async with redis_loses_all(town):
            await anyio.sleep(AWAY / town.speed)
        with anyio.fail_after(120):
            while (await town.database.progress("deck")).complete < CARDS:  # noqa: ASYNC110 - its job is lost
                await anyio.sleep(0.1)
            again = await town.deck("deck", words)
        assert (again.causes, again.results[0]["already_there"]) == ([], CARDS)
        assert all(worker.running for worker in town.fleet.workers)
        assert await town.check(words) == []
        group.cancel_scope.cancel()


async def test_a_database_that_is_away_is_waited_for(place: Place) -> None:
    await survives(place, database_is_away)

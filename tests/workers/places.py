"""Fleets of worker processes, for tests of what they do together and of what they survive.

Each test runs on a place of either kind: an embedded Valkey with an SQLite file, as on one machine, or a
Redis and a PostgreSQL that are there already.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import redis
from attrs import define

from examples import database, settings
from examples.database import Card, Database, Deck
from examples.fleet import client, fleet
from examples.fleet.children import Child
from examples.fleet.client import Client, Done
from examples.fleet.fleet import Fleet, Plan
from examples.language import words
from examples.loadtest import main
from examples.media.store import MediaStore, address
from examples.queueing.priorities import Priority
from examples.services import services
from examples.standin.ledger import Line
from tests.postgres import Postgres
from tests.servers import BINARIES, Server

FULL = os.environ.get("BATCHKIT_FULL") == "1"  # as long as it takes; otherwise in short
SPEED = 20.0  # service seconds in a second
OURS = ("FLASHCARDS_", "OPENAI_", "FAL_", "AZURE_", "AWS_", "REDIS_URL", "ENVIRONMENT", "WORKER_SCALE_FACTOR")
# A busy machine holds calls up for longer than a network does: more headroom, so that none is refused; and
# more patience, so that none is given up and made again.
CALM = {
    **{f"FLASHCARDS_{service}_JITTER": "0.2" for service in ("TEXT", "PICTURE", "SOUND")},
    **{f"FLASHCARDS_{service}_TIMEOUT": "600" for service in ("TEXT", "PICTURE", "SOUND")},
    "FLASHCARDS_QUEUE_IDLE_TIMEOUT": "2",
    "FLASHCARDS_QUEUE_PAUSE": "0.1",
}
CLOSE_WAIT = "08"  # the other end is closed, and it was not yet read that far
Step = tuple[str, str]  # service, key
Repeat = tuple[Step, Line, Line]  # a step, the call before, and the one after
LoadTest = Callable[..., dict[str, Any]]  # its report, by its arguments


@define(eq=False)
class Place:
    """Where a fleet can be started.

    Attributes:
        folder: of its files.
        database_url: a new database with the characters of the dictionary.
        redis_url: of a server that runs; empty: the fleet brings its own.
        server: that server, if it is one.
        postgres: the server of the database, if it is one.
    """

    folder: Path
    database_url: str
    redis_url: str = ""
    server: Server | None = None
    postgres: Postgres | None = None

    @asynccontextmanager
    async def fleet(
        self,
        workers: Mapping[str, int],
        more: Mapping[str, str] = MappingProxyType({}),
        *,
        speed: float = SPEED,
        switches: Sequence[str] = (),
    ) -> AsyncIterator[Town]:
        """A fleet of so many workers of each kind; `more` are further variables of theirs."""
        variables = {
            **CALM,
            "FLASHCARDS_DATABASE_URL": self.database_url,
            "FLASHCARDS_MEDIA_FOLDER": str(self.folder / "media"),
            **more,
        }
        plan = Plan(
            folder=self.folder,
            workers=workers,
            speed=speed,
            switches=switches,
            redis_url=self.redis_url,
            environment=variables,
        )
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(fleet.started(plan))
            config = settings.load(running.environment)
            cards = await stack.enter_async_context(database.opened(config.database))
            sender = await stack.enter_async_context(client.opened(config, cards, running.services))
            kinds = [kind for kind, count in workers.items() for _ in range(count)]
            yield Town(self, running, sender, dict(zip(running.workers, kinds, strict=True)))


@define(eq=False)
class Town:
    """A fleet that runs, and who sends it work.

    Attributes:
        kinds: of the workers that were started.
    """

    place: Place
    fleet: Fleet
    client: Client
    kinds: dict[Child, str]

    @property
    def database(self) -> Database:
        return self.client.database

    @property
    def speed(self) -> float:
        return self.fleet.plan.speed

    @property
    def standin(self) -> str:
        """The URL of the stand-in."""
        return self.fleet.environment["FLASHCARDS_SERVICES_STANDIN"]

    # its workers

    async def add(self, kind: str) -> Child:
        """One more worker."""
        (worker,) = await self.fleet.add(kind)
        self.kinds[worker] = kind
        return worker

    def redis_pid(self) -> int:
        """The number of the server's process."""
        with redis.Redis.from_url(self.fleet.redis_url) as connection:
            said: Any = connection.info("server")
            return int(said["process_id"])

    # its work

    async def deck(self, name: str, words: Iterable[str]) -> Done:
        """Have a deck made, and wait."""
        return await self.client.decks([Deck(name, tuple(words))])

    async def imported(self, name: str, words: Iterable[str]) -> Done:
        """Have words imported, and their media made; wait."""
        jobs = [{"name": name, "words": [*words]}]
        ids = await self.client.send("import", jobs, Priority.BULK)
        done = await self.client.wait("import", ids)
        decks = [f"{ids[0]}:{deck}" for result in done.results for deck in result["decks"]]
        media = await self.client.wait("deck", decks)
        return Done([*done.results, *media.results], [*done.causes, *media.causes])

    async def card(self, word: str) -> Done:
        """Have a card made at once, and wait."""
        return await self.client.done("card", [{"word": word}], Priority.INTERACTIVE)

    # what came of it

    async def lines(self, since: int = 0) -> list[Line]:
        """The ledger of the stand-in, from one line on."""
        said = await services.asked(self.standin, "GET", "ledger", since)
        return list(said["entries"])

    async def turn(self, **switches: Mapping[str, object]) -> None:
        """Turn switches of the stand-in."""
        await services.turn(self.standin, switches)

    async def until_well(self, service: str, calls: int) -> None:
        """Return when a service has answered so many calls well."""
        before = since = 0  # answered well, of the lines that are read no more
        with anyio.fail_after(120):
            while before + well(service, lines := await self.lines(since)) < calls:
                over = [*takewhile(lambda line: line["answer"], lines)]
                before, since = before + well(service, over), since + len(over)
                await anyio.sleep(0.05)

    async def heard(self) -> None:
        """Return when the stand-in has read all that processes which are gone had sent to it."""
        port = f":{urlsplit(self.standin).port:04X}"
        with anyio.fail_after(120):
            while any(  # noqa: ASYNC110 - the system says so
                local.endswith(port) and state == CLOSE_WAIT for local, state in connections()
            ):
                await anyio.sleep(0.02)

    async def saved(self, words: Iterable[str]) -> set[Step]:
        """The steps of cards that the database has."""
        return {step for card in await self.database.cards(words) for step in steps(card)}

    async def check(self, words: Sequence[str]) -> list[Repeat]:
        """All cards are whole, and database, media store and ledger agree about them.

        Returns:
            What was paid for twice.
        """
        cards = await self.database.cards(words)
        assert [card.word for card in cards] == [*words]
        assert [card.word for card in cards if card.missing] == []
        media = await MediaStore.open(self.client.config.media)
        for key in {key for card in cards for key in card.media.values()}:
            assert address(await media.get(key), Path(key).suffix) == key
        lines = [line for line in await self.lines() if line["answer"] == "ok"]
        assert {step for line in lines for step in steps_of(line)} == {
            step for card in cards for step in steps(card)
        }
        return repeats(lines)


def well(service: str, lines: Iterable[Line]) -> int:
    """How many of these calls a service has answered well."""
    return sum(line["service"] == service and line["answer"] == "ok" for line in lines)


def steps(card: Card) -> list[Step]:
    """The calls that made what a card has."""
    made = {
        "picture": ("picture", words.picture(card)),
        "word_sound": ("sound", card.word),
        "sentence_sound": ("sound", card.example),
    }
    return [("text", card.word), *(made[step] for step in card.media)]


def steps_of(line: Line) -> list[Step]:
    """What a call was to make."""
    return [(line["service"], key) for key in line["keys"]]


def repeats(lines: Iterable[Line]) -> list[Repeat]:
    """What was answered well although it had been before."""
    last: dict[Step, Line] = {}
    found: list[Repeat] = []
    for line in lines:
        for step in steps_of(line):
            if step in last:
                found.append((step, last[step], line))
            last[step] = line
    return found


def measured(folder: Path, *arguments: str) -> dict[str, Any]:
    """The report of a load test that goes well, on a database of its own."""
    report = folder / "report.json"
    assert main([*arguments, "--report", str(report)]) == 0
    return dict(json.loads(report.read_text(encoding="utf-8")))


def connections() -> Iterator[tuple[str, str]]:
    """The address on its own side, and the state, of each end of a connection."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        yield local, state


def resident(worker: Child) -> float:
    """Megabytes of memory that a process has."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


# fixtures


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has in the environment says nothing here."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)


@pytest.fixture
def embedded(clean: None, loaded_file: Path, tmp_path: Path) -> Place:
    """An SQLite file, and a Valkey that the fleet brings along."""
    if not BINARIES:
        pytest.skip("no server is bundled for this system")
    return Place(tmp_path, str(shutil.copy(loaded_file, tmp_path / "flashcards.db")))


@pytest.fixture
def own_servers(
    clean: None,
    loaded_template: str,
    session_postgres: Postgres,
    tmp_path: Path,
) -> Iterator[Place]:
    """A Redis that keeps its data over restarts, and a database of PostgreSQL."""
    url = session_postgres.new_database(loaded_template)
    with Server("--appendonly", "yes") as server:
        yield Place(tmp_path, url, server.url(), server, session_postgres)
    gc.collect()  # of a lost connection coredis leaves streams unclosed: whose test it was ignores that


@pytest.fixture(params=["embedded", "own_servers"])
def place(request: pytest.FixtureRequest) -> Place:
    """A place of each kind."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def loadtest(clean: None, loaded_file: Path, tmp_path: Path) -> LoadTest:
    """Runs load tests, each on a new SQLite file that has the characters of the dictionary already."""

    def run(*arguments: str) -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        file = shutil.copy(loaded_file, folder / "flashcards.db")
        return measured(folder, *arguments, "--database", str(file))

    return run

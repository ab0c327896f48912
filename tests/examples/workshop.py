"""A workshop for tests of workers: a real Valkey, a real stand-in, a database, and studios on them."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from attrs import define, field

from examples import settings, studio
from examples.fleet.children import path
from examples.queueing.jobs import Jobs
from examples.queueing.queue import JobQueue
from examples.services.limits import LocalLimits
from examples.settings import Settings
from examples.standin.ledger import Line
from examples.studio import Studio
from examples.worker import bounds
from tests.servers import Server

SPEED = 20  # time-outs go by it, and had better not be over before a busy machine has answered
SLOW = 0.1  # but the answers take a tenth of what they take elsewhere
DEADLINE = 40  # seconds
PLENTY = {"rate": 100_000, "burst": 100_000}
SOUND = {service: dict(PLENTY) for service in ("text", "picture", "sound")}
FAULTS = ("error_rate", "hang_rate", "malformed_rate", "truncated_rate", "wrong_rate")


@pytest.fixture(scope="session")
def standin_url() -> Iterator[str]:
    """A stand-in that all tests share, each with its switches as they were and an empty ledger."""
    command = [sys.executable, "-P", "-m", "examples.standin", "--speed", str(SPEED), "--until-stdin-closes"]
    variables = os.environ | {"PYTHONPATH": path()}
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().rsplit(maxsplit=1)[-1]
        process.kill()


@define(eq=False)
class Workshop:
    """Where workers are tried.

    Attributes:
        environment: variables of a worker.
    """

    standin: str
    environment: dict[str, str]
    _admin: httpx2.Client = field(factory=lambda: httpx2.Client(trust_env=False))

    def config(self, **more: str) -> Settings:
        """The settings of a worker, with some other variables."""
        return settings.load(self.environment | more)

    def turn(self, **switches: Mapping[str, object]) -> None:
        """Turn switches of services."""
        reply = self._admin.put(f"{self.standin}/standin/switches", json=switches)
        assert reply.status_code == 200, reply.text

    def reset(self) -> None:
        """The services are as they were, and have forgotten all calls."""
        right: dict[str, object] = {"poison": [], "slow": SLOW, **dict.fromkeys(FAULTS, 0)}
        self.turn(**{service: {**right, **PLENTY} for service in SOUND})
        self._admin.post(f"{self.standin}/standin/reset")

    def lines(self, service: str | None = None) -> list[Line]:
        """The ledger."""
        lines = self._admin.get(f"{self.standin}/standin/ledger").json()["entries"]
        return [line for line in lines if service in (None, line["service"])]

    @property
    def answered(self) -> Counter[tuple[str, str]]:
        """How often each service answered well about each key."""
        return Counter(
            (line["service"], key) for line in self.lines() if line["answer"] == "ok" for key in line["keys"]
        )

    @property
    def calls(self) -> dict[str, int]:
        """Calls that were answered well, by service."""
        return dict(Counter(service for service, _ in self.answered.elements()))

    @asynccontextmanager
    async def studio(self, **more: str) -> AsyncIterator[Studio]:
        """What a worker process has open, with limits of its own."""
        async with studio.opened(self.config(**more), lambda _: LocalLimits()) as opened:
            yield opened

    @asynccontextmanager
    async def working(self, kind: str, **more: str) -> AsyncIterator[JobQueue]:
        """A worker of a kind, in this process."""
        config = self.config(**more)
        queue = JobQueue(kind, config.queue, bounds(kind, config))
        async with self.studio(**more) as opened, JobQueue("deck", config.queue) as decks:
            queue.handle(Jobs(opened, queue, decks))
            async with anyio.create_task_group() as group:
                await group.start(queue.run_async)
                yield queue
                queue.stop()

    @contextmanager
    def process(self, kind: str, log: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
        """A worker of a kind in a process of its own, which takes jobs; killed at the end."""
        variables = os.environ | self.environment | more | {"PYTHONPATH": path()}
        command = [sys.executable, "-P", "-m", "examples.worker", kind]
        with (
            log.open("ab") as errors,
            subprocess.Popen(
                command, env=variables, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
        ):
            try:
                assert process.stdout is not None
                assert "takes jobs" in process.stdout.readline(), log.read_text()
                yield process
            finally:
                process.kill()


@pytest.fixture
def workshop(standin_url: str, valkey: Server, loaded_place: str, tmp_path: Path) -> Iterator[Workshop]:
    """A workshop on SQLite, and one on PostgreSQL."""
    made = Workshop(standin_url, variables(standin_url, valkey, loaded_place, tmp_path))
    made.reset()
    yield made
    made._admin.close()


@pytest.fixture
def own_workshop(
    standin_url: str, own_server: Server, loaded_file: Path, tmp_path: Path
) -> Iterator[Workshop]:
    """A workshop whose Valkey may be stopped and started, on SQLite."""
    place = tmp_path / "flashcards.db"
    place.write_bytes(loaded_file.read_bytes())
    made = Workshop(standin_url, variables(standin_url, own_server, str(place), tmp_path))
    made.reset()
    yield made
    made._admin.close()


def variables(standin: str, valkey: Server, place: str, folder: Path) -> dict[str, str]:
    """Where everything is; and the pauses are short."""
    return {
        "REDIS_URL": valkey.url(),
        "FLASHCARDS_SERVICES_STANDIN": standin,
        "FLASHCARDS_SERVICES_SPEED": str(SPEED),
        "FLASHCARDS_DATABASE_URL": place,
        "FLASHCARDS_MEDIA_FOLDER": str(folder / "media"),
        "FLASHCARDS_QUEUE_PAUSE": "0.01",
        "FLASHCARDS_QUEUE_IDLE_TIMEOUT": "1",
    }


def of(value: object) -> Any:
    """What a job told, as JSON is: of any shape."""
    return value


async def until(condition: Callable[[], object]) -> None:
    """Return when something outside of this event loop has come true."""
    with anyio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.02)

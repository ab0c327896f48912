"""The queue: jobs are run once, in order of their priority, by whoever has time."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, field
from streaq import StreaqRetry, Worker

from examples.queueing.priorities import Priority
from examples.queueing.queue import JobQueue
from examples.queueing.scaling import Bounds
from examples.settings import Settings
from tests.examples.workshop import DEADLINE, Workshop, own_workshop, standin_url, until, workshop  # noqa: F401 - fixtures
from tests.servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


OVERRIDDEN = [
    "_read_streams_legacy",
    "_read_streams_max_count",
    "consumer",
    "finish_failed_task",
    "finish_task",
    "renew_idle_timeouts",
    "result_by_id",
    "run_consumers",
    "run_task",
    "schedule_delayed_tasks",
    "signal_handler",
]
USED = [
    "_count",
    "_lib",
    "_running_set",
    "_running_tasks",
    "priorities",
    "queue_key",
    "results_key",
    "stream_key",
    "task_key",
]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_of_streaq_is_still_called_and_as_it_was(name: str) -> None:
    assert name in vars(JobQueue)
    assert hasattr(Worker, name), f"streaq {version('streaq')} has no {name}: nobody calls that of queue.py"
    theirs = signature(getattr(Worker, name))
    named = {each.name: each.name for each in theirs.parameters.values() if each.kind is each.KEYWORD_ONLY}
    try:
        signature(getattr(JobQueue, name)).bind(*theirs.parameters.keys() - named, **named)
    except TypeError as error:
        raise AssertionError(f"streaq {version('streaq')} calls {name}{theirs}: {error}") from None


async def test_what_is_used_of_streaqs_inside_is_still_there(workshop: Workshop) -> None:  # noqa: F811
    async with JobQueue("card", workshop.config().queue) as queue:
        gone = [name for name in USED if not hasattr(queue, name)]
    assert not gone, f"streaq {version('streaq')} has no {gone}: queue.py uses them"


@define(eq=False)
class Gate:
    """A handler whose jobs wait until they are let go.

    Attributes:
        begun: the names of the jobs that were begun, in order.
    """

    begun: list[str] = field(factory=list[str])
    open: anyio.Event = field(factory=anyio.Event)

    async def run(self, job_id: str, arguments: Any) -> object:
        self.begun.append(arguments["name"])
        await self.open.wait()
        return {"name": arguments["name"]}

    def leave(self) -> None:
        self.open.set()


@asynccontextmanager
async def running(
    config: Settings,
    handler: Any,
    bounds: Bounds = Bounds(1, 1),  # noqa: B008
) -> AsyncIterator[JobQueue]:
    """A worker in this process."""
    queue = JobQueue("card", config.queue, bounds)
    queue.handle(handler)
    async with anyio.create_task_group() as group:
        await group.start(queue.run_async)
        yield queue
        queue.stop()


@pytest.fixture
def config(workshop: Workshop) -> Settings:  # noqa: F811
    return workshop.config()


@pytest.fixture
def loaded_place(loaded_file: Path, tmp_path: Path) -> str:
    """Most of what is here has nothing to do with the database: SQLite alone."""
    place = tmp_path / "flashcards.db"
    place.write_bytes(loaded_file.read_bytes())
    return str(place)


async def test_what_a_job_did_comes_back_as_json(config: Settings) -> None:
    gate = Gate()
    gate.open.set()
    async with running(config, gate) as queue:
        job = await queue.send({"name": "一"}, Priority.NORMAL)
        assert (await queue.result_by_id(job, DEADLINE)).result == {"name": "一"}


async def test_the_most_urgent_job_goes_first(config: Settings) -> None:
    async with JobQueue("card", config.queue) as queue:
        for name in ("bulk", "normal", "interactive", "bulk"):
            await queue.send({"name": name}, Priority.named(name))
        gate = Gate()
        gate.open.set()
        async with running(config, gate):
            await until(lambda: len(gate.begun) == 4)
    assert gate.begun == ["interactive", "normal", "bulk", "bulk"]


async def test_a_worker_that_is_busy_leaves_jobs_to_the_others(config: Settings) -> None:
    busy, idle = Gate(), Gate()
    async with running(config, busy) as queue:
        await queue.send({"name": "long"}, Priority.BULK)
        await until(lambda: busy.begun)
        await queue.send({"name": "short"}, Priority.NORMAL)
        assert (await queue.depth()).waiting == {"bulk": 0, "normal": 1, "interactive": 0}
        async with running(config, idle):
            await until(lambda: idle.begun)
            idle.open.set()
            busy.open.set()
    assert (busy.begun, idle.begun) == (["long"], ["short"])


async def test_a_job_that_takes_longer_than_the_idle_time_out_is_run_once(workshop: Workshop) -> None:  # noqa: F811
    config = workshop.config(FLASHCARDS_QUEUE_IDLE_TIMEOUT="0.5")
    one, other = Gate(), Gate()
    async with running(config, one) as queue:
        job = await queue.send({"name": "long"}, Priority.NORMAL)
        await until(lambda: one.begun)
        async with running(config, other):
            await anyio.sleep(2)  # four idle time-outs of a real server
            one.open.set()
            assert (await queue.result_by_id(job, DEADLINE)).success
    assert (one.begun, other.begun) == (["long"], [])


@define(eq=False)
class Slow:
    """A handler whose jobs end as they are told, when they are told to."""

    end: Exception
    begun: anyio.Event = field(factory=anyio.Event)
    open: anyio.Event = field(factory=anyio.Event)
    ended: anyio.Event = field(factory=anyio.Event)

    async def run(self, job_id: str, arguments: Any) -> object:
        self.begun.set()
        await self.open.wait()
        self.ended.set()
        raise self.end

    def leave(self) -> None:
        self.open.set()


@pytest.mark.parametrize(
    "end", [RuntimeError("late"), StreaqRetry("late", delay=timedelta(0))], ids=["fails", "is tried again"]
)
async def test_what_another_worker_has_done_meanwhile_stays_done(
    end: Exception, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both had the job, since the first was cut off from Redis for longer than the idle time-out."""

    async def cut_off(queue: JobQueue, scope: anyio.CancelScope) -> None:
        with scope:
            await anyio.sleep_forever()

    monkeypatch.setattr(JobQueue, "renew_idle_timeouts", cut_off)
    slow, gate = Slow(end), Gate()
    gate.open.set()
    async with running(config, slow) as queue:
        job = await queue.send({"name": "one"}, Priority.NORMAL)
        await until(slow.begun.is_set)
        async with running(config, gate):
            assert (await queue.result_by_id(job, DEADLINE)).success
            slow.open.set()
            await until(slow.ended.is_set)
            await anyio.sleep(2.5)  # two idle time-outs of a real server: nobody begins it again
            assert gate.begun == ["one"]
            assert (await queue.result_by_id(job, DEADLINE)).result == {"name": "one"}
            depth = await queue.depth()
            assert (sum(depth.waiting.values()), depth.running, depth.later) == (0, 0, 0)


async def test_a_job_of_the_same_id_is_not_sent_twice(config: Settings) -> None:
    gate = Gate()
    async with running(config, gate) as queue:
        await queue.send({"name": "one"}, Priority.NORMAL, "an id")
        await queue.send({"name": "two"}, Priority.NORMAL, "an id")
        await until(lambda: gate.begun)
        assert sum((await queue.depth()).waiting.values()) == 0
        gate.open.set()


async def test_as_many_jobs_run_at_once_as_a_long_queue_asks_for_and_no_more(workshop: Workshop) -> None:  # noqa: F811
    config = workshop.config(FLASHCARDS_QUEUE_LOOK="0.05")
    gate = Gate()
    async with running(config, gate, Bounds(2, 6)) as queue:
        await queue.send({"name": "0"}, Priority.NORMAL)
        await queue.send({"name": "1"}, Priority.NORMAL)
        await until(lambda: len(gate.begun) == 2)
        for number in range(2, 20):
            await queue.send({"name": str(number)}, Priority.NORMAL)
        await until(lambda: len(gate.begun) == 6)
        await anyio.sleep(0.3)  # six more looks at the queue
        assert (len(gate.begun), queue.concurrency) == (6, 6)
        gate.open.set()
        await until(lambda: queue.concurrency == 2)
    assert sorted(gate.begun, key=int) == [str(number) for number in range(20)]


async def test_many_jobs_of_all_priorities_at_once_are_each_run_once(config: Settings) -> None:
    gate = Gate()
    gate.open.set()
    async with running(config, gate, Bounds(2, 2)), JobQueue("card", config.queue) as sender:
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(sender.send, {"name": str(number)}, random.choice([*Priority]))
        await until(lambda: len(gate.begun) == 60)
    assert len(set(gate.begun)) == 60


async def test_a_redis_that_is_away_is_waited_for_and_jobs_go_on_meanwhile(
    own_workshop: Workshop,  # noqa: F811
    own_server: Server,
) -> None:
    config = own_workshop.config()
    own_server.do("CONFIG", "SET", "appendonly", "yes")
    one, other = Gate(), Gate()
    async with running(config, one) as queue, running(config, other):
        first = await queue.send({"name": "first"}, Priority.NORMAL)
        await until(lambda: one.begun or other.begun)
        await anyio.to_thread.run_sync(own_server.pause)
        await anyio.sleep(3)  # three idle time-outs of a real server
        for gate in (one, other):
            gate.open.set()  # it ends while nobody can be told
        await anyio.sleep(0.5)
        await anyio.to_thread.run_sync(own_server.resume)
        assert (await queue.result_by_id(first, DEADLINE)).success
        second = await queue.send({"name": "second"}, Priority.NORMAL)
        assert (await queue.result_by_id(second, DEADLINE)).success
    assert sorted(one.begun + other.begun) == ["first", "second"]


async def test_a_result_is_waited_for_although_the_connection_is_lost_before_anybody_listens(
    own_workshop: Workshop,  # noqa: F811
    own_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, gate = own_workshop.config(), Gate()

    async def not_yet(_: object) -> None:
        """There is no result, says Redis; then it ends all subscriptions, and lets nobody back at once."""
        monkeypatch.undo()
        own_server.do("CLIENT", "KILL", "TYPE", "pubsub")
        own_server.pause()
        group.start_soon(come_back)
        await anyio.sleep(0.2)

    async def come_back() -> None:
        try:
            await anyio.sleep(0.5)
        finally:
            own_server.resume()
            gate.open.set()

    async with running(config, gate) as queue, anyio.create_task_group() as group:
        job = await queue.send({"name": "job"}, Priority.NORMAL)
        await until(lambda: gate.begun)
        monkeypatch.setattr(queue.redis, "get", not_yet)
        assert (await queue.result_by_id(job, DEADLINE)).success
    assert gate.begun == ["job"]

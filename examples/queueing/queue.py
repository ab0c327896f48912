"""The queue of jobs: streaq on Redis or Valkey, one queue for each kind of worker, three priorities in each.

streaq has a job run again when its worker dies. What is added here:

- jobs and results are JSON; whether a job that failed is tried again is up to a handler;
- a Redis that is away is waited for, and meanwhile the jobs under way go on; also if it comes back empty,
  where jobs that nobody had begun are lost, and have to be sent again;
- no job is fetched before it can begin, so that none lies with a worker that is busy;
- how many jobs run at once follows how many wait.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import anyio
import streaq
from anyio import TASK_STATUS_IGNORED, CancelScope, CapacityLimiter
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream
from attrs import frozen
from coredis.exceptions import ConnectionError as RedisAway
from coredis.exceptions import RedisError, StreamConsumerGroupError
from coredis.retry import ExponentialBackoffRetryPolicy
from streaq import Worker
from streaq.constants import REDIS_GROUP
from streaq.task import TaskResult
from streaq.types import Entries, StreamMessage, Streaq

from examples import settings
from examples.errors import UsageError
from examples.queueing.priorities import NAMES, Priority
from examples.queueing.scaling import Bounds, next_limit

T = TypeVar("T")

ONE = Bounds(1, 1)
KINDS = ("card", "deck", "import")
AWAY = (RedisAway, OSError, TimeoutError)  # what coredis raises while Redis is not there
UNSUBSCRIBED = StopAsyncIteration  # what it raises if that ended a subscription before anybody listened
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two looks whether Redis is back
LOOK_AGAIN = 5.0  # seconds that a result is waited for before it is looked up
ANSWER = 5.0  # seconds for an answer, after those that were asked to wait

log = logging.getLogger("examples.queue")


def is_away(error: BaseException) -> bool:
    """Whether Redis is not there for now; of a group, whether all of it says so."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_away(each) for each in error.exceptions)
    return isinstance(error, (*AWAY, UNSUBSCRIBED))


def is_empty(error: BaseException) -> bool:
    """Whether Redis has lost its data; of a group, whether something in it says so."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_empty, error.exceptions))
    return isinstance(error, StreamConsumerGroupError) or "Function not found" in str(error)


def redis_error(error: BaseException) -> Exception | None:
    """What Redis, or the way to it, is at fault for, if that is what an error or a group says."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(redis_error, error.exceptions)), None)
    return error if isinstance(error, RedisError) else None


def as_json(value: object) -> str:
    """The serializer of jobs and results; of an error, its words and what its job did by then."""
    return json.dumps(value, ensure_ascii=False, default=told)


def told(error: object) -> object:
    """An error as JSON."""
    return {"error": str(error), "result": getattr(error, "result", None)}


@frozen
class Depth:
    """How many jobs a queue has.

    Attributes:
        waiting: those that nobody has begun, by priority.
        running: those that a worker has.
        later: those that are to be tried again after a while.
    """

    waiting: Mapping[str, int]
    running: int
    later: int

    def __str__(self) -> str:
        waiting = ", ".join(f"{count:,} {name}" for name, count in self.waiting.items())
        return f"{self.running:,} run, {self.later:,} later, waiting: {waiting}"


class Handler(Protocol):
    """Runs jobs."""

    async def run(self, job_id: str, arguments: Mapping[str, Any]) -> object:
        """Run a job, to whatever end; returns what was done, as JSON.

        Raises:
            StreaqRetry: it is to be tried again.
            Exception: it failed for good.
        """
        ...

    def leave(self) -> None:
        """The process is told to end: have all jobs under way come to an end."""
        ...


class JobQueue(Worker[None]):
    """The queue of one kind of jobs: for those who send them, and for the worker that runs them.

    Args:
        kind: of jobs, one of `KINDS`.
        options: how it behaves.
        bounds: jobs at once in this process.
    """

    def __init__(
        self,
        kind: str,
        options: settings.Queue,
        bounds: Bounds = ONE,
    ) -> None:
        if not options.redis_url:
            raise UsageError(
                "queue.redis_url names no Redis: set REDIS_URL, or start everything by "
                "python -m examples.worker all."
            )
        waits = ExponentialBackoffRetryPolicy(
            AWAY, None, deadline=options.patience, base_delay=FIRST_PAUSE, max_delay=LONGEST_PAUSE
        )
        super().__init__(
            redis_url=options.redis_url,
            redis_kwargs={"retry_policy": waits, "stream_timeout": options.idle_timeout + ANSWER},
            concurrency=bounds.least,
            queue_name=f"{options.prefix}:{kind}",
            priorities=[*NAMES],  # a list of its own: streaq reverses it in place
            serializer=as_json,
            deserializer=json.loads,
            idle_timeout=timedelta(seconds=options.idle_timeout),
            grace_period=options.grace,
        )
        self.kind, self.options, self.bounds = kind, options, bounds
        self._leave: Callable[[], None] | None = None
        self._intake: CancelScope | None = None
        self.prefetch = bounds.least  # none beyond those that run

    def handle(self, handler: Handler) -> None:
        """Have jobs of the queue run by a handler."""

        async def run(**arguments: Any) -> object:
            return await handler.run(task.context.task_id, arguments)

        # Whether a job is tried again is up to the handler.
        keep = self.options.keep_results
        task = self.task(name=self.kind, max_tries=None, timeout=None, ttl=keep, silent=True)(run)
        self._leave = handler.leave

    async def send(
        self, arguments: Mapping[str, object], priority: Priority, job_id: str | None = None
    ) -> str:
        """Put a job into the queue; returns its id. One of that id which waits or runs is not sent again."""
        job = self.enqueue_unsafe(self.kind, **arguments)
        job.id = job_id or uuid4().hex

        async def put() -> None:
            await job.start(priority=priority.queue)

        await self._outlast(put)
        return job.id

    def stop(self) -> None:
        """Fetch no more jobs, and have those under way come to an end; then `run_async` returns."""
        if self._intake is not None:
            self._intake.cancel()
        if self._leave is not None:
            self._leave()

    async def result_by_id(self, task_id: str, timeout: timedelta | float | None = None) -> TaskResult[Any]:
        """As streaq has it, but it looks again: nobody hears what is told while Redis is away."""
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        with anyio.fail_after(seconds):
            while True:
                with anyio.move_on_after(LOOK_AGAIN):
                    return await self._outlast(partial(super().result_by_id, task_id))

    async def depth(self) -> Depth:
        """How many jobs there are."""
        waiting: dict[str, int] = {}
        running = later = 0
        for name in NAMES:
            begun = await self._begun(self.stream_key + name)
            waiting[name] = max(0, int(await self.redis.xlen(self.stream_key + name)) - begun)
            running += begun
            later += int(await self.redis.zcard(self.queue_key + name))
        return Depth(waiting, running, later)

    async def _begun(self, stream: str) -> int:
        """Jobs of a stream that somebody has."""
        try:
            pending: Any = await self.redis.xpending(stream, REDIS_GROUP)
        except StreamConsumerGroupError:  # no worker was ever there
            return 0
        return int(pending.pending)

    async def _outlast(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something to its end, anew each time that Redis was away, or came back without its data."""
        while True:
            try:
                return await work()
            except Exception as error:
                if not (empty := is_empty(error)) and not is_away(error):
                    raise
                log.warning("%s: Redis is %s (%s)", self.kind, "empty" if empty else "away", error)
            await anyio.sleep(FIRST_PAUSE)
            await self.redis.ping()  # which waits until it is back
            if empty:
                await self._outlast(self._furnish)

    async def _furnish(self) -> None:
        """Put back what has to be in Redis before there are jobs: streaq's functions, and its groups."""
        code = await anyio.Path(streaq.__file__).with_name("lua").joinpath("streaq.lua").read_text()
        self._lib = await Streaq(self.redis, code=code, replace=True)
        await self._lib.create_groups(self.stream_key, REDIS_GROUP, *self.priorities)

    async def _is_over(self, msg: StreamMessage) -> bool:
        """Whether somebody else had a job, too, and has ended it."""
        if await self.redis.exists([self.task_key + msg.task_id]):
            return False
        return bool(await self.redis.exists([self.results_key + msg.task_id]))

    async def _drop(self, msg: StreamMessage) -> None:
        """Leave a job as whoever ended it left it; nobody is to be given it again."""
        stream = self.stream_key + msg.priority
        await self.redis.xack(stream, REDIS_GROUP, [msg.message_id])
        await self.redis.xdel(stream, [msg.message_id])
        await self.redis.srem(self._running_set, [msg.task_id])

    # what follows takes the place of methods of streaq's

    async def consumer(
        self, queue: MemoryObjectReceiveStream[StreamMessage], limiter: CapacityLimiter, scope: CancelScope
    ) -> None:
        """As streaq has it, but a job counts as ours from the moment at which it was fetched: it is not given
        to somebody else while it waits for its turn. Nor to us once more, as happens when Redis was away for
        longer than the idle time-out.
        """
        with queue:
            async for job in queue:
                ours = self._running_tasks[job.priority]
                if job.message_id not in ours:
                    ours.add(job.message_id)
                    async with limiter:
                        await self.run_task(job)
                    ours.discard(job.message_id)
                self._count -= 1

    async def run_consumers(
        self,
        receive: MemoryObjectReceiveStream[StreamMessage],
        renew_scope: CancelScope,
        produce_scope: CancelScope,
        *,
        task_status: TaskStatus[CapacityLimiter] = TASK_STATUS_IGNORED,
    ) -> None:
        """As streaq has it, but how many jobs run at once may change."""
        limiter = CapacityLimiter(self.concurrency)
        try:
            async with receive, anyio.create_task_group() as group:
                for _ in range(self.bounds.most + len(NAMES)):  # each priority may bring one too many
                    group.start_soon(self.consumer, receive.clone(), limiter, produce_scope)
                if self.bounds.most > self.bounds.least:
                    group.start_soon(self.adapt, limiter)
                task_status.started(limiter)
        finally:
            renew_scope.cancel()

    async def adapt(self, limiter: CapacityLimiter) -> None:
        """Let as many jobs run at once as suits how many wait."""
        while True:
            await anyio.sleep(self.options.look)
            waiting = sum((await self.depth()).waiting.values())
            limit = next_limit(self.concurrency, waiting, self.bounds)
            if limit != self.concurrency:
                log.info("%s: %d jobs at once, since %d wait", self.kind, limit, waiting)
                self.concurrency = self.prefetch = limit
                limiter.total_tokens = limit

    async def _read_streams_legacy(self, count: int, block: bool = False) -> Entries:
        """As streaq has it. But where it waits it asks for one job and not for several of each priority, of
        which some would have to wait here.
        """
        some = 1 if block else count
        return await self._outlast(lambda: super(JobQueue, self)._read_streams_legacy(some, block))

    async def _read_streams_max_count(self, count: int, block: bool = False) -> Entries:
        """As streaq has it, but it waits for a Redis that is away."""
        return await self._outlast(lambda: super(JobQueue, self)._read_streams_max_count(count, block))

    async def run_task(self, msg: StreamMessage) -> None:
        """As streaq has it, but it waits for a Redis that is away, to begin a job. To end it, see below."""
        await self._outlast(partial(super().run_task, msg))

    async def finish_failed_task(self, msg: StreamMessage, *args: Any, **kwargs: Any) -> None:
        """As streaq has it, but what another worker has done meanwhile has not failed: both had the job, as
        Redis was away for longer than the idle time-out.
        """
        if await self._is_over(msg):
            await self._drop(msg)
        else:
            await super().finish_failed_task(msg, *args, **kwargs)

    async def finish_task(self, msg: StreamMessage, *args: Any, **kwargs: Any) -> None:
        """As streaq has it, but it waits for a Redis that is away; and what another worker has ended
        meanwhile is not tried again, and has not failed.
        """

        async def finish() -> None:
            if not kwargs["success"] and await self._is_over(msg):
                await self._drop(msg)
            else:
                await super(JobQueue, self).finish_task(msg, *args, **kwargs)

        await self._outlast(finish)

    async def schedule_delayed_tasks(self) -> None:
        """As streaq has it, but it waits for a Redis that is away."""
        await self._outlast(super().schedule_delayed_tasks)

    async def renew_idle_timeouts(self, scope: CancelScope) -> None:
        """As streaq has it, but it waits for a Redis that is away."""
        with scope:
            await self._outlast(lambda: super(JobQueue, self).renew_idle_timeouts(CancelScope()))

    async def signal_handler(self, scope: CancelScope) -> None:
        """As streaq has it; the jobs under way are asked to come to an end, too."""
        self._intake = scope
        await super().signal_handler(scope)
        self.stop()

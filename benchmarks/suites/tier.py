"""A second tier in Redis: what a look-up costs that finds a value there, against the command that it needs.

Server and callers share the machine. Each event loop has a client of its own, which is connected before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import anyio
import redis
import redis.asyncio

from batchkit import RedisTier
from batchkit.abc import TierValue
from benchmarks.fleet.server import NONE, binary, server
from benchmarks.frame import AsyncCase, Case, Role, Sample, Skipped, Suite, SyncCase

VALUE = {"word": "好", "meaning": "good", "level": 1}
KEYS = [f"word:{number}" for number in range(50)]
KEY = KEYS[0]
SCRIPT = "return redis.call('MGET', unpack(KEYS))"
CALLS, TASKS = 2_000, 64

Look = Callable[[], Awaitable[object]]
Make = Callable[[str], AbstractAsyncContextManager[tuple[Look, Look]]]  # of one key, and of all


def _tier(url: str) -> RedisTier[str]:
    tier: RedisTier[str] = RedisTier(url, "bench")
    tier.set_many_sync({key: TierValue(VALUE, 3600) for key in KEYS})
    return tier


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[tuple[Look, Look]]:
    tier = _tier(url)
    yield partial(tier.get_many, [KEY]), partial(tier.get_many, KEYS)
    await tier.aclose()


@asynccontextmanager
async def _claims(url: str) -> AsyncIterator[tuple[Look, Look]]:
    tier = _tier(url)
    yield partial(tier.claim, [KEY]), partial(tier.claim, KEYS)
    await tier.aclose()


@asynccontextmanager
async def _floor(url: str) -> AsyncIterator[tuple[Look, Look]]:
    client = redis.asyncio.Redis.from_url(url)
    await client.mset(dict.fromkeys(KEYS, "x" * 60))
    yield partial(client.get, KEY), partial(client.mget, KEYS)
    await client.aclose()


@asynccontextmanager
async def _floor_script(url: str) -> AsyncIterator[tuple[Look, Look]]:
    client = redis.asyncio.Redis.from_url(url)
    await client.mset(dict.fromkeys(KEYS, "x" * 60))
    script: Any = client.register_script(SCRIPT)
    yield partial(script, [KEY]), partial(script, KEYS)
    await client.aclose()


@asynccontextmanager
async def _cashews(url: str) -> AsyncIterator[tuple[Look, Look]]:
    cache: Any = import_module("cashews").Cache()
    cache.setup(url, client_side=False)
    for key in KEYS:
        await cache.set(key, VALUE, expire=3600)
    yield partial(cache.get, KEY), partial(cache.get_many, *KEYS)
    await cache.close()


@asynccontextmanager
async def _aiocache(url: str) -> AsyncIterator[tuple[Look, Look]]:
    aiocache: Any = import_module("aiocache")
    json = import_module("aiocache.serializers").JsonSerializer()
    where = urlsplit(url)
    cache = aiocache.RedisCache(
        endpoint=where.hostname, port=where.port, serializer=json, namespace="aiocache:"
    )
    await cache.multi_set([(key, VALUE) for key in KEYS], ttl=3600)
    yield partial(cache.get, KEY), partial(cache.multi_get, KEYS)
    await cache.close()


async def _one_by_one(make: Make, many: bool, calls: int) -> Sample:
    async with make(server().url) as looks:
        look = looks[many]
        await look()
        begin = perf_counter()
        for _ in range(calls):
            await look()
        return Sample(perf_counter() - begin)


async def _together(make: Make, calls: int) -> Sample:
    async with make(server().url) as (look, _):
        await look()

        async def work() -> None:
            for _ in range(calls // TASKS):
                await look()

        begin = perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(work)
        return Sample(perf_counter() - begin)


def _sync(look: Callable[[str], Callable[[], object]], calls: int) -> Sample:
    call = look(server().url)
    call()
    begin = perf_counter()
    for _ in range(calls):
        call()
    return Sample(perf_counter() - begin)


def _sync_floor(url: str) -> Callable[[], object]:
    client = redis.Redis.from_url(url)
    client.set(KEY, "x" * 60)
    return partial(client.get, KEY)


def _sync_floor_script(url: str) -> Callable[[], object]:
    client = redis.Redis.from_url(url)
    client.set(KEY, "x" * 60)
    script: Any = client.register_script(SCRIPT)
    return partial(script, [KEY])


def _sync_ours(url: str) -> Callable[[], object]:
    return partial(_tier(url).get_many_sync, [KEY])


def _sync_claims(url: str) -> Callable[[], object]:
    return partial(_tier(url).claim_sync, [KEY])


def _cases() -> Sequence[Case | Skipped]:
    if binary() is None:
        return [Skipped("all cases", NONE)]
    subjects: list[tuple[str, str, Role, Make]] = [
        ("GET or MGET", "redis", "floor", _floor),
        ("a script of MGET", "redis", "floor", _floor_script),
        ("RedisTier.get_many", "redis", "batchkit", _ours),
        ("RedisTier.claim", "redis", "batchkit", _claims),
        ("cashews", "cashews", "peer", _cashews),
        ("aiocache", "aiocache", "peer", _aiocache),
    ]
    cases: list[Case | Skipped] = [
        SyncCase(
            name=name, role=role, group="a thread, one key", operations=CALLS, measure=partial(_sync, look)
        )
        for name, role, look in _SYNC
    ]
    for name, module, role, make in subjects:
        if find_spec(module) is None:
            cases.append(Skipped(name, f"{module} is not installed"))
            continue
        groups = {
            "asyncio, one key": (partial(_one_by_one, make, False), CALLS),
            "asyncio, 50 keys": (partial(_one_by_one, make, True), CALLS // 10),
            f"asyncio, {TASKS} tasks, one key each": (partial(_together, make), 2 * CALLS),
        }
        cases += [
            AsyncCase(name=name, role=role, group=group, operations=count, measure=measure)
            for group, (measure, count) in groups.items()
        ]
    return cases


_SYNC: list[tuple[str, Role, Callable[[str], Callable[[], object]]]] = [
    ("GET", "floor", _sync_floor),
    ("a script of MGET", "floor", _sync_floor_script),
    ("RedisTier.get_many_sync", "batchkit", _sync_ours),
    ("RedisTier.claim_sync", "batchkit", _sync_claims),
]

SUITES = [
    Suite(
        name="tier",
        about="a second tier in Redis: look-ups that find a value there (us)",
        cases=_cases,
        unit="us",
        rounds=5,
    )
]

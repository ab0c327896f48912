"""Claims to words: who waits for a word hurries whoever has it, in whatever process that is."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from examples.errors import Lapsed
from examples.queueing import claims
from examples.queueing.claims import Claims
from examples.queueing.urgency import Urgency
from tests.helpers import DEADLINE
from tests.servers import Server

pytestmark = pytest.mark.anyio

CHANNEL = "cards:urgent"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def several(server: Server, count: int = 2) -> AsyncIterator[list[Claims]]:
    """Claims as so many processes have them, all of which listen."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(claims.opened(server.url(), "cards")) for _ in range(count)]
        await until_heard(server, count)
        yield made


async def until_heard(server: Server, count: int) -> None:
    """Return when so many listen."""
    with anyio.fail_after(DEADLINE):
        while server.do("PUBSUB", "NUMSUB", CHANNEL)[1] < count:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def until_raised(urgency: Urgency, priority: int) -> None:
    with anyio.fail_after(DEADLINE):
        while urgency.priority < priority:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def waits(one: Claims, word: str, priority: int, got: list[str]) -> None:
    async with one.some([word], Urgency(priority)) as words:
        got += words


async def test_who_waits_for_a_word_hurries_who_has_it(valkey: Server) -> None:
    batch, other, got = Urgency(0), Urgency(0), list[str]()
    async with several(valkey) as (one, another), anyio.create_task_group() as group:
        async with one.some(["一", "二", "三"], batch), one.some(["四"], other):
            group.start_soon(waits, another, "二", 100, got)
            await until_raised(batch, 100)
            assert not got
        with anyio.fail_after(DEADLINE):
            while not got:  # noqa: ASYNC110
                await anyio.sleep(0.01)
    assert (batch.priority, other.priority) == (100, 0)


async def test_of_several_that_wait_the_most_urgent_one_counts(valkey: Server) -> None:
    batch, got = Urgency(10), list[str]()
    async with (
        several(valkey, 3) as (one, *others),
        anyio.create_task_group() as group,
        one.some(["一", "二"], batch),
    ):
        for other, word, priority in zip(others * 2, "一二一", (0, 100, 50), strict=False):
            group.start_soon(waits, other, word, priority, got)
        await until_raised(batch, 100)
    assert batch.priority == 100
    assert sorted(got) == ["一", "一", "二"]


async def test_within_a_process_it_is_the_same(valkey: Server) -> None:
    urgency, got = Urgency(0), list[str]()
    async with (
        several(valkey, 1) as (one,),
        anyio.create_task_group() as group,
        one.some(["一"], urgency),
    ):
        group.start_soon(waits, one, "一", 100, got)
        await until_raised(urgency, 100)
    assert got == ["一"]


async def test_work_that_is_over_is_not_hurried_any_more(valkey: Server) -> None:
    first, second, got = Urgency(0), Urgency(0), list[str]()
    async with several(valkey) as (one, another), anyio.create_task_group() as group:
        async with one.some(["一"], first):
            pass
        async with one.some(["一"], second):
            group.start_soon(waits, another, "一", 100, got)
            await until_raised(second, 100)
    assert first.priority == 0


async def test_what_is_said_while_nobody_listens_is_said_again(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SAY_AGAIN", 0.1)
    urgency, got = Urgency(0), list[str]()
    async with (
        several(valkey) as (one, another),
        anyio.create_task_group() as group,
        one.some(["一"], urgency),
    ):
        valkey.do("CLIENT", "KILL", "TYPE", "pubsub")
        group.start_soon(waits, another, "一", 100, got)
        await until_raised(urgency, 100)


async def test_what_is_held_lapses_when_redis_is_away_and_nothing_is_claimed_until_it_is_back(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PAUSE", 0.05)
    held, anew, got = Urgency(0), Urgency(0), list[str]()
    async with several(own_server) as (one, another), anyio.create_task_group() as group:
        async with one.some(["一"], held):
            own_server.kill()
            group.start_soon(waits, another, "二", 100, got)
            with anyio.fail_after(DEADLINE):
                while not held.lapsed:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            with pytest.raises(Lapsed), held.in_line():
                raise AssertionError("it is not to begin")
            await another._say(["一"], 100)  # which nobody hears
            await anyio.sleep(0.2)  # of the server's time: it is asked four times meanwhile, and is not there
            assert not got
        own_server.start()
        await until_heard(own_server, 2)
        async with one.some(["一"], anew):
            group.start_soon(waits, another, "一", 100, got)
            await until_raised(anew, 100)
            assert not anew.lapsed
    assert sorted(got) == ["一", "二"]
    assert held.priority == 0

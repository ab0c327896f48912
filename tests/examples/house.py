"""A stand-in in this process, with a client at its door, on a clock that moves only when it is told to."""

import heapq
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
from starlette.applications import Starlette

from examples.standin import Config, create_app
from examples.standin.ledger import Line


class VirtualClock:
    """Time that moves only when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._numbers = count()

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float, /) -> None:
        woken = anyio.Event()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        end = self.time + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.time, _, woken = heapq.heappop(self._sleepers)
            woken.set()
            await settle()
        self.time = end


@asynccontextmanager
async def ticking(clock: VirtualClock, step: float) -> AsyncGenerator[None]:
    """Time goes on by itself; with a step of 0 it stands, and those who sleep for no time are woken."""

    async def tick() -> None:
        while True:
            await clock.advance(step)

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        yield
        group.cancel_scope.cancel()


async def settle() -> None:
    """Let all tasks go on until they wait for the clock."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()


class House:
    """A stand-in with a client at its door."""

    def __init__(self, clock: VirtualClock, app: Starlette, client: httpx2.AsyncClient) -> None:
        self.clock = clock
        self.app = app
        self.client = client

    async def turn(self, service: str, **switches: object) -> None:
        reply = await self.client.put("/standin/switches", json={service: switches})
        assert reply.status_code == 200, reply.text

    async def get(self, path: str) -> Any:
        return (await self.client.get(f"/standin/{path}")).json()

    async def lines(self) -> list[Line]:
        """The ledger."""
        return list((await self.get("ledger"))["entries"])

    async def last(self) -> Line:
        return (await self.lines())[-1]

    async def seconds(self) -> float:
        """What the last call took, in service seconds."""
        seconds = (await self.last())["seconds"]
        assert seconds is not None
        return seconds

    async def figures(self, service: str) -> Any:
        """The summary of one service."""
        return (await self.get("summary"))["services"][service]


@asynccontextmanager
async def house(
    service: str = "text", speed: float = 1, seed: int = 7, **switches: object
) -> AsyncGenerator[House]:
    """A stand-in, one of whose services has its switches turned."""
    clock = VirtualClock()
    app = create_app(Config(speed, seed, {service: switches}), clock)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://standin") as client:
        yield House(clock, app, client)

"""A client of the stand-in, in this process, on a clock that is moved by hand."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio
from attrs import define
from starlette.applications import Starlette

from batchkit.testing import ManualClock
from examples.media.media import Media
from examples.standin.ledger import Line
from examples.standin.summary import ServiceFigures, summary

C = TypeVar("C")


def on(switch: str) -> dict[str, Any]:
    """A switch of the stand-in turned up."""
    return {switch: 1}


@define
class Studio(Generic[C]):
    """A client, and the stand-in that it asks."""

    clock: ManualClock
    app: Starlette
    client: C
    ask: Callable[[str], Awaitable[Media]]

    async def make(self, *texts: str) -> list[Media]:
        """What comes of each text, all asked for at once."""
        made: dict[str, Media] = {}

        async def one(text: str) -> None:
            made[text] = await self.ask(text)

        async def all_of_them() -> None:
            async with anyio.create_task_group() as group:
                for text in texts:
                    group.start_soon(one, text)

        await self.clock.run(all_of_them())
        return [made[text] for text in texts]

    async def fail(self, text: str = "好") -> Exception:
        """What is raised for a text that fails."""
        try:
            await self.clock.run(self.ask(text))
        except Exception as error:
            return error
        raise AssertionError("it did not fail")

    @property
    def lines(self) -> list[Line]:
        """The ledger, of jobs as of the last question about one."""
        return [entry.line() for entry in self.app.state.ledger.entries]

    @property
    def figures(self) -> ServiceFigures:
        """The summary of the one service that was asked."""
        (figures,) = summary(self.app.state.ledger.entries)["services"].values()
        return figures

"""The first signal asks, the second insists."""

import os
import signal

import anyio
import anyio.lowlevel
import pytest

from examples.fleet.interrupt import until_stopped

pytestmark = pytest.mark.anyio


def nothing() -> None: ...


class Work:
    """Goes on until it is asked to stop; then ends, or does not."""

    def __init__(self, obedient: bool) -> None:
        self.asked, self.obedient, self.said = anyio.Event(), obedient, list[str]()

    async def __call__(self) -> None:
        await anyio.lowlevel.checkpoint()
        os.kill(os.getpid(), signal.SIGINT)
        await self.asked.wait()
        if not self.obedient:
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.sleep_forever()

    async def attended(self, grace: float = 1000) -> bool:
        with anyio.fail_after(30):
            return await until_stopped(self, self.asked.set, grace, self.said.append)


async def test_work_that_ends_when_asked() -> None:
    work = Work(obedient=True)
    assert await work.attended() is True
    assert "up to 1000 s" in work.said[0]


async def test_the_second_signal_stops_at_once() -> None:
    assert await Work(obedient=False).attended() is True


async def test_no_signal() -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()

    assert await until_stopped(work, nothing, 1, print) is False


async def test_an_error_is_raised_as_it_is() -> None:
    async def work() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await until_stopped(work, nothing, 1, print)


async def test_after_the_grace_it_is_cancelled() -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()

    with anyio.fail_after(30):
        assert await until_stopped(work, nothing, 0.01, print) is True

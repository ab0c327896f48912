"""A job that fails for good is listed with its cause, and sent again by hand when that has been mended."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest

from examples.fleet.children import path
from examples.language.sources import from_hsk
from tests.workers.places import Place, Town

pytestmark = pytest.mark.anyio

CARDS = 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def enqueue(town: Town, *arguments: str) -> list[str]:
    """What the command says, line by line."""
    command = [sys.executable, "-P", "-m", "examples.enqueue", *arguments]
    variables = {**town.fleet.environment, "PYTHONPATH": path()}
    done = await anyio.run_process(command, env=variables, stderr=subprocess.STDOUT, check=False)
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said.splitlines()


async def test_a_job_that_always_fails_is_listed_and_sent_again(place: Place) -> None:
    words = from_hsk(CARDS).wanted
    poisoned = words[CARDS // 2]
    async with place.fleet({"deck": 1}) as town:
        await town.turn(text={"poison": [poisoned]})
        done = await town.deck("deck", words)
        assert len(done.causes) == 1
        (letter, cause) = await enqueue(town, "dead-letters")
        job_id = letter.split()[0]
        assert 'deck {"deck": "deck"' in letter
        assert "tried 3 times" in letter
        assert f"1 of the cards are not whole ({poisoned}: " in cause

        await town.turn(text={"poison": []})
        (again,) = await enqueue(town, "again", job_id)
        assert (await town.client.wait("deck", [again])).causes == []
        assert await enqueue(town, "dead-letters") == []
        assert await town.check(words) == []

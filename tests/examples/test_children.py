"""Processes that end with whoever started them: a server, the stand-in, workers."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx2
import pytest
import redis

from examples.errors import UsageError
from examples.fleet import children, embedded, fleet
from examples.fleet.children import Child
from examples.fleet.fleet import Plan
from examples.services import services
from tests.helpers import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # what the examples run on


A_PARENT = """
import anyio
from pathlib import Path
from examples.fleet.fleet import Plan, started

async def main():
    async with started(Plan(folder=Path("."), workers={}, speed=100)) as fleet:
        print(fleet.redis_url, fleet.services.url, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def is_gone(look: Callable[[], object], *errors: type[Exception]) -> Callable[[], bool]:
    def gone() -> bool:
        try:
            look()
        except errors:
            return True
        return False

    return gone


@pytest.mark.skipif(sys.platform == "win32", reason="no server is bundled for Windows")
def test_servers_end_when_whoever_started_them_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", A_PARENT]
    variables = os.environ | {"PYTHONPATH": children.path()}
    with subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        redis_url, standin = process.stdout.readline().split()
        client = redis.Redis.from_url(redis_url)
        assert client.ping()
        assert httpx2.get(f"{standin}/standin/summary", trust_env=False).status_code == 200
        process.send_signal(signal.SIGKILL)
    eventually(is_gone(client.ping, redis.ConnectionError))
    eventually(
        is_gone(lambda: httpx2.get(f"{standin}/standin/summary", trust_env=False), httpx2.ConnectError)
    )
    client.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no server is bundled for Windows")
async def test_two_embedded_servers_are_two_and_forget_no_job() -> None:
    async with embedded.started() as one, embedded.started() as other:
        assert one != other
        with redis.Redis.from_url(one) as client:
            assert client.ping()
            assert "noeviction" in str(client.config_get("maxmemory-policy"))
    with redis.Redis.from_url(one) as client, pytest.raises(redis.ConnectionError):
        client.ping()


async def test_switches_are_turned_before_the_first_call() -> None:
    async with services.started(100, ["text.rate=4", 'text.poison=["坏"]']) as standin:
        reply = httpx2.get(f"{standin.url}/standin/switches", trust_env=False).json()
        assert (reply["text"]["rate"], reply["text"]["poison"]) == (4, ["坏"])


async def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    child = await Child.spawn("examples.standin", "--set", "text.nonsense=1", log=tmp_path / "log")
    with pytest.raises(UsageError, match=r"examples.standin did not start: (?s:.*)nonsense"):
        await child.ready()
    assert not child.running


async def test_a_fleet_whose_stand_in_does_not_answer_is_none(tmp_path: Path) -> None:
    plan = Plan(folder=tmp_path, workers={}, standin="http://127.0.0.1:1", redis_url="redis://127.0.0.1:1")
    with pytest.raises(UsageError, match="No stand-in answers"):
        async with fleet.started(plan):
            pass


async def test_a_child_ends_in_order_or_is_killed() -> None:
    for patience, code in [(30.0, 0), (0.0, -signal.SIGKILL)]:
        child = await Child.spawn("examples.standin")
        await child.ready()
        with anyio.fail_after(30):
            await child.end(patience)
        assert child.process.returncode == code

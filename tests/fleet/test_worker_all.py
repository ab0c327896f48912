"""`worker all`: one command starts a small fleet, and other commands find it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from examples.fleet.children import path
from tests.examples.conftest import loaded_file  # noqa: F401 - a fixture
from tests.examples.workshop import Workshop, own_workshop, standin_url  # noqa: F401 - fixtures

PATIENCE = 100  # seconds: it is three processes that load their libraries, and two servers


@pytest.mark.skipif(sys.platform == "win32", reason="no server is bundled for Windows")
def test_one_command_starts_all_and_others_find_it(
    own_workshop: Workshop,  # noqa: F811
) -> None:
    places = {name: value for name, value in own_workshop.environment.items() if name != "REDIS_URL"}
    variables = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    variables |= places | {"PYTHONPATH": path()}
    python = [sys.executable, "-P", "-m"]
    all_of_them = [*python, "examples.worker", "all"]
    with subprocess.Popen(all_of_them, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "Workers take jobs. REDIS_URL=redis://127.0.0.1:" in process.stdout.readline()
            asked = subprocess.run(
                [*python, "examples.enqueue", "card", "好", "--wait"],
                env=variables,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert asked.returncode == 0, asked.stderr
            assert json.loads(asked.stdout)["card"]["pinyin"] == "hǎo, hào"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert own_workshop.calls == {"text": 1, "picture": 1, "sound": 2}

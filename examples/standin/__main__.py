"""Serve the stand-in services on loopback: `python -m examples.standin --speed 20 --set text.rate=4`.

One line on standard output says where, as soon as calls are answered there. SIGTERM and SIGINT end it in
order.
"""

import argparse
import json
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

import anyio.lowlevel
import uvicorn

from examples.fleet.children import when_parent_ends
from examples.standin.app import SWITCHES, Config, create_app

HOST = "127.0.0.1"
PATIENCE = 1  # seconds that calls under way are given when the server ends


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal comes, or until standard input closes if that was asked for."""
    options = parser().parse_args(arguments)
    try:
        app = create_app(Config(options.speed, options.seed, switches(options.set)))
        listener = listen(options.port)
    except (ValueError, OSError) as fault:
        sys.exit(f"stand-in services: {fault}")
    server = Server(
        uvicorn.Config(
            app,
            # The same on every machine, whatever else is installed there. No log: to uvicorn, what is cut
            # off on purpose is an error.
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=PATIENCE,
        )
    )
    if options.until_stdin_closes:
        when_parent_ends(server.leave)
    end_in_order()
    server.run(sockets=[listener])


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.standin",
        description="Stand-ins for the paid services of the examples, on loopback.",
        epilog="switches:\n" + "\n".join(described()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0 (the default): any that is free")
    parser.add_argument("--speed", type=float, default=1.0, help="service seconds in a second (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of latencies, faults and answers (default 0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SERVICE.SWITCH=VALUE",
        help='turn a switch, as often as needed: text.rate=4, text.poison=["坏"]',
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    return parser


def described() -> list[str]:
    """A line for each switch."""
    return [
        f"  {f'{service}.{name}':<24} {field.description} (default {json.dumps(field.default)})"
        for service, switches in SWITCHES.items()
        for name, field in switches.model_fields.items()
    ]


def switches(settings: Sequence[str]) -> dict[str, dict[str, object]]:
    """`["text.rate=4"]` as `{"text": {"rate": 4}}`; a value that is no JSON is a word."""
    chosen: dict[str, dict[str, object]] = {}
    for setting in settings:
        place, equals, value = setting.partition("=")
        service, dot, switch = place.partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {setting}: expected SERVICE.SWITCH=VALUE")
        chosen.setdefault(service, {})[switch] = parsed(value)
    return chosen


def parsed(value: str) -> object:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def listen(port: int) -> socket.socket:
    """A bound socket; its protocol is named, for asyncio sets TCP_NODELAY only then (3 ms a call, not 45)."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    return listener


class Server(uvicorn.Server):
    """uvicorn, saying where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await anyio.lowlevel.checkpoint()  # loads anyio's back-end: the first call shall not wait for that
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()
            print(f"stand-in services at http://{host}:{port}", flush=True)

    def leave(self) -> None:
        """End in order; from any thread."""
        self.should_exit = True


def end_in_order() -> None:
    """End well on these signals: uvicorn stops, and then raises them again as if it had not."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, leave)


if __name__ == "__main__":
    main()

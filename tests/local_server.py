"""A real HTTP server on the loopback, for tests of what talks to one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

from attrs import frozen

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@frozen
class Answer:
    """What the server says; None as a status: nothing, before it ends."""

    status: int | None = 200
    headers: Mapping[str, str] = NO_HEADERS
    body: bytes = b"{}"


class LocalServer:
    """Answers every request by what `answer` returns for its path.

    Attributes:
        url: where it is.
        asked: the paths of all requests, in order.
    """

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.asked: list[str] = []
        self.ending = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                server.asked.append(self.path)
                said = answer(self.path)
                if said.status is None:
                    server.ending.wait()
                    return
                self.send_response(said.status)
                for name, value in {"content-type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(said.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said.body)

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815  # the names are http.server's

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@contextmanager
def serving(answer: Callable[[str], Answer]) -> Iterator[LocalServer]:
    """A server that runs until the block is left."""
    server = LocalServer(answer)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def closed_port() -> str:
    """The address of a server that is there no more."""
    with serving(lambda _: Answer()) as server:
        return server.url

"""Proxies between a client and a server on the loopback: one where things go wrong, and one that ends TLS."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import trustme

from tests.helpers import DEADLINE

HOST = "127.0.0.1"


class _ReplyLostError(Exception):
    """A reply was swallowed: its connection ends."""


class FaultProxy:
    """Hands on what goes between clients and a server, until a test says otherwise.

    It lives in a thread of its own. What a method asks for is so when the method returns.

    Attributes:
        port: where it listens.
        connections: how many were made so far.
        dropped: how many replies were swallowed.
    """

    _tls: ssl.SSLContext | None = None

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.connections = 0
        self.dropped = 0
        self._target_port = target_port
        self._open: set[_Connection] = set()
        self._clear()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._bind()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and the thread."""
        self.refuse()
        self.cut()
        self._socket.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def url(self, **query: object) -> str:
        """Its address; the query has options of `redis.Redis.from_url`."""
        return f"redis://{HOST}:{self.port}/0{'?' if query else ''}{urlencode(query)}"

    @property
    def open_connections(self) -> int:
        """How many connections there are now."""
        return len(self._open)

    # what goes wrong

    def delay(self, requests: float, replies: float | None = None) -> None:
        """Hand everything on so many seconds after it came; each way takes the same unless both are given."""

        def change() -> None:
            self._delays = (requests, requests if replies is None else replies)

        self._change(change)

    def blackhole(self) -> None:
        """Accept everything and hand on nothing, as if the network were parted, until `heal`.

        As a network does, it brings what was sent meanwhile when it works again, unless that is `cut`.
        """

        def change() -> None:
            self._parted = True

        self._change(change)

    def drop_replies(self, count: int = 1, to: bytes = b"") -> None:
        """Lose the next replies: each time the command ran, and the connection is cut before its reply.

        Args:
            count: so many.
            to: only replies to requests that have this in them, such as `b"EVALSHA"`. Otherwise what a client
                says first on a new connection counts, too.
        """

        def change() -> None:
            self._to_drop, self._drop_after = count, to

        self._change(change)

    def cut(self, *, reset: bool = False) -> None:
        """End all connections now: by RST, or else by FIN."""

        async def cut() -> None:
            for connection in self._open:
                connection.cut(reset=reset)
            if self._open:
                await asyncio.wait([connection.task for connection in self._open], timeout=DEADLINE)

        self._run(cut())

    def refuse(self) -> None:
        """Refuse new connections; those there are go on."""

        async def refuse() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
                self._bind()  # nobody else gets the port meanwhile

        self._run(refuse())

    def accept(self) -> None:
        """Accept new connections again."""

        async def accept() -> None:
            if self._server is None:
                self._server = await asyncio.start_server(self._serve, sock=self._socket, ssl=self._tls)

        self._run(accept())

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self._change(self._clear)
        self.accept()

    # inside

    _server: asyncio.Server | None = None

    def _clear(self) -> None:
        self._delays = (0.0, 0.0)
        self._parted = False
        self._to_drop = 0
        self._drop_after = b""
        self._changed = asyncio.Event()

    def _bind(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, self.port))
        self.port = int(self._socket.getsockname()[1])

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def _change(self, change: Callable[[], None]) -> None:
        async def run() -> None:
            before = self._changed
            change()
            self._changed = asyncio.Event()
            before.set()

        self._run(run())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = _Connection(self, writer)
        self._open.add(connection)
        try:
            await connection.serve(reader, self._target_port)
        finally:
            self._open.remove(connection)

    async def _may_go(self, way: int, since: float) -> None:
        """Return when that which came at this time may be handed on."""
        while True:
            left = None if self._parted else since + self._delays[way] - self._loop.time()
            if left is not None and left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _swallows(self, request: bytes) -> bool:
        if self._to_drop == 0 or self._drop_after not in request:
            return False
        self._to_drop -= 1
        self.dropped += 1
        return True


class _Connection:
    """A client's connection, and the one to the server that was made for it."""

    def __init__(self, proxy: FaultProxy, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.task = task
        self._proxy = proxy
        self._writers = [writer]
        self._reset = False
        self._request = b""  # the last one

    def cut(self, *, reset: bool) -> None:
        self._reset = reset
        self.task.cancel()

    async def serve(self, reader: asyncio.StreamReader, target_port: int) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, target_port)
            self._writers.append(server_writer)
            async with asyncio.TaskGroup() as group:
                for way, source, sink in [(0, reader, server_writer), (1, server_reader, self._writers[0])]:
                    heard: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                    group.create_task(self._listen(source, heard))
                    group.create_task(self._tell(way, heard, sink))
            for writer in self._writers:  # both sides are through: let what is still on its way arrive
                writer.close()
                await writer.wait_closed()
        except* (OSError, _ReplyLostError):
            pass
        except* asyncio.CancelledError:
            pass  # the cut
        finally:
            await self._end()

    async def _listen(self, source: asyncio.StreamReader, heard: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            data = await source.read(2**16)
            heard.put_nowait((asyncio.get_running_loop().time(), data))
            if not data:
                return

    async def _tell(
        self, way: int, heard: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        while True:
            since, data = await heard.get()
            await self._proxy._may_go(way, since)
            if not data:
                if sink.can_write_eof():
                    sink.write_eof()
                else:  # TLS
                    sink.close()
                return
            if way == 0:
                self._request = data
            elif self._proxy._swallows(self._request):
                raise _ReplyLostError
            sink.write(data)
            await sink.drain()

    async def _end(self) -> None:
        for writer in self._writers:
            if self._reset:
                linger = struct.pack("ii", 1, 0)  # without any: a close is a RST
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class TlsProxy(FaultProxy):
    """A proxy to which clients speak TLS; the certificate's authority is made for it.

    Attributes:
        ca_file: the path of the authority's certificate, while the proxy lives.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._authority = trustme.CA()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("localhost", HOST).configure_cert(self._tls)
        self.ca_file = ""

    def __enter__(self) -> Self:
        self.ca_file = str(Path(tempfile.mkdtemp(prefix="batchkit-"), "authority.pem"))
        self._authority.cert_pem.write_to_path(self.ca_file)
        return super().__enter__()

    def close(self) -> None:
        super().close()
        shutil.rmtree(Path(self.ca_file).parent)

    def url(self, **query: object) -> str:
        """Its address; who uses it as it is trusts the certificate."""
        return f"rediss://{HOST}:{self.port}/0?{urlencode({'ssl_ca_certs': self.ca_file} | query)}"

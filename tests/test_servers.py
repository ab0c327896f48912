"""The servers and proxies of the tests do what they say: otherwise a test of a failure would test nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import AskError, MovedError, NoPermissionError, OutOfMemoryError, ReadOnlyError

from tests.helpers import DEADLINE, eventually
from tests.proxies import FaultProxy, TlsProxy
from tests.servers import BINARIES, HOST, NEWEST, Cluster, Sentinel, Server, ServerCache, replica_of

COUNT = "return redis.call('INCR', KEYS[1])"
pytestmark = pytest.mark.skipif(not BINARIES, reason="no server found")


def run(client: redis.Redis, *command: str | bytes | float) -> Any:
    execute: Callable[..., Any] = client.execute_command
    return execute(*command)


def server_time(server: Server) -> float:
    seconds, microseconds = server.do("EVAL", "return redis.call('TIME')", 0)
    return int(seconds) + int(microseconds) / 1e6


# servers


def test_each_server_answers(redis_server: Server) -> None:
    assert redis_server.client().ping()
    assert run(redis_server.client(), "EVAL", COUNT, 1, "calls") == 1
    assert redis.Redis.from_url(redis_server.url(db=1)).ping()
    assert redis_server.client(unix_socket_path=redis_server.unix_socket).get("calls") == b"1"
    product = "valkey" if redis_server.binary.startswith("valkey") else "redis"
    assert redis_server.info("server")[f"{product}_version"].startswith(redis_server.binary.split("-")[1])


def test_commands_are_counted(redis_server: Server) -> None:
    client = redis_server.client()
    client.ping()
    redis_server.reset_stats()
    assert redis_server.commands() == {}
    run(client, "EVAL", COUNT, 1, "calls")
    client.get("calls")
    client.get("calls")
    assert redis_server.commands() == {"eval": 1, "incr": 1, "get": 2}


def test_a_cached_server_is_as_good_as_new(server_cache: ServerCache, valkey: Server) -> None:
    client = valkey.client()
    client.set("key", "value")
    valkey.do("CONFIG", "SET", "maxmemory", "2mb")
    valkey.do("ACL", "SETUSER", "somebody", "on", ">secret", "~*", "+@all")
    valkey.pause()
    assert server_cache.get(valkey.binary) is valkey
    assert valkey.client().get("key") is None
    assert valkey.client().config_get("maxmemory") == {"maxmemory": "0"}
    with pytest.raises(redis.AuthenticationError):
        valkey.client(username="somebody", password="secret").ping()
    valkey.kill()
    assert server_cache.get(valkey.binary).client().ping()


def test_a_killed_server_is_back_on_its_port_without_its_keys(own_server: Server) -> None:
    port, client = own_server.port, own_server.client()
    client.set("key", "value")
    own_server.kill()
    assert not own_server.running
    with pytest.raises(redis.ConnectionError):
        client.ping()
    own_server.start()
    assert own_server.port == port
    assert client.get("key") is None
    own_server.stop()
    assert not own_server.running


def test_a_paused_server_answers_later(own_server: Server) -> None:
    own_server.pause()
    with pytest.raises(redis.TimeoutError):
        own_server.client(socket_timeout=0.05).ping()
    own_server.resume()
    assert own_server.client(socket_timeout=DEADLINE).ping()


def test_users_and_their_rights() -> None:
    users = {"limiter": "on >secret ~limits:* +@all -@dangerous"}
    with Server(password="p@ss/word", users=users) as server:
        assert redis.Redis.from_url(server.url()).ping()
        with pytest.raises(redis.AuthenticationError):
            server.client(password=None).ping()
        limiter = server.client(username="limiter", password="secret")
        limiter.set("limits:a", 1)
        with pytest.raises(NoPermissionError):
            limiter.set("others", 1)
        with replica_of(server) as replica:
            assert replica.client().get("limits:a") == b"1"


def test_a_full_server_says_so() -> None:
    with Server("--maxmemory", "1") as server, pytest.raises(OutOfMemoryError):
        server.client().set("key", "value")


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no-such-option"), Server("--no-such-option", "1"):
        pytest.fail("it started")


def test_the_clock_can_be_moved(redis_server: Server) -> None:
    redis_server.client().set("key", "value", ex=1800)
    assert server_time(redis_server) == pytest.approx(time.time(), abs=DEADLINE)
    redis_server.clock_offset = -3600
    assert redis_server.clock_offset == -3600
    assert server_time(redis_server) == pytest.approx(time.time() - 3600, abs=DEADLINE)
    assert redis_server.client().get("key") == b"value"
    redis_server.clock_offset = 3600.5
    assert server_time(redis_server) == pytest.approx(time.time() + 3600.5, abs=DEADLINE)
    assert redis_server.client().get("key") is None


def test_a_moved_clock_survives_a_restart(own_server: Server) -> None:
    own_server.clock_offset = 3600
    own_server.kill()
    own_server.start()
    assert server_time(own_server) == pytest.approx(time.time() + 3600, abs=DEADLINE)


def test_killed_tests_leave_no_server(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from tests.servers import Server\n"
        "with Server() as server:\n"
        "    server.pause()\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as tests:
        assert tests.stdout
        server = int(tests.stdout.readline())
        tests.send_signal(signal.SIGKILL)

    def gone() -> bool:
        try:
            os.kill(server, 0)
        except ProcessLookupError:
            return True
        return False

    eventually(lambda: gone() and list(tmp_path.iterdir()) == [script])


# several servers


def test_a_replica_is_read_only_until_it_is_promoted(own_server: Server) -> None:
    own_server.client().set("key", "value")
    with replica_of(own_server) as replica:
        assert replica.client().get("key") == b"value"
        with pytest.raises(ReadOnlyError):
            replica.client().set("key", "other")
        replica.promote()
        replica.client().set("key", "other")
        own_server.demote(replica)
        assert own_server.client().get("key") == b"other"
        with pytest.raises(ReadOnlyError):
            own_server.client().set("key", "another")


def test_a_cluster_says_where_a_slot_is(cluster: Cluster) -> None:
    slot = cluster.slot("key")
    owner, other = cluster.owner(slot), cluster.other(slot)
    client = cluster.client()
    client.set("key", "value")
    assert owner.client().get("key") == b"value"
    with pytest.raises(MovedError, match=f"{slot} 127.0.0.1:{owner.port}"):
        other.client().get("key")

    cluster.begin_migration(slot, other)
    assert owner.client().get("key") == b"value"
    tag = "{key}:2"  # in the same slot
    with pytest.raises(AskError, match=f"{slot} 127.0.0.1:{other.port}"):
        owner.client().get(tag)
    assert client.get(tag) is None
    client.set(tag, "new")

    cluster.finish_migration(slot)
    with pytest.raises(MovedError, match=f"{slot} 127.0.0.1:{other.port}"):
        owner.client().get("key")
    assert client.get("key") == other.client().get("key") == b"value"
    assert client.get(tag) == b"new"


def test_a_cluster_of_the_next_test_is_as_at_first(cluster: Cluster) -> None:
    slot = cluster.slot("key")
    cluster.migrate(slot, cluster.nodes[0])
    cluster.begin_migration(0, cluster.nodes[1])
    cluster.client().set("key", "value")
    cluster.reset()
    assert cluster.owner(slot) is not cluster.nodes[0]
    assert cluster.client().get("key") is None
    assert cluster.owner(0).client().get("{06S}") is None  # of slot 0: no ASK
    assert len(cluster.urls) == 3


def test_a_sentinel_fails_over(sentinel: Sentinel) -> None:
    sentinel.client().set("key", "value")
    assert sentinel.current() is sentinel.master
    eventually(lambda: sentinel.replica.client().get("key") == b"value")
    sentinel.failover()
    assert sentinel.client().get("key") == b"value"
    sentinel.client().set("key", "new")
    assert sentinel.replica.client().get("key") == b"new"


# proxies


def through(proxy: FaultProxy, server: Server, **kwargs: Any) -> redis.Redis:
    """A client that reaches the server through the proxy."""
    return server.client(port=proxy.port, **kwargs)


def test_a_proxy_hands_on(valkey: Server) -> None:
    with FaultProxy(valkey.port) as proxy:
        client = through(proxy, valkey)
        value = os.urandom(1_000_000)
        client.set("key", value)
        assert client.get("key") == value
        assert redis.Redis.from_url(proxy.url(db=0)).ping()
        assert proxy.connections == 2
        client.close()
        eventually(lambda: proxy.open_connections == 0)
    assert not any(thread.name == "proxy" for thread in threading.enumerate())


def test_a_proxy_of_no_server_ends_connections(own_server: Server) -> None:
    with FaultProxy(own_server.port) as proxy:
        own_server.kill()
        with pytest.raises(redis.ConnectionError):
            through(proxy, own_server).ping()


@pytest.mark.parametrize("each", [(0.02,), (0.04, 0), (0, 0.04)])
def test_a_proxy_takes_time(valkey: Server, each: tuple[float, ...]) -> None:
    with FaultProxy(valkey.port) as proxy:
        client = through(proxy, valkey)
        client.ping()
        proxy.delay(*each)
        begin = time.monotonic()
        client.ping()
        assert time.monotonic() - begin >= 0.04
        proxy.delay(DEADLINE)
        healing = threading.Timer(0.01, proxy.heal)
        healing.start()
        assert client.ping()  # what is under way goes on at once
        healing.join()


@pytest.mark.parametrize("reset", [False, True])
def test_a_proxy_cuts(valkey: Server, reset: bool) -> None:
    with FaultProxy(valkey.port) as proxy:
        client = through(proxy, valkey)
        client.ping()
        waiting = socket.create_connection((HOST, proxy.port), timeout=DEADLINE)
        waiting.sendall(b"PING\r\n")
        assert waiting.recv(100) == b"+PONG\r\n"
        proxy.cut(reset=reset)
        assert proxy.open_connections == 0
        with waiting, pytest.raises(ConnectionResetError) if reset else contextlib.nullcontext():
            assert waiting.recv(100) == b""
        assert client.ping()
        assert proxy.connections == 3


def test_a_proxy_refuses(valkey: Server) -> None:
    with FaultProxy(valkey.port) as proxy:
        client = through(proxy, valkey)
        client.ping()
        port = proxy.port
        proxy.refuse()
        proxy.refuse()
        assert client.ping()  # it was connected before
        with pytest.raises(redis.ConnectionError):
            through(proxy, valkey).ping()
        proxy.accept()
        assert through(proxy, valkey).ping()
        assert proxy.port == port


def test_a_proxy_loses_a_reply(valkey: Server) -> None:
    with FaultProxy(valkey.port) as proxy:
        client = through(proxy, valkey)
        client.ping()
        proxy.drop_replies(2, to=b"INCR")
        for calls in (1, 2):
            with pytest.raises(redis.ConnectionError):
                client.incr("calls")
            assert valkey.client().get("calls") == str(calls).encode()  # it ran
        assert client.incr("calls") == 3
        proxy.drop_replies()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        assert proxy.dropped == 3


def test_a_parted_network_brings_late_what_was_sent(valkey: Server) -> None:
    with FaultProxy(valkey.port) as proxy:
        client = through(proxy, valkey, socket_timeout=0.05)
        client.ping()
        proxy.blackhole()
        with pytest.raises(redis.TimeoutError):
            client.incr("calls")
        with pytest.raises(redis.TimeoutError):
            client.ping()  # on a new connection
        assert valkey.client().get("calls") is None
        proxy.heal()
        eventually(lambda: valkey.client().get("calls") == b"1")
        proxy.blackhole()
        with pytest.raises(redis.TimeoutError):
            through(proxy, valkey, socket_timeout=0.05).incr("calls")
        proxy.cut()
        proxy.heal()
        assert through(proxy, valkey).get("calls") == b"1"


def test_tls(valkey: Server) -> None:
    with TlsProxy(valkey.port) as proxy:
        client = redis.Redis.from_url(proxy.url())
        value = os.urandom(1_000_000)
        client.set("key", value)
        assert client.get("key") == value
        proxy.cut()
        assert client.ping()
        client.close()
        with pytest.raises(redis.ConnectionError, match="certificate"):
            through(proxy, valkey, ssl=True).ping()
        assert Path(proxy.ca_file).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert not Path(proxy.ca_file).exists()


def test_the_newest_is_the_first() -> None:
    assert next(iter(BINARIES)) == NEWEST

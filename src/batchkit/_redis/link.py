"""The way to Redis: a connection of our own, or one to each node of a cluster. Only this module imports
redis.

A command is sent once: redis-py's own retries are off, since a command whose reply was lost would be charged
again. The courier asks again where it has to, under the same number, and is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from inspect import signature
from ssl import SSLSocket
from typing import Any, Final, Protocol, TypeAlias, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from batchkit._clock import MONOTONIC
from batchkit._redis.resp import Feed
from batchkit._redis.scripts import Command, Keys, Script, Word

Reply: TypeAlias = bytes | list[bytes] | Exception

ERRORS: Final = (RedisError, RedisClusterException, OSError)  # the second one is none of the first
AWAY: Final = (redis.ConnectionError, redis.TimeoutError, RedisClusterException, OSError)  # nobody answers
APART: Final = TryAgainError  # the keys of one command are on their way to another node, and some are there
_HEADS: Final = 1024
_LONGEST_HEAD: Final = 8  # names of keys
_AT_ONCE: Final = 1 << 16  # bytes
_MOST_BEFORE: Final = 1 << 10  # times that other things come before an answer
_AROUND: Final = 3  # times that a cluster may send us on


class Link(Protocol):
    """Runs scripts, and commands of Redis.

    Attributes:
        address: the same for all links that go to the same Redis, as far as can be told.
    """

    address: Hashable

    @property
    def ready(self) -> bool:
        """Whether commands can be sent without waiting for anything."""
        ...

    @property
    def wire(self) -> tuple[object, int] | None:
        """A connection and its descriptor, where the system tells when an answer is there."""
        ...

    def send(self, commands: Sequence[Command], timeout: float) -> None:
        """Ask that these scripts are run; only where it is `ready`. The next
        is `exchange`, with the same commands.

        Raises:
            one of `ERRORS`: nobody is there.
        """
        ...

    def exchange(self, commands: Sequence[Command], timeout: float) -> list[Reply]:
        """Run these scripts, in one round trip.

        Returns:
            Its answers, or for each command that was refused the error.

        Raises:
            one of `ERRORS`: nobody answers.
        """
        ...

    @property
    def together(self) -> bool:
        """Whether one command may be about several keys, whatever these are."""
        ...

    def place(self, key: str) -> str:
        """Which server has a key."""
        ...

    def places(self) -> Mapping[str, Any]:
        """The servers that are there, and for each a pool of its connections."""
        ...

    def close(self) -> None:
        """Hang up; the next exchange connects again."""
        ...

    def forget(self) -> None:
        """This is another process now, which has no connection yet."""
        ...


def link_to(target: object) -> Link:
    """The way to the Redis of a URL or of a client, whose settings count, but for its retries and timeouts.

    Raises:
        ValueError: no URL of Redis.
        TypeError: something else.
    """
    if isinstance(target, str):
        return Wire(cast(Any, redis.ConnectionPool).from_url(target), target)
    if isinstance(target, RedisCluster):
        return Nodes(target)
    if isinstance(target, redis.Redis):
        return Wire(target.connection_pool, id(target.connection_pool))
    raise TypeError(
        f"a URL, a redis.Redis or a redis.cluster.RedisCluster is needed, not {type(target).__name__}; "
        "one limiter serves threads, asyncio and trio alike, so that the blocking client is the one to give"
    )


class Wire:
    """One connection, of the kind that a pool makes."""

    def __init__(self, pool: Any, address: Hashable = None) -> None:
        self.address = address
        self._pool = pool
        self._connection: Any = None
        self._replies: Replies | None = None
        self._sent = False
        self._heads: dict[tuple[Script | str, Keys], bytes] = {}  # of commands

    @property
    def ready(self) -> bool:
        """Whether it is connected."""
        return self._connection is not None

    @property
    def wire(self) -> tuple[object, int] | None:
        """The connection, unless its answers are encrypted: part of one may be there, and the rest not."""
        connection = self._connection
        sock = None if connection is None else connection._sock
        if sock is None or isinstance(sock, SSLSocket):
            return None
        return connection, sock.fileno()

    def send(self, commands: Sequence[Command], timeout: float) -> None:
        """Ask that these scripts are run."""
        connection = self._connection
        self._limit(connection, timeout)
        self._sent = True
        connection._sock.sendall(b"".join([self._packed(command) for command in commands]))

    def exchange(self, commands: Sequence[Command], timeout: float) -> list[Reply]:
        """Run these scripts."""
        until = MONOTONIC.now() + timeout
        fresh = self._connection is None
        try:
            return self._exchange(commands, timeout)
        except (redis.ConnectionError, OSError) as error:
            self.close()
            left = until - MONOTONIC.now()
            if fresh or isinstance(error, TimeoutError) or left <= 0:
                raise
        except BaseException:
            self.close()
            raise
        try:
            return self._exchange(
                commands, left
            )  # it was closed while nobody looked: once more, on a new one
        except BaseException:
            self.close()
            raise

    def run(self, command: Command, timeout: float, *, asking: bool = False) -> Reply:
        """Run a script once, also where its keys are on their way to this node."""
        try:
            return self._exchange([command], timeout, asking=asking)[0]
        except BaseException:
            self.close()
            raise

    @property
    def together(self) -> bool:
        """True, as far as is known: behind the one address there may be a cluster."""
        return True

    def place(self, key: str) -> str:
        """Which server has a key: there is one."""
        return ""

    def places(self) -> Mapping[str, Any]:
        """The one server."""
        return {"": self._pool}

    def close(self) -> None:
        """Hang up."""
        connection, self._connection, self._sent = self._connection, None, False
        if connection is not None:
            connection.disconnect()

    def forget(self) -> None:
        """Leave the connection to the process that has it."""
        self._connection, self._sent = None, False

    def _exchange(self, commands: Sequence[Command], timeout: float, *, asking: bool = False) -> list[Reply]:
        replies = self._connected(timeout)
        if asking:  # which is meant for the next command only
            self._send([("ASKING",)])
            replies.next()
        if not self._sent:
            self.send(commands, timeout)
        read = [replies.next() for _ in commands]
        self._sent = False
        if refused := [reply for reply in read if isinstance(reply, ResponseError)]:
            self._say_unknown(commands, read, timeout, asking=asking)
            if any(map(_is_read_only, refused)):
                self.close()  # a replica now: whoever is the master is found by connecting again
        return read

    def _say_unknown(
        self, commands: Sequence[Command], read: list[Reply], timeout: float, *, asking: bool
    ) -> None:
        """The server was restarted, or its scripts were flushed: say those that it does not know, once."""
        unknown = [index for index, reply in enumerate(read) if isinstance(reply, NoScriptError)]
        if not unknown:
            return
        replies = self._connected(timeout)
        for script in {commands[index][0] for index in unknown}:
            self._send([("SCRIPT", "LOAD", cast(Script, script).text)])
            loaded = replies.next()
            if isinstance(loaded, Exception):
                for index in unknown:
                    read[index] = loaded
                return
        first = unknown[0]  # what comes after it may depend on it; to ask that again changes nothing
        read[first:] = self._exchange(commands[first:], timeout, asking=asking)

    def _connected(self, timeout: float) -> Replies:
        """The replies of the connection, which is made if there is none."""
        connection, replies = self._connection, self._replies
        if connection is None or replies is None:
            self._sent = False
            self._connection = connection = _connected(self._pool, timeout, 2)
            replies = self._replies = Replies(connection._sock, connection._parser.parse_error)
        self._limit(connection, timeout)
        return replies

    def _limit(self, connection: Any, timeout: float) -> None:
        if connection.socket_timeout != timeout:
            connection.socket_timeout = timeout
            connection._sock.settimeout(timeout)

    def _packed(self, command: Command) -> bytes:
        script, keys, words = command
        known = self._heads.get((script, keys))
        if known is None:
            known = b"".join(map(_word, (*_start(script, len(keys)), *keys)))
            if len(self._heads) < _HEADS and len(keys) <= _LONGEST_HEAD:
                self._heads[script, keys] = known
        count = (1 if isinstance(script, str) else 3) + len(keys) + len(words)
        return b"*%d\r\n%b%b" % (count, known, b"".join([_word(word) for word in words]))

    def _send(self, commands: Sequence[Sequence[Word]]) -> None:
        connection = self._connection
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)


def _connected(pool: Any, timeout: float, protocol: int) -> Any:
    """A new connection of the kind that a pool makes."""
    settings = {
        **{key: pool.connection_kwargs[key] for key in pool.connection_kwargs if "maint_" not in key},
        "retry": Retry(NoBackoff(), 0),
        "protocol": protocol,
        "decode_responses": False,
        "health_check_interval": 0,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
    connection = pool.connection_class(**settings)
    try:
        connection.connect()
    except BaseException:  # redis-py leaves the socket open where the other side hangs up just then
        connection.disconnect()
        raise
    return connection


def _start(script: Script | str, keys: int) -> tuple[str, ...]:
    """What comes before the keys of a command."""
    return (script,) if isinstance(script, str) else ("EVALSHA", script.sha, str(keys))


class Replies:
    """What a server says on a connection, one reply after the other: texts, numbers, errors, and lists of
    those, in RESP2. redis-py takes longer to read a text than Redis to answer.

    Args:
        sock: the connection's.
        error: makes an exception of what an error says.
    """

    __slots__ = ("_at", "_data", "_error", "_sock")

    def __init__(self, sock: Any, error: Callable[[str], Exception]) -> None:
        self._sock = sock
        self._error = error
        self._data = b""  # what was received
        self._at = 0  # how much of it was read

    def next(self) -> Any:
        """The next reply; an error is returned.

        Raises:
            one of `ERRORS`: there is none, or none within the time.
        """
        line = self._line()
        kind, said = line[:1], line[1:]
        if kind == b"$":
            return self._text(int(said))
        if kind == b"*":
            return [self.next() for _ in range(int(said))]
        if kind == b"-":
            error = self._error(said.decode(errors="replace"))
            if isinstance(
                error, redis.ConnectionError
            ):  # nobody is there for now: it is loading its data, say
                raise error
            return error
        return int(said) if kind == b":" else said

    def _line(self) -> bytes:
        data, at = self._data, self._at
        while (end := data.find(b"\r\n", at)) < 0:
            data, at = data[at:] + self._more(), 0
        self._leave(data, end + 2)
        return data[at:end]

    def _text(self, size: int) -> bytes | None:
        if size < 0:
            return None
        data, at = self._data, self._at
        if len(data) < at + size + 2:
            data, at = self._all(data[at:], size + 2), 0
        self._leave(data, at + size + 2)
        return data[at : at + size]

    def _leave(self, data: bytes, at: int) -> None:
        """The rest is for the next reply."""
        self._data, self._at = (data, at) if at < len(data) else (b"", 0)

    def _all(self, rest: bytes, size: int) -> bytes:
        """At least so much, put together once: a value may be large."""
        parts = [rest]
        missing = size - len(rest)
        while missing > 0:
            parts.append(self._more())
            missing -= len(parts[-1])
        return b"".join(parts)

    def _more(self) -> bytes:
        more: bytes = self._sock.recv(_AT_ONCE)
        if not more:
            raise redis.ConnectionError("the server closed the connection")
        return more


def is_scattered(reply: object) -> bool:
    """Whether a command was refused since its keys are of different slots: the server is one of a cluster."""
    return isinstance(reply, ClusterCrossSlotError)


def _is_read_only(reply: Reply) -> bool:
    """Whether a replica refused to write; before Redis 7 it says so in the error of the script."""
    return isinstance(reply, ReadOnlyError) or (
        isinstance(reply, ResponseError) and "-READONLY" in str(reply)
    )


def _word(word: Word) -> bytes:
    text = word if isinstance(word, bytes) else word.encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


class Line:
    """A connection on which the server tells of changes on its own.

    Args:
        pool: of whose kind it is.
        timeout: seconds within which the server has to answer.

    Attributes:
        newest: whether both speak RESP3, without which there is no client tracking on one connection.

    Raises:
        one of `ERRORS`: nobody is there, or lets us in.
    """

    def __init__(self, pool: Any, timeout: float) -> None:
        self.newest = True
        try:
            self._connection = _connected(pool, timeout, 3)
        except redis.ConnectionError:
            raise
        except RedisError:  # it does not know RESP3, or we have no right to ask for it
            self.newest = False
            self._connection = _connected(pool, timeout, 2)
        self._feed = Feed()
        self._heard: list[Any] = []
        self.socket: Any = self._connection._sock

    def ask(self, *words: Word) -> Any:
        """Send a command, and return its answer; other things that come before or after it are kept for
        `hear`.
        """
        self.say(*words)
        for _ in range(_MOST_BEFORE):
            said = self._feed.feed(self._receive())
            answers = [item for item in said if not _is_news(item)]
            self._heard += [item for item in said if _is_news(item)]
            if answers:
                return answers[0]
        raise redis.ConnectionError("no answer")

    def say(self, *words: Word) -> None:
        """Send a command."""
        self.socket.sendall(b"*%d\r\n%b" % (len(words), b"".join(map(_word, words))))

    def hear(self) -> list[Any]:
        """What the server says; waits for it, unless something is there already.

        Raises:
            one of `ERRORS`: the connection is lost.
        """
        heard, self._heard = self._heard, []
        return heard or self._feed.feed(self._receive())

    @property
    def waiting(self) -> bool:
        """Whether something was received that `hear` did not give yet, so that the socket does not tell."""
        sock = self.socket
        return bool(self._heard) or (isinstance(sock, SSLSocket) and sock.pending() > 0)

    def close(self) -> None:
        """Hang up."""
        self._connection.disconnect()

    def _receive(self) -> bytes:
        data: bytes = self.socket.recv(_AT_ONCE)
        if not data:
            raise redis.ConnectionError("the server hung up")
        return data


def _is_news(said: Any) -> bool:
    return isinstance(said, list) and said[:1] in ([b"invalidate"], [b"message"])


class Nodes:
    """A connection to each node of a cluster that has to be asked."""

    def __init__(self, client: Any) -> None:
        self.address: Hashable = id(client)
        self._client = client
        self._wires: dict[str, Wire] = {}

    @property
    def ready(self) -> bool:
        """False: which node has what is found out on the way."""
        return False

    @property
    def wire(self) -> tuple[object, int] | None:
        """None: there are several."""
        return None

    def send(self, commands: Sequence[Command], timeout: float) -> None:
        """Nothing, since it is never `ready`."""

    def exchange(self, commands: Sequence[Command], timeout: float) -> list[Reply]:
        """Run these scripts, at the node that has them."""
        by_node: dict[str, list[int]] = {}
        for index, (_, keys, _) in enumerate(commands):
            by_node.setdefault(self._node_of(keys[0]).name, []).append(index)
        try:
            self._send_ahead(by_node, commands, timeout)
            replies = self._gather(by_node, commands, timeout)
        except BaseException:  # answers may be on their way that nobody waits for
            self.close()
            raise
        for index, answer in enumerate(replies):
            try:
                replies[index] = self._follow(commands[index], answer, timeout)
            except ERRORS as error:
                replies[index] = error
        return replies

    def _send_ahead(
        self, by_node: Mapping[str, list[int]], commands: Sequence[Command], timeout: float
    ) -> None:
        """Have several nodes work at the same time, as far as there are connections."""
        if len(by_node) == 1:
            return
        for name, indexes in by_node.items():
            if (wire := self._wires.get(name)) is not None and wire.ready:
                with suppress(*ERRORS):  # the exchange that follows will see
                    wire.send([commands[index] for index in indexes], timeout)

    def _gather(
        self, by_node: Mapping[str, list[int]], commands: Sequence[Command], timeout: float
    ) -> list[Reply]:
        replies: list[Reply] = [b""] * len(commands)
        for name, indexes in by_node.items():
            try:
                answers = self._wire(name).exchange([commands[index] for index in indexes], timeout)
            except ERRORS as error:  # the other nodes may be there
                self._look_again(name)
                answers = [error] * len(indexes)
            for index, answer in zip(indexes, answers, strict=True):
                replies[index] = answer
        return replies

    @property
    def together(self) -> bool:
        """False: each key is where it is."""
        return False

    def place(self, key: str) -> str:
        """The node that has a key."""
        return str(self._node_of(key).name)

    def places(self) -> Mapping[str, Any]:
        """The nodes that have keys."""
        nodes = self._client.get_primaries()
        return {
            node.name: (node.redis_connection or self._client.get_redis_connection(node)).connection_pool
            for node in nodes
        }

    def close(self) -> None:
        """Hang up."""
        for wire in self._wires.values():
            wire.close()

    def forget(self) -> None:
        """Leave the connections to the process that has them."""
        self._wires = {}

    def _node_of(self, key: str) -> Any:
        return self._client.get_node_from_key(key)

    def _wire(self, name: str) -> Wire:
        if name not in self._wires:
            node = self._client.get_node(node_name=name)
            client = node.redis_connection or self._client.get_redis_connection(node)
            self._wires[name] = Wire(client.connection_pool)
        return self._wires[name]

    def _follow(self, command: Command, reply: Reply, timeout: float) -> Reply:
        """Go where the cluster sends us."""
        for _ in range(_AROUND):
            if isinstance(reply, MovedError):  # which is a kind of AskError
                self._look_again()
                reply = self._wire(self._node_of(command[1][0]).name).run(command, timeout)
            elif isinstance(reply, AskError):
                there: Any = reply
                name = f"{there.host}:{there.port}"
                if self._client.get_node(node_name=name) is None:  # a new one
                    self._look_again()
                reply = self._wire(name).run(command, timeout, asking=True)
            else:
                break
        return reply

    def _look_again(self, failed: str | None = None) -> None:
        """Ask the cluster which node has what; last of all the one that failed, if redis-py can be told so:
        it may hang, and the client's own timeouts count here.
        """
        look = self._client.nodes_manager.initialize
        last = {"last_failed_node_name": failed}
        try:
            look(**last if last.keys() <= signature(look).parameters.keys() else {})
        except ERRORS:  # nobody there knows: those who wait learn from the error that led here
            return


def bare(error: Exception) -> Exception:
    """An error without tracebacks: their frames hold limiters, so that one that nobody uses would not go
    while Redis is away.
    """
    links: list[BaseException | None] = [error]
    while links:
        if (link := links.pop()) is not None and link.__traceback__ is not None:
            link.__traceback__ = None
            links += link.__cause__, link.__context__
    return error

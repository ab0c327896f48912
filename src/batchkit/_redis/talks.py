"""What a tier and Redis say to each other: which commands, and what the answers mean.

Each talk is a generator: it yields commands, is sent their answers, and returns what came of it. Who
carries them, in a task or in a thread, is the tier's business. An answer that is an error says that Redis
cannot, or will not, do that.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Hashable, Iterable
from itertools import count
from math import inf
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from batchkit._clock import MONOTONIC
from batchkit._events import DecodeFailed, Hook, emit
from batchkit._redis.claims import TierClaim, Waiting
from batchkit._redis.directory import Directory
from batchkit._redis.echoes import Echoes
from batchkit._redis.entries import Entry, Names, head_of, tag_text
from batchkit._redis.link import Command, Word
from batchkit._redis.names import whole
from batchkit._redis.presence import Presence
from batchkit._redis.rules import ALL, MOST, Rules, prefix_rule, tag_rule
from batchkit._redis.scripts import APPEND, CLAIM, DROP, KEEP, OPEN, RENEW
from batchkit.abc import Codec, Invalidation, Prefix, TierValue
from batchkit.exceptions import CodecFailed

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Talk = Generator[list[Command], list[Any], T]

_RULES_LIFE: Final = 40 * 86_400_000  # ms for which rules are kept after they were changed or read as a whole
_LONGEST_LIFE: Final = 10 * 365 * 86_400.0  # seconds
_ROUNDS: Final = 4  # times that is asked again what changes while it is asked


class Talks(Generic[K]):
    """What one process says.

    Args:
        name: of the tier, for errors and events.
        names: of its keys in Redis.
        codec: how values become bytes.
        lease: seconds.
        presence: whether Redis is there.
        hooks: who hears of values that cannot be read.
        tell: called with what a cache may keep no longer.

    Attributes:
        rules: by which values count as dropped.
        directory: the names of keys.
        echoes: what this process will hear of its own changes.
        waiting: who waits for what other processes load.
        claims: the claims that this process has.
        hits, misses, kept, dropped, undecodable: as in `TierStatistics`.
    """

    def __init__(
        self,
        name: str,
        names: Names,
        *,
        codec: Codec,
        lease: float,
        presence: Presence,
        hooks: tuple[Hook, ...],
        tell: Callable[[Invalidation], object],
    ) -> None:
        self._name = name
        self._names = names
        self._codec = codec
        self._lease = str(round(lease * 1000))
        self._presence = presence
        self._hooks = hooks
        self._tell = tell
        self._lock = threading.Lock()
        self._process_name = secrets.token_hex(6)
        self._serial = count(1)
        self.rules = Rules()
        self.directory = Directory(names, lambda: tell(Invalidation(everything=True)))
        self.waiting: Waiting[K] = Waiting()
        self.echoes = Echoes()
        self.claims: WeakSet[TierClaim[K]] = WeakSet()
        self.hits = self.misses = self.kept = self.dropped = self.undecodable = 0

    def token(self) -> str:
        """What no other process says, nor this one twice."""
        return f"{self._process_name}.{next(self._serial)}"

    # what is asked, and what the answers mean

    def get(self, keys: list[K]) -> Talk[dict[K, TierValue]]:
        """What is there for keys."""
        names = [self.directory.pair(key)[0] for key in keys]
        replies = yield [
            self._look_up(),
            *(ask for name in names for ask in (("GET", (name,), ()), ("PTTL", (name,), ()))),
        ]
        yield from self._attend(replies[0])
        found: dict[K, TierValue] = {}
        for key, text, left in zip(keys, replies[1::2], replies[2::2], strict=True):
            there = isinstance(text, bytes) and isinstance(left, int)
            if there and (value := self._read(key, text, left)) is not None:
                found[key] = value
        self._count(len(found), len(keys) - len(found))
        return found

    def store(self, values: dict[K, TierValue]) -> Talk[None]:
        """Keep values, whatever was there."""
        if not self.rules.position:
            for key, value in values.items():  # an error of the codec is raised before anything is asked
                self._written(key, 0, value)
            yield from self.look()
        born = self.rules.position
        known = yield from self._store(values, born)
        older = {key: values[key] for key in values if self._is_dropped(key, values[key], born, known)}
        if older:  # than what was dropped before, and not heard of
            yield from self._store(older, known)

    def _store(self, values: dict[K, TierValue], born: int) -> Talk[int]:
        replies = yield [
            *(self._keep_command(key, "", born, value) for key, value in values.items()),
            self._look_up(),
        ]
        known = yield from self._attend(replies[-1])
        with self._lock:
            self.kept += sum(reply == 1 for reply in replies[:-1])
        return known

    def _is_dropped(self, key: K, value: TierValue, born: int, known: int | None = None) -> bool:
        return self.rules.is_dropped(key, tuple(map(tag_text, value.tags)), born, known)

    def drop(self, keys: Iterable[K]) -> Talk[None]:
        """Drop the values of keys."""
        return self._drop([self._drop_command(key) for key in keys])

    def drop_tag(self, tag: Hashable) -> Talk[None]:
        """Drop what has a tag."""
        return self._drop([self._append(tag_rule(tag_text(tag)))])

    def drop_prefix(self, prefix: Prefix) -> Talk[None]:
        """Drop what starts with a prefix."""
        return self._drop([self._append(prefix_rule(prefix))])

    def _drop(self, commands: list[Command]) -> Talk[None]:
        replies = yield [*commands, self._look_up()]
        for command, reply in zip(commands, replies, strict=False):
            if isinstance(reply, Exception):
                self._presence.owe(command, instead=self._append(ALL))
        yield from self._attend(replies[-1])

    def claim(self, claim: TierClaim[K], keys: list[K], ahead: float) -> Talk[TierClaim[K]]:
        """Fill a claim."""
        try:
            yield from self._ask_for(claim, keys, ahead)
            if others := claim.others:  # once more, when no news can be missed
                claim.others, claim.until = [], inf
                self.waiting.add(claim, map(self.directory.value, others))
                yield from self._ask_for(claim, others, ahead)
                self.waiting.remove(claim, map(self.directory.value, set(others) - set(claim.others)))
        except BaseException:
            claim.release()
            raise
        if claim.held:
            self.claims.add(claim)
        self._count(len(claim.found), len(keys) - len(claim.found))
        return claim

    def give_up(self, claim: TierClaim[K]) -> list[Command]:
        """What there is to tell when a claim is released."""
        held, claim.held = claim.held, set()
        self.claims.discard(claim)
        if claim.others:
            self.waiting.remove(claim, map(self.directory.value, claim.others))
        return [self._drop_command(key, claim.token) for key in held]

    def renewals(self) -> list[Command]:
        """What says that this process lives."""
        held = [(key, claim.token) for claim in list(self.claims) for key in list(claim.held)]
        return [(RENEW, self.directory.pair(key)[1:], (token, self._lease)) for key, token in held]

    def _ask_for(self, claim: TierClaim[K], keys: list[K], ahead: float) -> Talk[None]:
        claim.held.update(keys)  # as far as anybody knows, until the answers are there
        asked: dict[K, tuple[bytes, ...]] = dict.fromkeys(keys, ())
        for _ in range(_ROUNDS):
            commands = [self._claim_command(key, claim.token, ahead, asked[key]) for key in asked]
            replies = yield [self._look_up(), *commands]
            yield from self._attend(replies[0])
            bad = [self._take_in(claim, key, reply) for key, reply in zip(asked, replies[1:], strict=True)]
            asked = {key: (head,) for key, head in zip(asked, bad, strict=True) if head is not None}
            if not asked:
                return
        for key in asked:
            self._load_alone(claim, key)

    def _take_in(self, claim: TierClaim[K], key: K, reply: Any) -> bytes | None:
        """What a claim got; if it was a value that counts as none, how that begins."""
        if isinstance(reply, Exception):
            self._load_alone(claim, key)
        elif reply[0] == 1:
            if (value := self._read(key, reply[2], reply[1])) is None:
                return head_of(reply[2])
            claim.found[key] = value
            claim.held.discard(key)
        elif reply[0] == 0:
            claim.mine.append(key)
            claim.born[key] = self.rules.position
        else:
            claim.others.append(key)
            claim.held.discard(key)
            claim.until = min(claim.until, MONOTONIC.now() + reply[1] / 1000)
        return None

    def _load_alone(self, claim: TierClaim[K], key: K) -> None:
        claim.mine.append(key)
        claim.held.discard(key)
        with self._lock:
            self._presence.alone += 1

    def keep(self, claim: TierClaim[K], values: dict[K, TierValue]) -> Talk[set[K]]:
        """Keep what was loaded under a claim, and give up the rest of it; returns what was dropped
        meanwhile.
        """
        kept = [key for key in values if key in claim.held]
        rest = [key for key in claim.held if key not in values]
        keeping = [self._keep_command(key, claim.token, claim.born[key], values[key]) for key in kept]
        giving_up = [self._drop_command(key, claim.token) for key in rest]
        replies = yield [*keeping, *giving_up, self._look_up()]
        yield from self._attend(replies[-1])
        dropped: set[K] = set()
        for key, reply in zip([*kept, *rest], replies, strict=False):
            if not isinstance(reply, Exception):
                claim.held.discard(key)
        for key, reply in zip(kept, replies, strict=False):
            if reply == 0 or self._is_dropped(key, values[key], claim.born[key]):
                dropped.add(key)
        with self._lock:
            self.dropped += len(dropped)
            self.kept += sum(reply == 1 for reply in replies[: len(kept)])
        return dropped

    def look(self) -> Talk[None]:
        """Hear what was dropped."""
        replies = yield [self._look_up()]
        yield from self._attend(replies[0])

    def foreign(self, names: list[str]) -> Talk[list[str]]:
        """Those of the names that others changed. What this process kept is looked at: the server tells of
        several changes at once only once.
        """
        own = self.echoes.of(names)
        if not own:
            return names
        replies = yield [("GETRANGE", (name,), ("0", str(len(head) - 1))) for name, head in own.items()]
        for (name, head), reply in zip(list(own.items()), replies, strict=True):
            if reply != head:
                self.echoes.forget(name, head)
                del own[name]
        return [name for name in names if name not in own]

    def _attend(self, reply: Any) -> Talk[int]:
        """Take in the rules; returns the last moment that the answer knew of."""
        if reply == []:  # Redis does not know what it knew once
            reply = (yield [self._open()])[0]
        if isinstance(reply, Exception):
            return 0
        pairs = [(rule.decode(), round(float(at))) for rule, at in zip(reply[::2], reply[1::2], strict=True)]
        with self._lock:
            news = self.rules.hear(pairs)
        if news is not None:
            self._tell(news)
        return max(at for _, at in pairs)

    # commands

    def _look_up(self) -> Command:
        """What there is of rules from the last known moment on, which is not nothing."""
        if not self.rules.position:
            return self._open()
        return "ZRANGEBYSCORE", (self._names.rules,), (str(self.rules.position), "+inf", "WITHSCORES")

    def _open(self) -> Command:
        return OPEN, (self._names.rules,), (str(self.rules.position), str(_RULES_LIFE))

    def _append(self, rule: str) -> Command:
        words = (str(self.rules.position), str(_RULES_LIFE), str(MOST), self._names.channel, rule)
        return APPEND, (self._names.rules,), words

    def _claim_command(self, key: K, token: str, ahead: float, bad: tuple[bytes, ...]) -> Command:
        words: tuple[Word, ...] = (token, self._lease, str(round(ahead * 1000)), *bad)
        return CLAIM, self.directory.pair(key), words

    def _keep_command(self, key: K, token: str, born: int, value: TierValue) -> Command:
        life = str(max(1, _milliseconds(value.ttl)) + _milliseconds(value.stale))
        text = self._written(key, born, value)
        pair = self.directory.pair(key)
        self.echoes.expect(pair[0], head_of(text))
        return KEEP, pair, (token, life, text, self._names.channel)

    def _drop_command(self, key: K, token: str = "") -> Command:
        return DROP, self.directory.pair(key), (token, self._names.channel)

    # values and names

    def _written(self, key: K, born: int, value: TierValue) -> bytes:
        stale, tags = _milliseconds(value.stale), tuple(map(tag_text, value.tags))
        if value.negative:
            return Entry(born, self.token(), True, stale, tags, b"").text()
        try:
            return Entry(born, self.token(), False, stale, tags, self._codec.encode(value.value)).text()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise CodecFailed(f"{self._name}: the value of {key!r} cannot be kept ({reason})") from error

    def _read(self, key: K, text: bytes, left: int) -> TierValue | None:
        """A value, unless it counts as dropped, or cannot be read."""
        if not self.rules.position:  # nobody knows what was dropped
            return None
        try:
            entry = Entry.read(text)
            if left <= entry.stale or self.rules.is_dropped(key, entry.tags, entry.born):
                return None
            value = None if entry.negative else self._codec.decode(entry.data)
            tags = tuple(map(whole, entry.tags))
        except Exception as error:
            with self._lock:
                self.undecodable += 1
            emit(self._hooks, DecodeFailed(self._name, key, error))
            return None
        return TierValue(value, (left - entry.stale) / 1000, entry.negative, tags, entry.stale / 1000)

    def _count(self, hits: int, misses: int) -> None:
        with self._lock:
            self.hits += hits
            self.misses += misses


def _milliseconds(seconds: float) -> int:
    return round(min(seconds, _LONGEST_LIFE) * 1000)

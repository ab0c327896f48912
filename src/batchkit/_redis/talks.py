"""What a tier and Redis say to each other: which commands, and what the answers mean.

Each talk is a generator: it yields commands, is sent their answers, and returns what came of it. Who
carries them, in a task or in a thread, is the tier's business. An answer that is an error says that Redis
cannot, or will not, do that.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable
from math import inf
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from batchkit._clock import MONOTONIC
from batchkit._redis.bulletin import Bulletin, Talk
from batchkit._redis.bundles import AT_MOST, Unit, answers, for_each
from batchkit._redis.claims import TierClaim, Waiting
from batchkit._redis.directory import Directory
from batchkit._redis.echoes import Echoes
from batchkit._redis.entries import MOMENT, Names, begins_with, head_of, tag_text
from batchkit._redis.presence import Presence
from batchkit._redis.rules import prefix_rule, tag_rule
from batchkit._redis.scripts import CLAIM, DROP, KEEP, READ, RENEW, Command, Script, Word
from batchkit._redis.serializer import Serializer, milliseconds
from batchkit.abc import Prefix, TierValue

K = TypeVar("K", bound=Hashable)

_ROUNDS: Final = 4  # times that is asked again what changes while it is asked


class Talks(Generic[K]):
    """What one process says.

    Args:
        names: of the tier's keys in Redis.
        bulletin: what was dropped by tag or prefix.
        serializer: writes and reads values.
        directory: the names of keys.
        presence: whether Redis is there.
        lease: seconds.
        together: whether one command may be about several keys.

    Attributes:
        echoes: what this process will hear of its own changes.
        waiting: who waits for what other processes load.
        claims: the claims that this process has.
        hits, misses, kept, dropped: as in `TierStatistics`.
    """

    def __init__(
        self,
        names: Names,
        bulletin: Bulletin,
        serializer: Serializer,
        directory: Directory,
        presence: Presence,
        *,
        lease: float,
        together: bool,
    ) -> None:
        self._channel = names.channel
        self._bulletin = bulletin
        self._serializer = serializer
        self._directory = directory
        self._presence = presence
        self._lease = str(milliseconds(lease))
        self._at_most = AT_MOST if together else 1
        self._lock = threading.Lock()
        self.echoes = Echoes()
        self.waiting: Waiting[K] = Waiting()
        self.claims: WeakSet[TierClaim[K]] = WeakSet()
        self.hits = self.misses = self.kept = self.dropped = 0

    # values

    def get(self, keys: list[K]) -> Talk[dict[K, TierValue]]:
        """What is there for keys."""
        asked = self._each(READ, (), [(self._directory.pair(key)[:1], ()) for key in keys])
        rules, *replies = yield [self._bulletin.question(), *asked]
        yield from self._bulletin.attend(rules)
        found: dict[K, TierValue] = {}
        for key, (now, text) in zip(keys, answers(asked, replies), strict=True):
            if isinstance(text, bytes) and (value := self._serializer.read(key, text, now)) is not None:
                found[key] = value
        self._count_hits(len(found), of=len(keys))
        return found

    def store(self, values: dict[K, TierValue]) -> Talk[None]:
        """Keep values, whatever was there."""
        if not self._bulletin.position:
            for key, value in values.items():  # an error of the codec is raised before anything is asked
                self._serializer.written(key, 0, value)
            yield from self._bulletin.look()
        born = self._bulletin.position
        known = yield from self._store(values, born)
        older = {key: each for key, each in values.items() if self._is_dropped(key, each, born, known)}
        if older:  # than what was dropped before, and not heard of
            yield from self._store(older, known)

    def _store(self, values: dict[K, TierValue], born: int) -> Talk[int]:
        asked = self._keeps([(key, "", born, value) for key, value in values.items()])
        *replies, rules = yield [*asked, self._bulletin.question()]
        known = yield from self._bulletin.attend(rules)
        self._count_kept([reply for _, reply in answers(asked, replies)])
        return known

    def drop(self, keys: Iterable[K]) -> Talk[None]:
        """Drop the values of keys."""
        return self._drop(self._drops(keys))

    def drop_tag(self, tag: Hashable) -> Talk[None]:
        """Drop what has a tag."""
        return self._drop([self._bulletin.post(tag_rule(tag_text(tag)))])

    def drop_prefix(self, prefix: Prefix) -> Talk[None]:
        """Drop what starts with a prefix."""
        return self._drop([self._bulletin.post(prefix_rule(prefix))])

    def _drop(self, asked: list[Command]) -> Talk[None]:
        *replies, rules = yield [*asked, self._bulletin.question()]
        for command, reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception):
                self._presence.owe(command, instead=self._bulletin.post())
        yield from self._bulletin.attend(rules)

    # claims

    def claim(self, claim: TierClaim[K], keys: list[K], ahead: float) -> Talk[TierClaim[K]]:
        """Fill a claim."""
        try:
            yield from self._ask_for(claim, keys, ahead)
            if others := claim.others:  # once more, when no news can be missed
                claim.others, claim.until = [], inf
                self.waiting.add(claim, map(self._directory.value, others))
                yield from self._ask_for(claim, others, ahead)
                self.waiting.remove(claim, map(self._directory.value, set(others) - set(claim.others)))
        except BaseException:
            claim.release()
            raise
        if claim.held:
            self.claims.add(claim)
        self._count_hits(len(claim.found), of=len(keys))
        return claim

    def keep(self, claim: TierClaim[K], values: dict[K, TierValue]) -> Talk[set[K]]:
        """Keep what was loaded under a claim, and give up the rest of it; returns what was dropped
        meanwhile.
        """
        kept = [key for key in values if key in claim.held]
        rest = [key for key in claim.held if key not in values]
        asked = self._keeps([(key, claim.token, claim.born[key], values[key]) for key in kept])
        asked += self._drops(rest, claim.token)
        *replies, rules = yield [*asked, self._bulletin.question()]
        yield from self._bulletin.attend(rules)
        told = [reply for _, reply in answers(asked, replies)]
        for key, reply in zip([*kept, *rest], told, strict=True):
            if not isinstance(reply, Exception):
                claim.held.discard(key)
        self._count_kept(told[: len(kept)])
        dropped = {
            key
            for key, reply in zip(kept, told, strict=False)
            if reply == 0 or self._is_dropped(key, values[key], claim.born[key])
        }
        with self._lock:
            self.dropped += len(dropped)
        return dropped

    def give_up(self, claim: TierClaim[K]) -> list[Command]:
        """What there is to tell when a claim is released."""
        held, claim.held = claim.held, set()
        self.claims.discard(claim)
        if claim.others:
            self.waiting.remove(claim, map(self._directory.value, claim.others))
        return self._drops(held, claim.token)

    def renewals(self) -> list[Command]:
        """What says that this process lives."""
        held = [(key, claim.token) for claim in list(self.claims) for key in list(claim.held)]
        units: list[Unit] = [(self._directory.pair(key)[1:], (token,)) for key, token in held]
        return self._each(RENEW, (self._lease,), units)

    def _ask_for(self, claim: TierClaim[K], keys: list[K], ahead: float) -> Talk[None]:
        claim.held.update(keys)  # as far as anybody knows, until the answers are there
        asked = self._claims(claim, keys, ahead)
        for _ in range(_ROUNDS):
            rules, *replies = yield [self._bulletin.question(), *asked]
            yield from self._bulletin.attend(rules)
            told = zip(keys, answers(asked, replies), strict=True)
            heads = [(key, self._take_in(claim, key, now, reply)) for key, (now, reply) in told]
            bad = [(key, head) for key, head in heads if head is not None]
            if not bad:
                return
            keys = [key for key, _ in bad]
            asked = [one for key, head in bad for one in self._claims(claim, [key], ahead, head)]
        for key in keys:
            self._load_alone(claim, key)

    def _claims(self, claim: TierClaim[K], keys: list[K], ahead: float, bad: bytes = b"") -> list[Command]:
        """Claim these; what begins so counts as none."""
        shared = self._lease, str(milliseconds(ahead)), bad
        return self._each(CLAIM, shared, [(self._directory.pair(key), (claim.token,)) for key in keys])

    def _take_in(self, claim: TierClaim[K], key: K, now: int, reply: Any) -> bytes | None:
        """What a claim got; if it was a value that counts as none, how that begins."""
        if isinstance(reply, Exception):
            self._load_alone(claim, key)
        elif isinstance(reply, bytes):
            if (value := self._serializer.read(key, reply, now)) is None:
                return head_of(reply)
            claim.found[key] = value
            claim.held.discard(key)
        elif reply == 0:
            claim.mine.append(key)
            claim.born[key] = self._bulletin.position
        else:
            claim.others.append(key)
            claim.held.discard(key)
            claim.until = min(claim.until, MONOTONIC.now() + reply / 1000)
        return None

    def _load_alone(self, claim: TierClaim[K], key: K) -> None:
        claim.mine.append(key)
        claim.held.discard(key)
        with self._lock:
            self._presence.alone += 1

    # what others change

    def foreign(self, names: list[str]) -> Talk[list[str]]:
        """Those of the names that others changed. What this process kept is looked at: the server tells of
        several changes at once only once.
        """
        own = self.echoes.of(names)
        if not own:
            return names
        replies = yield [("GETRANGE", (name,), ("0", str(MOMENT + len(head)))) for name, head in own.items()]
        for (name, head), reply in zip(list(own.items()), replies, strict=True):
            if not isinstance(reply, bytes) or not begins_with(reply, head):
                self.echoes.forget(name, head)
                del own[name]
        return [name for name in names if name not in own]

    # commands

    def _each(self, script: Script, shared: tuple[Word, ...], units: list[Unit]) -> list[Command]:
        return for_each(script, shared, units, self._at_most)

    def _keeps(self, values: list[tuple[K, str, int, TierValue]]) -> list[Command]:
        """Keep these: key, token of the claim, the moment that was known of when the load began, value."""
        return self._each(KEEP, (self._channel,), [self._keep_unit(*each) for each in values])

    def _keep_unit(self, key: K, token: str, born: int, value: TierValue) -> Unit:
        text = self._serializer.written(key, born, value)
        pair = self._directory.pair(key)
        self.echoes.expect(pair[0], head_of(text))
        return pair, (token, str(max(1, milliseconds(value.ttl))), str(milliseconds(value.stale)), text)

    def _drops(self, keys: Iterable[K], token: str = "") -> list[Command]:
        return self._each(DROP, (self._channel,), [(self._directory.pair(key), (token,)) for key in keys])

    def _is_dropped(self, key: K, value: TierValue, born: int, known: int | None = None) -> bool:
        return self._bulletin.is_dropped(key, value, born, known)

    def _count_hits(self, hits: int, *, of: int) -> None:
        with self._lock:
            self.hits += hits
            self.misses += of - hits

    def _count_kept(self, replies: list[Any]) -> None:
        with self._lock:
            self.kept += replies.count(1)

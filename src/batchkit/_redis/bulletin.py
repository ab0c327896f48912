"""What was dropped by tag or prefix: how a process hears of it from Redis, and tells it there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Hashable
from typing import Any, Final, TypeAlias, TypeVar

from batchkit._redis.bundles import LOOK
from batchkit._redis.entries import Names, tag_text
from batchkit._redis.rules import ALL, MOST, Rules
from batchkit._redis.scripts import APPEND, OPEN, Command
from batchkit.abc import Invalidation, TierValue

T = TypeVar("T")
Talk: TypeAlias = Generator[list[Command], list[Any], T]

_LIFE: Final = 40 * 86_400_000  # ms for which rules are kept after they were changed or read as a whole


class Bulletin:
    """The rules, as this process knows them.

    Args:
        names: of the tier's keys.
        tell: called with what a cache may keep no longer.

    Attributes:
        rules: by which values count as dropped.
    """

    def __init__(self, names: Names, tell: Callable[[Invalidation], object]) -> None:
        self.rules = Rules()
        self._names = names
        self._tell = tell
        self._lock = threading.Lock()

    @property
    def position(self) -> int:
        """The last moment that is known of; 0 before the first answer."""
        return self.rules.position

    def is_dropped(self, key: Hashable, value: TierValue, born: int, known: int | None = None) -> bool:
        """Whether a value counts as dropped, as `Rules.is_dropped` says."""
        return self.rules.is_dropped(key, tuple(map(tag_text, value.tags)), born, known)

    def look(self) -> Talk[int]:
        """Hear what was dropped; returns the last moment that is known of."""
        replies = yield [self.question()]
        return (yield from self.attend(replies[0]))

    def question(self) -> Command:
        """What asks for the rules from the last known moment on, which is not nothing. Its answer is for
        `attend`.
        """
        if not self.position:
            return self._open()
        return LOOK, (self._names.rules,), (str(self.position), "+inf", "WITHSCORES")

    def attend(self, reply: Any) -> Talk[int]:
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

    def post(self, rule: str = ALL) -> Command:
        """What has everybody heed a rule."""
        words = (str(self.position), str(_LIFE), str(MOST), self._names.channel, rule)
        return APPEND, (self._names.rules,), words

    def _open(self) -> Command:
        return OPEN, (self._names.rules,), (str(self.position), str(_LIFE))

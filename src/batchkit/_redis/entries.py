"""What the names of a tier's keys are, and how a value is written there. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final
from urllib.parse import quote

from attrs import frozen

from batchkit._redis.names import bounded, part, whole

CLAIM: Final = ";claim"  # what the name of a claim ends with
_LONGEST_TAG: Final = 1000  # characters
_LONGEST_HEAD: Final = 4096  # bytes, of which 100 are enough for a value that has no head
_NO_HEAD: Final = 100
MOMENT: Final = 20  # bytes, at most, that come before what was to be written


@frozen
class Names:
    """The names of a tier's keys in Redis.

    Attributes:
        start: what all of them start with.
        rules: the key of the rules.
        channel: where changes are told to those who have no other way to hear of them.
    """

    start: str
    rules: str
    channel: str

    @classmethod
    def of(cls, prefix: str) -> Names:
        """The names of a tier.

        Raises:
            ValueError: an empty prefix.
        """
        if not prefix:
            raise ValueError("a prefix is a text that is not empty")
        start = f"{quote(prefix, safe='')}:"
        return cls(start, f"{start}rules", f"{start}news")

    def pair(self, key: Hashable) -> tuple[str, str]:
        """The names of a value and of the claim to load it, which lie on the same node of a cluster.

        Raises:
            TypeError: a key that is no text, bytes, number, bool, None, or tuple of those.
        """
        value = f"{self.start}{{{bounded(part(key, scalars=True))}}}"
        return value, value + CLAIM

    def key(self, value: str) -> Hashable:
        """The key of a value's name.

        Raises:
            ValueError: it is none, or so long that the name does not tell.
        """
        own = value.removeprefix(self.start)
        if own[:1] != "{" or own[-1:] != "}":
            raise ValueError(f"{value!r} is the name of no value")
        return whole(own[1:-1])


@frozen
class Entry:
    """A value as it is written.

    Attributes:
        born: the last moment of a rule that was known of when its load began.
        mark: what no other value has.
        negative: whether there is no value.
        stale: ms for which it stays beyond its life.
        tags: the texts of those by which it can be dropped.
        data: what the codec made of it.
        ends: the moment at which its life ends, in ms: Redis writes that before the rest.
    """

    born: int
    mark: str
    negative: bool
    stale: int
    tags: tuple[str, ...]
    data: bytes
    ends: int = 0

    def text(self) -> bytes:
        """What is to be written: a line of words, and the data."""
        words = [str(self.born), str(int(self.negative)), str(self.stale), self.mark, *self.tags]
        return " ".join(words).encode("ascii") + b"\n" + self.data

    @classmethod
    def read(cls, text: bytes) -> Entry:
        """What was written.

        Raises:
            ValueError: by somebody else.
        """
        head, line, data = text.partition(b"\n")
        try:
            ends, born, negative, stale, mark, *tags = head.decode("ascii").split(" ")
            if not line:
                raise ValueError("there is no data")
            return cls(int(born), mark, bool(int(negative)), int(stale), tuple(tags), data, int(ends))
        except ValueError as error:
            raise ValueError(f"no tier wrote that: {text[:40]!r}") from error


def head_of(text: bytes) -> bytes:
    """By what a value is known again: its first bytes, which are no other one's."""
    return text[: min(text.find(b"\n") + 1 or _NO_HEAD, _LONGEST_HEAD)]


def begins_with(text: bytes, head: bytes) -> bool:
    """Whether what is in Redis is what was to be written, of which this is the head."""
    return text.partition(b" ")[2].startswith(head)


def tag_text(tag: Hashable) -> str:
    """How a tag is written.

    Raises:
        TypeError: it is no text, bytes, number, bool, None, or tuple of those.
        ValueError: it is too long.
    """
    text = part(tag, scalars=True)
    if len(text) > _LONGEST_TAG:
        raise ValueError(f"a tag has at most {_LONGEST_TAG} characters, percent-encoded, not {len(text)}")
    return text

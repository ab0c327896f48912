"""The scripts that Redis runs for us, and what a command is."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import Final, Self, TypeAlias

from attrs import frozen

Keys: TypeAlias = tuple[str, ...]
Word: TypeAlias = str | bytes

_PLACE: Final = re.compile(r"^ *-- @ (\w+)\n", re.MULTILINE)


@frozen
class Each:
    """How a script is told what to do for each of several keys. Its answer is a moment, in ms, and then what
    there is to say for each.

    Attributes:
        shared: words that come first, and count for all.
        keys: the names in Redis of each.
        words: those of each.
    """

    shared: int
    keys: int
    words: int


@frozen(eq=False)
class Script:
    """A script, and how Redis knows it once it was loaded.

    Attributes:
        text: in Lua.
        sha: the name that Redis gives it.
        each: if it does the same for several keys.
    """

    text: str
    sha: str
    each: Each | None = None

    @classmethod
    def of(cls, name: str, parts: Script | None = None, each: Each | None = None) -> Self:
        """A script that is part of this package, with parts of another one where it names them."""
        text = files("batchkit._redis").joinpath(name).read_text(encoding="utf-8")
        if parts is not None:
            text = _PLACE.sub(lambda found: parts.part(found[1]), text)
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), each)

    def part(self, name: str) -> str:
        """What stands in the text from `-- @ name` to `-- @`."""
        _, _, rest = self.text.partition(f"-- @ {name}\n")
        return rest[: rest.index("-- @\n")]


BUCKET: Final = Script.of("bucket.lua")
BUCKETS: Final = Script.of("buckets.lua", BUCKET)
SLOTS: Final = Script.of("slots.lua")
READ: Final = Script.of("read.lua", each=Each(shared=0, keys=1, words=0))
CLAIM: Final = Script.of("claim.lua", each=Each(shared=3, keys=2, words=1))
KEEP: Final = Script.of("keep.lua", each=Each(shared=1, keys=2, words=4))
DROP: Final = Script.of("drop.lua", each=Each(shared=1, keys=2, words=1))
RENEW: Final = Script.of("renew.lua", each=Each(shared=1, keys=1, words=1))
OPEN: Final = Script.of("open.lua")
APPEND: Final = Script.of("append.lua")

Command: TypeAlias = tuple[Script | str, Keys, tuple[Word, ...]]  # or the name of a command of Redis

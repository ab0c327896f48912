"""The scripts that Redis runs for us."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import Final, Self

from attrs import frozen

_PLACE: Final = re.compile(r"^ *-- @ (\w+)\n", re.MULTILINE)


@frozen(eq=False)
class Script:
    """A script, and how Redis knows it once it was loaded.

    Attributes:
        text: in Lua.
        sha: the name that Redis gives it.
    """

    text: str
    sha: str

    @classmethod
    def of(cls, name: str, parts: Script | None = None) -> Self:
        """A script that is part of this package, with parts of another one where it names them."""
        text = files("batchkit._redis").joinpath(name).read_text(encoding="utf-8")
        if parts is not None:
            text = _PLACE.sub(lambda found: parts.part(found[1]), text)
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    def part(self, name: str) -> str:
        """What stands in the text from `-- @ name` to `-- @`."""
        _, _, rest = self.text.partition(f"-- @ {name}\n")
        return rest[: rest.index("-- @\n")]


BUCKET: Final = Script.of("bucket.lua")
BUCKETS: Final = Script.of("buckets.lua", BUCKET)
SLOTS: Final = Script.of("slots.lua")
CLAIM: Final = Script.of("claim.lua")
KEEP: Final = Script.of("keep.lua")
DROP: Final = Script.of("drop.lua")
RENEW: Final = Script.of("renew.lua")
OPEN: Final = Script.of("open.lua")
APPEND: Final = Script.of("append.lua")

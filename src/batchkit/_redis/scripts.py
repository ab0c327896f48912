"""The scripts that Redis runs for us."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, Self

from attrs import frozen


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
    def of(cls, name: str) -> Self:
        """A script that is part of this package."""
        text = files("batchkit._redis").joinpath(name).read_text(encoding="utf-8")
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


BUCKET: Final = Script.of("bucket.lua")
SLOTS: Final = Script.of("slots.lua")

"""How a 429 says when to come again."""

import math
from fractions import Fraction


def retry_after(mode: str, wait: Fraction) -> dict[str, str]:
    """The header, rounded up so that who obeys is not early; `mode` is the switch of that name."""
    match mode:
        case "none":
            return {}
        case "whole":
            return {"retry-after": str(math.ceil(wait))}
        case _:
            return {"retry-after": in_seconds(math.ceil(wait * 1000))}


def in_seconds(milliseconds: int) -> str:
    """2500 as 2.5, 2000 as 2."""
    return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")

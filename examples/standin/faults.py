"""What a service can be made to do wrong, by switch, and the dice that decide when it does.

The dice depend on the seed, on what is asked for and on how often it was asked before: the same run goes
wrong at the same places, whatever the timing, and a retry has a chance of its own.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from examples.standin.quota import Quota

Fault = Literal["hang", "error", "truncated", "malformed", "wrong"]
Share = float


class Switches(BaseModel):
    """The quota and the faults of a service. A share is of the admitted calls, from 0 (none) to 1 (all)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(gt=0, allow_inf_nan=False, description="calls a service second")
    burst: int = Field(gt=0, description="calls at once")
    retry_after: Literal["exact", "whole", "none"] = Field(
        default="exact", description="on a 429: the wait to the millisecond, in whole seconds, or not at all"
    )
    slow: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="factor on every latency")
    poison: tuple[str, ...] = Field(default=(), description="words that make any answer about them malformed")
    hang_rate: Share = Field(default=0.0, ge=0, le=1, description="share that is never answered")
    error_rate: Share = Field(default=0.0, ge=0, le=1, description="share that fails, answered 5xx")
    truncated_rate: Share = Field(
        default=0.0, ge=0, le=1, description="share cut off in the middle of the body"
    )
    malformed_rate: Share = Field(default=0.0, ge=0, le=1, description="share whose content cannot be read")
    wrong_rate: Share = Field(
        default=0.0, ge=0, le=1, description="share whose content is in order, but not what was asked for"
    )

    def quotas(self) -> dict[str, Quota]:
        """Every quota of the service by its name."""
        return {"requests": Quota.of(self.rate, self.burst)}

    def changed(self, changes: Mapping[str, object]) -> Self:
        """A copy with these switches changed; pydantic's ValidationError names the one that is wrong."""
        return type(self).model_validate({**self.model_dump(), **changes})

    def fault(self, keys: Sequence[str], dice: random.Random) -> Fault | None:
        """What goes wrong with a call for these keys."""
        # Every die is thrown every time, so that turning one switch leaves what the others do as it was.
        hang, error, truncated, malformed, wrong = (dice.random() for _ in range(5))
        if hang < self.hang_rate:
            return "hang"
        if error < self.error_rate:
            return "error"
        if truncated < self.truncated_rate:
            return "truncated"
        if malformed < self.malformed_rate or any(word in key for word in self.poison for key in keys):
            return "malformed"
        return "wrong" if wrong < self.wrong_rate else None

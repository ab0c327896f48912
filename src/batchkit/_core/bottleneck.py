"""What held a run back: the quota, the pace, the concurrency, the input, the reader of the results, or
nothing but latency.

By Little's law, calls at once = starts a second x seconds a call. Workers that wait for permits show that
there are enough of them and that the quota is what is short; workers that are never free show that there
are too few.
"""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

from attrs import frozen

Bottleneck = Literal["quota", "pace", "barrier", "concurrency", "input", "output", "retries", "latency"]
_NOTABLE: Final = 0.05  # share of the workers' time that a wait has to reach
_BUSY: Final = 0.7  # share of the workers' time in calls from which on they were too few


@frozen
class Spent:
    """What the workers of a run did with their time, in seconds, summed over all of them.

    Attributes:
        calling: in calls.
        quota: waiting for the limiter.
        pace: waiting for the pace.
        barrier: waiting for the others of a batch, or in the pause after it.
        input: waiting for the next item.
        output: waiting for the results to be read.
        retries: waiting for the time to call again, after a failure.
    """

    calling: float
    quota: float
    pace: float
    barrier: float
    input: float
    output: float
    retries: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        waits = self.quota + self.pace + self.barrier + self.input + self.output + self.retries
        return self.calling + waits


def bottleneck(spent: Spent, *, calls: int, seconds: float, concurrency: int) -> tuple[Bottleneck, str]:
    """What held a run back, and the same in words with the number to change.

    Args:
        spent: the workers' time.
        calls: calls that were made.
        seconds: what the run took.
        concurrency: calls at once that were allowed.
    """
    latency = spent.calling / calls if calls else 0.0
    rate = calls / seconds if seconds else 0.0
    waits: dict[Bottleneck, float] = {
        "quota": spent.quota,
        "pace": spent.pace,
        "barrier": spent.barrier,
        "input": spent.input,
        "output": spent.output,
        "retries": spent.retries,
    }
    longest = max(waits, key=waits.__getitem__)
    if spent.total and waits[longest] >= _NOTABLE * spent.total:
        return longest, _words(longest, waits[longest] / spent.total, rate, latency)
    if calls > concurrency and spent.calling >= _BUSY * concurrency * seconds:
        return "concurrency", (
            f"all {concurrency} calls at once were under way, {latency:.3g} s each: {rate:.3g} calls/s; "
            f"concurrency={2 * concurrency} would give up to twice that"
        )
    return "latency", f"no call had to wait; a call took {latency:.3g} s on average"


def _words(what: Bottleneck, share: float, rate: float, latency: float) -> str:
    part = f"{share:.0%} of the workers' time"
    needed = f"{rate:.3g} calls/s of {latency:.3g} s each keep {max(1, ceil(rate * latency))} busy"
    match what:
        case "quota":
            return (
                f"calls waited for permits {part}: raise the limiter's rate if the service allows ({needed})"
            )
        case "pace":
            return f"calls waited for their pace {part}: raise pace= ({needed})"
        case "barrier":
            return f"workers waited for their batch to be done {part}: use pace= instead of barrier=True"
        case "input":
            return f"workers waited for the next item {part}: the input is slower than the calls ({needed})"
        case "retries":
            return f"workers waited to call again after failures {part}: look at the errors, or at retry="
        case _:
            return f"workers waited for the results to be read {part}: read faster, or raise window="

"""The closing report: what was done, how near to the quota's bound, and what held it back. Pure.

`seconds` are service time: wall time x speed, since a stand-in may run faster than the service it stands for.
"""

import json
from collections.abc import Mapping, Sequence
from math import ceil

from attrs import asdict, frozen

from examples.characters import LeftOut

NOTABLE = 0.05  # of the time of all slots: from here on a wait is what holds a run back
BUSY = 0.7  # of that time in calls: from here on more slots would help
TO_SPARE = 4 / 3  # slots to have for each one that is needed on average, as some calls take longer


@frozen
class Ledger:
    """The calls of the run, as counted by the service or, where it does not tell, by us.

    Attributes:
        calls: that arrived, however they ended.
        refused: answered 429.
        repeated: words that were answered although they had been before; None where nobody knows.
        bound_seconds: the time that no program could beat, in service seconds; None without a call.
        counted_by: who counted.
    """

    calls: int
    refused: int
    repeated: int | None
    bound_seconds: float | None
    counted_by: str


@frozen
class Load:
    """What the slots of the executor did, in seconds of service time, summed over all of them.

    Attributes:
        seconds: how long the run took.
        slots: calls at once that were allowed.
        calls, refused: how many were made, and how many of them were answered 429.
        calling: in calls of the text service.
        waiting: for permits of its limiter.
        pausing: before another try of a call that failed.
        saving: in the database.
        starved: whether they waited for characters for long.
        rate: the quota, in calls/s.
    """

    seconds: float
    slots: int
    calls: int
    refused: int
    calling: float
    waiting: float
    pausing: float
    saving: float
    starved: bool
    rate: float

    def share(self, seconds: float) -> float:
        """Of the time of all slots, 0.0 to 1.0."""
        return seconds / (self.slots * self.seconds) if self.seconds else 0.0


@frozen
class Report:
    """What is printed and written as JSON.

    Attributes:
        items: distinct characters that were wanted.
        saved: those of them that have a card in the database now.
        already_there: those that had one before.
        failed: those that got none, with the cause in `failures`.
        left_out: what was not taken, and why.
        seconds, wall_seconds: from the first character taken to the last card saved, in service time and
            on the wall.
        bound_seconds: the time that no program could beat, in service time; None if nothing was asked.
        calls, refused, repeated, counted_by: see `Ledger`.
        cache_hit_rate: of the dictionary look-ups, 0.0 to 1.0.
        limited_by, advice: what held the run back, and the number to change.
        rows, round_trips: cards written, and statements sent to the database.
        input_tokens, output_tokens: of the answers that could be used.
        estimated_cost: USD, for these tokens at the prices of the settings.
        speed: service seconds in a second.
        stopped: whether the run ended before its time.
    """

    items: int
    saved: int
    already_there: int
    failed: int
    failures: Mapping[str, str]
    left_out: Sequence[LeftOut]
    seconds: float
    wall_seconds: float
    bound_seconds: float | None
    calls: int
    refused: int
    repeated: int | None
    counted_by: str
    cache_hit_rate: float
    limited_by: str
    advice: str
    rows: int
    round_trips: int
    input_tokens: int
    output_tokens: int
    estimated_cost: float
    speed: float
    stopped: bool = False

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n"

    def lines(self) -> list[tuple[str, str]]:
        """The report as names and values for people."""
        return [
            ("cards", f"{self.saved:,} of {self.items:,} are saved{self._before()}"),
            ("time", self._time()),
            ("calls", self._calls()),
            ("held back by", f"{self.limited_by}: {self.advice}"),
            ("dictionary cache", f"{self.cache_hit_rate:.0%} hits"),
            ("database", f"{self.rows:,} rows in {self.round_trips:,} round trips"),
            (
                "tokens",
                f"{self.input_tokens:,} in, {self.output_tokens:,} out: about {self.estimated_cost:.2f} USD",
            ),
        ]

    def _before(self) -> str:
        return f" ({self.already_there:,} were there before)" if self.already_there else ""

    def _time(self) -> str:
        wall = f" ({self.wall_seconds:.1f} s at {self.speed:g}x speed)" if self.speed != 1 else ""
        bound = self.bound_seconds
        against = (
            f"; the quota allows no less than {bound:.1f} s, {self.seconds / bound:.3f} x" if bound else ""
        )
        return f"{self.seconds:.1f} s{wall}{against}"

    def _calls(self) -> str:
        repeated = "" if self.repeated is None else f", {self.repeated:,} words asked twice"
        return f"{self.calls:,}, {self.refused:,} refused (429){repeated}, by {self.counted_by}"


def limited_by(load: Load) -> tuple[str, str]:
    """What held a run back, and what to change.

    By Little's law, calls under way = calls a second x seconds a call. Slots that wait for permits show
    that there are enough of them, and that the quota is what is short; slots that are never free show
    that there are too few.
    """
    if not load.calls:
        return "nothing", "there was nothing to ask"
    latency = load.calling / load.calls
    needed = ceil(load.rate * latency * TO_SPARE)
    if load.refused > load.calls * NOTABLE:
        return "refusals", (
            f"{load.refused:,} calls were refused: the account allows less than {load.rate:g} calls/s, "
            "so lower text.rate"
        )
    if load.share(load.waiting) >= NOTABLE:
        return "quota of text", (
            f"it allows {load.rate:g} calls/s, and all were used; if the account allows more, raise text.rate"
        )
    if load.share(load.pausing) >= NOTABLE:
        return "retries", "calls that failed paused before another try: the service has a bad day"
    if load.starved:
        return "input", "calls waited for characters: raise dictionary.batch_size, or look at the input"
    if load.saving > load.calling:
        return "database", f"a save took {load.saving / load.calls:.1f} s: raise bulk_import.batch_size"
    if load.calls > load.slots and load.share(load.calling + load.saving) >= BUSY:
        return "concurrency", (
            f"{load.rate:g} calls/s of {latency:.1f} s each need {needed} at once with some to spare, "
            f"and {load.slots} were allowed: raise bulk_import.concurrency"
        )
    return "latency", f"no call had to wait for long; one took {latency:.1f} s"


def cost(input_tokens: int, output_tokens: int, input_price: float, output_price: float) -> float:
    """USD, at prices for a million tokens."""
    return (input_tokens * input_price + output_tokens * output_price) / 1_000_000


def quota_bound(calls: int, rate: float, burst: int, latency: float) -> float | None:
    """Seconds that no program can beat, or None without a call.

    The last call cannot be sent before (calls - burst) / rate, and then takes its time. (A stand-in's
    ledger has what each call really took, and is exact.)
    """
    return max(0.0, (calls - burst) / rate) + latency if calls else None

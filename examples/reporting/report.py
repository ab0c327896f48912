"""The closing report: what was done, how near to the quota's bound, and what held it back. Pure.

`seconds` are service time: wall time x speed, since a stand-in may run faster than the service it stands for.
"""

import json
from collections.abc import Mapping, Sequence
from math import ceil
from types import MappingProxyType
from typing import Any

from attrs import asdict, frozen

from examples.language.characters import LeftOut

NOTABLE = 0.05  # of the time of all slots: from here on a wait is what holds a run back
BUSY = 0.7  # of that time in calls: from here on more slots would help
TO_SPARE = 4 / 3  # slots to have for each one that is needed on average, as some calls take longer


@frozen
class Ledger:
    """The calls of a run, as counted by the services or, where they do not tell, by us.

    Attributes:
        calls: that arrived, however they ended.
        refused: answered 429.
        repeated: results that were answered although they had been before; None where nobody knows.
        bound_seconds: the time that no program could beat, in service seconds; None without a call.
        counted_by: who counted.
        services: what is known of each service: at least its calls, refused and bound_seconds.
    """

    calls: int
    refused: int
    repeated: int | None
    bound_seconds: float | None
    counted_by: str
    services: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


@frozen
class Use:
    """What was used of a service, in seconds of service time, summed over all calls.

    Attributes:
        calls, refused: how many were made, and how many of them were answered 429.
        waiting: for permits of its limiter.
        calling: in calls.
        total: from question to answer.
        rate: the quota, in calls/s.
    """

    calls: int
    refused: int
    waiting: float
    calling: float
    total: float
    rate: float

    @property
    def pausing(self) -> float:
        """Before another try of a call that failed."""
        return max(0.0, self.total - self.waiting - self.calling)


@frozen
class Load:
    """What the slots of an executor did, in seconds of service time, summed over all of them.

    Attributes:
        setting: the name of the setting that says how many slots there are.
        batch_setting: of the one that says how many cards are saved together.
        slots: how many there were: calls of an import at once, cards of a deck.
        seconds: that they were open, all together.
        results: that they made: a call of an import, a card of a deck.
        uses: of each service.
        calling: in calls; side by side they count once.
        saving: in the database.
        starved: whether they waited for input for long.
    """

    setting: str
    batch_setting: str
    slots: int
    seconds: float
    results: int
    uses: Mapping[str, Use]
    calling: float
    saving: float
    starved: bool

    def share(self, seconds: float) -> float:
        """Of the time of all slots, 0.0 to 1.0."""
        return seconds / self.seconds if self.seconds else 0.0

    @property
    def pace(self) -> float:
        """Results a second that the quotas allow."""
        return min(use.rate * self.results / use.calls for use in self.uses.values() if use.calls)


@frozen
class Report:
    """What is printed and written as JSON.

    Attributes:
        items: distinct characters that were wanted.
        saved: those of them that have a card in the database now; of decks, a card with all its media.
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
        input_tokens, output_tokens, pictures, characters: of the answers that could be used; characters are
            those that were spoken.
        estimated_cost: USD, for these at the prices of the settings.
        speed: service seconds in a second.
        stopped: whether the run ended before its time.
        services: what the ledger knows of each service.
        decks: of an import, the report on the decks that it left for the media; empty if none were made.
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
    pictures: int = 0
    characters: int = 0
    services: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    decks: "Report | None" = None

    def to_dict(self) -> dict[str, Any]:
        """The report as it is written."""
        return {**asdict(self, recurse=True), "decks": self.decks.to_dict() if self.decks else {}}

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, default=dict) + "\n"

    def lines(self) -> list[tuple[str, str]]:
        """The report as names and values for people."""
        return [
            ("cards", f"{self.saved:,} of {self.items:,} are saved{self._before()}"),
            ("time", self._time()),
            ("calls", self._calls()),
            ("held back by", f"{self.limited_by}: {self.advice}"),
            ("dictionary cache", f"{self.cache_hit_rate:.0%} hits"),
            ("database", f"{self.rows:,} rows in {self.round_trips:,} round trips"),
            ("paid for", f"{self._paid()}: about {self.estimated_cost:.2f} USD"),
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

    def _paid(self) -> str:
        parts = [
            (self.input_tokens, "tokens in"),
            (self.output_tokens, "out"),
            (self.pictures, "pictures"),
            (self.characters, "characters spoken"),
        ]
        return ", ".join(f"{count:,} {what}" for count, what in parts if count) or "nothing"


def limited_by(load: Load) -> tuple[str, str]:
    """What held a run back, and what to change.

    By Little's law, calls under way = calls a second x seconds a call. Slots that wait for permits show
    that there are enough of them, and that the quota is what is short; slots that are never free show
    that there are too few.
    """
    asked = {name: use for name, use in load.uses.items() if use.calls}
    if not asked:
        return "nothing", "there was nothing to ask"
    name, use = max(asked.items(), key=lambda item: item[1].refused / item[1].calls)
    if use.refused > use.calls * NOTABLE:
        return "refusals", (
            f"{use.refused:,} calls of {name} were refused: the account allows less than {use.rate:g} "
            f"calls/s, so lower {name}.rate"
        )
    if short := {name: use for name, use in asked.items() if load.share(use.waiting) >= NOTABLE}:
        name, use = max(short.items(), key=lambda item: item[1].calls / item[1].rate)
        return f"quota of {name}", (
            f"it allows {use.rate:g} calls/s, and all were used; "
            f"if the account allows more, raise {name}.rate"
        )
    if load.share(sum(use.pausing for use in asked.values())) >= NOTABLE:
        return "retries", "calls that failed paused before another try: the service has a bad day"
    return within_us(load)


def within_us(load: Load) -> tuple[str, str]:
    """What held a run back when no service did."""
    if load.starved:
        return "input", "calls waited for characters: raise dictionary.batch_size, or look at the input"
    if load.saving > load.calling:
        return "database", f"saves took {load.saving:.1f} s in all: raise {load.batch_setting}"
    latency = load.calling / load.results if load.results else 0.0
    if load.results > load.slots and load.share(load.calling + load.saving) >= BUSY:
        needed = ceil(load.pace * latency * TO_SPARE)
        return "concurrency", (
            f"{load.pace:g} a second of {latency:.1f} s each need {needed} at once with some to spare, "
            f"and {load.slots} were allowed: raise {load.setting}"
        )
    return "latency", f"no call had to wait for long; one result took {latency:.1f} s"


def cost(input_tokens: float, output_tokens: float, input_price: float, output_price: float) -> float:
    """USD, at prices for a million tokens."""
    return (input_tokens * input_price + output_tokens * output_price) / 1_000_000


def quota_bound(calls: int, rate: float, burst: int, latency: float) -> float | None:
    """Seconds that no program can beat, or None without a call.

    The last call cannot be sent before (calls - burst) / rate, and then takes its time. (A stand-in's
    ledger has what each call really took, and is exact.)
    """
    return max(0.0, (calls - burst) / rate) + latency if calls else None

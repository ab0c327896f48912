"""What the jobs of a run did, added up from what each of them returned. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from examples.reporting.report import Ledger, Load, Report, Use, cost, limited_by
from examples.settings import Settings

Result = Mapping[str, Any]  # of a job, as JSON
SERVICES = ("text", "picture", "sound")
SOUNDS = 2  # that are spoken for a card, side by side
UNUSED = {"calls": 0, "refused": 0, "waiting": 0.0, "calling": 0.0, "total": 0.0}
SETTING = {"import": "bulk_import.concurrency", "deck": "deck.concurrency", "card": "card.jobs"}
BATCH_SETTING = {
    "import": "bulk_import.batch_size",  # the words of a call are saved together
    "deck": "database.batch_size",
    "card": "database.batch_size",
}


@frozen
class Tally:
    """The jobs of one kind, added up.

    Attributes:
        kind: card, deck or import.
        results: what the jobs returned.
        config: the settings under which they ran.
    """

    kind: str
    results: Sequence[Result]
    config: Settings
    figures: Mapping[str, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "figures", together(self.results))

    @property
    def began(self) -> float:
        """When the first of them began, in seconds since 1970."""
        return min((result["began"] for result in self.results), default=0.0)

    @property
    def wall_seconds(self) -> float:
        """From the beginning of the first to the end of the last."""
        ended = (result["began"] + result["seconds"] for result in self.results)
        return max(ended, default=0.0) - self.began

    @property
    def speed(self) -> float:
        """Service seconds in a second."""
        return float(self.results[0]["speed"]) if self.results else 1.0

    def count(self, name: str) -> float:
        """A figure, of all processes together."""
        return float(self.figures.get(name, 0))

    def uses(self) -> dict[str, Use]:
        """What was used of each service, in service time."""
        return {name: self._use(name) for name in SERVICES}

    def load(self) -> Load:
        """What their slots did."""
        uses, speed = self.uses(), self.speed
        text, picture, sound = (uses[name].calling for name in SERVICES)
        done = sum(result.get("saved", 1) - result.get("already_there", 0) for result in self.results)
        return Load(
            setting=SETTING[self.kind],
            batch_setting=BATCH_SETTING[self.kind],
            slots=max((result.get("slots", 1) for result in self.results), default=1),
            seconds=sum(result.get("slots", 1) * result["seconds"] * speed for result in self.results),
            results=uses["text"].calls if self.kind == "import" else done,
            uses=uses,
            calling=text + max(picture, sound / SOUNDS),
            saving=self.count("saving") * speed,
            starved=any(result.get("starved", False) for result in self.results),
        )

    def report(self, ledger: Ledger, *, items: int, saved: int) -> Report:
        """The report on these jobs.

        Args:
            ledger: of the calls that they made.
            items: how many cards were wanted.
            saved: how many of them are there now.
        """
        failures = {word: why for result in self.results for word, why in result.get("failed", {}).items()}
        held_back_by, advice = limited_by(self.load())
        hits, misses = self.count("cache_hits"), self.count("cache_misses")
        return Report(
            items=items,
            saved=saved,
            already_there=sum(result.get("already_there", 0) for result in self.results),
            failed=len(failures),
            failures=failures,
            left_out=[],
            seconds=self.wall_seconds * self.speed,
            wall_seconds=self.wall_seconds,
            bound_seconds=ledger.bound_seconds,
            calls=ledger.calls,
            refused=ledger.refused,
            repeated=ledger.repeated,
            counted_by=ledger.counted_by,
            cache_hit_rate=hits / (hits + misses) if hits + misses else 0.0,
            limited_by=held_back_by,
            advice=advice,
            rows=int(self.count("rows")),
            round_trips=int(self.count("round_trips")),
            input_tokens=int(self.count("input_tokens")),
            output_tokens=int(self.count("output_tokens")),
            pictures=int(self.count("pictures")),
            characters=int(self.count("characters")),
            estimated_cost=self._cost(),
            speed=self.speed,
            services=ledger.services,
        )

    def _use(self, name: str) -> Use:
        use, rate = self.figures.get(name, UNUSED), getattr(self.config, name).rate
        waiting, calling, total = (use[what] * self.speed for what in ("waiting", "calling", "total"))
        return Use(int(use["calls"]), int(use["refused"]), waiting, calling, total, rate)

    def _cost(self) -> float:
        config = self.config
        text = cost(
            self.count("input_tokens"),
            self.count("output_tokens"),
            config.text.input_price,
            config.text.output_price,
        )
        pictures = self.count("pictures") * config.picture.price
        return text + pictures + self.count("characters") * config.sound.price / 1_000_000


def together(results: Iterable[Result]) -> dict[str, Any]:
    """The figures of all processes: of each, what it had done after its last job, less before its first."""
    jobs = defaultdict[str, list[Result]](list)
    for result in results:
        jobs[result["process"]["id"]].append(result)
    total: dict[str, Any] = {}
    for of_process in jobs.values():
        last = max(of_process, key=lambda result: float(result["began"] + result["seconds"]))
        first = min(of_process, key=lambda result: float(result["began"]))
        so_far = last["process"]["so_far"]
        before = combined(first["process"]["so_far"], {name: first[name] for name in so_far}, -1)
        total = combined(total, combined(so_far, before, -1))
    return total


def combined(one: Mapping[str, Any], other: Mapping[str, Any], sign: int = 1) -> dict[str, Any]:
    """The sum of two trees of numbers, or their difference; what is missing is 0."""
    return {
        name: combined(one.get(name, {}), value, sign)
        if isinstance(value, Mapping)
        else one.get(name, 0) + sign * value
        for name, value in other.items()
    }

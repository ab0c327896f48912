"""What a load test found: a row of its table. Pure."""

from typing import Any

from attrs import frozen

from examples.reporting.report import Report


@frozen(kw_only=True)
class Trial:
    """One load test.

    Attributes:
        kind: of jobs: card, deck or import.
        workers: processes that ran them.
        policy: what kept to the quotas: adaptive, or backoff alone.
        faults: whether services went wrong on purpose.
        quota: what the services allowed, of what the workers thought.
        original: what the system took that these workers come after: before / after it was made faster.
        baseline_seconds: what the sequential twin takes, in service time; None if it was not asked.
        answered_seconds: of each card, from the request to the answer, in service time.
        report: on the jobs.
    """

    kind: str
    workers: int
    policy: str
    faults: bool
    quota: float
    original: str
    baseline_seconds: float | None
    answered_seconds: tuple[float, ...] = ()
    report: Report

    @property
    def ratio(self) -> float | None:
        """Times the bound that it took."""
        bound = self.report.bound_seconds
        return self.report.seconds / bound if bound else None

    def to_dict(self) -> dict[str, Any]:
        """The figures as they are written: those of the report, and those of the test."""
        return {
            **self.report.to_dict(),
            "kind": self.kind,
            "workers": self.workers,
            "policy": self.policy,
            "faults": self.faults,
            "quota": self.quota,
            "original": self.original,
            "baseline_seconds": self.baseline_seconds,
            "answered_seconds": list(self.answered_seconds),
            "ratio": self.ratio,
        }

    def lines(self) -> list[tuple[str, str]]:
        """The row of the table, as names and values."""
        report = self.report
        return [
            ("work", f"{report.items:,} {THINGS[self.kind]} by {self.workers} worker(s), {self.policy}"),
            ("one after the other", seconds(self.baseline_seconds)),
            ("the original", self.original or "-"),
            ("bound", seconds(report.bound_seconds)),
            ("ours", seconds(report.seconds) + (f", {self.ratio:.3f} x the bound" if self.ratio else "")),
            *(
                [("answered", ", ".join(map(seconds, self.answered_seconds)))]
                if self.answered_seconds
                else []
            ),
            ("refused (429)", f"{report.refused:,} of {report.calls:,} calls"),
            ("repeated", "-" if report.repeated is None else f"{report.repeated:,}"),
            ("busiest window", "; ".join(busiest(name, of) for name, of in report.services.items()) or "-"),
            ("cost", f"{report.estimated_cost:.3f} USD"),
            ("held back by", f"{report.limited_by}: {report.advice}"),
        ]


THINGS = {"card": "cards, one by one", "deck": "cards of decks", "import": "characters"}


def seconds(number: float | None) -> str:
    """Service time."""
    return "-" if number is None else f"{number:,.1f} s"


def busiest(name: str, figures: Any) -> str:
    """The busiest window of a service against its quota, as its ledger has it."""
    window = figures.get("busiest_asked")
    if not window:
        return f"{name}: the quota changed"
    return f"{name} {window['calls']} in {window['seconds']:.1f} s of {window['allowed']:.1f} allowed"

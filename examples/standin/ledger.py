"""The ledger: a line for every call that arrived, in order of arrival. Times are service seconds."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypedDict

from examples.standin.quota import Quota

Answer = Literal["ok", "refused", "malformed", "error", "aborted"]
"""ok: well answered; refused: 429; malformed: sent with a body that cannot be used (bad JSON, cut off, not
what was asked for); error: any other status of 400 and above; aborted: the client went away or cancelled."""


class Line(TypedDict):
    """An entry as JSON."""

    index: int
    service: str
    arrived: float
    keys: list[str]
    cost: int
    admitted: bool
    rate: float
    burst: int
    answer: Answer | None
    status: int | None
    billed: int
    seconds: float | None


@dataclass(slots=True)
class Entry:
    """One call."""

    index: int
    service: str
    arrived: Fraction
    keys: tuple[str, ...]  # what was asked for: the words, say
    cost: int  # permits of the service's request quota
    admitted: bool  # charged to the quota; refusals, and calls turned away unread, are not
    quota: Quota  # the request quota at arrival
    answer: Answer | None = None  # None while it is under way
    status: int | None = None  # HTTP; None while under way, and when nothing was sent
    billed: int = 0  # tokens, pictures, or characters spoken: 0 unless an answer was made
    ended: Fraction | None = None  # None while under way

    @property
    def seconds(self) -> float | None:
        """From arrival to answer, as it really was; None while under way."""
        return None if self.ended is None else float(self.ended - self.arrived)

    def end(self, now: Fraction, answer: Answer, status: int | None, billed: int = 0) -> None:
        """Write down how the call went."""
        self.ended = now
        self.answer, self.status, self.billed = answer, status, billed

    def line(self) -> Line:
        return Line(
            index=self.index,
            service=self.service,
            arrived=float(self.arrived),
            keys=list(self.keys),
            cost=self.cost,
            admitted=self.admitted,
            rate=float(self.quota.rate),
            burst=self.quota.burst,
            answer=self.answer,
            status=self.status,
            billed=self.billed,
            seconds=self.seconds,
        )


class Ledger:
    """All calls of a run."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def open(
        self, service: str, arrived: Fraction, keys: tuple[str, ...], cost: int, admitted: bool, quota: Quota
    ) -> Entry:
        """Begin the line of a call that has just arrived."""
        entry = Entry(len(self.entries), service, arrived, keys, cost, admitted, quota)
        self.entries.append(entry)
        return entry

    def clear(self) -> None:
        """Begin a new run. Calls under way end in the old one, unseen."""
        self.entries = []

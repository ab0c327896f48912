"""How fast to go when nobody says what the quota is: outcomes of calls in, a new rate out.

Rules
-----
1. Only a refusal (429) says that the rate was too high. A call that failed otherwise says nothing.
2. A cut is judged by the calls that were sent after it. A 429 of a call sent before the last cut is old
   news: a hundred calls in flight are one cut, not a hundred.
3. The rate grows only while the limiter is what holds the calls back, and not beyond twice the rate that
   was accepted lately: a rate that nobody used was not tried.
4. Growth is relative: 2/s and 2,000/s climb in the same number of steps.
5. A short `Retry-After` delays the call that heard it (its caller sees to that). A long one, or one that
   comes again and again while nothing is accepted, pauses everybody.

Theory
------
`AIMD` is the classic: add a little each second, cut by a part at each refusal (Chiu and Jain, 1989).

`Cubic` remembers the rate that the server has shown to allow, its ceiling w, and draws the cubic of CUBIC
(RFC 9438, section 4.2) on a logarithmic scale: t seconds after a cut the rate is
`w * exp(gain * (t - K)**3)`, where K is such that it starts at the rate after the cut. So it climbs fast
while far below the ceiling, hardly at all near it, and ever faster beyond it, where a quota that came back
has to be found. Before the first refusal, when no ceiling is known, it doubles once a second.

Each look beyond the ceiling costs a 429 if nothing has changed. So the curve waits at the ceiling before it
goes on, a second longer each time that it was refused near the ceiling, up to 3 s: by then the next look is
about 10 s after the last.

How much a server allows is read from what it accepted since the last cut, the last 5 s of that weighing most.
A server that holds a burst in store accepts more for a while, but after a refusal its store is empty: what
it accepts from then on is what it allows. That is why a second refusal soon after a cut goes to the rate that
is left of a quota that dropped, and why a lone one, with almost everything accepted, cuts no further. A
refusal far beyond the ceiling, and the first of all, says that the ceiling is somewhere below: the cut goes
to what was accepted lately, and the refused rate itself is the ceiling until it is refused again.

A time of fixed length means little at 1 call a minute: below 4 permits/s the unit of time is not the
second but the time that 4 permits take, at most 30 s.

The state is a few plain numbers and changes in `feed` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from math import exp, inf, isfinite, log
from typing import Final, Protocol

from attrs import frozen

_NOTABLE: Final = 0.01  # a smaller change of the rate is not worth a lock and an event
_LONG: Final = 5.0  # seconds of Retry-After from which on everybody pauses
_AGAIN: Final = 3  # cuts in a row, with nothing accepted between, after which a short one counts as long
_HEADROOM: Final = 2.0  # times the accepted rate: what has been tried supports no more
_CALLS: Final = 4.0  # permits that a unit of time has to span
_LONGEST_UNIT: Final = 30.0  # seconds
_LATELY: Final = 5.0  # units of time over which the accepted rate is the mean
_TRUST: Final = 0.06  # units of time of calls accepted at the new rate, taken for granted after a cut
_FLOOR: Final = 0.66  # of the rate: so much was accepted at least; so few calls may look worse by chance
_DOUBLING: Final = log(2.0)  # a unit of time, before a ceiling is known
_FAR: Final = 100.0  # e to that is beyond any rate, and no overflow
_GONE: Final = 2.0  # times the ceiling: who gets that far knows that the ceiling is no more
_LONGER: Final = 1.0  # units of time by which the wait at a ceiling grows when it is met again
_LONGEST_WAIT: Final = 3.0  # units of time; more, and a quota that came back is found too late


class Verdict(Enum):
    """What became of a call, as far as its rate is concerned."""

    WENT_WELL = "went well"
    THROTTLED = "throttled"  # refused for coming too fast: a 429
    FAILED = "failed"  # by an error that says nothing about the rate: a 500, a timeout


@frozen
class Sample:
    """One call, once its answer is there.

    Attributes:
        verdict: what became of it.
        sent: the moment it went, in seconds.
        now: the moment its answer came, in seconds.
        cost: permits that it took.
        retry_after: seconds that the server asked to wait, if it did.
        limiting: whether the limiter was what held calls up when it was sent.
    """

    verdict: Verdict
    sent: float
    now: float
    cost: int = 1
    retry_after: float | None = None
    limiting: bool = True


@frozen
class Adjustment:
    """What the limiter is to do now.

    Attributes:
        rate: permits a second from now on.
        pause: seconds for which nobody should go.
        reason: why, in words.
    """

    rate: float
    pause: float = 0.0
    reason: str = ""


class Controller(Protocol):
    """Decides on the rate. Called for one sample after the other, so it needs no lock; it does not wait."""

    @property
    def rate(self) -> float:
        """Permits a second now."""
        ...

    def feed(self, sample: Sample) -> Adjustment | None:
        """Take in what became of one call; None if nothing changes."""
        ...


class SharedController(Controller, Protocol):
    """A controller that can go on from what another one of its kind knew, in another process."""

    def memory(self) -> Sequence[float]:
        """What it knows: first two moments, in seconds, which may be -inf; then other numbers."""
        ...

    def recall(self, memory: Sequence[float]) -> None:
        """Know that, and nothing else."""
        ...


class _Bounded(ABC):
    """A rate within its bounds, when the last cut was, and when everybody pauses."""

    def __init__(self, rate: float, min_rate: float, max_rate: float, max_pause: float) -> None:
        for name, value in (("min_rate", min_rate), ("max_rate", max_rate), ("rate", rate)):
            _check(name, value, 0.0, inf)
        if not min_rate <= rate <= max_rate:
            raise ValueError(f"rate {rate!r} is not between min_rate {min_rate!r} and max_rate {max_rate!r}")
        _check("max_pause", max_pause, 0.0, inf)
        self._rate = float(rate)
        self._min_rate = float(min_rate)
        self._max_rate = float(max_rate)
        self._max_pause = float(max_pause)
        self._cut_at = -inf  # calls sent until then are old news
        self._cuts = 0  # in a row, with no call accepted between
        self._seen_at: float | None = None  # when the last answer came

    @property
    def rate(self) -> float:
        """Permits a second now."""
        return self._rate

    def feed(self, sample: Sample) -> Adjustment | None:
        """Take in what became of one call; None if nothing changes."""
        if sample.verdict is Verdict.FAILED:
            return None
        elapsed = self._elapsed(sample.now)
        if sample.verdict is Verdict.THROTTLED:
            return self._refused(sample, elapsed)
        if sample.sent > self._cut_at:
            self._cuts = 0
        return self._move_to(self._grow(sample, elapsed))

    def memory(self) -> list[float]:
        """What it knows: first two moments, in seconds, which may be -inf; then other numbers."""
        seen_at = -inf if self._seen_at is None else self._seen_at
        return [self._cut_at, seen_at, self._rate, self._cuts, *self._more_memory()]

    def recall(self, memory: Sequence[float]) -> None:
        """Know that, and nothing else."""
        self._cut_at, seen_at, rate, cuts, *more = memory
        self._seen_at = None if seen_at == -inf else seen_at
        self._rate = self._within(rate)
        self._cuts = int(cuts)
        self._recall_more(more)

    @abstractmethod
    def _more_memory(self) -> list[float]:
        """What a subclass knows."""

    @abstractmethod
    def _recall_more(self, memory: list[float]) -> None:
        """Know that."""

    @abstractmethod
    def _grow(self, sample: Sample, elapsed: float) -> float:
        """The rate after a call that went well, `elapsed` seconds after the answer before."""

    @abstractmethod
    def _cut(self, sample: Sample) -> float:
        """The rate after a refusal that is news."""

    def _elapsed(self, now: float) -> float:
        """Seconds since the last answer; answers that come out of order count as at once."""
        last, self._seen_at = self._seen_at, now if self._seen_at is None else max(self._seen_at, now)
        return 0.0 if last is None else self._seen_at - last

    def _refused(self, sample: Sample, elapsed: float) -> Adjustment | None:
        if not sample.sent > self._cut_at:
            return None
        before, self._rate = self._rate, self._within(self._cut(sample))
        self._cut_at = sample.now
        self._cuts += 1
        pause = self._pause(sample.retry_after)
        if pause == 0.0 and before == self._rate:
            return None
        asked = "" if sample.retry_after is None else f", asked to wait {sample.retry_after:.3g} s"
        return Adjustment(self._rate, pause, f"refused at {before:.4g}/s{asked}")

    def _pause(self, retry_after: float | None) -> float:
        if retry_after is None or not retry_after > 0.0:
            return 0.0
        everybody = retry_after >= _LONG or self._cuts >= _AGAIN
        return min(retry_after, self._max_pause) if everybody else 0.0

    def _move_to(self, rate: float) -> Adjustment | None:
        """Go there, unless it is too near to matter (the upper bound is gone to all the same)."""
        rate = self._within(rate)
        near = abs(rate - self._rate) < _NOTABLE * self._rate
        if rate == self._rate or (near and rate != self._max_rate):
            return None
        self._rate = rate
        return Adjustment(rate, reason="calls went well while others waited")

    def _within(self, rate: float) -> float:
        return min(max(rate, self._min_rate), self._max_rate)


class AIMD(_Bounded):
    """Additive increase, multiplicative decrease.

    D. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in
    computer networks", 1989. Simple and well known; `Cubic` uses more of the quota with fewer refusals.

    Args:
        rate: permits a second at the start.
        min_rate: never below it.
        max_rate: never above it.
        increase: permits a second that are added in a second; by default a twentieth of `rate`.
        decrease: a cut leaves this part of the rate, above 0 and below 1.
        max_pause: the longest pause for which a `Retry-After` is heeded, in seconds.

    Raises:
        ValueError: a number is out of range, or `rate` out of its bounds.
    """

    def __init__(
        self,
        rate: float,
        *,
        min_rate: float,
        max_rate: float,
        increase: float | None = None,
        decrease: float = 0.5,
        max_pause: float = 300.0,
    ) -> None:
        super().__init__(rate, min_rate, max_rate, max_pause)
        self._increase = rate / 20.0 if increase is None else increase
        _check("increase", self._increase, 0.0, inf)
        _check("decrease", decrease, 0.0, 1.0)
        self._decrease = decrease
        self._earned = 0.0  # permits/s, not yet part of the rate

    def _more_memory(self) -> list[float]:
        return [self._earned]

    def _recall_more(self, memory: list[float]) -> None:
        (self._earned,) = memory

    def _grow(self, sample: Sample, elapsed: float) -> float:
        if sample.limiting:
            self._earned = min(self._earned + self._increase * elapsed, self._max_rate)
        return self._rate + self._earned

    def _cut(self, sample: Sample) -> float:
        self._earned = 0.0
        return self._rate * self._decrease

    def _move_to(self, rate: float) -> Adjustment | None:
        adjustment = super()._move_to(rate)
        if adjustment is not None:
            self._earned = 0.0
        return adjustment


class Cubic(_Bounded):
    """The recommended one: relative cubic growth around a remembered ceiling.

    The shape of RFC 9438 (CUBIC) on a logarithmic scale; the module's docstring has the formula.

    Args:
        rate: permits a second at the start; a careful guess, it grows from there.
        min_rate: never below it.
        max_rate: never above it.
        gain: how fast it climbs, per cubic unit of time (a second, or what 4 permits take if that is longer).
        decrease: a cut leaves this part of the rate that was accepted, above 0 and below 1.
        max_pause: the longest pause for which a `Retry-After` is heeded, in seconds.

    Raises:
        ValueError: a number is out of range, or `rate` out of its bounds.
    """

    def __init__(
        self,
        rate: float,
        *,
        min_rate: float,
        max_rate: float,
        gain: float = 0.003,
        decrease: float = 0.85,
        max_pause: float = 300.0,
    ) -> None:
        super().__init__(rate, min_rate, max_rate, max_pause)
        _check("gain", gain, 0.0, inf)
        _check("decrease", decrease, 0.0, 1.0)
        self._start = self._rate
        self._gain = gain
        self._decrease = decrease
        self._ceiling = 0.0  # permits/s that the server is thought to allow; 0.0 before the first refusal
        self._foot = 0.0  # units of time from the cut to the ceiling
        self._wait = 0.0  # units of time at the ceiling
        self._climbed = 0.0  # units of time since the cut in which the limiter was what limits
        self._span = _TRUST * self._unit  # seconds, of late, in which
        self._taken = self._span * self._rate  # so many permits were accepted

    def _more_memory(self) -> list[float]:
        return [self._ceiling, self._foot, self._wait, self._climbed, self._span, self._taken]

    def _recall_more(self, memory: list[float]) -> None:
        self._ceiling, self._foot, self._wait, self._climbed, self._span, self._taken = memory

    def _grow(self, sample: Sample, elapsed: float) -> float:
        self._note(elapsed, sample.cost)
        if not sample.limiting:
            return self._rate
        climbed = self._climbed + elapsed / self._unit
        rate = self._curve(climbed)
        supported = _HEADROOM * self._accepted
        if rate > supported:  # wait there, on the curve and with the rate
            return max(self._rate, supported)
        self._climbed = climbed
        return rate

    def _refused(self, sample: Sample, elapsed: float) -> Adjustment | None:
        self._note(elapsed, 0)
        return super()._refused(sample, elapsed)

    def _cut(self, sample: Sample) -> float:
        accepted = min(max(_FLOOR * self._rate, self._accepted), max(self._rate, self._ceiling))
        if self._rate > _GONE * self._ceiling:
            ceiling, self._wait = self._rate, 0.0
        else:
            ceiling, self._wait = accepted, min(self._wait + _LONGER, _LONGEST_WAIT)
        rate = self._within(min(self._rate, self._decrease * accepted))
        self._ceiling = max(ceiling, rate)
        self._foot = (log(self._ceiling / rate) / self._gain) ** (1 / 3)
        self._climbed = 0.0
        self._span = _TRUST * self._unit  # what is accepted counts from here
        self._taken = self._span * rate
        return rate

    def _curve(self, climbed: float) -> float:
        """The rate after so many units of time of climbing."""
        if not self._ceiling:
            return self._start * exp(min(_DOUBLING * climbed, _FAR))
        beyond = climbed - self._foot
        if beyond > 0.0:
            beyond = max(0.0, beyond - self._wait)
        return self._ceiling * exp(min(self._gain * beyond**3, _FAR))

    @property
    def _unit(self) -> float:
        """The unit of time, in seconds."""
        return min(max(1.0, _CALLS / self._rate), _LONGEST_UNIT)

    @property
    def _accepted(self) -> float:
        """Permits a second since the last cut, the last few units of time weighing most."""
        return self._taken / self._span

    def _note(self, elapsed: float, accepted: int) -> None:
        lately = _LATELY * self._unit
        fading = exp(-elapsed / lately)
        self._taken = self._taken * fading + accepted
        self._span = self._span * fading + lately * (1.0 - fading)


def _check(name: str, value: float, above: float, below: float) -> None:
    if isinstance(value, bool) or not (isfinite(value) and above < value < below):
        raise ValueError(f"{name} has to be above {above:g} and below {below:g}, not {value!r}")

"""How fast to go when nobody says what the quota is: outcomes of calls in, a new rate out.

Rules
-----
1. Only a refusal (429) says that the rate was too high. A call that failed otherwise says nothing.
2. A cut is judged by the calls that were sent after it. A 429 of a call sent before the last cut is old
   news: a hundred calls in flight are one cut, not a hundred.
3. The rate grows only while the limiter is what holds the calls back, and not beyond 1.6 x the rate that
   was accepted lately: a rate that nobody used was not tried.
4. Growth is relative: 2/s and 2,000/s climb in the same number of steps.
5. A short `Retry-After` delays the call that heard it (its caller sees to that). A long one, or one that
   comes again and again while nothing is accepted, pauses everybody.

Theory
------
`AIMD` is the classic: add a little each second, cut by a part at each refusal (Chiu and Jain, 1989).

`Cubic` remembers the rate at which it was refused, its ceiling w, and draws the cubic of CUBIC (RFC 9438,
section 4.2) on a logarithmic scale: t seconds after a cut the rate is `w * exp(gain * (t - K)**3)`, where K
is such that it starts at the rate after the cut. So it climbs fast while far below the ceiling, hardly at
all near it, and ever faster beyond it, where a quota that came back has to be found. Where no ceiling is
known, before the first refusal and from a quarter above the last ceiling on, the rate doubles once a second.

A time of fixed length means little at 1 call a minute: below 5 permits/s the unit of time is not the
second but the time that 5 permits take, at most 30 s.

The state is a few plain numbers and changes in `feed` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from math import exp, inf, isfinite, log
from typing import Final, Protocol

from attrs import frozen

_NOTABLE: Final = 0.01  # a smaller change of the rate is not worth a lock and an event
_LONG: Final = 5.0  # seconds of Retry-After from which on everybody pauses
_AGAIN: Final = 3  # cuts in a row, with nothing accepted between, after which a short one counts as long
_HEADROOM: Final = 1.6  # times the accepted rate: what has been tried supports no more
_CALLS: Final = 5.0  # permits that a unit of time has to span
_LATELY: Final = 10.0  # calls of which the refused share is the mean
_LONGEST_UNIT: Final = 30.0  # seconds
_DOUBLING: Final = log(2.0)  # a unit of time, before a ceiling is known
_FAR: Final = 100.0  # e to that is beyond any rate, and no overflow
_SAME: Final = 0.12  # ceilings that differ by less, relatively, are the same one met again
_GONE: Final = 1.25  # times the ceiling: who gets that far knows that the ceiling is no more
_LEAST: Final = 4.0  # the gain is never less than this part of what it was


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
    """Decides on the rate. Called under the limiter's lock, so it takes no lock and does not wait."""

    @property
    def rate(self) -> float:
        """Permits a second now."""
        ...

    def feed(self, sample: Sample) -> Adjustment | None:
        """Take in what became of one call; None if nothing changes."""
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
        gain: how fast it climbs, per cubic unit of time (a second, or what 5 permits take if that is longer).
        decrease: the gentlest cut leaves this part of the ceiling, above 0 and below 1; the more calls are
            refused, the deeper it is.
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
        gain: float = 0.005,
        decrease: float = 0.85,
        max_pause: float = 300.0,
    ) -> None:
        super().__init__(rate, min_rate, max_rate, max_pause)
        _check("gain", gain, 0.0, inf)
        _check("decrease", decrease, 0.0, 1.0)
        self._start = self._rate
        self._most_gain = gain
        self._decrease = decrease
        self._gain = gain  # halved where the same ceiling was met again
        self._ceiling = 0.0  # permits/s that it was refused at; 0.0 before the first time
        self._foot = 0.0  # units of time from the cut to the ceiling
        self._climbed = 0.0  # units of time since the cut in which the limiter was what limits
        self._accepted = self._rate  # permits/s lately
        self._share = 0.0  # of the calls lately that were refused

    def _grow(self, sample: Sample, elapsed: float) -> float:
        self._note(elapsed, sample.cost, refused=0.0)
        if not sample.limiting:
            return self._rate
        climbed = self._climbed + elapsed / self._unit
        rate = self._curve(climbed)
        supported = _HEADROOM * self._accepted
        if rate > supported:  # wait there, on the curve and with the rate
            return max(self._rate, supported)
        self._climbed = climbed
        if self._ceiling and rate > _GONE * self._ceiling:  # look for the new one as at the start
            self._ceiling, self._start, self._climbed = 0.0, rate, 0.0
        return rate

    def _refused(self, sample: Sample, elapsed: float) -> Adjustment | None:
        self._note(elapsed, 0, refused=1.0)
        return super()._refused(sample, elapsed)

    def _cut(self, sample: Sample) -> float:
        ceiling = self._met()
        again = abs(ceiling - self._ceiling) <= _SAME * self._ceiling
        self._gain = max(self._gain / 2, self._most_gain / _LEAST) if again else self._most_gain
        rate = self._within(ceiling * max(0.5, min(self._decrease, 1.0 - self._share)))
        self._ceiling = max(ceiling, rate)
        self._foot = (log(self._ceiling / rate) / self._gain) ** (1 / 3)
        self._climbed = 0.0
        return rate

    def _met(self) -> float:
        """The rate that the server allows, by what it accepted."""
        return max(self._rate / 2, min(self._rate, self._accepted))

    def _curve(self, climbed: float) -> float:
        """The rate after so many units of time of climbing."""
        if not self._ceiling:
            return self._start * exp(min(_DOUBLING * climbed, _FAR))
        return self._ceiling * exp(min(self._gain * (climbed - self._foot) ** 3, _FAR))

    @property
    def _unit(self) -> float:
        """The unit of time, in seconds."""
        return min(max(1.0, _CALLS / self._rate), _LONGEST_UNIT)

    def _note(self, elapsed: float, accepted: int, refused: float) -> None:
        """Keep the accepted rate of the last unit of time, and the refused share of the last few calls."""
        self._accepted = self._accepted * exp(-elapsed / self._unit) + accepted / self._unit
        self._share += (refused - self._share) / _LATELY


def _check(name: str, value: float, above: float, below: float) -> None:
    if isinstance(value, bool) or not (isfinite(value) and above < value < below):
        raise ValueError(f"{name} has to be above {above:g} and below {below:g}, not {value!r}")

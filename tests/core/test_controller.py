"""The controllers, by rows of time, outcome, expectation, and by what holds for any samples."""

from __future__ import annotations

from itertools import pairwise
from math import inf, isfinite, nan
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.controller import AIMD, Adjustment, Controller, Cubic, Sample, Verdict

WELL, THROTTLED, FAILED = Verdict.WENT_WELL, Verdict.THROTTLED, Verdict.FAILED
Kind = Literal["AIMD", "Cubic"]
KINDS: list[Kind] = ["AIMD", "Cubic"]
Row = tuple[float, float, Verdict, float]  # sent, answered, what became of it, the rate from then on


def make(kind: Kind, rate: float = 10.0, *, min_rate: float = 1.0, max_rate: float = 100.0) -> Controller:
    if kind == "AIMD":
        return AIMD(rate, min_rate=min_rate, max_rate=max_rate)
    return Cubic(rate, min_rate=min_rate, max_rate=max_rate)


def accept(controller: Controller, seconds: float, start: float, *, limiting: bool = True) -> float:
    """Calls at the controller's rate that go well, at least one; the moment of the last answer."""
    now = start
    while now == start or now < start + seconds:
        now += 1 / controller.rate
        controller.feed(Sample(WELL, now - 0.1, now, limiting=limiting))
    return now


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(0, 1, THROTTLED, 5), (1.5, 2, THROTTLED, 2.5)], id="half at each refusal"),
        pytest.param([(0, 1, THROTTLED, 5), (0.5, 2, THROTTLED, 5)], id="a 429 sent before the cut is old"),
        pytest.param([(0, 1, THROTTLED, 5), (1, 2, THROTTLED, 5)], id="and one sent at its very moment"),
        pytest.param([(0, 1, WELL, 10), (0, 3, WELL, 12), (0, 4, WELL, 13)], id="1/s each second"),
        pytest.param(
            [(0, 1, WELL, 10), (0, 1.05, WELL, 10), (0, 1.15, WELL, 10.15)], id="little is saved up"
        ),
        pytest.param([(0, 3, WELL, 10), (0, 1, WELL, 10), (0, 4, WELL, 11)], id="answers out of order"),
        pytest.param([(0, 1, FAILED, 10), (0, 2, FAILED, 10)], id="other failures say nothing"),
        pytest.param([(0, 0, WELL, 10), (0, 500, WELL, 100)], id="to the upper bound"),
        pytest.param(
            [(n, n + 0.5, THROTTLED, max(1, 10 / 2 ** (n + 1))) for n in range(6)], id="to the lower"
        ),
    ],
)
def test_aimd(rows: list[Row]) -> None:
    controller = AIMD(10, min_rate=1, max_rate=100, increase=1)
    for sent, now, verdict, rate in rows:
        adjustment = controller.feed(Sample(verdict, sent, now))
        assert controller.rate == pytest.approx(rate)
        assert adjustment is None or adjustment.rate == controller.rate


def test_aimd_adds_a_twentieth_of_the_first_rate_unless_told() -> None:
    controller = AIMD(40, min_rate=1, max_rate=100)
    controller.feed(Sample(WELL, 0, 1))
    controller.feed(Sample(WELL, 0, 2))
    assert controller.rate == 42


def test_aimd_saves_nothing_up_while_the_limiter_does_not_limit() -> None:
    controller = AIMD(10, min_rate=1, max_rate=100, increase=1)
    for second in range(9):
        assert controller.feed(Sample(WELL, second, second + 0.5, limiting=False)) is None
    controller.feed(Sample(WELL, 9, 9.5))
    assert controller.rate == 11


def test_cubic_doubles_each_second_until_it_is_refused() -> None:
    controller = Cubic(10, min_rate=1, max_rate=1000)
    now = accept(controller, 1.0, 0.0)
    assert 17 < controller.rate < 21
    accept(controller, 1.0, now)
    assert 33 < controller.rate < 42


def refused(controller: Controller, now: float) -> float:
    """A call sent at `now` is refused; the moment of its answer."""
    controller.feed(Sample(THROTTLED, now, now + 0.1))
    return now + 0.1


def refused_at(rate: float) -> tuple[Cubic, float]:
    """One with a ceiling at `rate`, where it was refused twice, and the moment of the last cut."""
    controller = Cubic(rate, min_rate=0.01, max_rate=10_000)
    now = refused(controller, accept(controller, 20.0, 0.0, limiting=False))
    while controller.rate < rate:
        now = accept(controller, 0.0, now)
    return controller, refused(controller, now)


@pytest.mark.parametrize(
    ("seconds", "least", "most"),  # after the cut; of the ceiling
    [
        pytest.param(0.0, 0.84, 0.86, id="a cut to 0.85"),
        pytest.param(1.0, 0.91, 0.96, id="fast at first"),
        pytest.param(3.5, 0.98, 1.0, id="slower near the ceiling"),
        pytest.param(5.5, 0.99, 1.01, id="where it waits"),
        pytest.param(7.5, 1.01, 1.10, id="then a look beyond"),
        pytest.param(12.5, 3.0, 5.0, id="ever faster: the quota may have come back"),
    ],
)
def test_cubic_climbs_to_its_ceiling_waits_there_and_looks_for_a_higher_one(
    seconds: float, least: float, most: float
) -> None:
    controller, now = refused_at(100)
    ceiling = controller.rate / 0.85
    assert 90 < ceiling < 100
    accept(controller, seconds, now)
    assert least <= controller.rate / ceiling <= most


def test_cubic_waits_longer_at_a_ceiling_each_time_that_it_is_met_again() -> None:
    """A second longer, up to 3 s: the moments at which it is 10 % beyond the ceiling."""
    controller, now = refused_at(100)
    looked: list[float] = []
    for _ in range(4):
        cut, ceiling = now, controller.rate / 0.85
        while controller.rate < 1.1 * ceiling:
            now = accept(controller, 0.0, now)
        looked.append(now - cut)
        now = refused(controller, now)
    steps = [later - earlier for earlier, later in pairwise(looked)]
    assert steps == pytest.approx([1.0, 1.0, 0.0], abs=0.15)


def test_cubic_waits_no_longer_at_a_ceiling_that_is_gone() -> None:
    controller, now = refused_at(100)
    patient, later = refused_at(100)
    for _ in range(3):
        later = refused(patient, accept(patient, 8.0, later))
    while controller.rate < 250:
        now = accept(controller, 0.0, now)
    while patient.rate < 250:
        later = accept(patient, 0.0, later)
    moments = (refused(controller, now), refused(patient, later))
    for each, moment in zip((controller, patient), moments, strict=True):
        assert each.rate > 0.5 * 250  # what was accepted lately is less, but may be of a slow climb
        accept(each, 8.0, moment)
    assert patient.rate == pytest.approx(controller.rate, rel=0.05)


@pytest.mark.parametrize(
    ("accepted", "least", "most"),  # calls in the 0.2 s after a cut to 80/s; what is left of that
    [
        pytest.param(20, 1.0, 1.0, id="all: a refusal by chance cuts no further"),
        pytest.param(12, 0.62, 0.72, id="60/s: to what the server allows now"),
        pytest.param(0, 0.56, 0.57, id="none: that may be chance, too"),
    ],
)
def test_a_second_refusal_soon_after_a_cut_goes_by_what_was_accepted_since(
    accepted: int, least: float, most: float
) -> None:
    controller, now = refused_at(100)
    before = controller.rate
    assert 78 < before < 82
    for call in range(accepted):
        controller.feed(Sample(WELL, now, now + 0.2 * (call + 1) / accepted, limiting=False))
    refused(controller, now + 0.1)
    assert least <= controller.rate / before <= most


def test_cubic_takes_the_time_of_some_calls_as_its_unit_where_calls_are_rare() -> None:
    """A call each 2 s: 4 of them are a unit of 8 s, so it takes half a minute to what takes 100/s 3.5 s."""
    controller, now = refused_at(0.5)
    ceiling = controller.rate / 0.85
    now = accept(controller, 8.0, now)
    assert controller.rate < 0.97 * ceiling
    accept(controller, 22.0, now)
    assert 0.97 * ceiling < controller.rate < 1.01 * ceiling


def test_cubic_grows_no_further_than_what_is_accepted_supports() -> None:
    """Its doubling would be at 640/s after 6 s; but only 10 calls a second come."""
    controller = Cubic(10, min_rate=1, max_rate=1000)
    for call in range(60):
        controller.feed(Sample(WELL, call / 10, call / 10))
    assert 20 < controller.rate < 24


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("asked", "cuts", "pause"),
    [
        pytest.param(None, 9, 0.0, id="none was asked for"),
        pytest.param(1.0, 2, 0.0, id="a short one is its call's"),
        pytest.param(1.0, 3, 1.0, id="asked for again and again"),
        pytest.param(30.0, 1, 30.0, id="a long one"),
        pytest.param(1e9, 1, 300.0, id="beyond the cap"),
        pytest.param(inf, 1, 300.0, id="for ever"),
        pytest.param(-5.0, 9, 0.0, id="negative"),
        pytest.param(nan, 9, 0.0, id="not a number"),
    ],
)
def test_pauses(kind: Kind, asked: float | None, cuts: int, pause: float) -> None:
    controller = make(kind)
    adjustment = None
    for cut in range(cuts):
        adjustment = controller.feed(Sample(THROTTLED, cut, cut + 0.5, retry_after=asked))
    assert (adjustment.pause if adjustment else 0.0) == pause


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_went_well_after_the_cut_ends_the_row_of_cuts(kind: Kind) -> None:
    controller = make(kind)
    for cut in range(5):
        controller.feed(Sample(WELL, cut, cut))
        adjustment = controller.feed(Sample(THROTTLED, cut, cut + 0.5, retry_after=1.0))
        assert adjustment is not None
        assert adjustment.pause == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_an_adjustment_says_why(kind: Kind) -> None:
    controller = make(kind)
    assert "refused at 10/s" in reason(controller.feed(Sample(THROTTLED, 0, 1)))
    assert "asked to wait 7 s" in reason(controller.feed(Sample(THROTTLED, 2, 3, retry_after=7.0)))
    assert "went well" in reason(
        next(filter(None, (controller.feed(Sample(WELL, 3, 3 + n / 10)) for n in range(99))))
    )


def reason(adjustment: Adjustment | None) -> str:
    assert adjustment is not None
    return adjustment.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [0.0, -1.0, nan, inf, True])
@pytest.mark.parametrize("name", ["rate", "min_rate", "max_rate", "max_pause"])
def test_wrong_numbers_are_refused(kind: Kind, name: str, wrong: float) -> None:
    numbers = {"rate": 10.0, "min_rate": 1.0, "max_rate": 100.0, "max_pause": 60.0} | {name: wrong}
    with pytest.raises(ValueError, match=name):
        (AIMD if kind == "AIMD" else Cubic)(numbers.pop("rate"), **numbers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "low", "high"), [(0.5, 1, 100), (101, 1, 100), (10, 20, 5)])
def test_a_rate_out_of_its_bounds_is_refused(kind: Kind, rate: float, low: float, high: float) -> None:
    with pytest.raises(ValueError, match="not between"):
        make(kind, rate, min_rate=low, max_rate=high)


def test_a_share_that_is_none_is_refused() -> None:
    for share in (0.0, 1.0, nan):
        with pytest.raises(ValueError, match="decrease"):
            AIMD(10, min_rate=1, max_rate=100, decrease=share)
        with pytest.raises(ValueError, match="decrease"):
            Cubic(10, min_rate=1, max_rate=100, decrease=share)
    with pytest.raises(ValueError, match="increase"):
        AIMD(10, min_rate=1, max_rate=100, increase=0)
    with pytest.raises(ValueError, match="gain"):
        Cubic(10, min_rate=1, max_rate=100, gain=0)


kinds = st.sampled_from(KINDS)
moments = st.floats(0, 1e7)
samples = st.lists(
    st.builds(
        Sample,
        verdict=st.sampled_from(Verdict),
        sent=moments,
        now=moments,
        cost=st.integers(1, 10**6),
        retry_after=st.none() | st.floats(),
        limiting=st.booleans(),
    ),
    max_size=80,
)


@given(kind=kinds, taken=samples)
def test_any_samples_leave_the_rate_within_its_bounds_and_the_pause_under_its_cap(
    kind: Kind, taken: list[Sample]
) -> None:
    controller = make(kind)
    for sample in taken:
        before = controller.rate
        adjustment = controller.feed(sample)
        assert 1.0 <= controller.rate <= 100.0
        if adjustment is None:
            assert controller.rate == before
        else:
            assert adjustment.rate == controller.rate
            assert isfinite(adjustment.pause)
            assert 0.0 <= adjustment.pause <= 300.0
            assert adjustment.pause or adjustment.rate != before


@given(kind=kinds, taken=samples)
def test_it_grows_by_nothing_but_calls_that_went_well_while_the_limiter_held_others_up(
    kind: Kind, taken: list[Sample]
) -> None:
    controller = make(kind)
    for sample in taken:
        before = controller.rate
        controller.feed(sample)
        assert controller.rate <= before or (sample.verdict is WELL and sample.limiting)


@given(kind=kinds, taken=samples, ages=st.lists(st.floats(0, 1e6), min_size=1))
def test_refusals_of_calls_sent_before_the_last_cut_change_nothing(
    kind: Kind, taken: list[Sample], ages: list[float]
) -> None:
    controller = make(kind)
    for sample in taken:
        controller.feed(sample)
    controller.feed(Sample(THROTTLED, 2e7, 2e7 + 1))
    for age in ages:
        assert controller.feed(Sample(THROTTLED, 2e7 + 1 - age, 2e7 + 2, retry_after=100.0)) is None


@given(kind=kinds, taken=samples)
def test_the_same_samples_give_the_same_rates(kind: Kind, taken: list[Sample]) -> None:
    one, other = make(kind), make(kind)
    assert [one.feed(sample) for sample in taken] == [other.feed(sample) for sample in taken]


@pytest.mark.parametrize("kind", [Cubic, AIMD])
def test_another_one_goes_on_from_what_it_knew(kind: type[Cubic] | type[AIMD]) -> None:
    one, other = (kind(10, min_rate=1, max_rate=100) for _ in range(2))
    other.recall(one.memory())
    assert other.memory() == one.memory()
    verdicts = [Verdict.WENT_WELL, Verdict.THROTTLED, Verdict.WENT_WELL, Verdict.THROTTLED] * 5
    for number, verdict in enumerate(verdicts):
        turn, idle = (one, other) if number % 2 else (other, one)
        turn.feed(Sample(verdict, number - 0.05, float(number)))
        idle.recall(turn.memory())
    alone = kind(10, min_rate=1, max_rate=100)
    for number, verdict in enumerate(verdicts):
        alone.feed(Sample(verdict, number - 0.05, float(number)))
    assert one.rate == other.rate == alone.rate != 10

"""When a service that fails again and again is left alone, and when it is tried again."""

from __future__ import annotations

from math import inf
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.breaker import Circuit


def circuit(failures: int = 3, within: float = inf, reset_after: float = 30.0) -> Circuit:
    return Circuit(failures, within, reset_after)


def play(circuit: Circuit, *rows: tuple[Any, ...]) -> None:
    """Rows of moment, what happens, and what is expected: of `allow` its answer, otherwise the state."""
    for now, act, expected in rows:
        answer = getattr(circuit, act)(now)
        found = answer if act == "allow" else circuit.state
        assert found == expected, f"{act} at {now}"


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    play(
        circuit(),
        (0, "allow", 0),
        (1, "failed", "closed"),
        (2, "failed", "closed"),
        (3, "succeeded", "closed"),
        (4, "failed", "closed"),
        (5, "failed", "closed"),
        (5, "allow", 0),
        (6, "failed", "open"),
        (6, "allow", 30),
        (20, "allow", 16),
        (35.5, "allow", 0.5),
    )


def test_one_probe_goes_and_closes_it_by_going_well() -> None:
    play(
        circuit(failures=1),
        (0, "failed", "open"),
        (30, "allow", 0),
        (30, "allow", 1.5),  # the others look again soon: the probe may be back
        (31, "allow", 1.5),
        (32, "succeeded", "closed"),
        (32, "allow", 0),
        (32, "allow", 0),
        (33, "failed", "open"),
    )


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    play(
        circuit(failures=3),
        (0, "failed", "closed"),
        (0, "failed", "closed"),
        (0, "failed", "open"),
        (40, "allow", 0),
        (41, "failed", "open"),
        (41, "allow", 30),
        (70.5, "allow", 0.5),
        (71, "allow", 0),
        (72, "succeeded", "closed"),
        (72, "failed", "closed"),  # and the row of failures starts anew
    )


def test_a_probe_that_is_never_heard_of_is_followed_by_another() -> None:
    play(
        circuit(failures=1),
        (0, "failed", "open"),
        (30, "allow", 0),
        (59, "allow", 1),
        (60, "allow", 0),
        (60, "allow", 1.5),
    )


def test_a_probe_that_ends_without_saying_anything_is_followed_at_once() -> None:
    play(
        circuit(failures=1),
        (0, "failed", "open"),
        (10, "ended", "open"),
        (10, "allow", 20),
        (30, "allow", 0),
        (31, "ended", "half-open"),
        (31, "allow", 0),
        (31, "allow", 1.5),
    )


def test_calls_from_before_it_opened_change_nothing() -> None:
    play(
        circuit(failures=1),
        (0, "failed", "open"),
        (5, "failed", "open"),
        (6, "succeeded", "open"),
        (6, "allow", 24),
    )


def test_old_failures_do_not_count() -> None:
    play(
        circuit(within=10),
        (0, "failed", "closed"),
        (9, "failed", "closed"),
        (11, "failed", "closed"),
        (19, "failed", "open"),
    )


def test_without_a_time_to_reset_every_call_is_a_probe() -> None:
    play(circuit(failures=1, reset_after=0), (0, "failed", "open"), (0, "allow", 0), (0, "allow", 0))


ACTS = st.sampled_from(["allow", "failed", "succeeded", "ended"])


@given(
    acts=st.lists(st.tuples(st.floats(0, 20), ACTS), max_size=60),
    failures=st.integers(1, 4),
    within=st.sampled_from([5.0, inf]),
)
def test_while_it_is_not_closed_one_call_goes_in_the_time_to_reset_unless_one_ended(
    acts: list[tuple[float, str]], failures: int, within: float
) -> None:
    state, now, probe = circuit(failures, within, 10.0), 0.0, -inf
    row: list[float] = []  # of failures since the last success, as a reference
    for pause, act in acts:
        now += pause
        before = state.state
        answer = getattr(state, act)(now)
        if act == "allow":
            assert 0 <= answer <= 10
            assert (answer == 0) or before != "closed"
            if before == "half-open" and answer == 0:
                assert now - probe >= 10 - 1e-9
            probe = now if answer == 0 else probe
        elif act == "ended":
            assert state.state == before
            probe = -inf
        elif before == "closed":
            row = [] if act == "succeeded" else [moment for moment in row if now - moment <= within] + [now]
            assert (state.state == "open") == (len(row) >= failures)
        else:
            row = []
            closes = act == "succeeded" and before == "half-open"
            assert state.state == ("closed" if closes else "open")
        row = row if state.state == "closed" else []

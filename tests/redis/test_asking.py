"""When a gate asks Redis: without a server, its questions are answered by hand."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any

from attrs import define
from hypothesis import example, given
from hypothesis import strategies as st

from batchkit._parking import ThreadParker
from batchkit._redis.asking import AnyGate
from batchkit._redis.gate import BucketGate, BucketTerms
from batchkit._redis.ration import Ration
from batchkit._redis.wire import Answer
from batchkit.testing import ManualClock

LOOK = 0.25  # seconds after which the script has them look again


@define
class Count:
    """A courier that counts how often it is to ask at once, and asks nobody."""

    hurried: int = 0

    def enter(self, gate: AnyGate) -> None: ...

    def call(self, gate: AnyGate, moment: float) -> None: ...

    def hurry(self, gate: AnyGate, **_: Any) -> None:
        self.hurried += 1

    def hurry_in(self, loop: AbstractEventLoop, gate: AnyGate, *, soon: bool) -> None:
        self.hurried += 1


def gate_of(clock: ManualClock, courier: Count) -> BucketGate:
    terms = BucketTerms("test", "quota", None, False, 1.0, "raise", 2.0, 1, 0.05, False)
    return BucketGate(
        Ration(2.0, 1), terms=terms, courier=courier, name="", hooks=(), patience=10.0, clock=clock
    )


def not_yet(now: float) -> Answer:
    return Answer(
        again=False,
        now=now * 1e6,
        version=0,
        rate=2.0,
        burst=1,
        at_once=0,
        later=0,
        start=0.0,
        leased=0,
        closed=0.0,
        look=LOOK,
        owed=1.0,
        gone=0,
        members=1,
        lasts=0.0,
    )


@given(joined=st.floats(0.0, 1e4), waited=st.floats(0.0, 10.0), priority=st.integers(0, 10_000))
@example(joined=0.001, waited=0.3, priority=0)  # its order and the age of the call do not add up, by one bit
def test_who_stands_where_redis_knows_it_to_looks_again_when_it_is_told(
    joined: float, waited: float, priority: int
) -> None:
    clock, courier = ManualClock(joined), Count()
    gate = gate_of(clock, courier)
    gate.come(gate.place(1, priority, None, ThreadParker(clock.now)))
    assert courier.hurried == 1
    clock.advance(waited)
    assert gate.alone(gate.ask) is not None
    gate.alone(gate.answered, not_yet(clock.now()))
    assert gate.planned > clock.now() + LOOK / 2


def test_who_gives_up_is_taken_from_the_line_in_redis() -> None:
    clock, courier = ManualClock(), Count()
    gate = gate_of(clock, courier)
    place = gate.place(1, 0, None, ThreadParker(clock.now))
    gate.come(place)
    assert gate.alone(gate.ask) is not None
    gate.alone(gate.answered, not_yet(clock.now()))
    gate.leave(place)
    assert gate.planned <= clock.now() + gate.store.grace
    clock.advance(gate.store.grace)
    question = gate.alone(gate.ask)
    assert question is not None
    assert not question.ask.calls
    gate.alone(gate.answered, not_yet(clock.now()))
    clock.advance(LOOK)
    assert gate.alone(gate.ask) is None


def test_nobody_asks_for_a_try_that_was_given_up() -> None:
    clock, courier = ManualClock(), Count()
    gate = gate_of(clock, courier)
    place = gate.place(1, 0, 0, ThreadParker(clock.now))
    gate.come(place)
    gate.leave(place)
    assert gate.alone(gate.ask) is None
    assert gate.planned > clock.now()

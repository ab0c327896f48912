"""What is asked in one command: a question of one gate, or those of several gates whose calls go together."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Iterable
from itertools import islice
from math import inf
from operator import itemgetter
from typing import Any, Final

from attrs import define

from batchkit._core.place import Place
from batchkit._events import Event, emit
from batchkit._gate import Gate
from batchkit._joint import JointCall
from batchkit._redis.asking import MOST_PLACES, AnyGate
from batchkit._redis.questions import Question, cut_up
from batchkit._redis.scripts import Command, Word
from batchkit._redis.wire import Answer, Calls, TooLate
from batchkit._redis.wire import runs as in_numbers

_MOST_GATES: Final = 16  # in one command
_MOST_RUNS: Final = 96


@define(eq=False)
class Errand:
    """Questions that are asked in one command.

    Attributes:
        parts: each gate with its question.
        runs: those that wait, in order, if there are several gates: how many, the permits that each wants of
            each gate, and the age of the first.
        waiting: who they are: the places of calls of one gate, and calls of several.
    """

    parts: list[tuple[AnyGate, Question[Any]]]
    runs: list[tuple[int, tuple[int, ...], float]]
    waiting: list[Place | JointCall]

    @property
    def gates(self) -> list[AnyGate]:
        """Those that ask."""
        return [gate for gate, _ in self.parts]

    @property
    def command(self) -> Command:
        """What is sent."""
        gate, question = self.parts[0]
        script = gate.joint_script
        if len(self.parts) == 1 or script is None:
            return question.command
        keys = tuple(key for gate, _ in self.parts for key in gate.keys)
        words: list[Word] = [word for _, question in self.parts for word in question.ask.heading()]
        words.append(in_numbers((count, age, wants) for count, wants, age in self.runs))
        return script, keys, tuple(words)

    def answered(self, reply: Any, loop: AbstractEventLoop | None) -> None:
        """Take in what Redis said. `loop`: the event loop that runs this."""
        if len(self.parts) == 1:
            gate, question = self.parts[0]
            gate.hear(question.ask.read(reply), loop)
        else:
            answers: list[Answer | TooLate] = [
                question.ask.read(said) for (_, question), said in zip(self.parts, reply, strict=True)
            ]
            try:
                heard = Gate.together(in_order(self.gates), lambda now: self._take_in(now, answers, loop))
            finally:
                for gate in self.gates:
                    gate.tell_served()
            for gate, events in heard:
                for event in events:
                    emit(gate.hooks, event)

    def part(self) -> bool:
        """Have each of several gates ask for itself; true if there are several."""
        for _, question in self.parts:
            question.errand = None
        return len(self.parts) > 1

    def _take_in(
        self, now: float, answers: list[Answer | TooLate], loop: AbstractEventLoop | None
    ) -> list[tuple[AnyGate, list[Event]]]:
        known = [answer for answer in answers if isinstance(answer, Answer)]
        if len(known) == len(answers):
            self._set_aside(known)
        return [
            (gate, gate.answered(now, answer, loop)) for gate, answer in zip(self.gates, answers, strict=True)
        ]

    def _set_aside(self, answers: list[Answer]) -> None:
        """Calls of several gates stand in those lines in which they stand in Redis; or they go."""
        told = [iter(zip(answer.served, answer.aside, strict=True)) for answer in answers]
        waiting = iter(self.waiting)
        for count, wants, _ in self.runs:
            those = list(islice(waiting, count))
            for gate, permits, said in zip(self.gates, wants, told, strict=True):
                if permits:
                    served, aside = next(said)
                    for number, call in enumerate(those):
                        if isinstance(call, JointCall):
                            call.pass_by(gate, aside=aside and number >= served)


def errands_of(gate: AnyGate) -> list[Errand]:
    """What is to be asked now for a gate, and for those that its calls need, too."""
    if not gate.joins:
        question = gate.alone(gate.ask)
        return [] if question is None else [Errand([(gate, question)], [], [])]
    lost = gate.under_way
    if lost is not None:
        return [_again(gate, lost)]
    gates = in_order(_company(gate))
    if len(gates) == 1:
        question = gate.alone(gate.ask)
        return [] if question is None else [Errand([(gate, question)], [], [])]
    return Gate.together(gates, lambda now: _ask(gates, now))


def in_order(gates: Iterable[AnyGate]) -> list[Any]:
    """Gates as they are locked."""
    return sorted(gates, key=lambda gate: gate.number)


def _again(gate: AnyGate, question: Question[Any]) -> Errand:
    """An answer was lost: all that was asked with that question is asked again, under the same numbers."""
    errand: Errand = question.errand or Errand([(gate, question)], [], [])
    for other, _ in errand.parts:
        other.alone(other.ask)
    return errand


def _company(gate: AnyGate) -> list[AnyGate]:
    """A gate, those that its calls need, too, those that the calls of these need, and so on."""
    company = [gate]
    for member in company:
        for other in member.alone(member.joined):
            if other not in company and other.under_way is None and len(company) < _MOST_GATES:
                company.append(other)
    return company


def _ask(gates: list[AnyGate], now: float) -> list[Errand]:
    for gate in gates:
        gate.prepare(now)
    wishes = [gate.wishes(gate.line.upcoming(MOST_PLACES)) for gate in gates]
    waiting = _waiting(gates, wishes)
    wanted = [(order, tuple(permits)) for _, order, permits in waiting]
    runs = list(cut_up(now, wanted, _MOST_RUNS))
    calls = [
        [Calls(count, permits[number], age) for count, permits, age in runs if permits[number]]
        for number in range(len(gates))
    ]
    news = [gate.has_something(now, own) for gate, own in zip(gates, calls, strict=True)]
    if not any(news):
        for gate in gates:
            gate.pass_over()
        return []
    firsts = [own[0][0].order[0] if own else inf for own in wishes]
    parts = [(gate, gate.put(now, own, first)) for gate, own, first in zip(gates, calls, firsts, strict=True)]
    errand = Errand(parts, runs, [who for who, _, _ in waiting])
    for _, question in errand.parts:
        question.errand = errand
    return [errand]


def _waiting(
    gates: list[AnyGate], wishes: list[list[tuple[Place, int]]]
) -> list[tuple[Place | JointCall, float, list[int]]]:
    """Who waits, in order, since when, and for how many permits of each gate: a call of several is one."""
    found: dict[Place | JointCall, tuple[float, list[int]]] = {}
    for number, gate in enumerate(gates):
        for place, permits in [*wishes[number], *_passed(gate, gates)]:
            call = place.owner.call if place.joint else place
            found.setdefault(call, (place.order[0], [0] * len(gates)))[1][number] = permits
    waiting = [(call, order, wants) for call, (order, wants) in found.items()]
    return sorted(waiting, key=itemgetter(1))


def _passed(gate: AnyGate, gates: list[AnyGate]) -> list[tuple[Place, int]]:
    """The places of calls that another one of the gates holds up."""
    return [
        (place, place.cost)
        for place in gate.line.passed
        if any(other is not gate and other in gates for other in place.owner.call.gates)
    ]

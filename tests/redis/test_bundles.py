"""Commands that go together: fewer of them, the same answers, and each change where it was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchkit._redis.bundles import (
    AT_MOST,
    LOOK,
    Unit,
    answers,
    apart,
    bundled,
    for_each,
    handed_out,
    size,
    together,
)
from batchkit._redis.scripts import CLAIM, DROP, KEEP, OPEN, READ, RENEW, Command, Script

MANY = {script: script.each for script in (READ, CLAIM, KEEP, DROP, RENEW) if script.each}


def units(script: Script, *names: str) -> list[Unit]:
    """What a command says of keys."""
    each = MANY[script]
    return [
        (
            tuple(f"{name}{number}" for number in range(each.keys)),
            tuple(f"{name} says {number}" for number in range(each.words)),
        )
        for name in names
    ]


def command(script: Script, *names: str, shared: str = "s") -> Command:
    """One command for keys."""
    [only] = for_each(script, (shared,) * MANY[script].shared, units(script, *names))
    return only


def look(position: int = 1) -> Command:
    """A question for the rules."""
    return LOOK, ("rules",), (str(position),)


def answer(asked: Command) -> Any:
    """As a server would: of each key, its name and its words."""
    script = asked[0]
    if not isinstance(script, Script) or script.each is None:
        return [asked]
    return [7, *((keys, said) for _, keys, said in map(_own, apart(asked)))]


def _own(part: Command) -> Command:
    script, keys, words = part
    assert isinstance(script, Script)
    return script, keys, words[MANY[script].shared :]


def sent(*asked: Command) -> list[Command]:
    """What goes to Redis."""
    return [bundle.command for bundle in bundled(asked)]


def test_many_who_look_at_once_ask_once() -> None:
    one, other = (look(), command(READ, "a")), (look(), command(READ, "b", "c"))
    assert sent(*one, *other) == [look(), command(READ, "a", "b", "c")]


def test_claims_go_together_if_what_they_share_is_the_same() -> None:
    assert sent(command(CLAIM, "a"), look(), command(CLAIM, "b")) == [command(CLAIM, "a", "b"), look()]
    assert len(sent(command(CLAIM, "a"), command(CLAIM, "b", shared="other"))) == 2


def test_other_questions_stay_as_they_are() -> None:
    others: list[Command] = [look(1), look(2), (OPEN, ("rules",), ("1",)), (OPEN, ("rules",), ("1",))]
    others += [("GETRANGE", ("a",), ("0", "9"))] * 2
    assert sent(*others) == others


def test_what_comes_after_a_change_is_asked_after_it() -> None:
    for change in (command(KEEP, "a"), command(DROP, "a"), (OPEN, ("rules",), ("1",))):
        row = [command(READ, "a"), look(), change, look(), command(READ, "a")]
        assert sent(*row) == row


def test_a_change_comes_after_what_was_asked_before_it() -> None:
    """As where a claim is cancelled that is on its way."""
    row = [command(DROP, "x"), command(CLAIM, "a"), command(DROP, "a")]
    assert sent(*row) == row


def test_changes_of_the_same_kind_go_together_and_looks_come_after_them() -> None:
    keeps = [command(KEEP, "a"), look(), command(KEEP, "b"), look()]
    assert sent(*keeps) == [command(KEEP, "a", "b"), look()]


def test_a_command_is_for_a_limited_number_of_keys() -> None:
    names = [str(number) for number in range(5 * AT_MOST // 2)]
    assert [size(part) for part in for_each(READ, (), units(READ, *names))] == [200, 200, 100]
    assert [size(part) for part in sent(*(command(READ, name) for name in names))] == [200, 200, 100]
    assert [size(part) for part in for_each(READ, (), units(READ, *names), 1)] == [1] * len(names)


rows = st.lists(
    st.tuples(st.sampled_from([*MANY]), st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)).map(
        lambda pair: command(pair[0], *pair[1])
    )
    | st.integers(1, 3).map(look),
    max_size=12,
)


@given(rows)
def test_everybody_is_answered_what_was_asked(row: list[Command]) -> None:
    bundles = bundled(row)
    assert handed_out(bundles, [answer(bundle.command) for bundle in bundles]) == list(map(answer, row))


@given(rows)
def test_a_refusal_is_everybodys_who_asked(row: list[Command]) -> None:
    bundles = bundled(row)
    errors = [ValueError(str(number)) for number in range(len(bundles))]
    for command_, error in zip(row, handed_out(bundles, errors), strict=True):
        assert error in errors
        assert list(answers([command_], [error])) == [(0, error)] * size(command_)


@given(rows)
def test_what_is_asked_apart_is_answered_as_together(row: list[Command]) -> None:
    for whole in row:
        assert together(whole, [answer(part) for part in apart(whole)]) == answer(whole)
        assert [size(part) for part in apart(whole)] == [1] * size(whole)


def test_of_what_is_asked_apart_a_part_may_be_refused() -> None:
    error = ValueError()
    whole = command(CLAIM, "a", "b")
    assert together(whole, [error, [7, 0]]) == [7, error, 0]
    assert list(answers([whole], [[7, error, 0]])) == [(7, error), (7, 0)]
    assert together(whole, [error, error]) == [0, error, error]


@given(rows)
def test_the_order_counts_where_there_is_a_change(row: list[Command]) -> None:
    """Each key is told of, and asked for, as if the commands went one by one."""
    for name in "abcd":
        told = [_about(name, sent_) for sent_ in (row, sent(*row))]
        assert _with_changes_apart(told[0]) == _with_changes_apart(told[1])


def _about(name: str, row: list[Command]) -> list[Command]:
    """What there is for a key, in order."""
    parts = [part for whole in row for part in apart(whole) if part[0] != LOOK]
    return [part for part in parts if part[1][0] == f"{name}0"]


def _with_changes_apart(row: list[Command]) -> list[Any]:
    """The changes, and between them how many others of each kind there are."""
    found: list[Any] = [{}]
    for part in row:
        if part[0] in (READ, CLAIM):
            found[-1][part[0]] = found[-1].get(part[0], 0) + 1
        else:
            found += [part, {}]
    return found

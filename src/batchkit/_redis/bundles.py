"""Commands that go together: a script that does the same for several keys is told of all at once. Pure.

Redis does nothing else while a script runs, so that one command is for a limited number of keys.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from attrs import define

from batchkit._redis.scripts import CLAIM, READ, Command, Each, Keys, Script, Word

Unit: TypeAlias = tuple[Keys, tuple[Word, ...]]  # what a command says of one key

AT_MOST: Final = 200  # keys of one command
LOOK: Final = "ZRANGEBYSCORE"  # a question that many have at the same time: one answer is enough
_HARMLESS: Final = frozenset(
    (READ, CLAIM, LOOK)
)  # these may go before other ones, if none of those is a change


def for_each(
    script: Script, shared: tuple[Word, ...], units: Sequence[Unit], at_most: int = AT_MOST
) -> list[Command]:
    """Commands that do the same for each of several keys.

    Args:
        script: what is done.
        shared: the words that count for all.
        units: the names of each, and its words.
        at_most: for how many one command is.
    """
    return [
        _joined(script, shared, units[start : start + at_most]) for start in range(0, len(units), at_most)
    ]


def _joined(script: Script, shared: tuple[Word, ...], units: Sequence[Unit]) -> Command:
    keys = tuple([key for own, _ in units for key in own])
    return script, keys, (*shared, *[word for _, own in units for word in own])


def answers(asked: Iterable[Command], replies: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """What such commands are answered for each key, after the moment of the answer in ms; if one was refused,
    0 and the error.
    """
    for command, reply in zip(asked, replies, strict=True):
        if isinstance(reply, Exception):
            yield from [(0, reply)] * size(command)
        else:
            for each in reply[1:]:
                yield reply[0], each


def size(command: Command) -> int:
    """For how many keys a command is."""
    each = _each(command[0])
    return 1 if each is None else len(command[1]) // each.keys


def apart(command: Command) -> list[Command]:
    """A command for each of the keys."""
    script, keys, words = command
    each = _each(script)
    if each is None:
        return [command]
    shared, own = words[: each.shared], words[each.shared :]
    return [
        (
            script,
            keys[number * each.keys : (number + 1) * each.keys],
            shared + own[number * each.words : (number + 1) * each.words],
        )
        for number in range(size(command))
    ]


def together(command: Command, replies: Sequence[Any]) -> Any:
    """The answer to a command, of the answers to its parts; such as were refused are errors in it."""
    if _each(command[0]) is None:
        return replies[0]
    moments = [reply[0] for reply in replies if not isinstance(reply, Exception)]
    return [
        max(moments, default=0),
        *[reply if isinstance(reply, Exception) else reply[1] for reply in replies],
    ]


def _each(script: Script | str) -> Each | None:
    return script.each if isinstance(script, Script) else None


@define
class Bundle:
    """Commands that go as one.

    Attributes:
        indexes: which ones.
        commands: themselves.
        size: for how many keys they are.
    """

    indexes: list[int]
    commands: list[Command]
    size: int

    def add(self, index: int, command: Command, size: int) -> None:
        """One more."""
        self.indexes.append(index)
        self.commands.append(command)
        self.size += size

    @property
    def command(self) -> Command:
        """All of them."""
        script, _, words = self.commands[0]
        each = _each(script)
        if each is None or len(self.commands) == 1:
            return self.commands[0]
        names = tuple([key for _, own, _ in self.commands for key in own])
        said = [word for _, _, own in self.commands for word in own[each.shared :]]
        return script, names, (*words[: each.shared], *said)

    def hand_out(self, reply: Any) -> Iterator[tuple[int, Any]]:
        """The answer to each of the commands, after its number."""
        if len(self.commands) == 1 or _each(self.commands[0][0]) is None or isinstance(reply, Exception):
            yield from [(index, reply) for index in self.indexes]
            return
        start = 1
        for index, command in zip(self.indexes, self.commands, strict=True):
            end = start + size(command)
            yield index, [reply[0], *reply[start:end]]
            start = end


def bundled(asked: Iterable[Command]) -> list[Bundle]:
    """Commands as few ones. What comes after a change is asked after it, and what is told to change, after
    all that comes before it: save that what many look for they look for once.
    """
    bundles: list[Bundle] = []
    open_: dict[Hashable, Bundle] = {}
    last: Hashable = None
    for index, command in enumerate(asked):
        kind, many = _kind(command), size(command)
        if kind != last and command[0] not in _HARMLESS:
            open_.clear()
        bundle = open_.get(kind)
        if bundle is None or bundle.size + many > AT_MOST:
            bundle = Bundle([], [], 0)
            bundles.append(bundle)
            open_[kind] = bundle
        bundle.add(index, command, many)
        if command[0] != LOOK:
            last = kind
    return bundles


def _kind(command: Command) -> Hashable:
    """The same for commands that can go together."""
    script, _, words = command
    each = _each(script)
    if each is not None:
        return script, words[: each.shared]
    return command if script == LOOK else object()


def handed_out(bundles: Iterable[Bundle], replies: Iterable[Any]) -> list[Any]:
    """The answers to the commands, in their order."""
    found = dict(
        pair for bundle, reply in zip(bundles, replies, strict=True) for pair in bundle.hand_out(reply)
    )
    return [found[index] for index in range(len(found))]

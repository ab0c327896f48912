"""A process that works with a checkpoint, for the tests of its faults: by the name of what it does."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchkit import CheckpointError, CheckpointLocked, Entry, SQLiteCheckpoint

FULL_ROUND = 7  # entries of one write, which are there together or not at all


def value_of(key: str) -> dict[str, str]:
    return {"mnemonic": key * 40}


def round_of(number: int) -> list[Entry]:
    keys = [f"{number}:{part}" for part in range(FULL_ROUND)]
    return [Entry(key, value_of(key), attempts=number) for key in keys]


def write_rounds(path: str, first: int, pipe: int) -> None:
    """Write one round after the other for ever, and say of each when it is kept."""
    journal = SQLiteCheckpoint(path, version="1")
    journal.open("cards")
    for number in itertools.count(first):
        journal.write(round_of(number))
        os.write(pipe, b"%d\n" % number)


def rounds_there(journal: SQLiteCheckpoint, first: int, last: int) -> int:
    """The number of the first round that is not there; those before it are whole and right."""
    found = journal.find([entry.key for number in range(first, last + 1) for entry in round_of(number)])
    number = first
    while found:
        for entry in round_of(number):
            assert found.pop(entry.key, None) == entry, f"round {number} is there by halves"
        number += 1
    return number


def kill_writers(path: str, kills: int, seed: int) -> None:
    """Kill one process after the other amid its writes. What it was told to be kept is there afterwards."""
    chance, written = random.Random(seed), 0
    for _ in range(kills):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            write_rounds(path, written, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as said:
            lines = [said.readline()]  # it is at work
            select.select([], [], [], chance.random() * 0.01)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            lines += said.read().splitlines(keepends=True)
        acknowledged = 1 + max(int(line) for line in lines if line.endswith(b"\n"))
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            there = rounds_there(journal, written, acknowledged + 1)
        assert acknowledged <= there <= acknowledged + 1, (
            f"{acknowledged} were acknowledged, {there} are there"
        )
        written = there
    with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
        assert rounds_there(journal, 0, written) == written
    print(kills, written)


def hold(path: str, name: str) -> None:
    """Have a journal until killed."""
    journal = SQLiteCheckpoint(path, version="1")
    journal.open(name)
    journal.write([Entry("from", name)])
    print("held", flush=True)
    signal.pause()


def together(count: int, work: Callable[[int], None]) -> None:
    """Run it in several processes at once; all have to end well."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            work(number)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count


def make_together(path: str, times: int) -> None:
    """Several processes make the same new file, each for journals of its own, and open and close it."""
    for time in range(times):

        def work(number: int, file: str = f"{path}.{time}") -> None:
            for name in range(5):
                with SQLiteCheckpoint(file, version="1").opened(f"{number} {name}") as journal:
                    journal.write([Entry("from", number)])
                    assert journal.find(["from"])["from"].value == number

        together(4, work)
    print(times)


def contend(path: str, times: int) -> None:
    """Several processes want the same journal again and again; no two have it at once."""
    mark = f"{path}.mark"

    def work(number: int) -> None:
        had = 0
        while had < times:
            try:
                with SQLiteCheckpoint(path, version="1").opened("cards"):
                    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                    os.unlink(mark)
                    had += 1
            except CheckpointLocked:
                select.select([], [], [], 0.0005)

    together(3, work)
    print(times)


def fork_amid_writes(path: str, times: int) -> None:
    """Fork while threads open, write and read checkpoints: the child has no part in them, but its own."""
    stop = threading.Event()
    shared = SQLiteCheckpoint(f"{path}.written", version="1")

    def open_and_close() -> None:
        opened = SQLiteCheckpoint(f"{path}.opened", version="1")
        while not stop.is_set():
            with opened.opened("cards"):
                pass

    def write() -> None:
        while not stop.is_set():
            shared.write(round_of(1))

    def count() -> None:
        with SQLiteCheckpoint(f"{path}.counted", version="1").opened("cards") as counted:
            while not stop.is_set():
                counted.statistics()

    def work(number: int) -> None:
        signal.alarm(10)  # kills it if it hangs
        with pytest.raises(CheckpointError, match="not open in this process"):
            shared.write([Entry("from", number)])
        with SQLiteCheckpoint(f"{path}.own", version="1").opened("cards") as own:
            own.write([Entry("from", number)])
            assert own.find(["from"]) == {"from": Entry("from", number)}

    with shared.opened("cards"), ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(each) for each in (open_and_close, write, count)]
        try:
            for _ in range(times):
                together(1, work)
        finally:
            stop.set()
    for thread in threads:
        thread.result()
    print(times)


@contextlib.contextmanager
def little_room(limit: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill_file(path: str) -> None:
    """Write until a file may not grow, and go on when it may."""
    with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
        number = fill(journal, lambda: little_room(300_000))
        journal.write(round_of(number))
        assert rounds_there(journal, 0, number + 2) == number + 1
    with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
        assert rounds_there(journal, 0, number + 2) == number + 1
    print(number)


def fill_disk(path: str) -> None:
    """Write until the disk is full, and go on when something else is gone from it."""
    ballast = Path(path).with_name("ballast")
    ballast.write_bytes(b"x" * 200_000)
    with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
        number = fill(journal, contextlib.nullcontext)
        ballast.unlink()
        journal.write(round_of(number))
        assert rounds_there(journal, 0, number + 2) == number + 1
    print(number)


def fill(journal: SQLiteCheckpoint, room: Callable[[], contextlib.AbstractContextManager[None]]) -> int:
    """Write until it fails, say how, and return the number of the round that is not there."""
    number = 0
    with room(), contextlib.suppress(CheckpointError):
        while True:
            journal.write(round_of(number))
            number += 1
    try:
        with room():
            journal.write(round_of(number))
    except CheckpointError as error:
        print(error)
    else:
        raise AssertionError("it was written after all")
    return number


def without_right(path: str) -> None:
    """Open a journal where nothing may be made."""
    folder = Path(path).parent
    if os.geteuid() == 0:  # who may do anything
        os.chmod(folder, 0o755)
        os.setegid(65534)
        os.seteuid(65534)
    try:
        SQLiteCheckpoint(path, version="1").open("cards")
    except CheckpointError as error:
        print(error)


if __name__ == "__main__":
    WORKS: dict[str, Callable[..., None]] = {
        work.__name__: work
        for work in (
            kill_writers,
            hold,
            make_together,
            contend,
            fork_amid_writes,
            fill_file,
            fill_disk,
            without_right,
        )
    }
    name, path, *arguments = sys.argv[1:]
    WORKS[name](path, *(int(argument) if argument.isdigit() else argument for argument in arguments))

"""Runs that are killed amid their work, one after the other: `python killed.py folder kills seed`.

Each call writes a line to a log as it starts, and leaves a file that is named by its idempotency key in a
sink before it ends. After a random number of calls the process is killed. What the journal has then is looked
up by another reader, so that it is known exactly which items were in flight: started once, and not kept.
Those, and no others, may be called again. In the end it prints what came of it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from batchkit import BatchedExecutor, current_call
from batchkit.checkpoints import Entry, SQLiteCheckpoint

ITEMS = 1_000
AT_ONCE = 8


class Logged(SQLiteCheckpoint):
    """Writes a line for each item that is kept, as soon as it is."""

    log: int

    def write(self, entries: Sequence[Entry]) -> None:
        super().write(entries)
        for entry in entries:
            os.write(self.log, b"kept %s\n" % entry.key.encode())


def run(folder: Path, pipe: int) -> None:
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def work(item: int) -> int:
        os.write(log, b"started %d\n" % item)  # the call is made, and paid for
        os.write(pipe, b"x")
        await asyncio.sleep(0.001)
        (folder / "sink" / current_call().idempotency_key).touch()
        return item * 2

    async def read() -> None:
        async with executor.map(range(ITEMS)) as outcomes:
            async for outcome in outcomes:
                assert outcome.value == outcome.item * 2
                (folder / "delivered" / str(outcome.item)).touch()

    checkpoint = Logged(folder / "journal", version="1")
    checkpoint.log = log
    executor = BatchedExecutor(work, concurrency=AT_ONCE, checkpoint=checkpoint, name="killed")
    asyncio.run(read())


def run_and_kill(folder: Path, calls: int | None) -> int:
    """Let a process run until it has made so many calls; returns its exit status."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            run(folder, theirs)
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as told:
        made = 0
        while told.read(1):
            made += 1
            if made == calls:
                os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_journal(folder: Path) -> set[int]:
    """The items that the journal has."""
    journal = SQLiteCheckpoint(folder / "journal", version="1")
    journal.open("killed")
    try:
        return {int(key) for key in journal.find([str(item) for item in range(ITEMS)])}
    finally:
        journal.close()


def read_log(folder: Path, start: int) -> tuple[list[int], set[int], int]:
    """Items that were started, and those that were kept, since that byte of the log; and its size now."""
    lines = (folder / "log").read_bytes()[start:].decode().splitlines()
    words = [line.split() for line in lines]
    started = [int(item) for word, item in words if word == "started"]
    return started, {int(item) for word, item in words if word == "kept"}, (folder / "log").stat().st_size


def main(folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    (folder / "sink").mkdir()
    (folder / "delivered").mkdir()
    called: Counter[int] = Counter()
    in_flight: set[int] = set()
    position, status = 0, 0
    result = dict.fromkeys(["killed", "repeated", "not_in_flight", "twice", "lost", "most_in_flight"], 0)
    for number in range(kills + 1):
        status = run_and_kill(folder, chance.randrange(1, 30) if number < kills else None)
        started, kept, position = read_log(folder, position)
        again = [item for item in started if item in called]
        result["killed"] += status == -signal.SIGKILL
        result["repeated"] += len(again)
        result["not_in_flight"] += len(set(again) - in_flight)
        result["twice"] += len(started) - len(set(started))
        called.update(started)
        known = in_journal(folder)
        result["lost"] += len(kept - known)
        in_flight = (in_flight | set(started)) - known
        result["most_in_flight"] = max(result["most_in_flight"], len(in_flight))
    result |= {
        "status": status,
        "called": len(called),
        "delivered": len(list((folder / "delivered").iterdir())),
        "sink": len(list((folder / "sink").iterdir())),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

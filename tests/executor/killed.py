"""Runs that are killed amid their work, one after the other: `python killed.py folder kills seed`.

Each call writes its item to a pipe, and leaves a file that is named by its idempotency key in a sink. After
a random number of calls the process is killed. In the end it prints what came of it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from batchkit import BatchedExecutor, current_call
from batchkit.checkpoints import SQLiteCheckpoint

ITEMS = 1_000
AT_ONCE = 8
REACH = 10 * AT_ONCE  # items that an executor has under way at most


def run(folder: Path, pipe: int) -> None:
    async def work(item: int) -> int:
        os.write(pipe, b"%d\n" % item)  # the call is made, and paid for
        await asyncio.sleep(0.001)
        (folder / "sink" / current_call().idempotency_key).touch()
        return item * 2

    async def read() -> None:
        async with executor.map(range(ITEMS)) as outcomes:
            async for outcome in outcomes:
                assert outcome.value == outcome.item * 2
                (folder / "delivered" / str(outcome.item)).touch()

    checkpoint = SQLiteCheckpoint(folder / "journal", version="1")
    executor = BatchedExecutor(work, concurrency=AT_ONCE, checkpoint=checkpoint, name="killed")
    asyncio.run(read())


def run_and_kill(folder: Path, calls: int | None) -> tuple[list[int], int]:
    """Let a process run until it has made so many calls; returns the items called, and its exit status."""
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
    with os.fdopen(ours) as told:
        called: list[int] = []
        for line in told:
            called.append(int(line))
            if len(called) == calls:
                os.kill(child, signal.SIGKILL)  # what is still in the pipe is read as well
        return called, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    (folder / "sink").mkdir()
    (folder / "delivered").mkdir()
    called: Counter[int] = Counter()
    most_repeated, again_after_delivery, killed, status = 0, 0, 0, None
    for number in range(kills + 1):
        delivered = {int(path.name) for path in (folder / "delivered").iterdir()}
        items, status = run_and_kill(folder, chance.randrange(1, 30) if number < kills else None)
        killed += status == -signal.SIGKILL
        most_repeated = max(most_repeated, sum(item in called for item in items))
        again_after_delivery += len(delivered.intersection(items))
        called.update(items)
    result = {
        "status": status,
        "killed": killed,
        "called": len(called),
        "delivered": len(list((folder / "delivered").iterdir())),
        "sink": len(list((folder / "sink").iterdir())),
        "most_repeated": most_repeated,
        "again_after_delivery": again_after_delivery,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

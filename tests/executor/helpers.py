"""What the tests of the executor share."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from batchkit import RunReport
from batchkit.checkpoints import Entry
from batchkit.testing import ManualClock


class Work:
    """An item takes its own number of seconds; item 13 fails."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.starts: list[tuple[float, int]] = []
        self.now_running = 0
        self.most_running = 0

    async def one(self, item: int) -> int:
        self.starts.append((self.clock.now(), item))
        self.now_running += 1
        self.most_running = max(self.most_running, self.now_running)
        try:
            await self.clock.sleep(item)
        finally:
            self.now_running -= 1
        if item == 13:
            raise ValueError("thirteen")
        return item * 2

    async def many(self, items: list[int]) -> list[int]:
        self.starts.append((self.clock.now(), len(items)))
        await self.clock.sleep(1)
        if 13 in items:
            raise ValueError("thirteen")
        return [item * 2 for item in items]


async def trickle(clock: ManualClock, items: Iterable[int], every: float) -> AsyncIterator[int]:
    for item in items:
        await clock.sleep(every)
        yield item


def indexes(report: RunReport[Any, Any]) -> list[int]:
    return [outcome.index for outcome in report.outcomes]


class TooFast(Exception):
    """What a client raises for a 429."""

    status_code = 429


class Down(Exception):
    """What a client raises for a 503."""

    status_code = 503


class Calls:
    """A batch function that remembers its calls, each of which takes a second; the items in `bad` fail it."""

    def __init__(self, clock: ManualClock, bad: Iterable[Any] = ()) -> None:
        self.clock = clock
        self.bad = set(bad)
        self.made: list[list[Any]] = []
        self.times: list[float] = []

    async def __call__(self, items: list[Any]) -> list[Any]:
        self.made.append([*items])
        self.times.append(self.clock.now())
        await self.clock.sleep(1)
        if self.bad.intersection(items):
            raise ValueError("bad")
        return items

    @property
    def sizes(self) -> list[int]:
        return [len(items) for items in self.made]


class Memory:
    """A checkpoint in memory, which says what was asked of it, and by whom."""

    version = "1"

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = {entry.key: entry for entry in entries}
        self.commits: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.is_open = False
        self.in_use = threading.Lock()

    def open(self, name: str) -> None:
        self.is_open = True

    def find(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        with self.alone():
            return {key: self.entries[key] for key in keys if key in self.entries}

    def write(self, entries: Sequence[Entry]) -> None:
        with self.alone():
            self.commits.append(len(entries))
            self.entries.update((entry.key, entry) for entry in entries)

    def close(self) -> None:
        self.is_open = False

    def alone(self) -> threading.Lock:
        assert self.is_open
        assert not self.in_use.locked(), "two threads at once"
        self.threads.add(threading.current_thread())
        return self.in_use

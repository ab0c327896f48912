"""Sequences of keys that caches are asked for, of the kinds that the literature tries policies with; and what
a policy makes of them. The same numbers make the same trace.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, count, islice

REQUESTS = 200_000


@dataclass(frozen=True)
class Trace:
    """A kind of trace.

    Attributes:
        name: what it is called.
        about: what it is, in a few words, with its parameters.
        capacity: entries that a cache may keep.
        keys: makes the keys, without end, by chance.
    """

    name: str
    about: str
    capacity: int
    keys: Callable[[random.Random], Iterator[int]]

    def requests(self, number: int = REQUESTS, seed: int = 1) -> list[int]:
        """The first keys of the trace."""
        return list(islice(self.keys(random.Random(seed)), number))


def zipf(chance: random.Random, keys: int, exponent: float) -> Iterator[int]:
    """Keys 0, 1, ... of which the k-th is asked for in proportion to `k ** -exponent`."""
    shares = list(accumulate(rank**-exponent for rank in range(1, keys + 1)))
    total = shares[-1]
    while True:
        yield bisect(shares, chance.random() * total)


def plain(chance: random.Random) -> Iterator[int]:
    """A popularity that never changes."""
    yield from zipf(chance, keys=100_000, exponent=0.9)


def drift(chance: random.Random) -> Iterator[int]:
    """What is popular moves on: with each 100 requests the ranks move to the next key."""
    for number, rank in enumerate(zipf(chance, keys=20_000, exponent=1.0)):
        yield rank + number // 100


def scans(chance: random.Random) -> Iterator[int]:
    """A popular set of 5,000 keys, and after each 10,000 requests a scan over 5,000 keys that are new."""
    popular = zipf(chance, keys=5_000, exponent=0.9)
    new = count(1_000_000)
    while True:
        yield from islice(popular, 10_000)
        yield from islice(new, 5_000)


def loop(chance: random.Random) -> Iterator[int]:
    """Round and round over 1.5 times what the cache holds, with one request in ten for anything of it."""
    while True:
        for key in range(1_500):
            yield key
            if chance.random() < 0.1:
                yield chance.randrange(1_500)


def database(chance: random.Random) -> Iterator[int]:
    """Two workloads that share a cache: transactions, which read popular rows and, for a while, those that
    were written lately; and reports, which read ranges of an older table in order.
    """
    popular = zipf(chance, keys=50_000, exponent=0.8)
    reports = zipf(chance, keys=100, exponent=0.8)
    written = 0
    while True:
        for _ in range(600):
            yield next(popular)
            if chance.random() < 0.4:
                written += 1
                yield 1_000_000 + written
            if chance.random() < 0.6:
                yield 1_000_000 + max(0, written - int(chance.expovariate(1 / 50)))
        start = 2_000_000 + 300 * next(reports)
        yield from range(start, start + 300)


def one_hit_wonders(chance: random.Random) -> Iterator[int]:
    """Half of the requests are for keys that are never asked for again, as at the edge of a network."""
    popular = zipf(chance, keys=50_000, exponent=0.9)
    once = count(1_000_000)
    while True:
        yield next(popular) if chance.random() < 0.5 else next(once)


TRACES: Sequence[Trace] = [
    Trace("zipf", "Zipf 0.9 over 100,000 keys", 1_000, plain),
    Trace("drift", "Zipf 1.0 over 20,000 keys, which move on by one with each 100 requests", 1_000, drift),
    Trace(
        "scans", "Zipf 0.9 over 5,000 keys; a scan of 5,000 new ones after each 10,000 requests", 1_000, scans
    ),
    Trace("loop", "round and round over 1,500 keys, one request in ten for any of them", 1_000, loop),
    Trace(
        "database",
        "Zipf 0.8 over 50,000 rows and rows written lately, mixed with reports over ranges of 300 rows",
        2_000,
        database,
    ),
    Trace(
        "one-hit wonders",
        "Zipf 0.9 over 50,000 keys for half of the requests; the others are new",
        1_000,
        one_hit_wonders,
    ),
]


def hits_of_fifo(requests: Sequence[int], capacity: int) -> int:
    """Hits of a cache from which leaves what came first."""
    kept: set[int] = set()
    order: deque[int] = deque()
    hits = 0
    for key in requests:
        if key in kept:
            hits += 1
            continue
        if len(kept) == capacity:
            kept.discard(order.popleft())
        kept.add(key)
        order.append(key)
    return hits


def hits_of_lru(requests: Sequence[int], capacity: int) -> int:
    """Hits of a cache from which leaves what was not asked for for longest."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in requests:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
            continue
        if len(kept) == capacity:
            kept.popitem(last=False)
        kept[key] = None
    return hits


def hits_of_the_best(requests: Sequence[int], capacity: int) -> int:
    """Hits of a cache that knows the future (Belady): whatever is asked for last of all leaves, which may be
    the new one.
    """
    never = len(requests)
    following = [never] * never
    seen: dict[int, int] = {}
    for number in range(never - 1, -1, -1):
        following[number] = seen.get(requests[number], never)
        seen[requests[number]] = number
    kept: dict[int, int] = {}  # with when they are asked for next
    latest: list[tuple[int, int]] = []  # the same, the latest first; some are outdated
    hits = 0
    for number, key in enumerate(requests):
        hits += key in kept
        kept[key] = following[number]
        heappush(latest, (-following[number], key))
        while len(kept) > capacity:
            moment, candidate = heappop(latest)
            if kept.get(candidate) == -moment:
                del kept[candidate]
    return hits

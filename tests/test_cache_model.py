"""A cache beside a dict without bound: whatever is done, what it gives is right."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from batchkit import TTLCache
from batchkit.testing import ManualClock
from tests.helpers import eventually

TTL, STALE, AHEAD, NEGATIVE_TTL = 10.0, 4.0, 2.0, 3.0
KEYS = [f"{group}:{number}" for group in "abc" for number in range(5)]
TAGS = ["x", "y"]

keys = st.sampled_from(KEYS)
many_keys = st.lists(keys, max_size=6)
tags = st.lists(st.sampled_from(TAGS), unique=True)
ttls = st.none() | st.sampled_from([1.0, 5.0, 20.0])


@define
class Row:
    """What was last said about a key."""

    value: int | None  # None: it has none
    expires: float
    gone: float
    weight: int = 1
    tags: tuple[str, ...] = ()


class CacheModel(RuleBasedStateMachine):
    """The world is a counter for each key; a loader reads it, and a cache may be as old as its terms say."""

    maxsize = 10**6

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.cache = self.made()
        self.rows: dict[str, Row] = {}
        self.world = dict.fromkeys(KEYS, 0)
        self.calls: list[list[str]] = []

    def made(self) -> TTLCache[str, int]:
        return TTLCache(
            self.maxsize,
            TTL,
            stale=STALE,
            refresh_ahead=AHEAD,
            negative_ttl=NEGATIVE_TTL,
            separator=":",
            weigh=self.weigh,
            clock=self.clock,
        )

    def weigh(self, key: str, value: int) -> int:
        return 1 + value % 3

    def note(self, key: str, value: int, ttl: float | None, its_tags: Iterable[str]) -> None:
        expires = self.clock.now() + (TTL if ttl is None else ttl)
        self.rows[key] = Row(value, expires, expires + STALE, self.weigh(key, value), tuple(its_tags))

    def load_many(self, ttl: float | None, its_tags: list[str], asked: list[str]) -> dict[str, int]:
        """Reads the world, in which every fifth value is missing, and notes what a cache has to know then."""
        self.calls.append(asked)
        for key in asked:
            if self.world[key] % 5 == 4:
                moment = self.clock.now() + NEGATIVE_TTL
                self.rows[key] = Row(None, moment, moment)
            else:
                self.note(key, self.world[key], ttl, its_tags)
        return {key: self.world[key] for key in asked if self.world[key] % 5 != 4}

    def holding(self, key: str) -> Row | None:
        row = self.rows.get(key)
        return row if row is not None and row.expires > self.clock.now() else None

    def usable(self, key: str) -> Row | None:
        row = self.rows.get(key)
        return row if row is not None and row.gone > self.clock.now() else None

    @rule(key=keys)
    def change_the_world(self, key: str) -> None:
        self.world[key] += 1

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 7.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(key=keys, value=st.integers(0, 100), ttl=ttls, its_tags=tags)
    def set(self, key: str, value: int, ttl: float | None, its_tags: list[str]) -> None:
        self.cache.set(key, value, ttl, tags=its_tags)
        self.note(key, value, ttl, its_tags)

    @rule(key=keys)
    def get(self, key: str) -> None:
        row = self.holding(key)
        found = self.cache.get(key, "nothing")
        assert found == ("nothing" if row is None or row.value is None else row.value) or self.lost(found)
        assert (key in self.cache) == (found != "nothing")

    @rule(asked=many_keys)
    def get_present(self, asked: list[str]) -> None:
        for key, value in self.cache.get_present(asked).items():
            row = self.holding(key)
            assert row is not None
            assert row.value == value

    @rule(asked=many_keys, ttl=ttls, its_tags=tags)
    def get_many(self, asked: list[str], ttl: float | None, its_tags: list[str]) -> None:
        before = {key: self.usable(key) for key in asked}
        count = len(self.calls)
        found = self.cache.get_many_sync(asked, partial(self.load_many, ttl, its_tags), ttl, tags=its_tags)
        eventually(lambda: not self.cache._shelf.loads.by_key)  # behind the answer, too
        loaded = {key for call in self.calls[count:] for key in call}
        assert len(self.calls) - count <= 1
        for key, row in before.items():
            if row is None:
                assert key in loaded
            self.check(key, found.get(key), row, loaded)

    def check(self, key: str, value: int | None, before: Row | None, loaded: Any) -> None:
        """What was usable is given, or else what is loaded; nothing is loaded that holds for long."""
        if before is None:
            assert value == self.rows[key].value
            return
        if key not in loaded:
            assert value == before.value
            assert before.expires > self.clock.now() or before.value is None
        else:
            assert value in (before.value, self.rows[key].value)
            assert before.expires <= self.clock.now() + AHEAD or self.bounded

    bounded = False

    def lost(self, found: object) -> bool:
        """Whether it may be missing, since the cache has a bound."""
        return self.bounded and found == "nothing"

    @rule(key=keys)
    def delete(self, key: str) -> None:
        row = self.usable(key)
        deleted = self.cache.delete(key)
        assert deleted == (row is not None) or (self.bounded and not deleted)
        self.rows.pop(key, None)

    @rule(tag=st.sampled_from(TAGS))
    def delete_tag(self, tag: str) -> None:
        self.drop([key for key, row in self.rows.items() if tag in row.tags], self.cache.delete_tag(tag))

    @rule(prefix=st.sampled_from(["a:", "b:", "c:1", "a", ""]))
    def delete_prefix(self, prefix: str) -> None:
        keys = [key for key in self.rows if key.startswith(prefix)]
        self.drop(keys, self.cache.delete_prefix(prefix))

    def drop(self, keys: list[str], dropped: int) -> None:
        usable = sum(self.usable(key) is not None for key in keys)
        assert dropped == usable or (self.bounded and dropped <= usable)
        for key in keys:
            del self.rows[key]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.rows.clear()

    @rule()
    def sweep(self) -> None:
        self.cache.sweep()
        assert all(self.usable(key) is not None for key in self.cache)

    @rule()
    def come_back(self) -> None:
        """A snapshot in a new cache: what holds is there."""
        cache = self.made()
        cache.restore(self.cache.snapshot())
        present = self.cache.get_present(KEYS)
        assert cache.get_present(KEYS) == present
        self.cache = cache
        self.rows = {key: row for key, row in self.rows.items() if key in present}

    @invariant()
    def the_books_are_right(self) -> None:
        statistics = self.cache.statistics()
        kept = list(self.cache)
        assert statistics.size == len(kept) == len(self.cache)
        assert statistics.weight == sum(self.rows[key].weight for key in kept) <= self.maxsize
        assert statistics.stale_hits + statistics.negative_hits <= statistics.hits
        assert statistics.refused == 0


class BoundedCacheModel(CacheModel):
    """The same with less room than there are keys."""

    maxsize = 8
    bounded = True


TestCacheModel = CacheModel.TestCase
TestCacheModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestBoundedCacheModel = BoundedCacheModel.TestCase
TestBoundedCacheModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)

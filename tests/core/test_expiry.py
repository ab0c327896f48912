from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections import OrderedDict
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.entries import FullEntry
from batchkit._core.eviction import Queue
from batchkit._core.expiry import Store
from batchkit._core.tags import prefixes


def value(store: Store, key: object, now: float = 0.0) -> object:
    entry = store.find(key, now)
    return None if entry is None else entry.value


def put(store: Store, key: object, held: object = None, expires: float = inf, now: float = 0.0) -> None:
    store.set(key, held, expires, now)


def queues(store: Store) -> list[Queue]:
    return [store._eviction.small, store._eviction.main]


def shells(store: Store) -> int:
    """Entries in the queues, those that ended included."""
    return sum(map(len, queues(store)))


def test_an_entry_holds_until_its_moment() -> None:
    store = Store(10)
    put(store, "a", 1, expires=5.0)
    assert value(store, "a", 4.999) == 1
    assert value(store, "a", 5.0) is None
    assert len(store) == 0
    assert store.expired == 1


def test_an_entry_put_again_has_the_new_value_and_moment() -> None:
    store = Store(10)
    put(store, "a", 1, expires=5.0)
    put(store, "a", 2, expires=9.0, now=1.0)
    assert value(store, "a", 8.0) == 2
    assert len(store) == 1


def test_what_is_asked_for_again_outlives_what_is_seen_once() -> None:
    store = Store(10)
    put(store, "hot", 1)
    store.find("hot", 0.0)
    for key in range(100):
        put(store, key, key)
    assert value(store, "hot") == 1
    assert len(store) == 10
    assert store.evicted == 91


def test_to_look_is_not_to_ask_for_it() -> None:
    store = Store(10)
    put(store, "looked at", 1)
    store.look("looked at", 0.0)
    for key in range(10):
        put(store, key, key)
    assert value(store, "looked at") is None


def test_what_was_asked_for_very_often_leaves_too_once_nobody_asks_any_more() -> None:
    store = Store(10)
    put(store, "once hot", 1)
    store.find("once hot", 0.0)
    for key in range(10):  # so that it moves to the main queue
        put(store, key, key)
    for _ in range(1000):
        assert store.find("once hot", 0.0) is not None
    for key in range(100, 200):  # each is asked for again, so that the main queue has to make room
        put(store, key, key)
        store.find(key, 0.0)
    assert value(store, "once hot") is None


def test_what_comes_back_soon_after_it_left_is_kept_longer() -> None:
    store = Store(10)
    for key in range(11):
        put(store, key, key)
    assert value(store, 0) is None  # it left, and is remembered
    put(store, 0, 0)
    for key in range(100, 109):
        put(store, key, key)
    assert value(store, 0) == 0


def test_removed_entries_leave_no_trace_behind() -> None:
    store = Store(10)
    for turn in range(10_000):
        put(store, "a", turn)
        assert store.remove("a", 0.0)
    assert not store.remove("a", 0.0)
    assert store.removed == 10_000
    assert shells(store) <= 16


def test_removed_entries_behind_one_that_stays_leave_no_trace() -> None:
    store = Store(10)
    put(store, "stays", 1)
    for turn in range(10_000):
        put(store, "a", turn)
        assert store.remove("a", 0.0)
    assert value(store, "stays") == 1
    assert shells(store) <= 17


def test_when_all_are_removed_hardly_a_trace_is_left() -> None:
    store = Store(10_000)
    for key in range(10_000):
        put(store, key)
    for key in range(10_000):
        store.remove(key, 0.0)
    assert shells(store) < 6_000


class Value:
    """Something that can be seen to go."""


@pytest.mark.parametrize("way", ["remove", "expire", "evict", "replace", "clear"])
def test_the_value_of_an_entry_that_left_is_let_go_at_once(way: str) -> None:
    store = Store(1)
    held = Value()
    gone = weakref.ref(held)
    put(store, "a", held, expires=5.0)
    del held
    match way:
        case "remove":
            store.remove("a", 0.0)
        case "expire":
            store.find("a", 5.0)
        case "evict":
            put(store, "b")
        case "replace":
            store.put(FullEntry("a", 1, 9.0, tags=("t",)), 0.0)
        case _:
            store.clear()
    gc.collect()
    assert gone() is None


def test_room_is_made_past_removed_entries() -> None:
    store = Store(3)
    for key in "abc":
        put(store, key, key)
    store.find("a", 0.0)
    store.remove("b", 0.0)
    put(store, "d", "d")
    put(store, "e", "e")
    assert sorted(str(key) for key in store) == ["a", "d", "e"]


def test_clear() -> None:
    store = Store(10)
    put(store, "a", 1)
    store.clear()
    assert value(store, "a") is None
    assert list(store) == []
    assert (len(store), store.weight, shells(store), store.removed) == (0, 0, 0, 1)


def test_each_put_drops_a_few_expired_entries() -> None:
    store = Store(1000)
    for key in range(500):
        put(store, key, key, expires=1.0)
    for key in range(1000, 1250):
        put(store, key, key, expires=9.0, now=2.0)
        assert len(store) <= 508
    assert store.expired >= 240  # as many as came


def test_expired_entries_behind_others_are_dropped_too() -> None:
    store = Store(1000)
    put(store, "stays", 1)
    for key in range(100):
        put(store, key, key, expires=1.0)
    for key in range(1000, 1100):
        put(store, key, key, now=2.0)
    assert store.expired == 100
    assert value(store, "stays", 2.0) == 1


def test_the_order_stays_when_entries_are_looked_at() -> None:
    store = Store(100)
    for key in range(100):
        put(store, key, key)
    for looks in range(1, 60):
        store.tidy(0.0, looks)
        assert [entry.key for entry, _ in store.in_order()] == list(range(100))
    for key in range(100, 110):
        put(store, key, key)
    assert sorted(key for key in store if isinstance(key, int)) == list(range(10, 110))


def test_a_look_at_all_drops_all_expired_entries() -> None:
    store = Store(1000)
    for key in range(500):
        put(store, key, key, expires=1.0 if key % 2 else 9.0)
    store.tidy(2.0, store.longest_queue)
    assert sorted(store, key=str) == sorted(range(0, 500, 2), key=str)


def test_expired_entries_leave_the_main_queue_too() -> None:
    store = Store(20)
    for key in range(20):
        put(store, key, key, expires=5.0)
        store.find(key, 0.0)
    for key in range(100, 110):
        put(store, key, key, expires=5.0)  # moves those asked for again into the main queue
    for key in range(200, 240):
        put(store, key, key, expires=20.0, now=10.0)
    assert all(value(store, key, 10.0) is None for key in range(20))


def test_the_bound_by_weight() -> None:
    store = Store(10, weighted=True)
    for key in range(5):
        store.put(FullEntry(key, key, inf, weight=3), 0.0)
        assert store.weight <= 10
    assert len(store) == 3
    store.put(FullEntry("all", 1, inf, weight=10), 0.0)
    assert list(store) == ["all"]
    store.put(FullEntry("too much", 1, inf, weight=11), 0.0)
    assert list(store) == ["all"]
    assert store.refused == 1
    store.put(FullEntry("all", 1, inf, weight=11), 0.0)  # the old value is not true any more
    assert (list(store), store.weight, store.refused) == ([], 0, 2)


def test_a_value_that_asks_as_it_leaves_for_the_key_that_takes_its_room_misses() -> None:
    store = Store(2, weighted=True)
    found: list[object] = []

    class Nosy:
        def __del__(self) -> None:
            found.append(store.look("a", 0.0))

    store.put(FullEntry("a", "old", inf), 0.0)
    store.put(FullEntry("b", Nosy(), inf), 0.0)
    store.put(FullEntry("a", "new", inf, weight=2), 0.0)
    assert found == [None]
    assert (value(store, "a"), list(store), store.expired) == ("new", ["a"], 0)


def test_what_comes_back_soon_after_it_left_is_kept_longer_by_weight_too() -> None:
    store = Store(1000, weighted=True)

    def keep(key: object) -> None:
        store.put(FullEntry(key, key, inf, weight=10), 0.0)

    for key in range(100):
        keep(key)
        store.find(key, 0.0)
    left = -5  # the place of a string's ghost differs from run to run, and others may take it
    keep(left)
    for key in range(100, 110):
        keep(key)
    assert value(store, left) is None
    keep(left)
    for key in range(200, 400):
        keep(key)
    assert value(store, left) == left


def test_a_weight_that_changes() -> None:
    store = Store(10, weighted=True)
    for key, weight in [("a", 2), ("b", 2), ("a", 8), ("a", 1), ("b", 9)]:
        store.put(FullEntry(key, weight, inf, weight=weight), 0.0)
    assert sorted(str(key) for key in store) == ["a", "b"]
    assert store.weight == 10


def test_stale_entries_can_be_used_until_they_are_gone() -> None:
    store = Store(10)
    store.put(FullEntry("a", 1, 5.0, due=5.0, gone=8.0), 0.0)
    entry = store.find("a", 7.9)
    assert entry is not None
    assert entry.stale(7.9)
    assert entry.wants_reload(7.9)
    store.postpone("a", 7.0, 1.0)
    assert not entry.wants_reload(7.9)
    assert store.find("a", 8.0) is None


def test_what_is_hot_is_loaded_again_ahead_of_its_end() -> None:
    store = Store(10)
    store.put(FullEntry("a", 1, 10.0, due=8.0), 0.0)
    entry = store.find("a", 8.0)
    assert entry is not None
    assert not entry.stale(8.0)
    assert not entry.wants_reload(8.0)  # it was asked for once
    store.find("a", 8.0)
    assert entry.wants_reload(8.0)
    assert not entry.wants_reload(7.9)


def test_tags_name_the_entries_that_are_there() -> None:
    store = Store(2)
    store.put(FullEntry("a", 1, 5.0, tags=("x", "y")), 0.0)
    store.put(FullEntry("b", 1, inf, tags=("x",)), 0.0)
    assert sorted(map(str, store.tagged("x"))) == ["a", "b"]
    store.put(FullEntry("b", 1, inf, tags=("z",)), 0.0)
    assert store.tagged("x") == ["a"]
    assert store.find("a", 6.0) is None
    assert store.tagged("x") == store.tagged("y") == []
    store.set("b", 1, inf, 0.0)
    assert store.tagged("z") == []
    assert store._tags._keys == {}


def test_the_beginnings_of_a_key() -> None:
    assert list(prefixes("a:b:c", ":")) == ["a:", "a:b:"]
    assert list(prefixes("::a", "::")) == ["::"]
    assert list(prefixes("abc", ":")) == list(prefixes(7, ":")) == []


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "put tagged", "find", "remove", "tidy", "wait", "remove tagged"]),
        st.integers(0, 15),
        st.floats(0.1, 20),
        st.integers(1, 9),
    ),
    max_size=200,
)


@given(maxsize=st.integers(1, 12), operations=operations)
def test_never_a_wrong_value_never_too_much(
    maxsize: int, operations: list[tuple[str, int, float, int]]
) -> None:
    """Against a dict without bound: what is there is right and still holds, and the books are right."""
    store = Store(maxsize)
    model: OrderedDict[int, tuple[float, float, int, int | None]] = OrderedDict()
    now = 0.0
    for operation, key, seconds, weight in operations:
        match operation:
            case "put":
                put(store, key, seconds, now + seconds, now)
                model[key] = (seconds, now + seconds, 1, None)
                assert value(store, key, now) == seconds
            case "put tagged":
                tag = key % 3
                store.put(FullEntry(key, seconds, now + seconds, weight=weight, tags=(tag,)), now)
                model[key] = (seconds, now + seconds, weight, tag)
                assert value(store, key, now) == (seconds if weight <= maxsize else None)
            case "find":
                found = value(store, key, now)
                kept, until, _, _ = model.get(key, (None, -inf, 0, None))
                assert found is None or (found == kept and until > now)
            case "remove":
                store.remove(key, now)
                model.pop(key, None)
                assert value(store, key, now) is None
            case "remove tagged":
                for each in store.tagged(key % 3):
                    store.remove(each, now)
                assert store.tagged(key % 3) == []
                for each in [each for each, row in model.items() if row[3] == key % 3]:
                    del model[each]
            case "tidy":
                store.tidy(now, store.longest_queue)
                assert all(model[each][1] > now for each in store if isinstance(each, int))
            case _:
                now += seconds
        kept_keys = [each for each in store if isinstance(each, int)]
        assert store.weight == sum(model[each][2] for each in kept_keys) <= maxsize
        assert len(store) == len(kept_keys)
        assert {each for tag in range(3) for each in store.tagged(tag)} == {
            each for each in kept_keys if model[each][3] is not None
        }
        assert shells(store) <= 2 * maxsize + 16
        for queue in queues(store):
            assert queue.weight == sum(entry.weight for entry in queue)
            assert all(store._due <= queue.due <= entry.gone for entry in queue if entry.gone > -inf)
        assert store._ended == sum(entry.gone == -inf for queue in queues(store) for entry in queue)


MILLION = """
from batchkit._core.expiry import Store

SIZE = 1_000_000
store = Store(SIZE)
for key in range(SIZE):
    store.set(key, None, 1.0, 0.0)
assert len(store) == store.weight == SIZE
before = SIZE
for key in range(SIZE, SIZE + 50_000):
    store.set(key, None, 9.0, 2.0)
    assert before - 64 <= store.weight <= before + 1
    before = store.weight
assert store.expired >= 50_000
assert store.evicted == 0
assert max(map(len, store._parts)) < 10_000
assert len(store.front) < 20_000
"""


def test_when_a_million_entries_expire_together_each_put_drops_a_few() -> None:
    """In a process of its own, since what measures coverage would make it take a minute."""
    subprocess.run([sys.executable, "-c", MILLION], check=True)


def test_one_leaves_in_time_though_all_were_asked_for_again_and_again() -> None:
    size = 2_000
    store = Store(size)
    for key in range(size):
        put(store, key)
    for _ in range(3):
        for key in range(size):
            store.find(key, 0.0)
    moved = len(store._eviction.main)
    put(store, "new")
    assert size - 10 < len(store) <= size
    assert len(store._eviction.main) - moved <= 100


def test_no_dict_of_many_keys_is_rehashed_at_once() -> None:
    store = Store(1_000_000)
    for key in range(20_000):
        put(store, f"key {key}")
    assert max(map(len, store._parts)) < 200

from __future__ import annotations

from collections import OrderedDict
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from batchkit._core.expiry import Store


def value(store: Store, key: object, now: float = 0.0) -> object:
    entry = store.find(key, now)
    return None if entry is None else entry.value


def test_an_entry_holds_until_its_moment() -> None:
    store = Store(10)
    store.put("a", 1, expires=5.0, now=0.0)
    assert value(store, "a", 4.999) == 1
    assert value(store, "a", 5.0) is None
    assert len(store) == 0
    assert store.expired == 1


def test_an_entry_put_again_has_the_new_value_and_moment() -> None:
    store = Store(10)
    store.put("a", 1, expires=5.0, now=0.0)
    store.put("a", 2, expires=9.0, now=1.0)
    assert value(store, "a", 8.0) == 2
    assert len(store) == 1


def test_what_is_asked_for_again_outlives_what_is_seen_once() -> None:
    store = Store(10)
    store.put("hot", 1, inf, 0.0)
    store.find("hot", 0.0)
    for key in range(100):
        store.put(key, key, inf, 0.0)
    assert value(store, "hot") == 1
    assert len(store) == 10
    assert store.evicted == 91


def test_what_was_asked_for_very_often_leaves_too_once_nobody_asks_any_more() -> None:
    store = Store(10)
    store.put("once hot", 1, inf, 0.0)
    store.find("once hot", 0.0)
    for key in range(10):  # so that it moves to the main queue
        store.put(key, key, inf, 0.0)
    for _ in range(1000):
        assert store.find("once hot", 0.0) is not None
    for key in range(100, 200):  # each is asked for again, so that the main queue has to make room
        store.put(key, key, inf, 0.0)
        store.find(key, 0.0)
    assert value(store, "once hot") is None


def test_what_comes_back_soon_after_it_left_is_kept_longer() -> None:
    store = Store(10)
    for key in range(11):
        store.put(key, key, inf, 0.0)
    assert value(store, 0) is None  # it left, and is remembered
    store.put(0, 0, inf, 0.0)
    for key in range(100, 109):
        store.put(key, key, inf, 0.0)
    assert value(store, 0) == 0


def test_removed_entries_leave_no_trace_behind() -> None:
    store = Store(10)
    for turn in range(10_000):
        store.put("a", turn, inf, 0.0)
        assert store.remove("a")
    assert not store.remove("a")
    assert len(store._small) + len(store._main) <= 20


def test_no_more_keys_are_remembered_than_kept() -> None:
    store = Store(3)
    for key in range(100):
        store.put(key, key, inf, 0.0)
    assert len(store._ghosts) == 3


def test_room_is_made_past_removed_entries() -> None:
    store = Store(3)
    for key in "abc":
        store.put(key, key, inf, 0.0)
    store.find("a", 0.0)
    store.remove("b")
    store.put("d", "d", inf, 0.0)
    store.put("e", "e", inf, 0.0)
    assert sorted(str(key) for key in store) == ["a", "d", "e"]


def test_removed_entries_behind_one_that_stays_leave_no_trace() -> None:
    store = Store(10)
    store.put("stays", 1, inf, 0.0)
    for turn in range(10_000):
        store.put("a", turn, inf, 0.0)
        assert store.remove("a")
    assert value(store, "stays") == 1
    assert len(store._small) + len(store._main) <= 20


def test_clear() -> None:
    store = Store(10)
    store.put("a", 1, inf, 0.0)
    store.clear()
    assert value(store, "a") is None
    assert list(store) == []


def test_each_put_drops_a_few_expired_entries() -> None:
    store = Store(1000)
    for key in range(500):
        store.put(key, key, expires=1.0, now=0.0)
    for key in range(1000, 1250):
        store.put(key, key, expires=9.0, now=2.0)
        assert len(store) <= 500
    assert len(store) == 250
    assert store.expired == 500


def test_a_sweep_drops_all_expired_entries() -> None:
    store = Store(1000)
    for key in range(500):
        store.put(key, key, expires=1.0 if key % 2 else 9.0, now=0.0)
    assert store.sweep(2.0) == 250
    assert len(store) == 250
    assert sorted(store, key=str) == sorted(range(0, 500, 2), key=str)


def test_expired_entries_leave_the_main_queue_too() -> None:
    store = Store(20)
    for key in range(20):
        store.put(key, key, expires=5.0, now=0.0)
        store.find(key, 0.0)
    for key in range(100, 110):
        store.put(key, key, expires=5.0, now=0.0)  # moves those asked for again into the main queue
    for key in range(200, 240):
        store.put(key, key, expires=20.0, now=10.0)
    assert all(value(store, key, 10.0) is None for key in range(20))


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "find", "remove", "sweep", "wait"]),
        st.integers(0, 15),
        st.floats(0.1, 20),
    ),
    max_size=200,
)


@given(maxsize=st.integers(1, 8), operations=operations)
def test_never_a_wrong_value_never_too_many(maxsize: int, operations: list[tuple[str, int, float]]) -> None:
    """Against a dict without bound: what is there is right and still holds."""
    store = Store(maxsize)
    model: OrderedDict[int, tuple[float, float]] = OrderedDict()
    now = 0.0
    for operation, key, seconds in operations:
        match operation:
            case "put":
                store.put(key, seconds, now + seconds, now)
                model[key] = (seconds, now + seconds)
                assert value(store, key, now) == seconds
            case "find":
                found = value(store, key, now)
                kept, until = model.get(key, (None, -inf))
                assert found is None or (found == kept and until > now)
            case "remove":
                store.remove(key)
                model.pop(key, None)
                assert value(store, key, now) is None
            case "sweep":
                store.sweep(now)
                assert all(model[key][1] > now for key in store if isinstance(key, int))
            case _:
                now += seconds
        assert len(store) <= maxsize
        assert len(store._small) + len(store._main) <= 2 * maxsize + 17
        assert len(store._ghosts) <= maxsize

from __future__ import annotations

import sys

from batchkit._core.ghosts import Ghosts
from batchkit._core.index import KEYS_A_DICT, Index


def test_a_key_is_recalled_once() -> None:
    ghosts = Ghosts(100)
    ghosts.add("a")
    assert ghosts.recall("a")
    assert not ghosts.recall("a")
    assert not ghosts.recall("b")


def test_about_so_many_keys_are_remembered() -> None:
    ghosts = Ghosts(10_000)
    for key in range(100_000, 110_000):
        ghosts.add(f"key {key}")
    remembered = sum(ghosts.recall(f"key {key}") for key in range(100_000, 110_000))
    assert 5_500 < remembered < 7_000  # 1 - 1/e of them, since places are met by chance


def test_it_takes_eight_bytes_a_key_and_nothing_before_they_come() -> None:
    ghosts = Ghosts(1_000_000)
    assert not ghosts._chunks
    for key in range(0, 1_000_000, 1000):
        ghosts.add(key)
    assert sum(map(sys.getsizeof, ghosts._chunks.values())) < 8.2 * 1_000_000


def test_the_size_may_be_beyond_all_bounds() -> None:
    ghosts = Ghosts(10**18)
    ghosts.add("a")
    assert ghosts.recall("a")


def test_an_index_of_any_size_is_a_dict() -> None:
    for size in (1, 100, KEYS_A_DICT * 40):
        index = Index[str](size)
        keys = [*range(1000), *map(str, range(1000)), (1, 2), None]
        for key in keys:
            index.add(key, f"entry {key}")
        assert len(index) == len(keys)
        assert set(index) == set(keys)
        assert all(index.get(key) == f"entry {key}" for key in keys)
        assert index.get("other") is None
        index.remove("7", "entry 7 of another one")
        assert index.get("7") == "entry 7"
        entry = index.get("7")
        assert entry is not None
        index.remove("7", entry)
        assert index.get("7") is None
        assert len(index) == len(keys) - 1
        index.clear()
        assert (len(index), list(index), index.front) == (0, [], {})


def test_what_was_found_lately_is_in_front() -> None:
    index = Index[int](KEYS_A_DICT * 40)
    for key in range(KEYS_A_DICT * 10):
        index.add(key, key)
    assert index.front == {}
    for key in range(KEYS_A_DICT * 10):
        index.get(key)
        assert index.front[key] == key
        assert len(index.front) <= 4 * KEYS_A_DICT

from __future__ import annotations

import sys

from batchkit._core.ghosts import Ghosts
from batchkit._core.index import KEYS_A_DICT, Index


def test_a_key_is_met_again_once() -> None:
    ghosts = Ghosts(100)
    assert not ghosts.met(hash("a"))
    assert ghosts.met(hash("a"))
    assert not ghosts.met(hash("a"))
    assert not ghosts.met(hash("b"))


def test_about_so_many_keys_are_remembered() -> None:
    ghosts = Ghosts(10_000)
    for key in range(100_000, 110_000):
        ghosts.met(hash(f"key {key}"))
    remembered = sum(ghosts.met(hash(f"key {key}")) for key in range(109_999, 99_999, -1))
    assert 4_500 < remembered < 7_500  # those that came first had their places taken


def test_hardly_any_keys_that_never_were_there_are_met() -> None:
    ghosts = Ghosts(10_000)
    for key in range(100_000):
        ghosts.met(hash(f"key {key}"))
    assert sum(ghosts.met(hash(f"other {key}")) for key in range(10_000)) < 100


def test_it_takes_two_bytes_a_key() -> None:
    assert sys.getsizeof(Ghosts(1_000_000)) + sys.getsizeof(Ghosts(1_000_000).marks) < 2.2 * 1_000_000
    assert sys.getsizeof(Ghosts(10**18).marks) < 5_000_000


def test_places_go_by_the_dicts_of_an_index() -> None:
    for number in (1, 3, 81, 4093):
        ghosts = Ghosts(10_000, number)
        assert ghosts.size % number == 0
        assert all(known % ghosts.size % number == known % number for known in range(-5_000, 5_000))


def test_whole_numbers_in_a_row_are_told_apart() -> None:
    ghosts = Ghosts(1_000)
    assert not any(ghosts.met(known) for known in range(200_000))


def test_an_index_of_any_size_is_a_dict() -> None:
    for size in (1, 100, KEYS_A_DICT * 40):
        index = Index[str](size)
        keys = [*range(1000), *map(str, range(1000)), (1, 2), None]
        for key in keys:
            index.parts[hash(key) % index.number][key] = f"entry {key}"
        assert len(index) == len(keys)
        assert set(index) == set(keys)
        assert all(index.get(key) == f"entry {key}" for key in keys)
        assert index.get("other") is None
        del index.parts[hash("7") % index.number]["7"]
        assert index.get("7") is None
        assert len(index) == len(keys) - 1
        index.clear()
        assert (len(index), list(index), index.front) == (0, [], {})


def test_the_dicts_of_an_index_are_of_odd_prime_number_and_never_large() -> None:
    for size in (*range(1, 20_000, 97), 100_000, 1_000_000, 3_000_000):
        number = Index[int](size).number
        assert size / KEYS_A_DICT <= number <= max(3, 2 * size / KEYS_A_DICT)
        assert number == 1 or all(number % each for each in range(2, number) if each * each <= number)
    assert Index[int](10**12).number < 5_000


def test_what_was_found_lately_is_in_front() -> None:
    index = Index[int](KEYS_A_DICT * 40)
    for key in range(KEYS_A_DICT * 10):
        index.parts[hash(key) % index.number][key] = key
    assert index.front == {}
    for key in range(KEYS_A_DICT * 10):
        index.get(key)
        assert index.front[key] == key
        assert len(index.front) <= 8192

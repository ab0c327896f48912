"""By which rules values count as dropped: against a history that forgets nothing."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from batchkit._redis.rules import FLOOR, LAST, Rules, prefix_rule, tag_rule
from batchkit.abc import Invalidation

Pairs: TypeAlias = list[tuple[str, int]]


def said(*rules: tuple[str, int], floor: int | None = None) -> Pairs:
    """What Redis says: rules, the last moment, and the floor where it is asked for all."""
    pairs = list(rules)
    if floor is not None:
        pairs.append((FLOOR, floor))
    return [*pairs, (LAST, max(moment for _, moment in pairs))]


def test_a_rule_drops_what_was_born_before_it() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    assert rules.hear(said((tag_rule("a"), 20))) == Invalidation(tags=("a",))
    assert rules.is_dropped("key", ("b", "a"), 10)
    assert not rules.is_dropped("key", ("b",), 10)
    assert not rules.is_dropped("key", ("a",), 20)


def test_a_prefix_drops_texts_that_start_with_it() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    assert rules.hear(said((prefix_rule("user:"), 20))) == Invalidation(prefixes=("user:",))
    assert rules.is_dropped("user:7", (), 10)
    assert rules.is_dropped("user:", (), 10)
    assert not rules.is_dropped("user", (), 10)
    assert not rules.is_dropped(("user:", 7), (), 10)
    assert not rules.is_dropped(b"user:7", (), 10)
    assert not rules.is_dropped("user:7", (), 20)


def test_a_prefix_drops_tuples_that_start_with_it() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    assert rules.hear(said((prefix_rule(("user", 7)), 20))) == Invalidation(prefixes=(("user", 7),))
    assert rules.is_dropped(("user", 7), (), 10)
    assert rules.is_dropped(("user", 7, "name"), (), 10)
    assert not rules.is_dropped(("user", 77), (), 10)
    assert not rules.is_dropped(("user",), (), 10)
    assert not rules.is_dropped("(user,=7,", (), 10)
    rules.hear(said((prefix_rule(()), 30)))
    assert rules.is_dropped(("user",), (), 20)
    assert not rules.is_dropped("user", (), 20)


def test_a_tag_is_no_prefix() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    rules.hear(said((tag_rule("user"), 20)))
    assert not rules.is_dropped("user", (), 10)
    rules.hear(said((prefix_rule("word"), 30)))
    assert not rules.is_dropped("key", ("word",), 10)


def test_what_is_there_at_first_is_no_news() -> None:
    rules = Rules()
    assert rules.hear(said((tag_rule("a"), 20), floor=10)) is None
    assert rules.is_dropped("key", ("a",), 15)
    assert rules.is_dropped("key", (), 5)


def test_what_is_heard_twice_is_news_once() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    news = said((tag_rule("a"), 20))
    assert rules.hear(news)
    assert rules.hear(news) is None
    assert rules.position == 20


def test_answers_in_the_wrong_order_lose_nothing() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    rules.hear(said((tag_rule("a"), 20), (tag_rule("b"), 30)))
    rules.hear(said((tag_rule("a"), 20)))
    assert rules.position == 30
    assert rules.is_dropped("key", ("b",), 20)


def test_where_redis_forgot_all_that_is_older_counts_as_dropped() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    assert rules.hear(said(floor=50)) == Invalidation(everything=True)
    assert rules.is_dropped("key", (), 49)
    assert not rules.is_dropped("key", (), 50)


def test_who_was_away_while_rules_were_forgotten_drops_everything() -> None:
    rules = Rules()
    rules.hear(said(floor=10))
    assert rules.hear(said((tag_rule("z"), 90), floor=60)) == Invalidation(everything=True)
    assert rules.is_dropped("key", (), 10)


def test_too_many_rules_become_one() -> None:
    rules = Rules(most=8)
    rules.hear(said(floor=1))
    for moment in range(10, 20):
        rules.hear(said((tag_rule(str(moment)), moment)))
    assert len(rules) == 8
    assert rules.is_dropped("key", (), 10)
    assert not rules.is_dropped("key", (), 11)


tags = st.sampled_from("abcdefgh")
prefixes = st.sampled_from(["", "x", "xy", "xyz", "y"])


@given(
    rules=st.lists(tags.map(tag_rule) | prefixes.filter(bool).map(prefix_rule), max_size=40),
    batches=st.lists(st.integers(1, 5), min_size=40, max_size=40),
    most=st.integers(1, 10),
    key=prefixes,
    own=st.lists(tags, max_size=3),
)
def test_nothing_that_was_dropped_counts_as_there(
    rules: list[str], batches: list[int], most: int, key: str, own: list[str]
) -> None:
    """The reference knows all rules; who forgets some may drop more, but never less."""
    known = Rules(most)
    known.hear(said(floor=1))
    history = list(zip(rules, range(2, 100), strict=False))
    rest = history
    while rest:
        size = batches.pop()
        known.hear(said(*rest[:size]))
        rest = rest[size:]
    for born in range(1, len(history) + 2):
        hit = any(
            at > born and (rule[1:] in own if rule[0] == "t" else key.startswith(rule[1:]))
            for rule, at in history
        )
        if len(set(rules)) <= most:
            assert known.is_dropped(key, own, born) == hit
        elif hit:
            assert known.is_dropped(key, own, born)

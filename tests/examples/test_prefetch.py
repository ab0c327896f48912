"""What a batch needs is fetched in two queries at most."""

import pytest

from batchkit import Batcher, TTLCache
from examples.database import Card, Database
from examples.database.dictionary import Dictionary, Entry
from examples.database.prefetch import prefetch

pytestmark = pytest.mark.anyio

UNKNOWN = "𠀀"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def card(word: str) -> Card:
    return Card(word, "hǎo", {"hǎo": ["good"]}, "a hook", "你好！", "nǐ hǎo", "Hello!", picture="a.webp")


async def test_two_queries_for_a_batch(loaded: Database) -> None:
    await loaded.save([card("好"), card("你")])
    words = [*map(chr, range(0x4E00, 0x4E00 + 48)), UNKNOWN, "好", "你"]
    before = loaded.traffic.round_trips
    fetched = await prefetch(words, loaded, Dictionary(loaded).look_up)
    assert loaded.traffic.round_trips - before == 2
    assert fetched.cards == {"好": card("好"), "你": card("你")}
    assert fetched.entries["一"][0].pinyin == "yī"
    assert UNKNOWN in fetched.unknown
    assert {*fetched.cards, *fetched.entries, *fetched.unknown} == set(words)


async def test_one_query_where_all_have_a_card(loaded: Database) -> None:
    await loaded.save([card("好")])
    before = loaded.traffic.round_trips
    fetched = await prefetch("好", loaded, Dictionary(loaded).look_up)
    assert (fetched.cards, fetched.entries, fetched.unknown) == ({"好": card("好")}, {}, ())
    assert loaded.traffic.round_trips - before == 1


async def test_what_the_dictionary_was_asked_lately_is_not_asked_again(loaded: Database) -> None:
    cache = TTLCache[str, tuple[Entry, ...]](maxsize=100, ttl=300)
    lookup = Batcher(Dictionary(loaded).look_up, cache=cache)
    await prefetch("好你", loaded, lookup.load_many)
    before = loaded.traffic.round_trips
    assert set((await prefetch("你好", loaded, lookup.load_many)).entries) == {"你", "好"}
    assert loaded.traffic.round_trips - before == 1

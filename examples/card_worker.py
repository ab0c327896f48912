"""The card worker: one card, at a user's request, first in line."""

from attrs import asdict, define

from examples.enrichment import Enrichment
from examples.reporting.figures import Meter
from examples.studio import Studio


@define(eq=False)
class CardJob:
    """Makes one card whole."""

    studio: Studio
    word: str
    priority: int

    async def run(self) -> dict[str, object]:
        """The card, and the figures; as JSON.

        Raises:
            UnknownWord, ServiceError, MediaError, NotSaved: there is no whole card.
        """
        meter = Meter(self.studio)
        card = await Enrichment(self.studio).enrich(self.word, self.priority)
        return {"card": asdict(card), **meter.read()}

    def stop(self) -> None:
        """A card is finished once it is begun."""

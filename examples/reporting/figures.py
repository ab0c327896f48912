"""What a job did, in numbers: what a worker process did between two moments, as JSON.

The figures are those of the process: where several jobs run in it at once, each has the figures of all of
them for the time that it took. So whoever adds up several jobs takes, of each process, what it had done at
the end of the last of them, less what it had done before the first. (`examples/reporting/tally.py`.)
"""

import os
import platform
import time
from collections.abc import Mapping

from attrs import asdict, define, evolve, field, frozen

from examples.services.calls import Usage
from examples.studio import Studio

PROCESS = f"{platform.node()}:{os.getpid()}"


@frozen
class Figures:
    """What was done so far, or between two moments.

    Attributes:
        text, picture, sound: use of each service; seconds are of the wall, summed over all calls.
        input_tokens, output_tokens, pictures, characters: what is paid for.
        rows, round_trips: cards written, and statements sent to the database.
        saving: seconds that saves took, all together.
        cache_hits, cache_misses: of the dictionary's cache.
    """

    text: Usage
    picture: Usage
    sound: Usage
    input_tokens: int
    output_tokens: int
    pictures: int
    characters: int
    rows: int
    round_trips: int
    saving: float
    cache_hits: int
    cache_misses: int

    @classmethod
    def of(cls, studio: Studio) -> "Figures":
        """The figures of a studio so far."""
        cache = studio.entries.statistics()
        return cls(
            text=evolve(studio.text.usage),
            picture=evolve(studio.picture.usage),
            sound=evolve(studio.sound.usage),
            input_tokens=studio.text.tokens.input,
            output_tokens=studio.text.tokens.output,
            pictures=studio.picture.pictures,
            characters=studio.sound.characters,
            rows=studio.database.traffic.rows,
            round_trips=studio.database.traffic.round_trips,
            saving=studio.saves.seconds,
            cache_hits=cache.hits,
            cache_misses=cache.misses,
        )


@define
class Meter:
    """Measures what a studio does from now on.

    Attributes:
        began: when, in seconds since 1970: the clock of all machines.
    """

    studio: Studio
    began: float = field(factory=time.time)
    _started: float = field(factory=time.monotonic)
    _before: Figures = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._before = Figures.of(self.studio)

    def read(self) -> dict[str, object]:
        """What was done until now, and how long it took, on the wall."""
        so_far = asdict(Figures.of(self.studio))
        return {
            "began": self.began,
            "seconds": time.monotonic() - self._started,
            "speed": self.studio.speed,
            "process": {"id": PROCESS, "so_far": so_far},
            **difference(so_far, asdict(self._before)),
        }


def difference(after: Mapping[str, object], before: Mapping[str, object]) -> dict[str, object]:
    """Number by number."""
    return {name: minus(value, before[name]) for name, value in after.items()}


def minus(after: object, before: object) -> object:
    """The difference of two numbers, or of two groups of numbers."""
    if isinstance(after, dict) and isinstance(before, dict):
        return difference(after, before)
    assert isinstance(after, int | float)
    assert isinstance(before, int | float)
    return after - before

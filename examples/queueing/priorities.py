"""How urgent work is, from the queue down to each call: who waits for an answer goes first. Pure."""

from enum import IntEnum
from typing import Self


class Priority(IntEnum):
    """A job's priority; the number is that of its calls. The steps are wide, since waiting counts, too: in a
    limiter, a minute of it outweighs one.
    """

    BULK = 0
    NORMAL = 10
    INTERACTIVE = 100

    @property
    def queue(self) -> str:
        """What its part of a queue is called."""
        return self.name.lower()

    @classmethod
    def named(cls, name: str) -> Self:
        """The priority of a name, such as "bulk"."""
        return cls[name.upper()]


NAMES = [priority.queue for priority in Priority]  # from the lowest to the highest

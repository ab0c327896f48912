"""How urgent a piece of work is: that may change while it stands in a line, as others come to wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CancelScope
from attrs import define, field


@define(eq=False)
class Urgency:
    """How urgent the calls for one piece of work are. It only rises.

    Attributes:
        priority: of its calls by now; higher goes first.
    """

    priority: int = 0
    _waits: set[CancelScope] = field(factory=set[CancelScope], init=False)

    def raise_to(self, priority: int) -> None:
        """Have it be at least so urgent; whoever waits in a line for it leaves that, to ask anew."""
        if priority > self.priority:
            self.priority = priority
            for scope in self._waits:
                scope.cancel()

    @contextmanager
    def until_raised(self) -> Iterator[None]:
        """A block that is cancelled, and left, if it has not ended by the time at which the urgency rises."""
        with CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)

"""How urgent a piece of work is, and whether it is still ours: both may change while it stands in a line."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CancelScope
from attrs import define, field

from examples.errors import Lapsed


@define(eq=False)
class Urgency:
    """How urgent the calls for one piece of work are. It only rises.

    Attributes:
        priority: of its calls by now; higher goes first.
        lapsed: whether somebody else may do the work by now, so that no further call is to be made.
    """

    priority: int = 0
    lapsed: bool = field(default=False, init=False)
    _waits: set[CancelScope] = field(factory=set[CancelScope], init=False)

    def raise_to(self, priority: int) -> None:
        """Have it be at least so urgent; whoever waits in a line for it leaves that, to ask anew."""
        if priority > self.priority:
            self.priority = priority
            self._leave_lines()

    def lapse(self) -> None:
        """Have no further call made for it; whoever waits in a line leaves that."""
        self.lapsed = True
        self._leave_lines()

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """A block that is cancelled, and left, if it has not ended by the time at which this changes.

        Raises:
            Lapsed: no call is to be made.
        """
        if self.lapsed:
            raise Lapsed("somebody else may do this work by now")
        with CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)

    def _leave_lines(self) -> None:
        for scope in self._waits:
            scope.cancel()

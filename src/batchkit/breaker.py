"""A circuit breaker: a service that is down is left alone for a while, and tried by one call then.

It is one object for all who call one service, in any number of threads and event loops. It reads no clock:
whoever calls says what time it is.

```python
breaker = CircuitBreaker(failures=5, reset_after=30)
if wait := breaker.allow(now):  # seconds until it is worth asking again
    ...
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TypeVar

from batchkit._core.breaker import Circuit, State
from batchkit._events import CircuitChanged, Hook, emit
from batchkit._forks import OwnLock
from batchkit._numbers import checked_seconds
from batchkit._values import described
from batchkit.exceptions import CircuitOpen
from batchkit.feedback import Verdict, classify, is_transient

__all__ = ["CircuitBreaker", "is_outage"]

T = TypeVar("T")


def is_outage(error: Exception) -> bool:
    """Whether an error says that the service is down: a fault of its own (5xx), no connection, no answer in
    time. A refusal for coming too fast does not: who refuses is there.
    """
    said = classify(error)
    return said is not None and said.verdict is not Verdict.THROTTLED and is_transient(error)


class CircuitBreaker:
    """Lets no call go to a service that failed several times in a row, until a probe has gone well.

    Args:
        failures: in a row, after which the circuit opens. One success, or any other answer of the service,
            starts the row anew.
        within: seconds; failures that are older do not count. None: however old.
        reset_after: seconds after which one call goes as a probe. If it fails the circuit is open as long
            again.
        on: which errors are failures of the service; by default [`is_outage`][batchkit.breaker.is_outage].
        name: in events.
        hooks: called with `CircuitChanged`.

    Raises:
        ValueError: a number that is none.
    """

    def __init__(
        self,
        failures: int = 5,
        *,
        within: float | None = None,
        reset_after: float = 30.0,
        on: Callable[[Exception], bool] = is_outage,
        name: str = "circuit",
        hooks: Iterable[Hook] = (),
    ) -> None:
        if failures.__class__ is not int or failures < 1:
            raise ValueError(f"failures is a whole number, 1 or more, not {failures!r}")
        self._circuit = Circuit(
            failures,
            inf if within is None else checked_seconds("within", within),
            checked_seconds("reset_after", reset_after),
        )
        self._on = on
        self._name = name
        self._hooks = tuple(hooks)
        self._lock = OwnLock()

    @property
    def state(self) -> State:
        """Whether calls go ("closed"), none does ("open"), or one goes as a probe ("half-open")."""
        return self._circuit.state

    def allow(self, now: float) -> float:
        """0.0 if the caller may go now; else seconds until it is worth asking again.

        Who may go while the circuit is not closed is the probe, and should say how it ended.
        """
        if self._circuit.state == "closed":
            return 0.0
        return self._change(lambda: self._circuit.allow(now))

    def check(self, now: float) -> None:
        """Return if the caller may go now.

        Raises:
            CircuitOpen: it may not.
        """
        if wait := self.allow(now):
            raise CircuitOpen(
                f"{self._name}: the service is left alone, since it failed {self._circuit.failures} times in"
                f" a row; ask again in {wait:.3g} s",
                retry_after=wait,
            )

    def heard(self, error: BaseException | None, now: float) -> None:
        """A call ended: with this error, or well.

        A refusal, such as a 404 or a 429, is an answer: the service is there. An error that says nothing
        about the service, such as a cancellation, counts neither for nor against it.
        """
        said = None if error is None else classify(error)
        if error is None:
            self.succeeded(now)
        elif isinstance(error, Exception) and self._on(error):
            self.failed(now, error)
        elif said is not None and said.verdict is not Verdict.FAILED:
            self.succeeded(now)
        else:
            self._change(lambda: self._circuit.ended(now))

    def succeeded(self, now: float) -> None:
        """A call went well, or the service answered at least."""
        if not self._circuit.is_well:
            self._change(lambda: self._circuit.succeeded(now))

    def failed(self, now: float, error: BaseException | None = None) -> None:
        """A call failed by a fault of the service's; the error is the event's reason."""
        self._change(lambda: self._circuit.failed(now), "" if error is None else described(error))

    def __repr__(self) -> str:
        return f"CircuitBreaker(name={self._name!r}, state={self.state!r})"

    def _change(self, act: Callable[[], T], reason: str = "") -> T:
        with self._lock():
            before = self._circuit.state
            answer = act()
            state = self._circuit.state
        if state != before:
            emit(self._hooks, CircuitChanged(self._name, state, before, reason))
        return answer

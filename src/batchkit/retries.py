"""Whether a call that failed is made again, and after how long.

A `Retry` answers questions and waits for nothing, so that the executor can sleep on any event loop, and a
test needs no clock. Each attempt is a call like any other: it takes its own permits from the limiter.

```python
retry = Retry(attempts=5, backoff=exponential(first=0.5, most=30))
retry.delay(ConnectionResetError(), attempt=1, elapsed=0.2)  # seconds, or None to give up
```
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from math import inf
from typing import Any, Self, TypeAlias, cast

from attrs import define, field, frozen
from attrs.validators import optional

from batchkit._core.backoff import Jitter, exponential_delay
from batchkit._forks import OwnLock
from batchkit._numbers import checked_seconds
from batchkit.feedback import Feedback, Verdict, classify, is_transient

__all__ = ["Backoff", "On", "Retry", "RetryBudget", "exponential"]

Backoff: TypeAlias = Callable[[int], float]
_Kinds: TypeAlias = type[Exception] | tuple[type[Exception], ...]
_Judge: TypeAlias = Callable[[Exception], bool | float | timedelta]
On: TypeAlias = _Kinds | _Judge


def exponential(
    first: float = 0.1, most: float = 5.0, factor: float = 2.0, jitter: Jitter = "full"
) -> Backoff:
    """A back-off: from the number of an attempt that failed, from 1, to the seconds until the next one.

    After attempt `n` that is `first * factor ** (n - 1)` seconds, `most` at the most, and by chance less.

    Args:
        first: seconds after the first attempt.
        most: seconds after any attempt.
        factor: how much longer each wait is than the one before.
        jitter: "full", anything from 0 to that time, which spreads calls best; "equal", from half of it to
            all; "none"; or seconds, of which anything from 0 on is added, as stamina does.

    Raises:
        ValueError: a number that is none, a factor below 1, or a jitter that is not known.
    """
    return _Exponential(first, most, factor, jitter)


def _check_jitter(instance: object, attribute: Any, jitter: Jitter) -> None:
    if isinstance(jitter, str):
        if jitter not in ("full", "equal", "none"):
            raise ValueError(f'jitter is "full", "equal", "none" or a number of seconds, not {jitter!r}')
    else:
        checked_seconds("jitter", jitter)


def _check_factor(instance: object, attribute: Any, factor: float) -> None:
    if not 1 <= factor < inf:
        raise ValueError(f"factor is a number of 1 or more, not {factor!r}")


def _check_seconds(instance: object, attribute: Any, seconds: float) -> None:
    checked_seconds(attribute.name, seconds)


@frozen
class _Exponential:
    first: float = field(validator=_check_seconds)
    most: float = field(validator=_check_seconds)
    factor: float = field(validator=_check_factor)
    jitter: Jitter = field(validator=_check_jitter)

    def __call__(self, attempt: int) -> float:
        return exponential_delay(
            attempt,
            first=self.first,
            most=self.most,
            factor=self.factor,
            jitter=self.jitter,
            draw=random.random(),
        )


def _check_positive(instance: object, attribute: Any, number: float) -> None:
    if not 0 < number < inf:
        raise ValueError(f"{attribute.name} is a number above 0, not {number!r}")


@define(eq=False)
class RetryBudget:
    """Allows retries while most calls go well: a service that is down is not asked several times over.

    Each failure takes 1 from the budget, each success gives back `gain`. Retries are allowed while more
    than half of it is there. So an odd failure is retried; in an outage the first `size / 2` failures
    are, and then none until calls go well again. One budget may be shared by threads, and by all who call
    one service.

    It is how gRPC throttles retries (its proposal A6).

    Attributes:
        size: the full budget, in failures.
        gain: what a success gives back, in failures: at 0.1, one failure in eleven calls can go on for ever.

    Raises:
        ValueError: a number that is not above 0.
    """

    size: float = field(default=100.0, validator=_check_positive)
    gain: float = field(default=0.1, validator=_check_positive)
    _left: float = field(init=False)
    _lock: OwnLock = field(init=False, factory=OwnLock, repr=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.size

    @property
    def left(self) -> float:
        """What is there, in failures."""
        return self._left

    @property
    def allows(self) -> bool:
        """Whether a retry is allowed."""
        return self._left > self.size / 2

    def succeeded(self) -> None:
        """A call went well."""
        if self._left == self.size:  # as it mostly is: without the lock
            return
        with self._lock():
            self._left = min(self.size, self._left + self.gain)

    def failed(self) -> bool:
        """A call failed for a reason of the server's; returns whether a retry is allowed."""
        with self._lock():
            self._left = max(0.0, self._left - 1)
            return self.allows


def _is_kind(on: object) -> bool:
    return isinstance(on, type) and issubclass(on, BaseException)


def _check_on(instance: object, attribute: Any, on: object) -> None:
    kinds = cast(tuple[object, ...], on) if isinstance(on, tuple) else (on,)
    if not all(map(_is_kind, kinds)) and (isinstance(on, type | tuple) or not callable(on)):
        raise TypeError(f"on= takes types of errors, or a function of an error, not {on!r}")


def _check_attempts(instance: object, attribute: Any, attempts: int | None) -> None:
    if attempts is not None and (attempts.__class__ is not int or attempts < 1):
        raise ValueError(f"attempts is a whole number, 1 or more, or None for no limit, not {attempts!r}")


@frozen
class Retry:
    """When a call that failed is made again.

    Attributes:
        on: the errors after which it is: types, or a function of the error that answers with true or
            false, or with the seconds to wait. By default what may go better at another time
            ([`is_transient`][batchkit.feedback.is_transient]): a refusal for coming too fast, a fault of
            the server's, no connection, no answer in time. A wrong argument is not mended by asking
            again.
        attempts: calls for an item in all, the first one included; None for no limit.
        backoff: seconds to wait after attempt 1, 2, 3 ...
        timeout: seconds from the start of the first attempt, after which no other one is begun; None for
            no limit. A wait that would not end before is not begun, either.
        budget: allows retries while most calls go well; None to do without. A refusal for coming too fast
            is not counted: the limiter sees to those.
        retry_after: whether a server that says when to come again is obeyed. The call waits at least as
            long as it asks.
        most_wait: seconds; a server that asks for a longer wait is not waited for: that is given up.

    Raises:
        ValueError: a number that is none.
        TypeError: `on` is no type of errors, and no function.
    """

    on: On = field(default=is_transient, validator=_check_on)
    attempts: int | None = field(default=3, validator=_check_attempts)
    backoff: Backoff = field(factory=exponential)
    timeout: float | None = field(default=None, validator=optional(_check_seconds))
    budget: RetryBudget | None = field(factory=RetryBudget)
    retry_after: bool = True
    most_wait: float = field(default=60.0, validator=_check_seconds)

    @classmethod
    def from_stamina(
        cls,
        *,
        on: On,
        attempts: int | None = 10,
        timeout: float | timedelta | None = 45.0,
        wait_initial: float | timedelta = 0.1,
        wait_max: float | timedelta = 5.0,
        wait_jitter: float | timedelta = 1.0,
        wait_exp_base: float = 2.0,
        budget: RetryBudget | None = None,
    ) -> Self:
        """From the arguments of `stamina.retry`, with their meaning and their defaults there.

        Other than stamina, it gives up before a wait that would not end within `timeout`, and hears
        `Retry-After`. stamina itself is not needed, and its switches (`set_active`, `set_testing`) are
        not looked at.
        """
        return cls(
            on=on,
            attempts=attempts,
            backoff=exponential(
                _seconds(wait_initial), _seconds(wait_max), wait_exp_base, _seconds(wait_jitter)
            ),
            timeout=None if timeout is None else _seconds(timeout),
            budget=budget,
        )

    def delay(self, error: Exception, attempt: int, elapsed: float) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        A failure counts against the budget whatever the answer, so ask once for each.

        Args:
            error: what the attempt raised.
            attempt: its number, from 1.
            elapsed: seconds since the first attempt began.

        Raises:
            ValueError: `on` or `backoff` answered with something that is no number of seconds.
        """
        wanted, said = self._wanted(error), classify(error)
        if wanted is False or not self._affords(said):
            return None
        if self.attempts is not None and attempt >= self.attempts:
            return None
        wait = self._wait(said, attempt) if wanted is True else wanted
        late = self.timeout is not None and elapsed + wait >= self.timeout
        return None if late or wait == inf else wait

    def succeeded(self) -> None:
        """A call went well: the budget gets something back."""
        if self.budget is not None:
            self.budget.succeeded()

    def _wanted(self, error: Exception) -> float | bool:
        """Whether such an error is worth another attempt, or after how many seconds."""
        if isinstance(self.on, tuple) or _is_kind(self.on):
            return isinstance(error, cast(_Kinds, self.on))
        answer = cast(_Judge, self.on)(error)
        return answer if isinstance(answer, bool) else checked_seconds("what on= returns", _seconds(answer))

    def _affords(self, said: Feedback | None) -> bool:
        """Whether the budget allows it; what was refused for coming too fast is not its matter."""
        throttled = said is not None and said.verdict is Verdict.THROTTLED
        return self.budget is None or throttled or self.budget.failed()

    def _wait(self, said: Feedback | None, attempt: int) -> float:
        """What the back-off says, but at least what the server asks for; infinite if that is too long."""
        own = checked_seconds("a back-off", self.backoff(attempt))
        if not self.retry_after or said is None or said.retry_after is None:
            return own
        return max(own, said.retry_after) if said.retry_after <= self.most_wait else inf


def _seconds(time: float | timedelta) -> float:
    return time.total_seconds() if isinstance(time, timedelta) else time

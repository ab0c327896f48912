"""How to wait for something that is away: a database, a media store."""

from collections.abc import Callable

import stamina

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two looks whether it is back


def patient(seconds: float, passing: Callable[[Exception], bool]) -> stamina.BoundAsyncRetryingCaller:
    """Calls a function again, for so many seconds at most, as long as what it raises is `passing`."""
    retrying = stamina.AsyncRetryingCaller(
        attempts=None,
        timeout=seconds,
        wait_initial=FIRST_PAUSE,
        wait_jitter=FIRST_PAUSE,
        wait_max=LONGEST_PAUSE,
    )
    return retrying.on(passing)

"""The limiters of other libraries, each made in the way that serves its figures best.

What is not asked for is left out: no storage but memory, no thread that cleans up, no hook.
A peer that is not installed is a `Skipped` case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from benchmarks.frame import Skipped

KEY = "key"
FOR_EVER = 3600.0  # seconds; throttled-py wants a timeout from those who wait


@dataclass(frozen=True)
class Peer:
    """A limiter of another library.

    Attributes:
        name: with the algorithm, where the library has several.
        make: given a rate (permits a second) and a burst, makes the limiter, and returns its method: one that
            tries, or one to be awaited. For the latter it is called in the event loop.
        waits: whether the method to be awaited waits for its permit; otherwise it only tries.
        costs: whether the method takes a cost as its argument.
        granted: whether what the method returned is a permit.
    """

    name: str
    make: Callable[[float, int], Callable[..., Any]]
    waits: bool = True
    costs: bool = True
    granted: Callable[[Any], bool] = bool


def sync_peers() -> list[Peer | Skipped]:
    """Those with a method that tries, and returns at once."""
    return _found(
        {
            "token-bucket": _token_bucket,
            "limits": _limits,
            "throttled-py": _throttled,
            "pyrate-limiter": _pyrate,
        }
    )


def async_peers() -> list[Peer | Skipped]:
    """Those with a method to be awaited, on asyncio."""
    return _found(
        {
            "asynciolimiter": _asynciolimiter,
            "aiolimiter": _aiolimiter,
            "limits": _limits_async,
            "throttled-py": _throttled_async,
            "pyrate-limiter": _pyrate_async,
        }
    )


# Given what to call with each number from 0, how many there are, and the rate (a second).
Runner = Callable[[Callable[[int], Awaitable[object]], int, float], Awaitable[object]]


def aiometer_runner() -> Runner | Skipped:
    """No method to acquire: aiometer starts a task for each item, so many a second, and has no burst."""
    try:
        import aiometer
    except ImportError as error:
        return Skipped("aiometer", str(error))
    return lambda call, items, rate: aiometer.run_on_each(call, range(items), max_per_second=rate)


def _found(finders: dict[str, Callable[[], Iterable[Peer]]]) -> list[Peer | Skipped]:
    peers: list[Peer | Skipped] = []
    for name, find in finders.items():
        try:
            peers += find()
        except ImportError as error:
            peers.append(Skipped(name, str(error)))
    return peers


def _whole(rate: float) -> tuple[int, int]:
    """Permits and seconds, for those who count permits in whole seconds."""
    return (round(rate), 1) if rate >= 1 else (1, round(1 / rate))


def _token_bucket() -> list[Peer]:
    from token_bucket import Limiter, MemoryStorage

    return [
        Peer("token-bucket", lambda rate, burst: partial(Limiter(rate, burst, MemoryStorage()).consume, KEY))
    ]


def _limits() -> list[Peer]:
    from limits import RateLimitItemPerSecond
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

    def make(strategy: Callable[[MemoryStorage], Any], rate: float, burst: int) -> Callable[..., Any]:
        return partial(strategy(MemoryStorage()).hit, RateLimitItemPerSecond(*_whole(rate)), KEY)

    return [
        Peer("limits, fixed window", partial(make, FixedWindowRateLimiter)),
        Peer("limits, sliding window", partial(make, SlidingWindowCounterRateLimiter)),
    ]


def _limits_async() -> list[Peer]:
    from limits import RateLimitItemPerSecond
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

    def make(strategy: Callable[[MemoryStorage], Any], rate: float, burst: int) -> Callable[..., Any]:
        return partial(strategy(MemoryStorage()).hit, RateLimitItemPerSecond(*_whole(rate)), KEY)

    return [
        Peer("limits, fixed window", partial(make, FixedWindowRateLimiter), waits=False),
        Peer("limits, sliding window", partial(make, SlidingWindowCounterRateLimiter), waits=False),
    ]


def _throttled() -> list[Peer]:
    from throttled import MemoryStore, Throttled

    def make(rate: float, burst: int) -> Callable[..., Any]:
        return partial(Throttled(using="gcra", quota=_quota(rate, burst), store=MemoryStore()).limit, KEY)

    return [Peer("throttled-py, GCRA", make, granted=_not_limited)]


def _throttled_async() -> list[Peer]:
    from throttled.asyncio import MemoryStore, Throttled

    def make(rate: float, burst: int) -> Callable[..., Any]:
        quota = _quota(rate, burst)
        return partial(Throttled(using="gcra", quota=quota, store=MemoryStore(), timeout=FOR_EVER).limit, KEY)

    return [Peer("throttled-py, GCRA", make, granted=_not_limited)]


def _quota(rate: float, burst: int) -> Any:
    from throttled import per_duration

    permits, seconds = _whole(rate)
    return per_duration(timedelta(seconds=seconds), permits, burst)


def _not_limited(answer: Any) -> bool:
    return not answer.limited


def _pyrate_limiter(rate: float, burst: int) -> Any:
    from pyrate_limiter import Limiter, Rate, SingleBucketFactory, StateBucket

    permits, seconds = _whole(rate)
    bucket = StateBucket([Rate(permits, 1000 * seconds, burst)])
    # By default it sleeps 50 ms longer than it has to, and starts a thread that has nothing to do here.
    return Limiter(SingleBucketFactory(bucket, schedule_leak=False), buffer_ms=0)


def _pyrate() -> list[Peer]:
    import pyrate_limiter  # noqa: F401

    def make(rate: float, burst: int) -> Callable[..., Any]:
        return partial(_pyrate_limiter(rate, burst).try_acquire, KEY, blocking=False)

    return [Peer("pyrate-limiter, GCRA", make)]


def _pyrate_async() -> list[Peer]:
    import pyrate_limiter  # noqa: F401

    def make(rate: float, burst: int) -> Callable[..., Any]:
        return partial(_pyrate_limiter(rate, burst).try_acquire_async, KEY)

    return [Peer("pyrate-limiter, GCRA", make)]


def _aiolimiter() -> list[Peer]:
    from aiolimiter import AsyncLimiter

    # Its burst is what it lets go in a period.
    return [
        Peer("aiolimiter", lambda rate, burst: AsyncLimiter(burst, burst / rate).acquire, granted=_came_back)
    ]


def _asynciolimiter() -> list[Peer]:
    from asynciolimiter import LeakyBucketLimiter

    def make(rate: float, burst: int) -> Callable[..., Awaitable[None]]:
        return LeakyBucketLimiter(rate, capacity=burst).wait

    return [Peer("asynciolimiter", make, costs=False, granted=_came_back)]


def _came_back(answer: None) -> bool:
    return True

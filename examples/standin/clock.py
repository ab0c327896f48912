"""Two times: the wall's, in which clients live, and the service's, in which quotas and latencies are stated.

Service time = wall time x speed, and begins at 0. At speed 20 a quota of 2 calls a second lets 40 go in a
second on the wall, and a latency of 4 s takes 0.2 s.
"""

from fractions import Fraction

from examples.services.clock import Clock


class ServiceTime:
    """Service time on top of a wall clock; exact, because quotas are counted without tolerance."""

    def __init__(self, clock: Clock, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self.speed = exact(speed)
        self._clock = clock
        self._start = Fraction(clock.now())

    def now(self) -> Fraction:
        """Service seconds since the start."""
        return (Fraction(self._clock.now()) - self._start) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait this many service seconds."""
        await self._clock.sleep(float(exact(seconds) / self.speed))

    def wall(self, seconds: Fraction) -> Fraction:
        """Service seconds as the client's clock measures them."""
        return seconds / self.speed


def exact(number: float) -> Fraction:
    """The number that was written: 0.1 is a tenth, not the nearest binary float."""
    return Fraction(str(number))

"""How many jobs a worker runs at once, by how many wait. Pure.

It doubles when more jobs wait than it runs, and takes one off when none waits. In between it stays as it is,
so that it does not swing when a few jobs come and go.
"""

from attrs import frozen


@frozen
class Bounds:
    """How many jobs at once there may be: `least` when nothing waits, and up to `most`."""

    least: int
    most: int


def next_limit(limit: int, waiting: int, bounds: Bounds) -> int:
    """How many jobs may run at once from now on.

    Args:
        limit: how many may now.
        waiting: jobs in the queue that nobody has begun.
        bounds: of the answer.
    """
    if waiting > limit:
        limit *= 2
    elif waiting == 0:
        limit -= 1
    return max(bounds.least, min(limit, bounds.most))

"""How many jobs a worker runs at once, and how many items go into a call, by how many wait. Pure.

The jobs double when more wait than it runs, and are one less when none waits. In between they stay as they
are, so that they do not swing when a few jobs come and go.
"""

from attrs import frozen


@frozen
class Bounds:
    """Of a number that follows what waits: `least` when nothing does, and up to `most`."""

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


def batch_size(waiting: int, at_once: int, bounds: Bounds) -> int:
    """How many items go into a call: all that wait are spread over the calls that may go at once, since
    smaller ones are answered sooner; what is more than they hold is put into calls as large as may be, since
    it waits for permits.

    Args:
        waiting: items.
        at_once: calls that need not wait for a permit.
        bounds: of the answer; the most counts more than the least.
    """
    return min(max(bounds.least, -(-waiting // at_once)), bounds.most)

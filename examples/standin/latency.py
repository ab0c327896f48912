"""How long a service takes: about the same each time, with a long tail."""

import math
import random

SPREAD = 0.2  # sigma of the logarithm of a latency: one in twenty is 1.4 times the middle or more
LONGEST = 2.0  # times the middle


def around(middle: float, dice: random.Random) -> float:
    """Service seconds: half of all calls take less than the middle, none more than twice as long."""
    return middle * min(LONGEST, math.exp(dice.gauss(0, SPREAD)))

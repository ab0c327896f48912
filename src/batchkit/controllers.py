"""Rate controllers for `AdaptiveLimiter`, and what one of your own is made of.

A controller takes a `Sample` of each call and answers with an `Adjustment` where the rate is to change. It
reads no clock and takes no lock, so that a list of samples is all that its tests need.
"""

from batchkit._core.controller import AIMD, Adjustment, Controller, Cubic, Sample, SharedController, Verdict

__all__ = ["AIMD", "Adjustment", "Controller", "Cubic", "Sample", "SharedController", "Verdict"]

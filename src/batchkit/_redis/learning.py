"""A controller of the rate that all processes of a fleet share.

Each process has one of its own, and each goes on from what the last one of the fleet knew. A process feeds it
with its samples and offers the outcome, with the number of what it started from; Redis takes it over if
nobody else did so since. If somebody did, the process gets to know what that one knows, and feeds its samples
again.
"""

from __future__ import annotations

import logging
from collections import deque
from math import inf
from typing import Final

from batchkit._core.controller import Adjustment, Sample, SharedController, Verdict
from batchkit._redis.skew import Skew
from batchkit._redis.wire import MICROSECONDS, Answer, Opinion

_log = logging.getLogger("batchkit")

_MOMENTS: Final = 2  # at the start of what a controller knows
_NEWS: Final = 0.25  # seconds after which the fleet gets to know what is no refusal
_MOST: Final = 10_000  # samples that are kept while Redis is away


class Learning:
    """What a process learned and has to tell the fleet.

    Args:
        controller: decides on the rate.
    """

    def __init__(self, controller: SharedController) -> None:
        self._controller = controller
        self._edition = 0
        self._samples: deque[Sample] = deque(maxlen=_MOST)
        self._offered: list[Sample] = []
        self._adjustment = Adjustment(controller.rate)
        self._due = inf

    @property
    def due(self) -> float:
        """When Redis is to be told."""
        return self._due

    def add(self, sample: Sample) -> None:
        """Take in what became of a call."""
        self._samples.append(sample)
        urgent = sample.verdict is Verdict.THROTTLED
        self._due = min(self._due, sample.now if urgent else sample.now + _NEWS)

    def opinion(self, skew: Skew) -> Opinion | None:
        """What to offer, if there is anything."""
        if not self._samples:
            return None
        if not skew.known:  # what a moment means to the others is not known yet
            return Opinion(-1)
        self._offered, self._due = list(self._samples), inf
        self._samples.clear()
        pause, reason = 0.0, ""
        for sample in self._offered:
            if (adjustment := self._feed(sample)) is not None:
                pause, reason = max(pause, adjustment.pause), adjustment.reason
        controller = self._controller
        self._adjustment = Adjustment(controller.rate, pause, reason)
        memory = controller.memory()
        moments = (skew.there(moment) / MICROSECONDS for moment in memory[:_MOMENTS])
        return Opinion(self._edition, controller.rate, pause, (*moments, *memory[_MOMENTS:]))

    def heard(self, answer: Answer, skew: Skew, now: float) -> Adjustment | None:
        """Take in what became of the offer; if it was taken over, that is returned."""
        self._edition = answer.edition
        if answer.heard:
            self._offered = []
            return self._adjustment
        if answer.memory:
            moments = (skew.here(moment * MICROSECONDS) for moment in answer.memory[:_MOMENTS])
            self._controller.recall((*moments, *answer.memory[_MOMENTS:]))
        self.unheard(now)
        return None

    def unheard(self, now: float) -> None:
        """The offer was not taken over: it has to be made again."""
        self._samples.extendleft(reversed(self._offered))
        self._offered = []
        self._due = now if self._samples else inf

    def _feed(self, sample: Sample) -> Adjustment | None:
        try:
            return self._controller.feed(sample)
        except Exception:  # the fault of a controller of the user's own: it harms no call
            _log.exception("a controller failed")
            return None

"""What a strategy came to in a scenario."""

from __future__ import annotations

from attrs import frozen

from benchmarks.simulation.scenarios import Figures


@frozen
class Result:
    """The figures of one strategy in one scenario, a dict for each seed."""

    scenario: str
    strategy: str
    figures: list[Figures]

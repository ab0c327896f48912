"""The suites: each module here has a list `SUITES`."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.frame import Suite


def all_suites() -> dict[str, Suite]:
    """Every suite by its name. Not made at import, since `memory` is a program of its own, too."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    return {suite.name: suite for module in modules for suite in module.SUITES}

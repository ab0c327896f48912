"""A fleet whose services allow less than it thinks: what adapting saves against back-off alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.loadtest import main

CARDS = 160


def measured(folder: Path, policy: str, *quota: str) -> dict[str, Any]:
    """The report of four workers with a deck each, which are made at half the quotas."""
    report = folder / f"{policy}.json"
    load = ("deck", "--cards", str(CARDS), "--workers", "4", "--speed", "20", "--policy", policy)
    assert main([*load, "--report", str(report), *quota]) == 0
    return dict(json.loads(report.read_text(encoding="utf-8")))


def compare(folder: Path, *quota: str) -> None:
    adaptive, backoff = (measured(folder, policy, *quota) for policy in ("adaptive", "backoff"))
    assert backoff["refused"] > 100
    assert adaptive["refused"] <= 0.06 * backoff["refused"]
    assert adaptive["seconds"] <= backoff["seconds"] / 0.7  # a busy machine does not treat them alike


def test_half_the_quota_that_was_hidden(tmp_path: Path, clean: None) -> None:
    compare(tmp_path, "--quota", "0.5")


def test_a_quota_that_is_halved_on_the_way(tmp_path: Path, clean: None) -> None:
    compare(tmp_path, "--quota", "0.5", "--after", "60")

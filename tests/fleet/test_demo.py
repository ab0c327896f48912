"""The main job as a user runs it: whole processes, the real SDK, scaled time, generous deadlines."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
SPEED = "40"
DEADLINE = 120.0
KILLS = 3
IN_FLIGHT = 14 * 10  # words: calls at once, words a call
TEXTS = "--texts-only"


def environment() -> dict[str, str]:
    ours = ("FLASHCARDS_", "OPENAI_", "REDIS_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # A busy machine holds calls up for longer than a network does: more headroom, so that none is refused.
    headroom = {f"FLASHCARDS_{service}_JITTER": "0.2" for service in ("TEXT", "PICTURE", "SOUND")}
    return kept | headroom | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "examples.demo", *map(str, arguments)]


class Demo:
    """Runs the demo in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = 0
        self.said = ""

    def run(self, *arguments: str | Path, speed: str = SPEED) -> dict[str, Any]:
        """The report of a run of the fleet; empty if it did not come that far."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            command("--speed", speed, "--report", report, *arguments),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        self.code, self.said = done.returncode, done.stdout + done.stderr
        assert "Traceback" not in self.said, self.said
        return dict(json.loads(report.read_text())) if report.exists() else {}

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A run that has begun its work; it is waited for at the end."""
        with subprocess.Popen(
            command("--speed", SPEED, *arguments),
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("database"):
                    break
            yield process

    def words(self) -> list[str]:
        with closing(sqlite3.connect(self.folder / "flashcards.db")) as database:
            return [word for (word,) in database.execute("select word from cards")]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


@pytest.fixture
def standin(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a stand-in that outlives the workers; a test may give switches as parameter."""
    switches = [word for switch in getattr(request, "param", []) for word in ("--set", switch)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "examples.standin", "--speed", SPEED, "--until-stdin-closes", *switches],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield process.stdout.readline().rsplit(maxsplit=1)[-1]
        process.stdin.close()
        process.wait(DEADLINE)


def ledger(standin: str, since: int = 0) -> list[dict[str, Any]]:
    """The calls that reached a stand-in, from one on."""
    reply = httpx2.get(f"{standin}/standin/ledger", params={"since": since}, trust_env=False)
    return list(reply.json()["entries"])


def test_a_thousand_characters_and_a_second_run_that_calls_nothing(demo: Demo) -> None:
    report = demo.run(TEXTS, speed="3")  # at which the machine is not what holds it back, however busy
    assert demo.code == 0, demo.said
    assert (report["items"], report["saved"], report["failed"]) == (1000, 1000, 0)
    assert 100 <= report["calls"] <= 110
    assert (report["refused"], report["repeated"]) == (0, 0)
    assert report["bound_seconds"] > 47.5
    assert report["limited_by"] == "quota of text"
    assert {"seconds", "wall_seconds", "cache_hit_rate"} <= report.keys()
    assert len(set(demo.words())) == len(demo.words()) == 1000
    assert report["decks"] == {}
    assert "flashcards.db" in demo.said

    report = demo.run(TEXTS)
    assert demo.code == 0, demo.said
    assert (report["items"], report["saved"], report["calls"]) == (1000, 1000, 0)


def test_decks_follow_with_pictures_and_sounds_and_a_second_run_asks_for_nothing(demo: Demo) -> None:
    report = demo.run("--size", "120", speed="10")  # at which no answer is given up on a busy machine
    assert demo.code == 0, demo.said
    assert (report["items"], report["saved"], report["failed"], report["calls"]) == (120, 120, 0, 12)
    decks = report["decks"]
    assert decks.keys() == report.keys()
    assert (decks["items"], decks["saved"], decks["failed"], decks["repeated"]) == (120, 120, 0, 0)
    assert decks["calls"] - decks["refused"] == 3 * 120
    assert decks["bound_seconds"] > 117
    assert decks["seconds"] > decks["bound_seconds"]
    assert decks["services"].keys() == {"picture", "sound"}
    assert (decks["pictures"], decks["limited_by"]) == (120, "quota of picture")
    assert len([*(demo.folder / "media").glob("*/*.png")]) == 120

    report = demo.run("--size", "120")
    assert demo.code == 0, demo.said
    assert (report["calls"], report["decks"]["calls"], report["decks"]["saved"]) == (0, 0, 120)


@pytest.mark.parametrize("standin", [['text.poison=["好"]']], indirect=True)
def test_one_poisoned_character_is_named_and_the_rest_is_saved(demo: Demo, standin: str) -> None:
    report = demo.run(TEXTS, "--standin", standin)
    assert demo.code == 1, demo.said
    assert (report["saved"], report["failed"]) == (999, 1)
    assert list(report["failures"]) == ["好"]
    assert "malformed" in str(report["failures"]).lower() or report["failures"]["好"]
    assert report["calls"] <= 109
    assert "好" not in demo.words()


def test_killed_at_random_moments_it_goes_on_and_repeats_only_what_was_in_flight(
    demo: Demo, standin: str
) -> None:
    dice = random.Random(20261123)
    for _ in range(KILLS):
        begun, wanted = len(ledger(standin)), dice.randint(1, 30)
        with demo.started(TEXTS, "--standin", standin) as process:
            while process.poll() is None and len(ledger(standin, begun)) < wanted:
                pass
            process.kill()
        asked = {word for call in ledger(standin, begun) for word in call["keys"]}
        assert len(asked - set(demo.words())) <= IN_FLIGHT
    report = demo.run(TEXTS, "--standin", standin)
    assert demo.code == 0, demo.said
    assert report["saved"] == 1000
    assert len(set(demo.words())) == len(demo.words()) == 1000
    asked_for = Counter(word for call in ledger(standin) for word in call["keys"])
    assert asked_for.keys() == set(demo.words())
    assert asked_for.total() - 1000 <= KILLS * IN_FLIGHT
    # Each run has a Redis of its own, in which the buckets are full: so it may be refused, and waits.
    assert {call["answer"] for call in ledger(standin)} <= {"ok", "aborted", "refused"}


def test_ctrl_c_stops_in_order_and_the_next_run_goes_on(demo: Demo) -> None:
    process = subprocess.Popen(
        command("--speed", "10", TEXTS),
        cwd=demo.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process:
        said = ""
        for line in process.stdout:
            said += line
            if "200 of 1,000" in line:
                process.send_signal(signal.SIGINT)
        code = process.wait(DEADLINE)
    assert code == 130, said
    assert "Traceback" not in said
    saved = len(demo.words())
    assert 200 <= saved < 1000
    report = demo.run(TEXTS)
    assert (demo.code, report["saved"]) == (0, 1000)
    assert report["calls"] <= (1000 - saved) / 10 + 10

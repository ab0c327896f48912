"""The main job as a user runs it: whole processes, the real SDK, scaled time, generous deadlines."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SPEED = "40"
DEADLINE = 60.0


def environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FLASHCARDS_", "OPENAI_"))
    }
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "examples.demo", *map(str, arguments)]


class Demo:
    """Runs the demo in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = 0
        self.said = ""

    def run(self, *arguments: str | Path, speed: str = SPEED) -> dict[str, Any]:
        """The report of a run; empty if it did not come that far."""
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

    def run_on(self, text: str) -> dict[str, Any]:
        (self.folder / "my.txt").write_text(text, encoding="utf-8")
        return self.run("--file", "my.txt")

    def words(self) -> list[str]:
        with sqlite3.connect(self.folder / "flashcards.db") as database:
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


def test_a_thousand_characters_and_a_second_run_that_calls_nothing(demo: Demo) -> None:
    report = demo.run()
    assert demo.code == 0, demo.said
    assert (report["items"], report["saved"], report["failed"]) == (1000, 1000, 0)
    assert 100 <= report["calls"] <= 110
    assert (report["refused"], report["repeated"]) == (0, 0)
    assert report["bound_seconds"] > 47.5
    assert report["limited_by"] == "quota of text"
    assert {"seconds", "wall_seconds", "cache_hit_rate"} <= report.keys()
    assert len(set(demo.words())) == len(demo.words()) == 1000
    assert str(demo.folder / "flashcards.db") in demo.said.replace("\n", "") or "flashcards.db" in demo.said

    report = demo.run()
    assert demo.code == 0, demo.said
    assert (report["items"], report["saved"], report["calls"]) == (1000, 1000, 0)


@pytest.mark.parametrize("standin", [['text.poison=["好"]']], indirect=True)
def test_one_poisoned_character_is_named_and_the_rest_is_saved(demo: Demo, standin: str) -> None:
    report = demo.run("--standin", standin)
    assert demo.code == 1, demo.said
    assert (report["saved"], report["failed"]) == (999, 1)
    assert list(report["failures"]) == ["好"]
    assert "malformed" in str(report["failures"]).lower() or report["failures"]["好"]
    assert report["calls"] <= 109
    assert "好" not in demo.words()


def test_killed_at_ten_random_moments_it_goes_on_and_repeats_only_what_was_in_flight(
    demo: Demo, standin: str
) -> None:
    dice = random.Random(20261123)
    for _ in range(10):
        process = subprocess.Popen(
            command("--speed", SPEED, "--standin", standin),
            cwd=demo.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        with process:
            for line in process.stdout:  # the work begins after this line
                if "database" in line:
                    break
            try:
                process.wait(dice.uniform(0.0, 0.4))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.stdout.close()
    report = demo.run("--standin", standin)
    assert demo.code == 0, demo.said
    assert report["saved"] == 1000
    assert len(set(demo.words())) == len(demo.words()) == 1000
    import httpx2

    summary = httpx2.get(f"{standin}/standin/summary").json()
    assert summary["repeated"] <= 10 * 14 * 10  # ten kills, 14 calls of ten words in flight
    assert summary["calls"] - 100 <= 10 * 14 + 10
    assert summary["refused"] == 0 or summary["calls"] > 100


def test_ctrl_c_stops_in_order_and_the_next_run_goes_on(demo: Demo) -> None:
    process = subprocess.Popen(
        command("--speed", "10"),
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
    report = demo.run()
    assert (demo.code, report["saved"]) == (0, 1000)
    assert report["calls"] <= (1000 - saved) / 10 + 10


def test_running_text_of_all_kinds(demo: Demo) -> None:
    report = demo.run_on('愛，hello 你好!\n"学","學",12,かな,𠀀\n你好你好')
    assert demo.code == 0, demo.said
    assert sorted(demo.words()) == sorted("愛你好学學")
    assert report["saved"] == 5
    left_out = json.dumps(report["left_out"], ensure_ascii=False)
    assert "𠀀" in left_out  # not in the dictionary
    assert "Latin" in left_out or "latin" in left_out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, world", "Chinese"),
        ("你好".encode("gb18030"), "--encoding"),
        (b"\x00\x01\x02\x03", "my.txt"),
        (None, "my.txt"),
    ],
    ids=["empty", "no Chinese", "another encoding", "binary", "missing"],
)
def test_a_file_that_gives_no_cards_is_one_clear_sentence(
    demo: Demo, content: bytes | None, words: str
) -> None:
    if content is not None:
        (demo.folder / "my.txt").write_bytes(content)
    assert demo.run("--file", "my.txt") == {}
    assert demo.code == 2
    assert words in demo.said
    assert len(demo.said.strip().splitlines()) <= 3


def test_another_encoding_that_is_named(demo: Demo) -> None:
    (demo.folder / "my.txt").write_bytes("你好".encode("gb18030"))
    report = demo.run("--file", "my.txt", "--encoding", "gb18030")
    assert (demo.code, report["saved"]) == (0, 2)

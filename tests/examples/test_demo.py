"""What the main job does with its input, in this process. `tests/fleet` runs it as a user does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from examples.demo import main
from tests.examples.workshop import standin_url  # noqa: F401 - a fixture

SPEED = "40"
TEXTS = "--texts-only"


def in_process(folder: Path, loaded: Path, content: bytes, *arguments: str) -> dict[str, Any]:
    """The report of a run on a file, without a process for it and with the dictionary loaded."""
    (folder / "my.txt").write_bytes(content)
    database, report = shutil.copy(loaded, folder / "cards.db"), folder / "report.json"
    files = ["--file", folder / "my.txt", "--database", database, "--report", report]
    assert main([*map(str, files), "--speed", SPEED, TEXTS, *arguments]) == 0
    return dict(json.loads(report.read_text(encoding="utf-8")))


def test_running_text_of_all_kinds(tmp_path: Path, loaded_file: Path) -> None:
    text = '愛，hello 你好!\n"学","學",12,かな,𠀀\n你好你好'
    report = in_process(tmp_path, loaded_file, text.encode())
    assert (report["items"], report["saved"], report["failed"]) == (6, 5, 0)
    assert {group["reason"]: group["text"] for group in report["left_out"]} == {
        "repeated": "你好",
        "Latin letters": "helo",
        "digits": "12",
        "letters of other scripts": "かな",
        "not in the dictionary": "𠀀",
    }


def test_another_encoding_that_is_named(tmp_path: Path, loaded_file: Path) -> None:
    report = in_process(tmp_path, loaded_file, "你好".encode("gb18030"), "--encoding", "gb18030")
    assert report["saved"] == 2


def test_texts_only_of_the_services_themselves_need_no_other_account(
    tmp_path: Path,
    loaded_file: Path,
    standin_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FAL_KEY", "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "key of text")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{standin_url}/v1")
    report = in_process(tmp_path, loaded_file, "你好".encode(), "--service", "real", "--speed", "1")
    assert (report["saved"], report["calls"], report["counted_by"]) == (2, 1, "the clients")


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
    tmp_path: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "my.txt").write_bytes(content)
    database = tmp_path / "cards.db"
    assert main(["--file", str(tmp_path / "my.txt"), "--database", str(database)]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert not database.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "0"], "choose 1 to 3088"),
        (["--size", "3089"], "choose 1 to 3088"),
        (["--report", "no/such/folder/report.json"], "there is no folder"),
        (["--report", "."], "is a folder"),
        (["--database", "mysql://host/name"], "only SQLite files and PostgreSQL"),
        (["--database", "no/such/folder/cards.db"], "There is no folder"),
        (["--service", "openai"], "OPENAI_API_KEY, FAL_KEY, AZURE_SPEECH_KEY, AZURE_SPEECH_REGION"),
        (["--service", "openai", TEXTS], "environment variables OPENAI_API_KEY."),
        (["--service", "openai", "--speed", "2"], "--speed is for the stand-in"),
        (["--standin", "http://127.0.0.1:1"], "No stand-in answers"),
    ],
)
def test_what_cannot_be_done_is_one_clear_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "FAL_KEY", "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert not said.out
    assert words in said.err
    assert len(said.err.splitlines()) == 1

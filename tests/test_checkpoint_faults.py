"""A checkpoint when something goes wrong: its process is killed or forks, another one wants it, the file is
damaged, the disk is full.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchkit import CheckpointError, CheckpointLocked, Entry, SQLiteCheckpoint
from tests.helpers import DEADLINE, in_child

WORKER = Path(__file__).with_name("journal_worker.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these processes are forks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(WORKER), *map(str, arguments)]


def work(*arguments: object) -> str:
    """What a worker says when it is done."""
    return subprocess.run(
        command(*arguments), check=True, text=True, stdout=subprocess.PIPE, timeout=60
    ).stdout


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the journal of cards."""
    with subprocess.Popen(command("hold", path, "cards"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("seed", [1, 2])
def test_of_writers_killed_at_any_moment_all_that_was_acknowledged_is_there_and_nothing_by_halves(
    path: Path, seed: int
) -> None:
    kills, rounds = work("kill_writers", path, 30, seed).split()
    assert int(kills) == 30
    assert int(rounds) >= 30


class TestTwoProcesses:
    def test_the_second_is_refused_and_told_who_has_it(
        self, path: Path, holder: subprocess.Popen[str]
    ) -> None:
        checkpoint = SQLiteCheckpoint(path, version="1")
        with pytest.raises(CheckpointLocked, match=f"run.db: process {holder.pid} has") as caught:
            checkpoint.open("cards")
        assert caught.value.process == holder.pid

    def test_when_the_first_is_killed_the_second_has_it_at_once(
        self, path: Path, holder: subprocess.Popen[str]
    ) -> None:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(DEADLINE)
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            assert journal.find(["from"]) == {"from": Entry("from", "cards")}
        assert [file.name for file in path.parent.iterdir()] == ["run.db"]

    def test_another_journal_of_the_same_file_is_free(
        self, path: Path, holder: subprocess.Popen[str]
    ) -> None:
        with SQLiteCheckpoint(path, version="1").opened("decks") as journal:
            journal.write([Entry("a", 1)])
            assert journal.find(["a", "from"]) == {"a": Entry("a", 1)}

    def test_they_make_a_new_file_together(self, path: Path) -> None:
        assert work("make_together", path, 6) == "6\n"

    def test_no_two_have_it_at_once(self, path: Path) -> None:
        assert work("contend", path, 60) == "60\n"


class TestFork:
    def test_the_child_has_no_part_in_what_its_parent_opened(self, path: Path) -> None:
        def check() -> bool:
            with pytest.raises(CheckpointError, match="not open in this process"):
                journal.find(["a"])
            with pytest.raises(CheckpointLocked, match=f"process {os.getppid()} has"):
                journal.open("cards")
            journal.close()
            with journal.opened("decks"):
                journal.write([Entry("a", "child")])
            return True

        journal = SQLiteCheckpoint(path, version="1")
        with journal.opened("cards"):
            journal.write([Entry("a", 1)])
            in_child(check)
            journal.write([Entry("b", 2)])
            assert len(journal.find(["a", "b"])) == 2
            with pytest.raises(CheckpointLocked):
                SQLiteCheckpoint(path, version="1").open("cards")
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()

    def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(self, path: Path) -> None:
        ours, theirs = os.pipe()
        parent = os.fork()
        if parent == 0:
            journal = SQLiteCheckpoint(path, version="1")
            journal.open("cards")
            if os.fork() == 0:
                os.close(ours)
                os.write(theirs, b".")
                signal.alarm(int(DEADLINE))
                signal.pause()  # until the test kills it
            signal.pause()
        os.close(theirs)
        with os.fdopen(ours, "rb"):
            assert os.read(ours, 1) == b"."
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)
            with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
                assert journal.find(["a"]) == {}

    def test_while_threads_of_the_parent_are_amid_sqlite(self, path: Path) -> None:
        """A lock of SQLite that another thread had at the fork would be locked in the child for ever."""
        assert work("fork_amid_writes", path, 100) == "100\n"


def header(path: Path) -> None:
    """Of a database, but nothing behind it."""
    path.write_bytes(b"SQLite format 3\0" + b"\0" * 84)


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(8192))


def newer(path: Path) -> None:
    with SQLiteCheckpoint(path, version="1").opened("cards"):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE card (word TEXT)")
    connection.close()


def foreign_by_its_number(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 7")
    connection.close()


class TestFilesThatAreNone:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (noise, "damaged, or no database"),
            (header, "damaged, or no database"),
            (newer, r"a newer batchkit wrote the file \(format 2; this one knows 1\): upgrade"),
            (foreign, "the database of another program: choose another path"),
            (foreign_by_its_number, "the database of another program"),
            (Path.mkdir, "cannot be opened"),
        ],
    )
    def test_are_refused_in_words_and_left_as_they_are(
        self, path: Path, make: Callable[[Path], None], words: str
    ) -> None:
        make(path)
        before = path.read_bytes() if path.is_file() else None
        checkpoint = SQLiteCheckpoint(path, version="1")
        for _ in range(2):  # the lock is given back
            with pytest.raises(CheckpointError, match=rf"run\.db: .*{words}") as caught:
                checkpoint.open("cards")
            assert not isinstance(caught.value, CheckpointLocked)
        assert (path.read_bytes() if path.is_file() else None) == before
        assert [file.name for file in path.parent.iterdir()] == ["run.db"]

    def test_a_folder_that_is_not_there(self, path: Path) -> None:
        with pytest.raises(CheckpointError, match="no lock file can be made beside it"):
            SQLiteCheckpoint(path / "run.db", version="1").open("cards")

    def test_a_file_that_is_empty_is_a_new_one(self, path: Path) -> None:
        path.touch()
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([Entry("a", 1)])

    def test_a_file_that_was_damaged_in_its_midst(self, path: Path) -> None:
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([Entry(f"{n}", "x" * 500) for n in range(500)])
        content = bytearray(path.read_bytes())
        content[12_288:] = random.Random(1).randbytes(len(content) - 12_288)
        path.write_bytes(content)
        with (
            pytest.raises(CheckpointError, match="damaged"),
            SQLiteCheckpoint(path, version="1").opened("cards") as journal,
        ):
            journal.find([f"{n}" for n in range(500)])

    def test_a_file_that_was_cut_off(self, path: Path) -> None:
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([Entry(f"{n}", "x" * 500) for n in range(500)])
        os.truncate(path, path.stat().st_size // 2)
        with (
            pytest.raises(CheckpointError, match="damaged"),
            SQLiteCheckpoint(path, version="1").opened("cards") as journal,
        ):
            journal.find([f"{n}" for n in range(500)])


class TestNoRoom:
    def test_a_file_that_may_not_grow_is_an_error_and_harms_nothing(self, path: Path) -> None:
        said = work("fill_file", path).splitlines()
        assert "the disk does not do what it is told" in said[0]
        assert int(said[1]) > 10

    def test_a_full_disk_is_an_error_and_harms_nothing(self, tmp_path: Path) -> None:
        if not shutil.which("unshare"):
            pytest.skip("there is no unshare here")
        script = 'mount -t tmpfs -o size=600k none "$1" && shift && exec "$@"'
        within = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path)]
        if subprocess.run([*within, "true"], capture_output=True).returncode:
            pytest.skip("nothing may be mounted here")
        found = subprocess.run(
            [*within, *command("fill_disk", tmp_path / "run.db")],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
        said = found.stdout.splitlines()
        assert "the disk is full" in said[0]
        assert int(said[1]) > 10


def test_a_folder_where_nothing_may_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    assert "no lock file can be made beside it" in work("without_right", folder / "run.db")

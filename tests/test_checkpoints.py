"""What a checkpoint remembers, of which function, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchkit import (
    CheckpointError,
    CheckpointLocked,
    CheckpointStatistics,
    Entry,
    NotStorable,
    SQLiteCheckpoint,
)
from batchkit._values import described
from batchkit.abc import Checkpoint
from tests.helpers import threads
from tests.test_limiters_interrupted import CtrlC


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SQLiteCheckpoint]:
    with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
        yield journal


def test_it_is_a_checkpoint(path: Path) -> None:
    checkpoint: Checkpoint = SQLiteCheckpoint(path, version="1")
    checkpoint.open("cards")
    checkpoint.write([Entry("好", "good")])
    checkpoint.close()
    assert checkpoint.version == "1"


class TestWhatItRemembers:
    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            0,
            2**70,
            0.1,
            "",
            "好 \U0001f600 \0",
            [],
            {"pinyin": ["hǎo", "hào"], "": {"a": [1, 2.5, None, False]}},
        ],
        ids=repr,
    )
    def test_a_value_comes_back_as_it_was(self, path: Path, value: Any) -> None:
        entry = Entry("好", value, attempts=2, seconds=0.25)
        checkpoint = SQLiteCheckpoint(path, version="1")
        with checkpoint.opened("cards"):
            checkpoint.write([entry])
            assert checkpoint.find(["好"]) == {"好": entry}
        with checkpoint.opened("cards"):
            assert checkpoint.find(["好"]) == {"好": entry}

    def test_only_what_is_known_is_found(self, journal: SQLiteCheckpoint) -> None:
        journal.write([Entry("a", 1), Entry("b", 2)])
        assert journal.find(["b", "c", "a", "b"]) == {"a": Entry("a", 1), "b": Entry("b", 2)}
        assert journal.find([]) == {}

    def test_the_last_entry_of_a_key_counts(self, journal: SQLiteCheckpoint) -> None:
        journal.write([Entry("a", error="ValueError: no", item="a", attempts=3), Entry("a", 1)])
        assert journal.find(["a"]) == {"a": Entry("a", 1)}
        journal.write([Entry("a", 2), Entry("b")])
        journal.write([])
        assert journal.find(["a", "b"]) == {"a": Entry("a", 2), "b": Entry("b")}

    def test_thousands_of_keys_in_one_question(self, journal: SQLiteCheckpoint) -> None:
        entries = [Entry(f"card:{number}", number) for number in range(2501)]
        journal.write(entries)
        assert journal.find([entry.key for entry in entries] + ["other"]) == {
            entry.key: entry for entry in entries
        }

    @pytest.mark.parametrize("key", ["", "a\0b", "'; DROP TABLE entry; --", "x" * 100_000, "好", "%_"])
    def test_any_text_is_a_key(self, journal: SQLiteCheckpoint, key: str) -> None:
        journal.write([Entry(key, 1), Entry(key + "b", 2)])
        assert journal.find([key]) == {key: Entry(key, 1)}

    def test_names_and_versions_are_apart(self, path: Path) -> None:
        for name, version in [("cards", "1"), ("cards", "2"), ("decks", "1")]:
            checkpoint = SQLiteCheckpoint(path, version=version)
            with checkpoint.opened(name):
                assert checkpoint.find(["a"]) == {}
                checkpoint.write([Entry("a", [name, version])])
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            assert journal.find(["a"])["a"].value == ["cards", "1"]

    def test_a_codec_of_ones_own(self, path: Path) -> None:
        codec: Any = SimpleNamespace(
            encode=lambda value: repr(value).encode(), decode=lambda data: eval(data)
        )
        checkpoint = SQLiteCheckpoint(path, version="1", codec=codec)
        with checkpoint.opened("cards"):
            checkpoint.write([Entry("a", (1, {2, 3}))])
            assert checkpoint.find(["a"])["a"].value == (1, {2, 3})

    def test_several_journals_of_a_file_are_in_use_at_once(self, path: Path) -> None:
        journals = [SQLiteCheckpoint(path, version="1") for _ in range(4)]

        def work(number: int) -> None:
            with journals[number].opened(f"worker {number}") as journal:
                for entry in range(50):
                    journal.write([Entry(f"{entry}", number)])
                assert {entry.value for entry in journal.find([f"{n}" for n in range(50)]).values()} == {
                    number
                }

        with threads(*[lambda number=number: work(number) for number in range(4)]):
            pass


class TestWhatFailed:
    FAILED = Entry("bad", error="ValueError: no such word", attempts=3, seconds=0.5, item={"word": "x"})

    def test_it_is_found_as_failed(self, journal: SQLiteCheckpoint) -> None:
        journal.write([self.FAILED])
        assert journal.find(["bad"]) == {"bad": self.FAILED}
        assert not journal.find(["bad"])["bad"].ok

    def test_it_is_called_again_on_request(self, path: Path) -> None:
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([self.FAILED, Entry("good", 1)])
        with SQLiteCheckpoint(path, version="1", retry_failed=True).opened("cards") as journal:
            assert journal.find(["bad", "good", "new"]) == {"good": Entry("good", 1)}
            assert journal.dead_letters() == [self.FAILED]
            journal.write([Entry("bad", "better")])
            assert journal.dead_letters() == []
            assert journal.find(["bad"])["bad"].value == "better"

    def test_dead_letters_are_in_the_order_in_which_they_came(self, journal: SQLiteCheckpoint) -> None:
        keys = ["z", "a", "m"]
        for key in keys:
            journal.write([Entry(key + "!", 1), Entry(key, error="OSError", item=key)])
        assert [entry.key for entry in journal.dead_letters()] == keys
        assert [entry.item for entry in journal.dead_letters()] == keys

    @pytest.mark.parametrize("item", [("a", 1), {1: 2}, {1, 2}, object, float("nan"), 1 + 2j], ids=repr)
    def test_an_item_that_json_cannot_hold_is_there_as_words(
        self, journal: SQLiteCheckpoint, item: Any
    ) -> None:
        journal.write([Entry("bad", error="ValueError", item=item)])
        found = journal.dead_letters()[0].item
        if isinstance(item, (set, complex, type)):
            assert found == repr(item)
        else:
            assert str(found) == str(json.loads(json.dumps(item)))

    def test_odd_words_are_kept_as_far_as_they_can_be(self, journal: SQLiteCheckpoint) -> None:
        journal.write([Entry("bad", error="ValueError: \ud800 好 \0")])
        assert journal.find(["bad"])["bad"].error == "ValueError: \\ud800 好 \0"

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (ValueError("no such word"), "ValueError: no such word"),
            (KeyError("好"), "KeyError: '好'"),
            (TimeoutError(), "TimeoutError"),
            (
                json.JSONDecodeError("no value", "x", 0),
                "json.decoder.JSONDecodeError: no value: line 1 column 1 (char 0)",
            ),
            (
                ExceptionGroup("two", [ValueError("one"), ExceptionGroup("more", [OSError("other")])]),
                "ExceptionGroup: two (2 sub-exceptions) [ValueError: one;"
                " ExceptionGroup: more (1 sub-exception) [OSError: other]]",
            ),
        ],
    )
    def test_an_error_is_its_type_and_its_words(self, error: Exception, words: str) -> None:
        assert described(error) == words


class TestWhatItRefuses:
    @pytest.mark.parametrize(
        "value",
        [(1, 2), [(1,)], {1: "a"}, {1, 2}, float("nan"), "\ud800", object, b"x"],
        ids=repr,
    )
    def test_json_keeps_nothing_that_would_come_back_as_something_else(
        self, journal: SQLiteCheckpoint, value: Any
    ) -> None:
        with pytest.raises(NotStorable, match="'character 7'") as caught:
            journal.write([Entry("fine", 1), Entry("character 7", value)])
        assert caught.value.key == "character 7"
        assert isinstance(caught.value, TypeError)
        assert journal.find(["fine", "character 7"]) == {}

    def test_another_codec_that_fails(self, path: Path) -> None:
        def fail(value: object) -> bytes:
            raise OverflowError("too much")

        codec: Any = SimpleNamespace(encode=fail, decode=fail)
        with (
            SQLiteCheckpoint(path, version="1", codec=codec).opened("cards") as journal,
            pytest.raises(NotStorable, match="too much"),
        ):
            journal.write([Entry("a", 1)])

    def test_a_value_that_another_codec_wrote(self, path: Path) -> None:
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([Entry("a", "text")])

        def fail(data: bytes) -> Any:
            raise ValueError("not mine")

        codec: Any = SimpleNamespace(encode=str.encode, decode=fail)
        with (
            SQLiteCheckpoint(path, version="1", codec=codec).opened("cards") as journal,
            pytest.raises(CheckpointError, match=r"cannot read the value of 'a'.*change version"),
        ):
            journal.find(["a"])

    def test_a_key_that_is_no_text(self, journal: SQLiteCheckpoint) -> None:
        with pytest.raises(NotStorable, match=r"'\\ud800'"):
            journal.write([Entry("\ud800", 1)])
        with pytest.raises(NotStorable, match=r"'\\ud800'"):
            journal.find(["\ud800"])

    def test_a_run_at_the_same_time(self, path: Path, journal: SQLiteCheckpoint) -> None:
        with pytest.raises(CheckpointLocked, match="is in use"):
            journal.open("cards")
        with pytest.raises(CheckpointLocked, match="has the journal of 'cards'"):
            SQLiteCheckpoint(path, version="2").open("cards")
        journal.write([Entry("a", 1)])  # which harms nobody
        assert journal.find(["a"]) == {"a": Entry("a", 1)}

    def test_by_another_way_to_the_same_file(self, path: Path, journal: SQLiteCheckpoint) -> None:
        link = path.with_name("link.db")
        link.symlink_to(path)
        with pytest.raises(CheckpointLocked, match=r"run\.db"):
            SQLiteCheckpoint(link, version="1").open("cards")

    def test_after_it_was_closed_it_can_be_opened_again(self, path: Path) -> None:
        checkpoint = SQLiteCheckpoint(path, version="1")
        checkpoint.close()
        for name in ("cards", "decks", "cards"):
            checkpoint.open(name)
            checkpoint.write([Entry("a", name)])
            checkpoint.close()
            checkpoint.close()
        assert sorted(file.name for file in path.parent.iterdir()) == ["run.db"]

    def test_when_it_is_not_open(self, path: Path) -> None:
        checkpoint = SQLiteCheckpoint(path, version="1")
        for use in (lambda: checkpoint.find(["a"]), lambda: checkpoint.write([]), checkpoint.compact):
            with pytest.raises(CheckpointError, match="not open"):
                use()

    @pytest.mark.parametrize("path", ["", ":memory:"])
    def test_a_path_that_is_no_files(self, path: str) -> None:
        with pytest.raises(ValueError, match="path of a file"):
            SQLiteCheckpoint(path, version="1")

    def test_another_synchronous(self, path: Path) -> None:
        off: Any = "off"
        with pytest.raises(ValueError, match="synchronous"):
            SQLiteCheckpoint(path, version="1", synchronous=off)


def test_after_ctrl_c_at_any_moment_it_works_on(path: Path) -> None:
    checkpoint = SQLiteCheckpoint(path, version="1")
    entries = [Entry("a", 1), Entry("b", 2)]
    found: list[Any] = []
    with checkpoint.opened("cards"):
        strike, struck = 0, True
        while struck:
            strike += 1
            checkpoint.write([Entry("a", 0), Entry("b", 0)])
            struck = CtrlC(strike).strikes(partial(checkpoint.write, entries))
            found = [entry.value for entry in checkpoint.find(["a", "b"]).values()]
            assert found in ([0, 0], [1, 2]), f"after a strike at {strike}"
    assert found == [1, 2]
    assert strike > 10


# a connection that was struck before anybody had it is closed by the garbage collector, which says so
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_ctrl_c_at_any_moment_it_can_be_opened(path: Path) -> None:
    strike, struck = 0, True
    while struck:
        strike += 1
        checkpoint = SQLiteCheckpoint(path, version="1")
        struck = CtrlC(strike).strikes(partial(checkpoint.open, "cards"))
        checkpoint.close()
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([Entry("a", strike)])
    assert strike > 10


def test_after_ctrl_c_at_any_moment_it_can_be_closed(path: Path) -> None:
    strike, struck = 0, True
    while struck:
        strike += 1
        checkpoint = SQLiteCheckpoint(path, version="1")
        checkpoint.open("cards")
        struck = CtrlC(strike).strikes(checkpoint.close)
        checkpoint.close()
        with SQLiteCheckpoint(path, version="1").opened("cards"):
            checkpoint.close()  # which is no harm to another one
            with pytest.raises(CheckpointLocked):
                SQLiteCheckpoint(path, version="1").open("cards")
    assert strike > 5


class TestSize:
    def test_what_is_there_is_counted(self, path: Path) -> None:
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([Entry(f"{n}", n) for n in range(5)])
        with SQLiteCheckpoint(path, version="1").opened("decks") as journal:
            journal.write([Entry("a", 1)])
        with SQLiteCheckpoint(path, version="2").opened("cards") as journal:
            journal.write([Entry("a", 1), Entry("b", 2), Entry("c", error="ValueError")])
            found = journal.statistics()
        assert attrs.evolve(found, bytes=0) == CheckpointStatistics(
            succeeded=2, failed=1, outdated=5, bytes=0
        )
        assert found.bytes > 4096

    def test_compaction_drops_other_versions_and_gives_the_room_back(self, path: Path) -> None:
        for version in ("1", "2"):
            with SQLiteCheckpoint(path, version=version).opened("cards") as journal:
                journal.write([Entry(f"{n}", "x" * 1000) for n in range(1000)])
        with SQLiteCheckpoint(path, version="1").opened("decks") as journal:
            journal.write([Entry("a", 1)])
        with SQLiteCheckpoint(path, version="2").opened("cards") as journal:
            before = journal.statistics().bytes
            assert journal.compact() == 1000
            assert journal.compact() == 0
            assert journal.statistics().bytes < 0.6 * before
            assert len(journal.find([f"{n}" for n in range(1000)])) == 1000
        with SQLiteCheckpoint(path, version="1").opened("decks") as journal:
            assert journal.find(["a"]) == {"a": Entry("a", 1)}
        assert path.stat().st_size < 0.6 * before

    def test_a_question_looks_up_its_keys_and_reads_nothing_else(self, path: Path) -> None:
        with SQLiteCheckpoint(path, version="1").opened("cards") as journal:
            journal.write([Entry("a", 1)])
        with sqlite3.connect(path) as connection:
            questions = {
                "SELECT value FROM entry WHERE journal = 1 AND key IN ('a', 'b')": "(journal=? AND key=?)",
                "SELECT key FROM entry WHERE journal = 1 AND error IS NOT NULL": "failed",
            }
            for question, index in questions.items():
                plan = connection.execute(f"EXPLAIN QUERY PLAN {question}").fetchall()
                assert all(row[3].startswith("SEARCH") and index in row[3] for row in plan)
        connection.close()


@pytest.mark.parametrize(("synchronous", "number"), [("normal", 1), ("full", 2)])
def test_how_much_it_waits_for_the_disk_can_be_chosen(path: Path, synchronous: Any, number: int) -> None:
    checkpoint = SQLiteCheckpoint(path, version="1", synchronous=synchronous)
    with checkpoint.opened("cards"):
        connection = checkpoint._connection
        assert connection is not None
        assert connection.execute("PRAGMA synchronous").fetchone() == (number,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_import_batchkit_loads_no_database() -> None:
    script = "import sys, batchkit; print('sqlite3' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)
KEYS = st.sampled_from(["a", "b", "c", "好"])
ENTRIES = st.one_of(
    st.builds(Entry, key=KEYS, value=VALUES, attempts=st.integers(0, 9), seconds=st.floats(0, 9)),
    st.builds(Entry, key=KEYS, error=st.sampled_from(["ValueError: no", "OSError"]), item=st.integers()),
)


class Journals(RuleBasedStateMachine):
    """A file against dictionaries, one for each name and version."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.journal: SQLiteCheckpoint | None = None
        self.known: dict[tuple[str, str], dict[str, Entry]] = {}
        self.at = ("", "")

    @precondition(lambda self: self.journal is None)
    @rule(name=st.sampled_from(["cards", "decks"]), version=st.sampled_from(["1", "2"]), retry=st.booleans())
    def open(self, name: str, version: str, retry: bool) -> None:
        self.journal = SQLiteCheckpoint(f"{self.folder.name}/run.db", version=version, retry_failed=retry)
        self.journal.open(name)
        self.at, self.retry = (name, version), retry
        self.known.setdefault(self.at, {})

    @precondition(lambda self: self.journal is not None)
    @rule()
    def close(self) -> None:
        assert self.journal is not None
        self.journal.close()
        self.journal = None

    @precondition(lambda self: self.journal is not None)
    @rule(entries=st.lists(ENTRIES, max_size=4))
    def write(self, entries: list[Entry]) -> None:
        assert self.journal is not None
        self.journal.write(entries)
        self.known[self.at].update((entry.key, entry) for entry in entries)

    @precondition(lambda self: self.journal is not None)
    @rule(entries=st.lists(ENTRIES, max_size=4))
    def write_what_cannot_be_kept(self, entries: list[Entry]) -> None:
        assert self.journal is not None
        with pytest.raises(NotStorable):
            self.journal.write([*entries, Entry("a", {1, 2})])

    @precondition(lambda self: self.journal is not None)
    @rule()
    def compact(self) -> None:
        assert self.journal is not None
        others = [at for at in self.known if at[0] == self.at[0] and at != self.at]
        assert self.journal.compact() == sum(len(self.known.pop(at)) for at in others)

    @precondition(lambda self: self.journal is not None)
    @invariant()
    def it_knows_what_was_written(self) -> None:
        assert self.journal is not None
        known = self.known[self.at]
        failed = {key: entry for key, entry in known.items() if not entry.ok}
        expected = {key: entry for key, entry in known.items() if entry.ok} if self.retry else known
        assert self.journal.find(["a", "b", "c", "好", "d"]) == expected
        assert {entry.key: entry for entry in self.journal.dead_letters()} == failed
        found = self.journal.statistics()
        assert (found.succeeded, found.failed) == (len(known) - len(failed), len(failed))

    def teardown(self) -> None:
        if self.journal is not None:
            self.journal.close()
        self.folder.cleanup()


TestJournals = Journals.TestCase
TestJournals.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)

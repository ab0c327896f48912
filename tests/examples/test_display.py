"""What is printed, while a run goes on and at its end."""

from io import StringIO

from attrs import evolve
from rich.console import Console

from batchkit import BatchSplit, CallFinished, ItemFinished, Outcome
from examples import display
from examples.characters import LeftOut, Reason
from examples.database import Card
from examples.progress import Bar, Lines, watcher
from examples.report import Report

CARD = Card("好", "hǎo, hào", {"hǎo": ["good", "well"], "hào": ["to like"]}, "[m]", "你好！", "nǐ hǎo", "Hi!")
REPORT = Report(
    items=30,
    saved=5,
    already_there=0,
    failed=25,
    failures={chr(0x4E00 + number): "the answer is [malformed]" for number in range(25)},
    left_out=[LeftOut(Reason.LATIN, 26, "abcdefghijklmnopqrstuvwxyz")],
    seconds=6.0,
    wall_seconds=6.0,
    bound_seconds=None,
    calls=0,
    refused=0,
    repeated=None,
    counted_by="this client",
    cache_hit_rate=0.0,
    limited_by="latency",
    advice="[none]",
    rows=5,
    round_trips=2,
    input_tokens=0,
    output_tokens=0,
    estimated_cost=0.0,
    speed=1.0,
)


def console(terminal: bool) -> Console:
    return Console(file=StringIO(), width=100, force_terminal=terminal, highlight=False)


def printed(out: Console) -> str:
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


def finish(item: int, error: Exception | None = None) -> ItemFinished:
    return ItemFinished("import", Outcome(item, item, None, error))


def test_a_log_gets_a_line_for_each_tenth() -> None:
    out = console(terminal=False)
    watch = watcher(out, 1000)
    assert isinstance(watch, Lines)
    with watch:
        for item in range(1000):
            if item % 10 == 0:
                watch(CallFinished("import", 10, 1.0, None))
            watch(finish(item))
    lines = printed(out).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("  100 of 1,000 cards, 10 calls, ")


def test_a_terminal_gets_a_bar() -> None:
    out = console(terminal=True)
    watch = watcher(out, 2)
    assert isinstance(watch, Bar)
    with watch:
        watch(BatchSplit("import", 2, ValueError()))
        watch(finish(0))
        watch(finish(1, ValueError()))
    assert str(watch.counts) == "0 calls, 1 split, 1 failed"
    assert "2/2" in printed(out)


def test_the_closing_words_name_failures_and_what_was_left_out() -> None:
    out = console(terminal=False)
    out.print(display.closing(REPORT, [CARD]))
    said = printed(out)
    assert "the answer is [malformed]" in said
    assert "and 5 more" in said
    assert "26 Latin letters" in said
    assert "abcdefghijklmnopqrst..." in said
    assert "hǎo, hào" in said
    assert "good; well; to like" in said
    assert "[m]" in said
    assert "CC-CEDICT" in said
    assert "CC BY-SA 4.0" in said


def test_a_picture() -> None:
    picture = display.picture(evolve(REPORT, failures={}), [CARD])
    assert picture.startswith("<svg")
    assert "好" in picture

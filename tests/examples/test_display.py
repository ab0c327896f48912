"""What is printed, while a run goes on and at its end."""

from io import StringIO

from attrs import evolve
from rich.console import Console

from examples.database import Card, Progress
from examples.language.characters import LeftOut, Reason
from examples.reporting import display
from examples.reporting.progress import Bars, Lines, watcher
from examples.reporting.report import Report

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


def test_a_log_gets_a_line_for_each_tenth_of_each_step() -> None:
    out = console(terminal=False)
    with watcher(out) as watch:
        assert isinstance(watch, Lines)
        for done in range(1, 1001, 7):
            watch.show(Progress(words=1000, texts=done, complete=0))
        watch.show(Progress(1000, 1000, 250))
        watch.show(Progress(1000, 1000, 1000))
    lines = printed(out).splitlines()
    assert lines[0].startswith("  100 of 1,000 cards, ")
    assert len([line for line in lines if "cards" in line]) == 10
    assert [line.partition(",")[0] for line in lines[-2:]] == ["  200 of 1", "  1"]
    assert "  1,000 of 1,000 pictures and sounds, " in lines[-1]


def test_what_was_there_before_is_not_told_as_progress() -> None:
    out = console(terminal=False)
    with watcher(out, with_media=False) as watch:
        watch.show(Progress(words=10, texts=5, complete=10))
        watch.show(Progress(words=10, texts=6, complete=10))
    assert [line.partition(",")[0] for line in printed(out).splitlines()] == ["  6 of 10 cards"]


def test_a_terminal_gets_a_bar_for_each_step() -> None:
    out = console(terminal=True)
    with watcher(out) as watch:
        assert isinstance(watch, Bars)
        watch.show(Progress(words=2, texts=2, complete=1))
    assert "2/2" in printed(out)
    assert "1/2" in printed(out)


def test_the_decks_have_a_part_of_their_own() -> None:
    out = console(terminal=False)
    out.print(display.closing(evolve(REPORT, failures={}, decks=REPORT), [CARD]))
    assert "Texts: the import" in printed(out)
    assert "Pictures and sounds: the decks" in printed(out)
    assert "the answer is [malformed]" in printed(out)


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

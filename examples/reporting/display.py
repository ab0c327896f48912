"""What a run prints, apart from its progress."""

from collections.abc import Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from examples.database import Card
from examples.database.dictionary import ATTRIBUTION
from examples.language.characters import LeftOut
from examples.reporting.report import Report
from examples.reporting.trial import Trial

MOST = 20  # characters, or failures, that are named on the screen; the report file has all
PICTURE_WIDTH = 110  # columns


def grid(rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values, without lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def report_panel(report: Report, title: str) -> Panel:
    """The closing report."""
    return Panel(grid(report.lines()), title=title, title_align="left", expand=False)


def left_out(groups: Sequence[LeftOut]) -> RenderableType:
    """What was not taken, and why."""
    return grid([(f"{group.count:,} {group.reason}", shortened(group.text)) for group in groups])


def failures(report: Report) -> RenderableType:
    """Who got no card, and why."""
    named = list(report.failures.items())
    more = [("...", f"and {len(named) - MOST:,} more")] if len(named) > MOST else []
    return grid(named[:MOST] + more)


def example_cards(cards: Sequence[Card]) -> Group:
    """A few cards."""
    return Group(*(Panel(face(card), title=card.word, title_align="left", expand=False) for card in cards))


def face(card: Card) -> Table:
    """Both sides of a card."""
    meanings = "; ".join(meaning for meanings in card.definitions.values() for meaning in meanings[:2])
    return grid(
        [
            (card.pinyin, meanings),
            ("remember", card.mnemonic),
            ("example", f"{card.example} {card.example_pinyin}\n{card.example_translation}"),
        ]
    )


def closing(report: Report, cards: Sequence[Card]) -> Group:
    """All that a run ends with."""
    parts: list[RenderableType] = [report_panel(report, "Texts: the import" if report.decks else "Report")]
    if report.decks:
        parts.append(report_panel(report.decks, "Pictures and sounds: the decks"))
    if report.left_out:
        parts += ["[bold]Left out", left_out(report.left_out)]
    for part in filter(None, (report, report.decks)):
        if part.failures:
            parts += ["[bold red]Failed", failures(part)]
    return Group(*parts, example_cards(cards), f"[dim]{ATTRIBUTION}")


def trials(found: Sequence[Trial]) -> Group:
    """What load tests found."""
    return Group(
        *(Panel(grid(trial.lines()), title="Load test", title_align="left", expand=False) for trial in found)
    )


def picture(report: Report, cards: Sequence[Card]) -> str:
    """The end of a run as an SVG."""
    console = Console(
        record=True, file=StringIO(), width=PICTURE_WIDTH, force_terminal=True, legacy_windows=False
    )
    console.print(ProgressBar(total=report.items, completed=report.saved, width=PICTURE_WIDTH))
    console.print(closing(report, cards))
    return console.export_svg(title="python3 noxfile.py -s demo")


def shortened(text: str) -> str:
    """The first few characters."""
    return text if len(text) <= MOST else f"{text[:MOST]}..."

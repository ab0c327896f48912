"""One run of the demo: prepare, import under the eyes of the user, report."""

from argparse import Namespace

from attrs import define, evolve, field, frozen
from rich.console import Console
from rich.markup import escape

from examples import display
from examples.bulk_import import BulkImport
from examples.characters import LeftOut, Reason, Selection
from examples.database import Database, Traffic
from examples.dictionary import Dictionary
from examples.errors import NotAllowed, NotSaved
from examples.files import write
from examples.interrupt import until_stopped
from examples.progress import watcher
from examples.report import Load, Report, cost, limited_by
from examples.services import Services
from examples.settings import Settings
from examples.text import TextService

DONE, FAILED, INTERRUPTED = 0, 1, 130  # exit codes; the last is what a shell says of Ctrl-C
SHOWN = 3  # cards that are printed at the end


@frozen
class Early:
    """Why a run ended before its time, and with which exit code."""

    why: str
    code: int


@define(eq=False)
class Work:
    """What a run needs."""

    config: Settings
    database: Database
    service: Services
    text: TextService
    selection: Selection
    console: Console = field(factory=lambda: Console(highlight=False))

    async def do(self, options: Namespace) -> int:
        """Import and report; returns the exit code."""
        importer = await self.prepared()
        traffic = evolve(self.database.traffic)
        new = await importer.new(self.selection.wanted)
        self.introduce(new)
        early = await self.attend(importer, new) if new else None
        report = await self.report(importer, new, traffic, early)
        await self.show(report, options)
        self.console.print(self.conclusion(report, early), soft_wrap=True)
        return early.code if early else FAILED if report.failed else DONE

    async def prepared(self) -> BulkImport:
        """The worker, with the dictionary in the database."""
        dictionary = Dictionary(self.database)
        with self.console.status("Loading the dictionary CC-CEDICT into the database, once ..."):
            await dictionary.load()
        return BulkImport(self.database, dictionary, self.text, self.config)

    def introduce(self, new: list[str]) -> None:
        """Say what is going to happen, and where."""
        options, wanted = self.config.text, len(self.selection.wanted)
        there = f"; the other {wanted - len(new):,} have one" if len(new) < wanted else ""
        self.console.print(f"[bold]{len(new):,} characters are to get a flashcard{there}.")
        quota = f"{options.rate:g} calls/s, {options.burst} at once"
        rows = [("text service", f"{self.service.text.name} ({quota})"), ("database", self.database.place)]
        self.console.print(display.grid(rows))

    async def attend(self, importer: BulkImport, words: list[str]) -> Early | None:
        """Run the import, heed signals, and show how it goes."""

        async def work() -> None:
            with watcher(self.console, len(words)) as watch:
                importer.hooks = [watch]
                await importer.run(words)

        grace = self.config.bulk_import.grace
        try:
            stopped = await until_stopped(work, importer.stop, grace, self.console.print)
        except (NotAllowed, NotSaved) as error:
            return Early(str(error), FAILED)
        return Early("you asked for it", INTERRUPTED) if stopped else None

    async def report(
        self, importer: BulkImport, new: list[str], traffic: Traffic, early: Early | None
    ) -> Report:
        """All figures; `traffic` is what the database had seen before."""
        wanted, tokens, speed = self.selection.wanted, self.text.tokens, self.service.text.speed
        prices = self.config.text.input_price, self.config.text.output_price
        ledger = await self.service.ledger(self.text)
        saved = len(await self.database.known(wanted))
        held_back_by, advice = limited_by(self.load(importer))
        return Report(
            items=len(wanted),
            saved=saved,
            already_there=len(wanted) - len(new),
            failed=len(importer.failures),
            failures=importer.failures,
            left_out=[*self.selection.left_out, *not_in_the_dictionary(importer.unknown)],
            seconds=importer.seconds * speed,
            wall_seconds=importer.seconds,
            bound_seconds=ledger.bound_seconds,
            calls=ledger.calls,
            refused=ledger.refused,
            repeated=ledger.repeated,
            counted_by=ledger.counted_by,
            cache_hit_rate=importer.cache.statistics().hit_rate,
            limited_by=held_back_by,
            advice=advice,
            rows=self.database.traffic.rows - traffic.rows,
            round_trips=self.database.traffic.round_trips - traffic.round_trips,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            estimated_cost=cost(tokens.input, tokens.output, *prices),
            speed=speed,
            stopped=early is not None,
        )

    def load(self, importer: BulkImport) -> Load:
        """What the slots of the worker did, in service time."""
        usage, speed = self.text.usage, self.service.text.speed
        return Load(
            seconds=importer.seconds * speed,
            slots=self.config.scaled(self.config.bulk_import.concurrency),
            calls=usage.calls,
            refused=usage.refused,
            calling=usage.calling * speed,
            waiting=usage.waiting * speed,
            pausing=usage.pausing * speed,
            saving=importer.saving * speed,
            starved=importer.starved,
            rate=self.config.text.rate,
        )

    async def show(self, report: Report, options: Namespace) -> None:
        """Print the report, and write what was asked for."""
        cards = await self.database.cards(self.selection.wanted[:SHOWN])
        self.console.print(display.closing(report, cards))
        if options.report:
            write(options.report, report.to_json())
        if options.picture:
            write(options.picture, display.picture(report, cards))

    def conclusion(self, report: Report, early: Early | None) -> str:
        """The last line."""
        saved = f"{report.saved:,} cards are in {escape(self.database.place)}"
        if early:
            return f"[bold]Stopped: {escape(early.why)}.[/] {saved}; run it again to go on."
        if report.failed:
            return f"[bold]{report.failed:,} failed.[/] {saved}; run it again to try them again."
        if report.saved and report.already_there == report.saved:
            return f"[bold]Nothing to ask:[/] {saved} already. With another --database it starts anew."
        return f"[bold]Done:[/] {saved}."


def not_in_the_dictionary(words: list[str]) -> list[LeftOut]:
    """Words that the dictionary does not have, as a group of their own."""
    return [LeftOut(Reason.UNKNOWN, len(words), "".join(words))] if words else []

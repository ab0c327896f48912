"""One run of the demo: look what is missing, have the fleet make it under the eyes of the user, report."""

import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import anyio
from attrs import define, evolve, field
from rich.console import Console
from rich.markup import escape

from examples import settings
from examples.database import Database, Deck
from examples.fleet import client, fleet
from examples.fleet.client import MEDIA, Client, Done
from examples.fleet.fleet import Fleet, Plan
from examples.fleet.interrupt import until_stopped
from examples.language.characters import LeftOut, Reason, Selection
from examples.queueing.priorities import Priority
from examples.reporting import display
from examples.reporting.files import write
from examples.reporting.progress import follow, watcher
from examples.reporting.report import Ledger, Report
from examples.reporting.tally import Tally
from examples.settings import Settings

DONE, FAILED, INTERRUPTED = 0, 1, 130  # exit codes; the last is what a shell says of Ctrl-C
SHOWN = 3  # cards that are printed at the end
NAME = "demo"  # of the deck of all words, and of the import and its decks
NO_CALLS = Ledger(0, 0, 0, None, "nobody")


@define(eq=False)
class Work:
    """What a run needs, and what came of it.

    Attributes:
        with_media: whether pictures and sounds are made, too.
        texts: cards that were there before.
        missing: words whose card is not there, or not whole.
        stopped: whether a signal came.
        imported, made: what became of the import, and of the decks that it left.
        account: the report, as far as it is known.
    """

    config: Settings
    database: Database
    selection: Selection
    console: Console
    with_media: bool = True
    texts: int = field(default=0, init=False)
    missing: list[str] = field(factory=list[str], init=False)
    stopped: bool = field(default=False, init=False)
    imported: Done = field(factory=Done, init=False)
    made: Done = field(factory=Done, init=False)
    account: Report | None = field(default=None, init=False)
    _stop: anyio.Event = field(factory=anyio.Event, init=False)
    _since: int = field(default=0, init=False)  # the mark of the ledger at which it began
    _began: float = field(default=0.0, init=False)

    @property
    def wanted(self) -> Sequence[str]:
        """The words of the input."""
        return self.selection.wanted

    async def look(self) -> None:
        """See what is there."""
        cards = {card.word: card for card in await self.database.cards(self.wanted)}
        self.texts = len(cards)
        self.missing = [
            word for word in self.wanted if word not in cards or (self.with_media and cards[word].missing)
        ]

    async def do(self, plan: Plan, options: Namespace) -> int:
        """Have it made, and report; returns the exit code."""
        await self.database.save_deck(Deck(NAME, self.wanted))
        self.introduce(plan)
        grace = self.config.bulk_import.grace
        self.stopped = await until_stopped(
            partial(self.work, plan), self._stop.set, grace, self.console.print
        )
        return await self.close(options)

    def introduce(self, plan: Plan) -> None:
        """Say what is going to happen, and where."""
        there = len(self.wanted) - len(self.missing)
        others = f"; the other {there:,} have one" if there else ""
        self.console.print(f"[bold]{len(self.missing):,} characters are to get a flashcard{others}.")
        config, speed = self.config, f" at {plan.speed:g}x speed" if plan.speed != 1 else ""
        quotas = [
            f"{name} {quota.rate:g}/s, {quota.burst} at once"
            for name, quota in [
                ("texts", config.text),
                ("pictures", config.picture),
                ("sounds", config.sound),
            ]
        ]
        services = "the services themselves" if plan.real else f"a stand-in{speed}"
        rows = [
            ("services", f"{services}: {'; '.join(quotas[: 3 if self.with_media else 1])}"),
            ("workers", ", ".join(f"{count} for {kind}s" for kind, count in plan.workers.items())),
            ("database", self.database.place),
        ]
        self.console.print(display.grid(rows))

    async def work(self, plan: Plan) -> None:
        """Start the fleet, send it the work, watch it, and count."""
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(fleet.started(plan))
            config = settings.load(running.environment)
            sender = await stack.enter_async_context(client.opened(config, self.database, running.services))
            with watcher(self.console, self.with_media) as watch:
                async with anyio.create_task_group() as group:
                    group.start_soon(self.heed, running, group.cancel_scope)
                    group.start_soon(follow, watch, partial(self.database.progress, NAME))
                    await self.send(sender)
                    group.cancel_scope.cancel()
                watch.show(await self.database.progress(NAME))
            self.account = await self.count(sender)

    async def heed(self, running: Fleet, scope: anyio.CancelScope) -> None:
        """When the user says stop, let the workers end what is under way, and wait for nothing else."""
        await self._stop.wait()
        await running.end_all(self.config.bulk_import.grace)
        scope.cancel()

    async def send(self, sender: Client) -> None:
        """Have the import made, and then the decks that it leaves."""
        self._since, self._began = await sender.services.mark(), time.monotonic()
        (job,) = await sender.send("import", [{"name": NAME, "words": [*self.wanted]}], Priority.NORMAL)
        self.imported = await sender.wait("import", [job])
        if self.with_media:
            decks = [name for result in self.imported.results for name in result.get("decks", ())]
            self.made = await sender.wait("deck", [f"{job}:{name}" for name in decks])

    async def count(self, sender: Client) -> Report:
        """The report."""
        imported = await sender.report("import", self.imported, self.wanted, self._since, ["text"])
        if not self.imported.results:  # it was stopped, and says nothing
            seconds, speed = time.monotonic() - self._began, sender.services.text.speed
            imported = evolve(imported, wall_seconds=seconds, seconds=seconds * speed, speed=speed)
        if not self.with_media:
            return imported
        decks = await sender.report("deck", self.made, self.wanted, self._since, MEDIA)
        return evolve(imported, decks=decks)

    async def close(self, options: Namespace) -> int:
        """Complete the report, show it, and write what was asked for; returns the exit code."""
        report = self.completed(self.account or await self.nothing_asked(options.speed))
        cards = await self.database.cards(self.wanted[:SHOWN])
        self.console.print(display.closing(report, cards))
        if options.report:
            write(options.report, report.to_json())
        if options.picture:
            write(options.picture, display.picture(report, cards))
        self.console.print(self.conclusion(report), soft_wrap=True)
        if self.stopped:
            return INTERRUPTED
        return FAILED if self.causes or report.failed or (report.decks and report.decks.failed) else DONE

    async def nothing_asked(self, speed: float) -> Report:
        """The report of a run that did not come to ask anything."""
        cards = await self.database.cards(self.wanted)
        tally = Tally("import", [], self.config)
        report = tally.report(NO_CALLS, items=len(self.wanted), saved=len(cards))
        whole = sum(not card.missing for card in cards)
        decks = evolve(report, saved=whole, already_there=whole, speed=speed)
        return evolve(report, speed=speed, decks=decks if self.with_media else None)

    def completed(self, report: Report) -> Report:
        """With what only this run knows."""
        unknown = [word for result in self.imported.results for word in result["unknown"]]
        return evolve(
            report,
            already_there=self.texts,
            left_out=[*self.selection.left_out, *not_in_the_dictionary(unknown)],
            stopped=self.stopped,
        )

    @property
    def causes(self) -> list[str]:
        """Why jobs failed without having named words."""
        return self.imported.causes + self.made.causes

    def conclusion(self, report: Report) -> str:
        """The last line."""
        place = escape(self.database.place)
        whole = f", {report.decks.saved:,} of them with picture and sounds" if report.decks else ""
        saved = f"{report.saved:,} cards are in {place}{whole}"
        failed = report.failed + (report.decks.failed if report.decks else 0)
        if self.stopped:
            return f"[bold]Stopped: you asked for it.[/] {saved}; run it again to go on."
        if failed:
            return f"[bold]{failed:,} failed.[/] {saved}; run it again to try them again."
        if self.causes:
            return f"[bold]Stopped: {escape(self.causes[0])}.[/] {saved}; run it again to go on."
        if report.saved and not report.calls and not (report.decks and report.decks.calls):
            return f"[bold]Nothing to ask:[/] {saved} already. With another --database it starts anew."
        return f"[bold]Done:[/] {saved}."


def not_in_the_dictionary(words: list[str]) -> list[LeftOut]:
    """Words that the dictionary does not have, as a group of their own."""
    return [LeftOut(Reason.UNKNOWN, len(words), "".join(words))] if words else []

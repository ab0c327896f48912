"""How fast the fleet is, against what the quotas allow: `python -m examples.loadtest deck --cards 500`.

It starts a fleet of its own against the stand-in (a new database, a new Redis), has it make decks, an
import or single cards, and prints the table: the sequential twin, the original's figures, the bound, ours,
and what the stand-in's ledger says.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from attrs import evolve, frozen
from rich.console import Console

from examples import baseline, settings
from examples.database import Deck, chunks, opened
from examples.database.dictionary import Dictionary
from examples.errors import UsageError
from examples.fleet import client, fleet
from examples.fleet.client import Client
from examples.fleet.fleet import Plan
from examples.language.sources import from_hsk
from examples.queueing.priorities import Priority
from examples.reporting.display import trials
from examples.reporting.files import check_writable, write
from examples.reporting.report import Report
from examples.reporting.trial import Trial
from examples.services import services

DONE, FAILED, USAGE = 0, 1, 2  # exit codes
KINDS = {"deck": "deck", "bulk-import": "import", "card": "card"}  # of jobs
POLICIES = {"adaptive": "examples.worker", "backoff": "examples.backoff"}
MOST_TRIES = {f"FLASHCARDS_{name}_ATTEMPTS": "20" for name in ("TEXT", "PICTURE", "SOUND")}
SETTLED = 20.0  # service seconds after which other work uses up the quotas
SAMPLE = 40  # cards of the sequential twin: it takes as long for each of them
MOST_CHARACTERS = 3088  # of HSK
FAULTS = (
    "text.error_rate=0.03",
    "text.malformed_rate=0.02",
    "text.truncated_rate=0.01",
    "picture.error_rate=0.03",
    "picture.flaky_rate=0.05",
    "picture.malformed_rate=0.01",
    "sound.error_rate=0.03",
    "sound.truncated_rate=0.01",
)
ORIGINAL = {
    ("deck", 100): "8-10 min / 2-3 min",
    ("import", 1000): "25-30 min / 8-10 min",
    ("card", 1): "15-20 s / 8-12 s",
}  # before / after


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.report:
            check_writable(options.report)
        return anyio.run(run, options)
    except UsageError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return USAGE


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(prog="python -m examples.loadtest", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="deck|bulk-import|card")
    deck = kinds.add_parser("deck", help="every card of a deck; with several workers, a deck for each")
    deck.add_argument("--cards", dest="size", type=size, default=100, metavar="N")
    importing = kinds.add_parser("bulk-import", help="texts for characters, ten in a call")
    importing.add_argument("--size", type=size, default=1000, metavar="N")
    card = kinds.add_parser("card", help="single cards, one after the other")
    card.add_argument("--cards", dest="size", type=size, default=1, metavar="N")
    card.add_argument("--busy", action="store_true", help="while an import and three decks are made")
    for kind in (deck, importing, card):
        kind.add_argument("--workers", type=size, default=1, metavar="N", help="processes (default 1)")
        kind.add_argument("--speed", type=float, default=20, metavar="S", help="of the stand-in (default 20)")
        kind.add_argument("--baseline", action="store_true", help="measure the sequential twin, too")
        kind.add_argument("--faults", action="store_true", help="errors, answers cut off or malformed")
        kind.add_argument(
            "--quota", type=float, default=1, metavar="F", help="the stand-in allows F times what we think"
        )
        kind.add_argument(
            "--after", type=float, default=0, metavar="T", help="service seconds after which --quota holds"
        )
        kind.add_argument("--policy", choices=POLICIES, default="adaptive", help="what keeps to the quotas")
        kind.add_argument("--set", action="append", default=[], metavar="SWITCH", help="of the stand-in")
        kind.add_argument("--database", metavar="URL", help="without cards (default: a new SQLite file)")
        kind.add_argument("--report", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


def size(text: str) -> int:
    """A number of things."""
    number = int(text)
    if not 1 <= number <= MOST_CHARACTERS:
        raise argparse.ArgumentTypeError(f"choose 1 to {MOST_CHARACTERS}")
    return number


async def run(options: argparse.Namespace) -> int:
    """Run it in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        found = await trial(options, Path(name))
    Console(highlight=False).print(trials([found]))
    if options.report:
        write(options.report, json.dumps(found.to_dict(), ensure_ascii=False, indent=2) + "\n")
    return DONE if found.report.saved == found.report.items else FAILED


async def trial(options: argparse.Namespace, folder: Path) -> Trial:
    """One load test, and the twin's if that is wanted."""
    variables = place(folder, options.database)
    await load(settings.load(variables))
    kind = KINDS[options.kind]
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(fleet.started(plan(options, folder, variables)))
        config = settings.load(running.environment)
        database = await stack.enter_async_context(opened(config.database))
        sender = await stack.enter_async_context(client.opened(config, database, running.services))
        load_test = LoadTest(options, sender)
        report, answered = await load_test.run()
        twin = await load_test.twin(folder) if options.baseline else None
    return Trial(
        kind=kind,
        workers=options.workers,
        policy=options.policy,
        faults=options.faults,
        quota=options.quota,
        original=ORIGINAL.get((kind, options.size), ""),
        baseline_seconds=twin,
        answered_seconds=answered,
        report=report,
    )


def place(folder: Path, database: str | None) -> dict[str, str]:
    """The variables that give a run a database and a media store of its own."""
    return {
        "FLASHCARDS_DATABASE_URL": database or str(folder / "flashcards.db"),
        "FLASHCARDS_MEDIA_FOLDER": str(folder / "media"),
    }


def plan(options: argparse.Namespace, folder: Path, variables: Mapping[str, str]) -> Plan:
    """The fleet of a run."""
    kinds = ("card", "deck", "import") if busy(options) else (KINDS[options.kind],)
    hidden = [] if options.after else [f"{name}.rate={rate}" for name, rate in rates(options.quota).items()]
    return Plan(
        folder=folder,
        workers={kind: int(options.workers) for kind in kinds},
        speed=options.speed,
        switches=[*(FAULTS if options.faults else ()), *hidden, *options.set],
        environment={**variables, **(MOST_TRIES if options.policy == "backoff" else {})},
        module=POLICIES[options.policy],
    )


def busy(options: argparse.Namespace) -> bool:
    """Whether others work meanwhile."""
    return bool(getattr(options, "busy", False))


def rates(factor: float) -> dict[str, float]:
    """What the services allow if it is so much of what the settings say."""
    config = settings.load()
    quotas = {"text": config.text, "picture": config.picture, "sound": config.sound}
    return {name: quota.rate * factor for name, quota in quotas.items()}


async def load(config: settings.Settings) -> None:
    """Load the dictionary into a new database, so that no worker has to."""
    async with opened(config.database) as database:
        await Dictionary(database).load()


@frozen
class LoadTest:
    """The work of a load test."""

    options: argparse.Namespace
    client: Client

    async def run(self) -> tuple[Report, tuple[float, ...]]:
        """Do it; returns the report, and of single cards the service seconds from request to answer."""
        wanted = from_hsk(self.options.size).wanted
        async with self.changing():
            if self.options.kind == "card":
                return await self.cards(wanted)
            return await self.jobs(wanted), ()
        raise AssertionError("nobody cancels the block")

    async def jobs(self, wanted: Sequence[str]) -> Report:
        """Decks or imports, all at once."""
        since = await self.client.services.mark()
        if self.options.kind == "deck":
            done = await self.client.decks(self.decks(wanted))
            return await self.client.report("deck", done, wanted, since)
        done = await self.client.done("import", self.imports(wanted), Priority.BULK)
        return await self.client.report("import", done, wanted, since, ["text"])

    async def twin(self, folder: Path) -> float:
        """Service seconds that the sequential twin takes, judged by the first few cards."""
        wanted = from_hsk(min(self.options.size, SAMPLE)).wanted
        (folder / "twin").mkdir()
        config = settings.load(place(folder / "twin", None))
        taken = await baseline.measure(KINDS[self.options.kind], wanted, config, self.client.services)
        return taken * int(self.options.size) / len(wanted)

    async def cards(self, wanted: Sequence[str]) -> tuple[Report, tuple[float, ...]]:
        """Cards, one after the other: each is asked for when the one before it is there."""
        reports: list[Report] = []
        answered: list[float] = []
        async with self.others():
            for word in wanted:
                since, asked = await self.client.services.mark(), time.monotonic()
                done = await self.client.done("card", [{"word": word}], Priority.INTERACTIVE)
                answered.append((time.monotonic() - asked) * self.options.speed)
                reports.append(await self.client.report("card", done, [word], since))
        return together(reports), tuple(answered)

    @asynccontextmanager
    async def others(self) -> AsyncIterator[None]:
        """An import and three decks are made until the block ends, if that is wanted."""
        if not busy(self.options):
            yield
            return
        everything = from_hsk(MOST_CHARACTERS).wanted[::-1]  # the rare ones, which no card is asked for of
        async with anyio.create_task_group() as group:
            words = {"name": "others", "words": everything[:1000]}
            group.start_soon(self.client.done, "import", [words], Priority.BULK)
            decks = [Deck(f"others {number}", everything[1000 + 100 * number :][:100]) for number in range(3)]
            group.start_soon(self.client.decks, decks)
            await anyio.sleep(SETTLED / self.options.speed)
            yield
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """The quota changes after a while, if that is wanted and the block lasts so long."""
        async with anyio.create_task_group() as group:
            if self.options.after:
                group.start_soon(self.change_quota)
            yield
            group.cancel_scope.cancel()

    async def change_quota(self) -> None:
        """Have the stand-in allow something else after a while."""
        await anyio.sleep(self.options.after / self.options.speed)
        switches = {name: {"rate": rate} for name, rate in rates(self.options.quota).items()}
        await services.turn(self.client.services.text.url.removesuffix("/v1"), switches)

    def decks(self, wanted: Sequence[str]) -> list[Deck]:
        """A deck for each worker."""
        return [Deck(f"load {number}", share) for number, share in enumerate(self.shares(wanted))]

    def imports(self, wanted: Sequence[str]) -> list[dict[str, object]]:
        """An import for each worker."""
        return [
            {"name": f"load {number}", "words": share} for number, share in enumerate(self.shares(wanted))
        ]

    def shares(self, wanted: Sequence[str]) -> list[list[str]]:
        """The words, in as many parts as there are workers."""
        return [*chunks(wanted, -(-len(wanted) // self.options.workers))]


def together(reports: Sequence[Report]) -> Report:
    """One report on cards that were made one after the other."""
    return evolve(
        reports[-1],
        items=len(reports),
        saved=sum(report.saved for report in reports),
        seconds=sum(report.seconds for report in reports),
        wall_seconds=sum(report.wall_seconds for report in reports),
        bound_seconds=sum(report.bound_seconds or 0.0 for report in reports),
        calls=sum(report.calls for report in reports),
        refused=sum(report.refused for report in reports),
        estimated_cost=sum(report.estimated_cost for report in reports),
    )


if __name__ == "__main__":
    sys.exit(main())

"""Send work to the workers, and ask how it goes: `python -m examples.enqueue --help`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
from attrs import evolve
from streaq.task import TaskResult

from examples import settings
from examples.database import Deck, opened
from examples.errors import UsageError
from examples.fleet import address
from examples.language.characters import Selection, select
from examples.language.sources import from_file, from_hsk
from examples.queueing.priorities import NAMES, Priority
from examples.queueing.queue import KINDS, JobQueue, redis_error
from examples.settings import Settings

DONE, FAILED, USAGE = 0, 1, 2  # exit codes
PATIENCE = 5.0  # seconds
MOST_LETTERS = 10_000  # dead letters that are looked at


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return anyio.run(COMMANDS[options.command], options, impatient(address.found(settings.load())))
    except UsageError as error:
        print(f"enqueue: {error}", file=sys.stderr)
    except BaseExceptionGroup as group:
        if (lost := redis_error(group)) is None:
            raise
        print(f"enqueue: Redis does not answer: {lost}", file=sys.stderr)
    return USAGE


def impatient(config: Settings) -> Settings:
    """Somebody sits before the screen: a Redis that is away is soon told."""
    return evolve(config, queue=evolve(config.queue, patience=PATIENCE))


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(prog="python -m examples.enqueue", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    card = commands.add_parser("card", help="make the card of a word, before everything else")
    card.add_argument("word")

    deck = commands.add_parser("deck", help="make every card of a deck whole")
    deck.add_argument("name")
    words = deck.add_mutually_exclusive_group()
    words.add_argument(
        "words", nargs="?", default="", help="Chinese characters; none: the deck is there already"
    )
    words.add_argument("--file", type=Path, help="the Chinese characters in this file")
    words.add_argument("--cards", type=int, metavar="N", help="the first N characters of HSK")

    importing = commands.add_parser("import", help="turn characters into cards, and then into decks")
    source = importing.add_mutually_exclusive_group(required=True)
    source.add_argument("file", type=Path, nargs="?", help="the Chinese characters in this file")
    source.add_argument("--size", type=int, metavar="N", help="the first N characters of HSK")
    importing.add_argument("--name", default="import", help="what its decks are called after")

    for command, priority in ((card, "interactive"), (deck, "normal"), (importing, "bulk")):
        command.add_argument("--priority", choices=NAMES, default=priority)
        command.add_argument("--wait", action="store_true", help="until it is done; print what was done")

    commands.add_parser("status", help="how many jobs wait, and how far the decks are")
    commands.add_parser("dead-letters", help="the jobs that failed for good, and why")
    again = commands.add_parser("again", help="send jobs again that failed for good")
    again.add_argument("ids", nargs="*", metavar="ID")
    again.add_argument("--all", action="store_true")
    return parser


async def card(options: argparse.Namespace, config: Settings) -> int:
    """Ask for a card."""
    return await send("card", {"word": options.word}, options, config)


async def deck(options: argparse.Namespace, config: Settings) -> int:
    """Save a deck, and ask for its cards."""
    async with opened(config.database) as database:
        if words := chosen(options):
            await database.save_deck(Deck(options.name, words))
        elif await database.deck(options.name) is None:
            raise UsageError(f"There is no deck {options.name}: give its words, --file or --cards.")
    return await send("deck", {"deck": options.name}, options, config)


def chosen(options: argparse.Namespace) -> Sequence[str]:
    """The words of a deck; none if it is there already."""
    if options.words:
        return select(options.words).wanted
    if options.file or options.cards:
        return selection(options.file, options.cards).wanted
    return ()


async def import_(options: argparse.Namespace, config: Settings) -> int:
    """Ask for an import."""
    words = selection(options.file, options.size).wanted
    return await send("import", {"name": options.name, "words": words}, options, config)


def selection(file: Path | None, size: int | None) -> Selection:
    """The characters of a file, or the first ones of HSK."""
    return from_file(file) if file else from_hsk(size or 0)


async def send(kind: str, arguments: dict[str, object], options: argparse.Namespace, config: Settings) -> int:
    """Send a job; with --wait, print what it did."""
    priority = Priority.named(options.priority)
    async with JobQueue(kind, config.queue) as queue:
        job_id = await queue.send({**arguments, "priority": int(priority)}, priority)
        if not options.wait:
            print(job_id)
            return DONE
        return show(await queue.result_by_id(job_id))


def show(result: TaskResult[object]) -> int:
    """Print what a job did; returns the exit code."""
    said = result.result if result.success else result.exception
    print(json.dumps(said, ensure_ascii=False, indent=2))
    return DONE if result.success else FAILED


async def status(options: argparse.Namespace, config: Settings) -> int:
    """Print how many jobs wait."""
    for kind in KINDS:
        async with JobQueue(kind, config.queue) as queue:
            print(f"{kind:8}{await queue.depth()}")
    return DONE


async def dead_letters(options: argparse.Namespace, config: Settings) -> int:
    """Print the jobs that failed for good."""
    async with opened(config.database) as database:
        for letter in await database.dead_letters():
            tried = f"tried {letter.attempts} times, last {letter.failed:%Y-%m-%d %H:%M:%S}"
            print(
                f"{letter.id}  {letter.job} {json.dumps(letter.arguments, ensure_ascii=False)[:60]}, {tried}"
            )
            print(f"    {letter.cause}")
    return DONE


async def again(options: argparse.Namespace, config: Settings) -> int:
    """Send jobs again that failed for good."""
    async with opened(config.database) as database:
        buried = await database.dead_letters(limit=MOST_LETTERS)
        letters = [letter for letter in buried if options.all or letter.id in options.ids]
        if missing := {*options.ids} - {letter.id for letter in letters}:
            raise UsageError(f"No dead letter has the id {', '.join(sorted(missing))}.")
        for letter in letters:
            async with JobQueue(letter.job, config.queue) as queue:
                priority = Priority(int(str(letter.arguments["priority"])))
                print(await queue.send(letter.arguments, priority))
            await database.unbury([letter.id])
    return DONE


COMMANDS = {
    "card": card,
    "deck": deck,
    "import": import_,
    "status": status,
    "dead-letters": dead_letters,
    "again": again,
}

if __name__ == "__main__":
    sys.exit(main())

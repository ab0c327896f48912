"""Opens the parts of the demo, in order, and closes them: database, dictionary, fleet."""

import asyncio
import os
import sys
import tempfile
from argparse import Namespace
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console

from examples import settings
from examples.database import opened
from examples.database.dictionary import Dictionary
from examples.errors import UsageError
from examples.fleet.fleet import Plan
from examples.language.characters import Selection
from examples.language.sources import from_file, from_hsk
from examples.reporting.files import check_writable
from examples.services import services
from examples.work import Work

USAGE = 2  # exit code


def main(options: Namespace) -> int:
    """Run it; returns the exit code."""
    tolerate_any_terminal()
    try:
        return asyncio.run(run(options))
    except UsageError as error:
        print(f"demo: {error}", file=sys.stderr)
        return USAGE


def tolerate_any_terminal() -> None:
    """Where Chinese cannot be printed, print question marks instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


async def run(options: Namespace) -> int:
    """Check what can be checked, open what is needed, and work."""
    variables = environment(options)
    config, selection = settings.load({**os.environ, **variables}), chosen(options)
    for path in filter(None, (options.report, options.picture)):
        check_writable(path)
    asked = ["text"] if options.texts_only else services.ALL
    real = services.real(config, options.speed, asked) if options.service == "real" else None
    if options.standin:
        await services.running(options.standin, options.speed)
    console = Console(highlight=False)
    async with opened(config.database) as database:
        with console.status("Loading the dictionary CC-CEDICT into the database, once ..."):
            await Dictionary(database).load()
        work = Work(config, database, selection, console, with_media=not options.texts_only)
        await work.look()
        if not work.missing:
            return await work.close(options)
        with tempfile.TemporaryDirectory(prefix="flashcards-", ignore_cleanup_errors=True) as folder:
            plan = Plan(
                folder=Path(folder),
                workers={"import": 1, **({} if options.texts_only else {"deck": 1})},
                speed=options.speed,
                standin=options.standin or "",
                real=real,
                redis_url=config.queue.redis_url,
                environment=variables,
            )
            return await work.do(plan, options)


def environment(options: Namespace) -> dict[str, str]:
    """What the options say, as variables of the workers."""
    kind = "real" if options.service == "real" else "stand-in"
    variables = {"FLASHCARDS_SERVICES_KIND": kind, "FLASHCARDS_SERVICES_SPEED": f"{options.speed:g}"}
    if options.database:
        variables["FLASHCARDS_DATABASE_URL"] = options.database
    # What fails is tried again by whoever runs the demo again.
    return variables | {"FLASHCARDS_QUEUE_TRIES": "1"}


def chosen(options: Namespace) -> Selection:
    """The characters of the input."""
    return from_file(options.file, options.encoding) if options.file else from_hsk(options.size)

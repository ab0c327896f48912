"""Opens the parts of the demo, in order, and closes them: database, text service, its client."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import TextIOWrapper

from batchkit.presets import Quota
from examples import services, settings
from examples.characters import Selection
from examples.database import Database
from examples.errors import UsageError
from examples.files import check_writable
from examples.services import Services
from examples.settings import Settings
from examples.sources import from_file, from_hsk
from examples.text import TextService
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
    config, selection = settings.load(), chosen(options)
    for path in filter(None, (options.report, options.picture)):
        check_writable(path)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened(options.database or config.database.url, config))
        service = await stack.enter_async_context(service_for(options, config))
        text = await stack.enter_async_context(text_service(service, config))
        return await Work(config, database, service, text, selection).do(options)


def chosen(options: Namespace) -> Selection:
    """The characters of the input."""
    return from_file(options.file, options.encoding) if options.file else from_hsk(options.size)


@asynccontextmanager
async def opened(file_or_url: str, config: Settings) -> AsyncIterator[Database]:
    """The database."""
    options = config.database
    database = await Database.open(file_or_url, patience=options.patience, connections=options.connections)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def service_for(options: Namespace, config: Settings) -> AsyncIterator[Services]:
    """The text service that was asked for; a stand-in of our own, if nothing was."""
    if options.service == "openai":
        yield services.real(config, options.speed, ("text",))
    elif options.standin:
        yield await services.running(options.standin, options.speed)
    else:
        async with services.started(options.speed) as standin:
            yield standin


def text_service(service: Services, config: Settings) -> TextService:
    """The client of the text service, held to its quota, which is as much faster as the service."""
    options, endpoint = config.text, service.text
    quota = Quota(rate=options.rate, burst=options.burst).scaled(endpoint.speed)
    limiter = quota.bucket(jitter=options.jitter, name="text")
    return TextService(endpoint, options, limiter, connections=config.scaled(config.bulk_import.concurrency))

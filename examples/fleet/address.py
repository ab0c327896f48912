"""Where the Redis is that `worker all` started: a small file beside the database tells other commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve

from examples.settings import Settings


def file(config: Settings) -> Path:
    """The file: beside the database if that is a file, or else in this folder."""
    url = config.database.url
    return Path("flashcards.redis" if "://" in url else f"{url}.redis")


@contextmanager
def told(config: Settings, redis_url: str) -> Iterator[None]:
    """Others find this address until the block ends."""
    path = file(config)
    path.write_text(redis_url, encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def found(config: Settings) -> Settings:
    """The settings; with that address if they name no Redis, and there is one."""
    path = file(config)
    if config.queue.redis_url or not path.is_file():
        return config
    return evolve(config, queue=evolve(config.queue, redis_url=path.read_text(encoding="utf-8")))

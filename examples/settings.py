"""Every number that the workers can be told, in one place, checked before anything starts.

Values come from settings.toml beside this file: [default], then the section of the profile that
ENVIRONMENT names. On top come environment variables. A name that does not exist and a value out of its
range are refused at once.
"""

import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import typed_settings as ts
from attrs import field, frozen
from typed_settings.dict_utils import set_path
from typed_settings.exceptions import InvalidSettingsError, TsError
from typed_settings.loaders import Loader
from typed_settings.types import LoadedSettings, LoaderMeta, OptionList, SettingsClass, SettingsDict

from examples.errors import UsageError

FILE = Path(__file__).with_name("settings.toml")
PREFIX = "FLASHCARDS_"
# Variables that go by their usual name.
USUAL = {
    "ENVIRONMENT": "environment",
    "REDIS_URL": "queue.redis_url",
    "WORKER_SCALE_FACTOR": "worker_scale_factor",
    "AWS_ACCESS_KEY_ID": "media.access_key_id",
    "AWS_ENDPOINT_URL": "media.endpoint",
    "AWS_REGION": "media.region",
    "AWS_SECRET_ACCESS_KEY": "media.secret_access_key",
    "AWS_SESSION_TOKEN": "media.session_token",
    "OPENAI_API_KEY": "text.api_key",
    "OPENAI_BASE_URL": "text.base_url",
    "FAL_KEY": "picture.api_key",
    "AZURE_SPEECH_KEY": "sound.api_key",
    "AZURE_SPEECH_REGION": "sound.region",
}
PROFILES = ("development", "production", "original")


class OutOfRange(ValueError):
    """A value that is not allowed; typed-settings prints its `repr` after the setting and its source."""

    def __repr__(self) -> str:
        return str(self)


@frozen
class Range:
    """A number within bounds, out of TOML or out of the text of an environment variable."""

    kind: type[int] | type[float]
    least: float
    most: float
    unit: str

    def __call__(self, value: object) -> float:
        """The number. Raises OutOfRange."""
        number = self.parsed(value)
        if not self.least <= number <= self.most or number != self.kind(number):
            raise OutOfRange(str(self))
        return self.kind(number)

    def parsed(self, value: object) -> float:
        """NaN, which is in no range, for what is no number."""
        try:
            return math.nan if isinstance(value, bool) else float(str(value))
        except ValueError:
            return math.nan

    def __str__(self) -> str:
        whole = "a whole number" if self.kind is int else "a number"
        return f"must be {whole} from {self.least:,g} to {self.most:,g} ({self.unit})"


def whole(least: int, most: int, unit: str) -> Any:
    """A setting that is a whole number."""
    return field(converter=Range(int, least, most, unit))


def real(least: float, most: float, unit: str) -> Any:
    """A setting that is a number."""
    return field(converter=Range(float, least, most, unit))


@frozen
class Switch:
    """True or false, out of TOML or out of the text of an environment variable."""

    def __call__(self, value: object) -> bool:
        """Which of them. Raises OutOfRange."""
        known = {"true": True, "false": False}
        if (said := str(value).lower()) not in known:
            raise OutOfRange("must be true or false")
        return known[said]


def switch() -> Any:
    """A setting that is true or false."""
    return field(converter=Switch())


@frozen
class Pattern:
    """A text of a certain form, which `like` shows."""

    form: str
    like: str

    def __call__(self, value: object) -> str:
        """The text. Raises OutOfRange."""
        if not (isinstance(value, str) and re.fullmatch(self.form, value)):
            raise OutOfRange(f"must be like {self.like}")
        return value


def text(form: str, like: str, *, repr: bool = True) -> Any:
    """A setting that is a text of a certain form, a regular expression."""
    return field(converter=Pattern(form, like), repr=repr)


A_REDIS_URL_OR_NONE = (r"|(redis|rediss|unix)://\S+", "redis://localhost:6379/0")
A_URL_OR_NONE = (r"|https?://[^\s/]+\S*", "https://cdn.example")


@frozen
class Database:
    """Where the cards are kept."""

    url: str = text(r".+", "flashcards.db or postgresql://user@host/name", repr=False)
    patience: float = real(0.001, 3600, "seconds")
    connections: int = whole(1, 100, "connections of a process")
    batch_size: int = whole(1, 1000, "cards in a transaction")
    max_wait: float = real(0, 1, "seconds")


@frozen
class Media:
    """Where pictures and sounds are kept."""

    folder: str = text(r".+", "media")
    bucket: str = text(r"|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "my-cards")
    endpoint: str = text(*A_URL_OR_NONE)
    region: str = text(r"[a-z0-9-]+", "us-east-1")
    public_url: str = text(*A_URL_OR_NONE)
    timeout: float = real(0.1, 600, "seconds")
    patience: float = real(0.001, 3600, "seconds")
    batch_size: int = whole(1, 1000, "keys")
    present_ttl: float = real(0.001, 86_400, "seconds")
    absent_ttl: float = real(0.001, 3600, "seconds")
    cache_size: int = whole(1, 10_000_000, "answers")
    access_key_id: ts.SecretStr = field(default=ts.SecretStr(""))
    secret_access_key: ts.SecretStr = field(default=ts.SecretStr(""))
    session_token: ts.SecretStr = field(default=ts.SecretStr(""))


@frozen
class Dictionary:
    """How words are looked up."""

    batch_size: int = whole(1, 1000, "words")
    max_wait: float = real(0, 1, "seconds")
    cache_ttl: float = real(0.001, 86_400, "seconds")
    cache_size: int = whole(1, 10_000_000, "answers")


@frozen(kw_only=True)
class Called:
    """What is told of every service: where it is, what it allows, and how patient its callers are."""

    base_url: str
    rate: float = real(0.001, 10_000, "calls/s")
    burst: int = whole(1, 10_000, "calls")
    jitter: float = real(0, 10, "seconds")
    timeout: float = real(0.1, 3600, "seconds")
    attempts: int = whole(1, 20, "calls")
    api_key: ts.SecretStr = field(default=ts.SecretStr(""))


@frozen(kw_only=True)
class Text(Called):
    """The text service, and how it is called."""

    model: str
    input_price: float = real(0, 10_000, "USD for a million tokens")
    output_price: float = real(0, 10_000, "USD for a million tokens")


@frozen(kw_only=True)
class Picture(Called):
    """The picture service, and how it is called."""

    model: str
    size: Literal["square", "square_hd", "portrait_4_3", "landscape_4_3"]
    concurrency: int = whole(1, 10_000, "pictures at once")
    price: float = real(0, 100, "USD for a picture")


@frozen(kw_only=True)
class Sound(Called):
    """The sound service, and how it is called."""

    region: str = text("[a-z0-9]*", "westeurope")
    voice: str = text("[a-z]{2,3}(-[A-Za-z0-9]+)+", "zh-CN-XiaoxiaoNeural")
    output_format: str = text("(audio|riff)-[a-z0-9]+(-[a-z0-9]+)+", "audio-24khz-48kbitrate-mono-mp3")
    price: float = real(0, 10_000, "USD for a million characters")


@frozen
class Services:
    """Which services are asked, and where the stand-in is."""

    kind: Literal["stand-in", "real"]
    standin: str = text(*A_URL_OR_NONE)
    speed: float = real(0.1, 1000, "service seconds in a second")


@frozen
class Queue:
    """How jobs come to workers, and what happens to those that fail."""

    redis_url: str = text(*A_REDIS_URL_OR_NONE, repr=False)
    prefix: str = text(r"[A-Za-z0-9_.-]+", "flashcards")
    idle_timeout: float = real(0.5, 3600, "seconds")
    patience: float = real(0.001, 86_400, "seconds")
    tries: int = whole(1, 100, "times that a job fails")
    deaths: int = whole(1, 10_000, "workers that die of a job")
    pause: float = real(0, 3600, "seconds")
    longest_pause: float = real(0, 86_400, "seconds")
    grace: int = whole(0, 600, "seconds")
    keep_results: int = whole(1, 604_800, "seconds")
    look: float = real(0.01, 3600, "seconds")


@frozen(kw_only=True)
class Worker:
    """What is told of every kind of worker."""

    jobs: int = whole(1, 1000, "jobs at once in a worker")
    most_jobs: int = whole(1, 1000, "jobs at once in a worker")


@frozen(kw_only=True)
class DeckWorker(Worker):
    """How decks are made."""

    batch_size: int = whole(1, 1000, "cards in a group")
    concurrency: int = whole(1, 1000, "cards at once in a deck")
    barrier: bool = switch()
    pause: float = real(0, 600, "seconds between two groups")


@frozen(kw_only=True)
class BulkImport(Worker):
    """How characters become cards."""

    batch_size: int = whole(1, 50, "characters")
    least_batch_size: int = whole(1, 50, "characters")
    concurrency: int = whole(1, 1000, "calls at once")
    grace: float = real(0, 600, "seconds")
    deck_size: int = whole(1, 10_000, "cards")


@frozen
class Settings:
    """All of it."""

    environment: Literal["development", "production", "original"]
    database: Database
    media: Media
    dictionary: Dictionary
    text: Text
    picture: Picture
    sound: Sound
    services: Services
    queue: Queue
    card: Worker
    deck: DeckWorker
    bulk_import: BulkImport
    sweep_every: float = real(0.01, 86_400, "seconds")
    worker_scale_factor: float = real(0.01, 100, "times every concurrency")

    def scaled(self, concurrency: int) -> int:
        """A concurrency, times WORKER_SCALE_FACTOR; at least 1."""
        return max(1, round(concurrency * self.worker_scale_factor))


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings.

    Raises:
        UsageError: with the name, the value, what is allowed, and where the value came from.
    """
    profile = environment.get("ENVIRONMENT", PROFILES[0])
    if profile not in PROFILES:
        raise UsageError(f"ENVIRONMENT is {profile!r}: it must be one of {', '.join(PROFILES)}.")
    variables = Environment({"ENVIRONMENT": profile, **environment})
    loaders: list[Loader] = [section("default"), section(profile), variables]
    try:
        return checked(ts.load_settings(Settings, loaders))
    except InvalidSettingsError as group:
        raise UsageError(f"{group.exceptions[0]}.") from None  # the others may follow from the first
    except TsError as error:
        raise UsageError(f"{error}.") from None


def checked(config: Settings) -> Settings:
    """The settings, if those that belong together fit together. Raises UsageError."""
    for kind in ("card", "deck", "bulk_import"):
        least, most = getattr(config, kind).jobs, getattr(config, kind).most_jobs
        if most < least:
            raise UsageError(
                f"{kind}.most_jobs is {most}: it must be at least {kind}.jobs, which is {least}."
            )
    if config.queue.longest_pause < config.queue.pause:
        raise UsageError(
            f"queue.longest_pause is {config.queue.longest_pause:g}: "
            f"it must be at least queue.pause, which is {config.queue.pause:g}."
        )
    return config


def section(name: str) -> ts.FileLoader:
    """A section of settings.toml."""
    return ts.FileLoader({"*.toml": ts.TomlFormat(name)}, [FILE])


@frozen
class Environment:
    """The loader of environment variables: FLASHCARDS_TEXT_RATE sets `text.rate`."""

    variables: Mapping[str, str]

    def __call__(self, settings_cls: SettingsClass, options: OptionList) -> Iterator[LoadedSettings]:
        """One value for each variable, so that an error can name the variable."""
        paths = {PREFIX + option.path.upper().replace(".", "_"): option.path for option in options} | USUAL
        self.refuse_unknown(paths)
        for name in paths.keys() & self.variables.keys():
            value: SettingsDict = {}
            set_path(value, paths[name], self.variables[name])
            yield LoadedSettings(value, LoaderMeta(f"environment variable {name}"))

    def refuse_unknown(self, paths: Mapping[str, str]) -> None:
        """A misspelt name would be ignored, and nobody would know why."""
        for name in sorted(self.variables):
            if name.startswith(PREFIX) and name not in paths:
                near = difflib.get_close_matches(name, paths, cutoff=0)
                raise UsageError(f"{name} is no setting; there are {', '.join(near)}, and others.")

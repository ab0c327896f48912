"""Where pictures and sounds are kept: in a folder, or in any bucket that speaks S3's protocol.

A key is a content address: the SHA-256 of the bytes in hexadecimal digits, in a folder that is named by the
first two of them, and with the suffix of the kind of file:

    3f/3fa81c...e2.webp

So what is written under a key never changes: to write it twice does no harm, whoever has it may check it, and
browsers and a CDN may keep it for ever. A write is atomic: a key has all of its bytes, or none.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio
import obstore
from attrs import define, field, frozen
from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, S3Store

from batchkit import Batcher, TTLCache
from examples import settings
from examples.errors import MediaAway, MediaMissing, MediaRefused, UsageError
from examples.media.patience import patient

T = TypeVar("T")

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
    ".webp": "image/webp",
}
FOR_EVER = "public, max-age=31536000, immutable"
CHECKS_AT_ONCE = 20  # S3 has no question about many keys: 50 keys are 50 questions, 20 at a time
NOBODY = "no-such-folder"  # asked for when a store is opened, to see that it answers


def address(content: bytes, suffix: str) -> str:
    """The key of some content.

    Args:
        content: all of it.
        suffix: of the kind of file, one of `CONTENT_TYPES`.
    """
    if suffix not in CONTENT_TYPES:
        raise ValueError(f"{suffix!r} is none of {', '.join(CONTENT_TYPES)}")
    digest = sha256(content).hexdigest()
    return f"{digest[:2]}/{digest}{suffix}"


def suffix_for(content_type: str) -> str:
    """The suffix of a kind of file that a service names, such as audio/mpeg."""
    for suffix, kind in CONTENT_TYPES.items():
        if kind == content_type:
            return suffix
    raise ValueError(f"{content_type!r} is none of {', '.join(CONTENT_TYPES.values())}")


@frozen
class Seen:
    """What the store said lately: that a key is there holds for long, that it is not for a moment only."""

    answers: TTLCache[str, bool]
    absent_ttl: float

    def get_present(self, keys: Iterable[str]) -> dict[str, bool]:
        """Those of the keys about which something is known."""
        return self.answers.get_present(keys)

    def set(self, key: str, value: bool) -> None:
        """Remember whether a key is there."""
        self.answers.set(key, value, None if value else self.absent_ttl)


@define(eq=False)
class MediaStore:
    """Keeps media by their content. Waits for a store that is away for a while.

    Attributes:
        options: where it is, and for how long what is remembered.
        store: obstore's.
        cache: which keys are there, and which are not.
    """

    options: settings.Media
    store: ObjectStore
    cache: TTLCache[str, bool] = field(init=False)
    _seen: Seen = field(init=False)
    _checks: Batcher[str, bool] = field(init=False)

    def __attrs_post_init__(self) -> None:
        options = self.options
        self.cache = TTLCache(maxsize=options.cache_size, ttl=options.present_ttl, name="media")
        self._seen = Seen(self.cache, options.absent_ttl)
        self._checks = Batcher(self._check, max_batch_size=options.batch_size, cache=self._seen, name="media")

    @classmethod
    async def open(cls, options: settings.Media) -> Self:
        """The store that the settings name; a folder is made if there is none.

        Raises:
            UsageError: it cannot be used.
        """
        try:
            media = cls(options, bucket(options) if options.bucket else folder(options.folder))
            await asked(obstore.list_with_delimiter_async(media.store, NOBODY), media.name)
        except (MediaAway, MediaRefused, BaseError, OSError, ValueError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise UsageError(f"The media store cannot be used: {cause}.") from None
        return media

    async def put(self, content: bytes, suffix: str) -> str:
        """Write some content, unless it is known to be there; returns its key.

        Shielded from cancellation, as it was paid for.

        Raises:
            MediaAway, MediaRefused: it was not written.
        """
        key = address(content, suffix)
        if not self.cache.get(key, False):
            await self._patiently(self._write, key, content)
            self._seen.set(key, True)
        return key

    async def get(self, key: str) -> bytes:
        """The content of a key.

        Raises:
            MediaMissing: there is no such key.
            MediaAway, MediaRefused: the store does not say.
        """
        try:
            return await self._patiently(self._read, key)
        except FileNotFoundError:
            self._seen.set(key, False)
            raise MediaMissing(f"{self.name} has no {key}") from None

    async def existing(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that are there; what was asked lately, or is being asked, is not asked again.

        Raises:
            MediaAway, MediaRefused: the store does not say.
        """
        answers = await self._checks.load_many(keys)
        return {key for key, there in answers.items() if there}

    async def exists(self, key: str) -> bool:
        """Whether a key is there. Keys that are asked for at about the same time are asked together."""
        return await self._checks.load(key)

    def url(self, key: str) -> str:
        """Where everybody finds it: at the public URL of the settings, or else where it is kept."""
        return f"{self.options.public_url.rstrip('/') or place(self.options)}/{key}"

    @property
    def name(self) -> str:
        """What to call it."""
        return f"bucket {self.options.bucket}" if self.options.bucket else f"folder {self.options.folder}"

    async def _check(self, keys: Sequence[str]) -> dict[str, bool | Exception]:
        """Ask for each of the keys; an error is that of its key."""
        answers: dict[str, bool | Exception] = {}
        slots = anyio.CapacityLimiter(CHECKS_AT_ONCE)

        async def check(key: str) -> None:
            async with slots:
                try:
                    answers[key] = await self._patiently(self._is_there, key)
                except (MediaAway, MediaRefused) as error:
                    answers[key] = error

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(check, key)
        return answers

    async def _is_there(self, key: str) -> bool:
        try:
            await asked(obstore.head_async(self.store, key), self.name)
        except FileNotFoundError:
            return False
        return True

    async def _read(self, key: str) -> bytes:
        async def read() -> bytes:
            reply = await obstore.get_async(self.store, key)
            return bytes(await reply.bytes_async())

        return await asked(read(), self.name)

    async def _write(self, key: str, content: bytes) -> None:
        # A folder keeps nothing beside the bytes.
        headers = {"Content-Type": CONTENT_TYPES[Path(key).suffix], "Cache-Control": FOR_EVER}
        attributes: Any = headers if self.options.bucket else None
        writing = obstore.put_async(self.store, key, content, attributes=attributes, use_multipart=False)
        with anyio.CancelScope(shield=True):
            try:
                await asked(writing, self.name)
            except FileNotFoundError:
                raise MediaRefused(f"{self.name} is not there") from None

    async def _patiently(self, work: Callable[..., Awaitable[T]], *args: object) -> T:
        return await patient(self.options.patience, is_away)(work, *args)


def folder(name: str) -> LocalStore:
    """A folder of this machine; obstore writes beside a file and moves it into its place."""
    return LocalStore(Path(name).absolute(), mkdir=True)


def bucket(options: settings.Media) -> S3Store:
    """A bucket. Without keys in the settings, obstore looks where AWS puts them."""
    if bool(options.access_key_id) != bool(options.secret_access_key):
        raise UsageError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together: set both, or neither.")
    keys = {
        "access_key_id": str(options.access_key_id),
        "secret_access_key": str(options.secret_access_key),
        "session_token": str(options.session_token),
        "endpoint": options.endpoint,
    }
    given: Any = {name: value for name, value in keys.items() if value}
    timeout = timedelta(seconds=options.timeout)
    return S3Store(
        options.bucket,
        region=options.region,
        client_options={"timeout": timeout, "connect_timeout": timeout, "allow_http": True},
        retry_config={"max_retries": 0},  # whether and how long it is waited for is said here, once for all
        **given,
    )


def place(options: settings.Media) -> str:
    """The URL of the store itself."""
    if not options.bucket:
        return Path(options.folder).absolute().as_uri()
    if options.endpoint:
        return f"{options.endpoint.rstrip('/')}/{options.bucket}"
    return f"https://{options.bucket}.s3.{options.region}.amazonaws.com"


async def asked(call: Awaitable[T], name: str) -> T:
    """What a call of obstore returns, with its errors in our words, which hold no secret.

    Raises:
        FileNotFoundError: there is no such key, or no such bucket.
        MediaAway, MediaRefused: otherwise.
    """
    try:
        return await call
    except (PermissionDeniedError, UnauthenticatedError):
        raise MediaRefused(f"{name} does not let us in: check its keys and their rights") from None
    except GenericError as error:
        if "NoSuchBucket" in str(error):
            raise MediaRefused(f"there is no {name}") from None
        raise MediaAway(f"{name} does not answer: {reason(error)}") from error
    except PermissionError as error:
        raise MediaRefused(f"{name} refuses: {error.strerror or reason(error)}") from error


def is_away(error: Exception) -> bool:
    """Whether it is worth waiting for the store: not if it refuses, or has no such key."""
    return isinstance(error, MediaAway)


def reason(error: Exception) -> str:
    """The first line of what obstore says, without what is asked in a URL, since that may be signed."""
    return re.sub(r"\?\S*", "", str(error).strip().partition("\n")[0])

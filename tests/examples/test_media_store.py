"""Media are kept whole, once, under the address of their content; in a folder and in a bucket."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import obstore
import pytest
import typed_settings as ts
from attrs import evolve

from batchkit import TTLCache
from batchkit.testing import ManualClock
from examples import settings
from examples.errors import MediaAway, MediaMissing, MediaRefused, UsageError
from examples.media import store as module
from examples.media.store import MediaStore, address, suffix_for
from tests.helpers import eventually
from tests.local_server import Answer, closed_port, serving
from tests.proxies import FaultProxy
from tests.s3 import S3

ROOT = Path(__file__).parents[2]
A_MOMENT = 0.4  # seconds for which something is away
PICTURE = b"a picture" * 1000
NOWHERE = f"00/{'0' * 64}.webp"
WRITER = """
import itertools, os, sys, anyio
from attrs import evolve
from examples import settings
from examples.media.store import MediaStore

async def main():
    store = await MediaStore.open(evolve(settings.load({}).media, folder=sys.argv[1]))
    for number in itertools.count():
        await store.put(os.urandom(8).ljust(50_000_000, b"x"), ".png")
anyio.run(main)
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def options(**changes: Any) -> settings.Media:
    return evolve(settings.load({}).media, **changes)


def in_bucket(s3: S3, **changes: Any) -> settings.Media:
    keys = {"access_key_id": ts.SecretStr("an-id"), "secret_access_key": ts.SecretStr("very-secret")}
    return options(**{"bucket": s3.bucket, "endpoint": s3.url, **keys, **changes})


@pytest.fixture(params=["folder", "bucket"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> settings.Media:
    if request.param == "folder":
        return options(folder=str(tmp_path / "media"))
    return in_bucket(request.getfixturevalue("s3"))


@pytest.fixture
async def store(where: settings.Media) -> MediaStore:
    return await MediaStore.open(where)


class Counted:
    """Counts the calls of obstore's function, which it stands in front of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.calls = 0
        self._function: Callable[..., object] = getattr(obstore, name)
        monkeypatch.setattr(obstore, name, self)

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.calls += 1
        return self._function(*args, **kwargs)


async def test_what_is_put_is_there_under_the_address_of_its_content(store: MediaStore) -> None:
    key = await store.put(PICTURE, ".webp")
    digest = sha256(PICTURE).hexdigest()
    assert key == address(PICTURE, ".webp") == f"{digest[:2]}/{digest}.webp"
    assert await store.get(key) == PICTURE
    assert await store.exists(key)


async def test_the_same_twice_is_written_once(store: MediaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    puts = Counted(monkeypatch, "put_async")
    assert await store.put(PICTURE, ".webp") == await store.put(PICTURE, ".webp")
    assert puts.calls == 1


async def test_writers_of_the_same_content_at_once_do_not_disturb_each_other(where: settings.Media) -> None:
    stores = [await MediaStore.open(where) for _ in range(8)]
    async with anyio.create_task_group() as group:
        for store in stores:
            group.start_soon(store.put, PICTURE, ".webp")
    assert await stores[0].get(address(PICTURE, ".webp")) == PICTURE


async def test_large_and_empty_content(store: MediaStore) -> None:
    large = bytes(range(256)) * 40_000  # 10 MB
    for content in (large, b""):
        assert await store.get(await store.put(content, ".png")) == content


async def test_a_key_that_is_not_there(store: MediaStore) -> None:
    assert not await store.exists(NOWHERE)
    with pytest.raises(MediaMissing, match=NOWHERE):
        await store.get(NOWHERE)


async def test_of_many_keys_those_that_are_there(store: MediaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {await store.put(bytes([number]), ".mp3") for number in range(30)}
    store.cache.clear()
    absent = {address(bytes([number]), ".mp3") for number in range(100, 130)}
    heads = Counted(monkeypatch, "head_async")
    assert await store.existing(there | absent) == there
    assert await store.existing(there | absent) == there
    assert heads.calls == 60


async def test_who_asks_for_the_same_key_at_once_asks_once(
    store: MediaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = Counted(monkeypatch, "head_async")
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(store.exists, NOWHERE)
    assert heads.calls == 1


async def test_that_a_key_is_not_there_is_known_for_a_moment_only(
    where: settings.Media, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TTLCache", partial(TTLCache, clock=clock))
    reader = await MediaStore.open(evolve(where, absent_ttl=10, batch_size=1))
    writer = await MediaStore.open(where)
    assert not await reader.exists(address(PICTURE, ".webp"))
    key = await writer.put(PICTURE, ".webp")
    assert not await reader.exists(key)  # as it heard just now
    clock.advance(10)
    assert await reader.exists(key)


async def test_what_was_put_is_known_at_once_although_it_was_asked_for(store: MediaStore) -> None:
    assert not await store.exists(address(PICTURE, ".webp"))
    assert await store.exists(await store.put(PICTURE, ".webp"))


async def test_what_an_operator_removed_is_missing_again_when_it_is_read(tmp_path: Path) -> None:
    store = await MediaStore.open(options(folder=str(tmp_path)))
    key = await store.put(PICTURE, ".webp")
    (tmp_path / key).unlink()
    with pytest.raises(MediaMissing):
        await store.get(key)
    assert not await store.exists(key)
    await store.put(PICTURE, ".webp")
    assert await store.get(key) == PICTURE


async def test_an_unknown_kind_of_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\.exe' is none of \.jpg"):
        address(b"", ".exe")


async def test_the_suffix_of_what_a_service_sends() -> None:
    assert [suffix_for(kind) for kind in ("audio/mpeg", "image/png")] == [".mp3", ".png"]
    with pytest.raises(ValueError, match=r"'text/html' is none of image/jpeg"):
        suffix_for("text/html")


async def test_a_browser_is_told_the_kind_and_to_keep_it_for_ever(s3: S3) -> None:
    store = await MediaStore.open(in_bucket(s3))
    reply = await obstore.get_async(store.store, await store.put(PICTURE, ".webp"))
    assert reply.attributes == {
        "Content-Type": "image/webp",
        "Cache-Control": "public, max-age=31536000, immutable",
    }


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"folder": "/srv/media"}, "file:///srv/media/aa/b.png"),
        ({"bucket": "cards", "region": "eu-west-1"}, "https://cards.s3.eu-west-1.amazonaws.com/aa/b.png"),
        ({"bucket": "cards", "endpoint": "http://s3.local/"}, "http://s3.local/cards/aa/b.png"),
        ({"bucket": "cards", "public_url": "https://cdn.example/m/"}, "https://cdn.example/m/aa/b.png"),
    ],
)
def test_where_everybody_finds_it(changes: dict[str, object], url: str, tmp_path: Path) -> None:
    store = MediaStore(options(**changes), module.folder(str(tmp_path)))
    assert store.url("aa/b.png") == url


# faults


def test_a_process_that_is_killed_amid_a_write_leaves_no_half_file(tmp_path: Path) -> None:
    def files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if path.is_file()}

    def grown(before: set[Path]) -> bool:
        return files() > before

    half: list[Path] = []
    for _ in range(10):
        before = files()
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT) as process:
            eventually(partial(grown, before))
            process.kill()
        if half := [path for path in files() if path.suffix != ".png"]:
            break
    assert half, "it was never struck amid a write"
    for path in files().difference(half):
        assert address(path.read_bytes(), ".png") == f"{path.parent.name}/{path.name}"


async def test_a_store_that_is_away_for_a_moment_is_waited_for(s3: S3) -> None:
    with FaultProxy(s3.port) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}"
        store = await MediaStore.open(in_bucket(s3, endpoint=endpoint, patience=30))
        for gone, back in [(proxy.refuse, proxy.accept), (proxy.blackhole, proxy.heal)]:
            store = await MediaStore.open(in_bucket(s3, endpoint=endpoint, patience=30, timeout=0.2))
            store.cache.clear()
            gone()
            proxy.cut()
            async with anyio.create_task_group() as group:
                group.start_soon(store.put, PICTURE, ".webp")
                group.start_soon(store.existing, [NOWHERE])
                await anyio.sleep(A_MOMENT)
                back()
                proxy.cut()
            assert await store.get(address(PICTURE, ".webp")) == PICTURE


async def test_a_store_that_stays_away_is_said_to(s3: S3) -> None:
    store = await MediaStore.open(in_bucket(s3, patience=0.3))
    store.store = module.bucket(in_bucket(s3, endpoint=closed_port()))
    with anyio.fail_after(10):
        with pytest.raises(MediaAway, match="does not answer"):
            await store.put(PICTURE, ".webp")
        with pytest.raises(MediaAway):
            await store.existing([NOWHERE])
        assert NOWHERE not in store.cache  # that nobody answered is no answer


async def test_a_slow_store_is_slow_and_one_that_is_too_slow_is_away(s3: S3) -> None:
    with FaultProxy(s3.port) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}"
        store = await MediaStore.open(in_bucket(s3, endpoint=endpoint))
        proxy.delay(0.1)
        key = await store.put(PICTURE, ".webp")
        hasty = MediaStore(store.options, module.bucket(in_bucket(s3, endpoint=endpoint, timeout=0.1)))
        hasty.options = evolve(store.options, patience=0.001)
        with pytest.raises(MediaAway, match="does not answer"):
            await hasty.get(key)
        proxy.heal()
        assert await hasty.get(key) == PICTURE


@pytest.mark.parametrize("status", [401, 403])
async def test_a_store_that_refuses_is_not_asked_again_and_keys_are_not_told(status: int) -> None:
    said = Answer(status=status, body=b"<Error><Code>AccessDenied</Code></Error>")
    with serving(lambda path: Answer() if "list-type" in path else said) as server:
        where = in_bucket(S3(0, "cards"), endpoint=server.url)
        store = MediaStore(where, module.bucket(where))
        with pytest.raises(MediaRefused, match="does not let us in") as raised:
            await store.put(PICTURE, ".webp")
        assert len(server.asked) == 1
        with pytest.raises(MediaRefused):
            await store.exists(NOWHERE)
    assert "very-secret" not in str(raised.value) + repr(store)


async def test_errors_of_the_server_are_waited_for() -> None:
    answers = iter([Answer(status=503), Answer(status=500), Answer(headers={"etag": '"x"'})])
    with serving(lambda _: next(answers)) as server:
        where = in_bucket(S3(0, "cards"), endpoint=server.url)
        await MediaStore(where, module.bucket(where)).put(PICTURE, ".webp")
        assert len(server.asked) == 3


async def test_a_caller_that_is_cancelled_does_not_wait_for_a_store_that_is_away(s3: S3) -> None:
    store = MediaStore(in_bucket(s3), module.bucket(in_bucket(s3, endpoint=closed_port())))
    with anyio.fail_after(10), anyio.move_on_after(A_MOMENT) as scope:
        await store.put(PICTURE, ".webp")
    assert scope.cancelled_caught


async def test_what_cannot_be_opened_is_one_sentence(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for where, sentence in [
        (in_bucket(s3, bucket="no-such-bucket"), "there is no bucket no-such-bucket"),
        (in_bucket(s3, endpoint=closed_port()), "does not answer"),
        (in_bucket(s3, secret_access_key=ts.SecretStr("")), "go together"),
        (options(folder=str(tmp_path / "file")), "cannot be used"),
    ]:
        with pytest.raises(UsageError, match=sentence) as raised:
            await MediaStore.open(where)
        assert "very-secret" not in str(raised.value)
        assert "\n" not in str(raised.value)

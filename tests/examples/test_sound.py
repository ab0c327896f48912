"""The sound service's client: SSML, what it makes of good and of bad replies, and what each attempt costs."""

import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from batchkit import TokenBucket
from batchkit.abc import Limiter
from batchkit.presets import Quota
from batchkit.testing import ManualClock
from examples import settings
from examples.errors import CallFailed, MalformedAnswer, NotAllowed, ServiceError, Unavailable
from examples.media.media import Media
from examples.services.endpoint import Endpoint
from examples.services.sound import NOT_IN_XML, SoundService, billed, ssml
from examples.standin import Config, create_app
from examples.standin.azure_wire import LANGUAGE, SSML, billable, spoken
from tests.examples.studio import Studio, on

KEY = "a-secret-key"
VOICE = "zh-CN-XiaoxiaoNeural"

pytestmark = pytest.mark.anyio


# --- SSML -----------------------------------------------------------------------------------------


@given(st.text(), st.sampled_from([VOICE, "en-US-JennyNeural", "zh-CN-liaoning-XiaobeiNeural"]))
def test_whatever_stands_in_a_text_is_spoken_and_nothing_else(text: str, voice: str) -> None:
    document = ElementTree.fromstring(ssml(text, voice).encode("utf-8", "strict"))
    (speaker,) = document
    # XML knows one end of line
    expected = NOT_IN_XML.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    assert (speaker.tag, speaker.text or "") == (f"{SSML}voice", expected)
    assert (speaker.get("name"), document.get(LANGUAGE)) == (voice, voice[:5])


@pytest.mark.parametrize("text", ["<break time='9s'/>", "</voice>", "Q&A", "“好”<!-- -->", "]]>", "a\x00b"])
def test_markup_in_a_text_is_text(text: str) -> None:
    assert spoken(ssml(text, VOICE).encode()) == text.replace("\x00", "")


@given(st.text(alphabet="好学a1，。“ "))
def test_characters_are_counted_as_the_service_bills_them(text: str) -> None:
    assert billed(text) == billable(text)


# --- the client, on the stand-in ------------------------------------------------------------------


@asynccontextmanager
async def studio(
    clock: ManualClock,
    limiter: Limiter | None = None,
    output_format: str = "audio-24khz-48kbitrate-mono-mp3",
    attempts: int = 4,
    **switches: Any,
) -> AsyncGenerator[Studio[SoundService]]:
    app = create_app(Config(switches={"sound": switches}), clock)
    client = SoundService(
        Endpoint("http://127.0.0.1", KEY),
        evolve(settings.load({}).sound, output_format=output_format, attempts=attempts),
        limiter or Quota(rate=5, burst=10).bucket(clock=clock),
        connections=20,
        transport=httpx2.ASGITransport(app),
        clock=clock,
    )
    async with client:
        yield Studio(clock, app, client, client.speak)


@pytest.mark.parametrize(
    ("output_format", "content_type", "begin"),
    [
        ("audio-24khz-48kbitrate-mono-mp3", "audio/mpeg", b"\xff\xf3"),
        ("riff-16khz-16bit-mono-pcm", "audio/x-wav", b"RIFF"),
    ],
)
async def test_a_word_is_spoken_in_the_format_that_was_asked_for(
    output_format: str, content_type: str, begin: bytes, clock: ManualClock
) -> None:
    async with studio(clock, output_format=output_format) as it:
        (heard,) = await it.make("你好 & <hello>")
        (line,) = it.lines
    assert heard.content_type == content_type
    assert heard.content.startswith(begin)
    assert (line["keys"], line["answer"]) == (["你好 & <hello>"], "ok")
    assert line["billed"] == it.client.characters == 12 + 2
    assert it.client.usage.calling == pytest.approx(line["seconds"])


async def test_the_quota_is_kept_and_used(clock: ManualClock) -> None:
    async with studio(clock) as it:
        await it.make(*map(str, range(100)))
        figures = it.figures
    assert (figures["ok"], figures["refused"], figures["repeated"]) == (100, 0, 0)
    assert figures["busiest_asked"]
    assert figures["busiest_asked"]["excess"] <= 0
    assert figures["bound_seconds"]
    # One permit of the burst is the headroom for jitter: it is 0.2 s at 5/s.
    assert clock.now() <= figures["bound_seconds"] + 0.201


@pytest.mark.parametrize("retry_after", ["exact", "whole", "none"])
async def test_a_refused_call_is_made_again_when_the_server_says(
    retry_after: str, clock: ManualClock
) -> None:
    hasty = TokenBucket(rate=100, burst=10, clock=clock)
    async with studio(clock, hasty, burst=1, attempts=10, retry_after=retry_after) as it:
        await it.make("你", "好")
        figures = it.figures
    assert (figures["ok"], figures["repeated"]) == (2, 0)
    assert it.client.usage.refused == figures["refused"] >= 1
    assert it.client.usage.calls == figures["calls"]
    if retry_after == "whole":
        assert [line["arrived"] for line in it.lines if line["admitted"]][1] >= 1


async def test_refusals_without_end_are_an_outage(clock: ManualClock) -> None:
    hasty = TokenBucket(rate=100, burst=10, clock=clock)
    async with studio(clock, hasty, attempts=2, rate=0.001, burst=1, retry_after="none") as it:
        await it.make("你")
        error = await it.fail("好")
    assert isinstance(error, Unavailable)
    assert "429, Rate limit is exceeded" in str(error)


@pytest.mark.parametrize(
    ("switch", "kind", "words", "billed"),
    [
        ("error_rate", CallFailed, "503", 0),
        ("malformed_rate", MalformedAnswer, "got nothing", 8),
        ("wrong_rate", MalformedAnswer, "asked for audio, got text/html", 8),
    ],
)
async def test_what_fails_is_tried_again_each_time_with_a_permit(
    switch: str, kind: type[ServiceError], words: str, billed: int, clock: ManualClock
) -> None:
    async with studio(clock, **on(switch)) as it:
        error = await it.fail("好")
        figures = it.figures
    assert type(error) is kind
    assert words in str(error)
    assert (figures["calls"], figures["billed"]) == (4, billed)
    assert isinstance(it.client.calls.limiter, TokenBucket)
    assert it.client.calls.limiter.statistics().granted == it.client.usage.calls == 4


async def test_a_text_that_says_nothing_is_not_tried_again(clock: ManualClock) -> None:
    async with studio(clock) as it:
        error = await it.fail(" ")
    assert isinstance(error, CallFailed)
    assert "400, The SSML says nothing" in str(error)
    assert len(it.lines) == 1


async def test_who_is_cancelled_hangs_up(clock: ManualClock) -> None:
    async with studio(clock, hang_rate=1) as it, anyio.create_task_group() as group:
        group.start_soon(it.client.speak, "好")
        await clock.run_for(3)
        group.cancel_scope.cancel()
    (line,) = it.lines
    assert (line["answer"], line["seconds"], line["billed"]) == ("aborted", 3, 0)


# --- by script ------------------------------------------------------------------------------------


async def test_what_is_sent(clock: ManualClock) -> None:
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, content=b"bytes", headers={"content-type": "audio/mpeg"})

    options = settings.load({"AZURE_SPEECH_REGION": "westeurope"}).sound
    limiter = TokenBucket(rate=5, burst=1, clock=clock)
    transport = httpx2.MockTransport(answer)
    async with SoundService(Endpoint("https://there", KEY), options, limiter, 1, transport, clock) as it:
        assert await clock.run(it.speak("好")) == Media(b"bytes", "audio/mpeg")
    (request,) = requests
    assert str(request.url) == "https://there/cognitiveservices/v1"
    assert request.headers["ocp-apim-subscription-key"] == KEY
    assert request.headers["content-type"] == "application/ssml+xml"
    assert request.headers["x-microsoft-outputformat"] == "audio-24khz-48kbitrate-mono-mp3"
    assert request.headers["user-agent"]
    assert spoken(request.content) == "好"


async def test_a_key_that_is_refused_is_not_tried_again_and_not_told(clock: ManualClock) -> None:
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(401, json={"error": {"code": "401", "message": f"Access denied: {KEY}"}})

    options, limiter = settings.load({}).sound, TokenBucket(rate=5, burst=1, clock=clock)
    transport = httpx2.MockTransport(answer)
    async with SoundService(Endpoint("https://there", KEY), options, limiter, 1, transport, clock) as it:
        with pytest.raises(NotAllowed) as raised:
            await clock.run(it.speak("好"))
    assert len(requests) == 1
    assert KEY not in f"{raised.value} {it!r}"

"""The stand-in's sound service in-process, on a virtual clock, on asyncio and trio."""

import io
import statistics
import wave
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest

from examples.standin.azure_wire import billable
from examples.standin.sound import SoundSwitches
from examples.standin.sounds import format_of
from tests.examples.house import House, ticking
from tests.examples.house import house as any_house

pytestmark = pytest.mark.anyio

MP3 = "audio-24khz-48kbitrate-mono-mp3"
WAV = "riff-16khz-16bit-mono-pcm"
HEADERS = {
    "ocp-apim-subscription-key": "no-secret",
    "content-type": "application/ssml+xml",
    "x-microsoft-outputformat": MP3,
}
# bit rates in kbit/s and sample rates in Hz by their numbers, as the standard has them: MPEG-1, MPEG-2
BIT_RATES = {
    3: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
}
SAMPLE_RATES = {3: [44_100, 48_000, 32_000], 2: [22_050, 24_000, 16_000]}


class SoundHouse(House):
    """A stand-in that is asked for sounds."""

    async def post(self, text: str = "好", body: str = "", **headers: str) -> httpx2.Response:
        """One call; who drives the clock is another's affair."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(
            "/cognitiveservices/v1", content=(body or ssml(text)).encode(), headers=HEADERS | named
        )

    async def ask(self, text: str = "好", body: str = "", **headers: str) -> httpx2.Response:
        """One call; the clock goes on until it is answered."""
        async with ticking(self.clock, 0.125):
            return await self.post(text, body, **headers)


@asynccontextmanager
async def house(speed: float = 1, seed: int = 7, **switches: object) -> AsyncGenerator[SoundHouse]:
    async with any_house("sound", speed, seed, **switches) as it:
        yield SoundHouse(it.clock, it.app, it.client)


def ssml(text: str) -> str:
    return (
        "<speak version='1.0' xmlns='http://www.w3.org/2001/10/synthesis' xml:lang='zh-CN'>"
        f"<voice name='zh-CN-XiaoxiaoNeural'>{text}</voice></speak>"
    )


def frames(file: bytes) -> list[tuple[int, int, int]]:
    """Of every frame of an MP3 the MPEG version, the bit rate in kbit/s and the sample rate in Hz."""
    found: list[tuple[int, int, int]] = []
    while file:
        assert (file[0], file[1] >> 5, file[1] >> 1 & 3, file[3] >> 6) == (0xFF, 7, 1, 3)  # layer III, mono
        version = file[1] >> 3 & 3
        kbits, rate = BIT_RATES[version][file[2] >> 4], SAMPLE_RATES[version][file[2] >> 2 & 3]
        found.append((version, kbits, rate))
        size = (144 if version == 3 else 72) * kbits * 1000 // rate
        assert len(file) >= size
        file = file[size:]
    return found


# --- the protocol ---------------------------------------------------------------------------------


async def test_a_word_is_spoken_as_mp3() -> None:
    async with house() as it:
        reply, line = await it.ask("你好"), await it.last()
    assert (reply.status_code, reply.headers["content-type"]) == (200, "audio/mpeg")
    assert set(frames(reply.content)) == {(2, 48, 24_000)}
    assert (line["keys"], line["answer"], line["billed"]) == (["你好"], "ok", 4)
    assert 0.4 < (line["seconds"] or 0) < 1.6


async def test_a_word_is_spoken_as_wav() -> None:
    async with house() as it:
        reply = await it.ask("你好", x_microsoft_outputformat=WAV)
    assert reply.headers["content-type"] == "audio/x-wav"
    with wave.open(io.BytesIO(reply.content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.getnframes() == 1600


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("audio-16khz-32kbitrate-mono-mp3", (2, 32, 16_000)),
        ("audio-16khz-128kbitrate-mono-mp3", (2, 128, 16_000)),
        ("audio-24khz-160kbitrate-mono-mp3", (2, 160, 24_000)),
        ("audio-48khz-96kbitrate-mono-mp3", (3, 96, 48_000)),
        ("audio-48khz-192kbitrate-mono-mp3", (3, 192, 48_000)),
    ],
)
def test_each_format_is_what_its_name_says(name: str, frame: tuple[int, int, int]) -> None:
    made = format_of(name)
    assert made
    assert set(frames(made.speak("今天我们学“好”。"))) == {frame}


@pytest.mark.parametrize("name", [MP3, WAV])
def test_every_text_has_a_sound_of_its_own(name: str) -> None:
    made = format_of(name)
    assert made
    assert len({made.speak(text) for text in "一二三四五六七八九十"}) == 10
    assert made.speak("一") == made.speak("一")


@pytest.mark.parametrize(
    ("text", "characters"), [("好", 2), ("你好", 4), ("hello", 5), ("学“好”。", 7)], ids=str
)
def test_chinese_characters_are_billed_twice(text: str, characters: int) -> None:
    assert billable(text) == characters


async def test_what_is_escaped_is_spoken_as_it_was_meant() -> None:
    async with house() as it:
        await it.ask("&lt;好&gt; &amp; “坏”")
        line = await it.last()
    assert line["keys"] == ["<好> & “坏”"]


async def test_without_a_key_nothing_is_said() -> None:
    async with house() as it:
        reply = await it.ask(ocp_apim_subscription_key=" ")
        line = await it.last()
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "401")
    assert (line["answer"], line["status"], line["admitted"]) == ("error", 401, False)


@pytest.mark.parametrize(
    "body",
    [
        "好",
        ssml("a < b"),
        ssml("Q&A"),
        ssml(" "),
        ssml("好").replace("<voice name='zh-CN-XiaoxiaoNeural'>", "<voice>"),
        ssml("好").replace(" version='1.0'", ""),
        "<speak version='1.0' xml:lang='zh-CN'><voice name='x'>好</voice></speak>",
    ],
    ids=["text", "less-than", "ampersand", "silence", "no voice", "no version", "no namespace"],
)
async def test_ssml_that_cannot_be_read_is_a_400_and_costs_nothing(body: str) -> None:
    async with house() as it:
        reply = await it.ask(body=body)
        line = await it.last()
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "400")
    assert (line["answer"], line["admitted"], line["keys"]) == ("error", False, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"x_microsoft_outputformat": ""}, 400),
        ({"x_microsoft_outputformat": "audio-24khz-47kbitrate-mono-mp3"}, 400),
        ({"x_microsoft_outputformat": "riff-12khz-16bit-mono-pcm"}, 400),
    ],
    ids=str,
)
async def test_headers_that_are_wrong(headers: dict[str, str], status: int) -> None:
    async with house() as it:
        assert (await it.ask(**headers)).status_code == status
        assert (await it.last())["admitted"] is False


# --- quota, latency and faults --------------------------------------------------------------------


async def test_over_the_quota_is_refused_until_the_very_moment() -> None:
    async with house(rate=5, burst=2, slow=0) as it:
        statuses: list[int] = []
        for moment in (0, 0, 0, 0.2 - 1e-9, 0.2):
            it.clock.time = moment
            async with ticking(it.clock, 0):
                statuses.append((await it.post()).status_code)
        figures = await it.figures("sound")
    assert statuses == [200, 200, 429, 429, 200]
    assert figures["busiest"]["excess"] == 0
    assert figures["busiest_asked"]["excess"] > 0


@pytest.mark.parametrize(("mode", "expected"), [("exact", "0.005"), ("whole", "1"), ("none", None)])
async def test_a_refusal_may_say_when_to_come_again(mode: str, expected: str | None) -> None:
    async with house(speed=40, burst=1, slow=0, retry_after=mode) as it, ticking(it.clock, 0):
        await it.post()
        reply = await it.post()
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "429")
    assert reply.headers.get("retry-after") == expected


async def test_latencies_are_about_the_middle_with_a_tail() -> None:
    async with house(rate=1000, burst=1000) as it:
        async with ticking(it.clock, 0.125), anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(it.post, f"{number}")
        seconds = [line["seconds"] or 0 for line in await it.lines()]
    assert statistics.median(seconds) == pytest.approx(0.8, rel=0.1)
    assert 1.2 < max(seconds) <= 1.61


@pytest.mark.parametrize(
    ("fault", "status", "answer", "billed"),
    [
        ("error_rate", 503, "error", 0),
        ("malformed_rate", 200, "malformed", 2),
        ("wrong_rate", 200, "malformed", 2),
        ("truncated_rate", 200, "malformed", 2),
    ],
)
async def test_faults_and_what_they_cost(fault: str, status: int, answer: str, billed: int) -> None:
    async with house(**{fault: 1}) as it:
        reply, line = await it.ask("好"), await it.last()
    assert reply.status_code == status
    assert (line["answer"], line["status"], line["billed"]) == (answer, status, billed)
    match fault:
        case "malformed_rate":
            assert reply.content == b""
        case "wrong_rate":
            assert reply.headers["content-type"].startswith("text/html")
        case "truncated_rate":
            assert len(reply.content) < int(reply.headers["content-length"])
        case _:
            assert reply.json()["error"]["code"] == "503"


async def test_a_call_that_hangs_ends_with_its_client() -> None:
    async with house(hang_rate=1) as it, anyio.create_task_group() as group:
        group.start_soon(it.post)
        await it.clock.advance(1000)
        assert (await it.figures("sound"))["under_way"] == 1
        group.cancel_scope.cancel()
    entry = it.app.state.ledger.entries[-1]
    assert (entry.answer, entry.seconds, entry.billed) == ("aborted", 1000, 0)


def test_the_defaults_are_those_of_the_service() -> None:
    switches = SoundSwitches()
    assert (switches.rate, switches.burst) == (5, 10)

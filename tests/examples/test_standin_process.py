"""The stand-in services as they are run: a process of their own, called by the official SDK."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import openai
import pytest
from attrs import evolve
from openai.types.chat import ParsedChatCompletion
from pydantic import BaseModel

from batchkit import TokenBucket
from examples import settings
from examples.errors import CallFailed
from examples.media.media import Media
from examples.services.endpoint import Endpoint
from examples.services.picture import PictureService
from examples.services.sound import SoundService
from examples.standin.__main__ import listen, main, switches

SPEED = 100.0
PATIENT = 10.0  # the speed of a client that gives the stand-in ten times as long
HERE = Path(__file__).parents[2]
QUESTION = '{"words": [{"word": "好", "pinyin": "hǎo", "definitions": ["good"]}]}'


class Card(BaseModel):
    word: str
    mnemonic: str
    example: str


class Cards(BaseModel):
    cards: list[Card]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the server runs on it whatever the client does


@contextmanager
def standin(*options: str) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """A running process and its URL; it ends with its standard input, and in order."""
    command = [
        sys.executable,
        "-m",
        "examples.standin",
        "--until-stdin-closes",
        "--speed",
        str(SPEED),
        *options,
    ]
    with subprocess.Popen(
        command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert re.fullmatch(r"stand-in services at http://127\.0\.0\.1:\d+\n", line), line
            yield line.split()[-1], process
            output, complaints = process.communicate(timeout=10)
        except BaseException:
            process.kill()
            raise
    assert (process.returncode, output, complaints) == (0, "", "")


@asynccontextmanager
async def sdk(url: str, timeout: float = 10) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="no-secret", base_url=f"{url}/v1", max_retries=0, timeout=timeout
    ) as api:
        yield api


async def ask(api: openai.AsyncOpenAI) -> ParsedChatCompletion[Cards]:
    return await api.chat.completions.parse(
        model="gpt-4o-mini",
        messages=[{"role": "system", "content": "Write cards."}, {"role": "user", "content": QUESTION}],
        response_format=Cards,
    )


@pytest.mark.anyio
async def test_the_sdk_sees_answers_refusals_and_faults_as_its_own() -> None:
    with standin("--seed", "7", "--set", "text.rate=0.001", "--set", "text.burst=1") as (url, _):
        async with sdk(url) as api, httpx2.AsyncClient(base_url=f"{url}/standin") as admin:

            async def turned(**changes: object) -> None:
                (await admin.put("/switches", json={"text": changes})).raise_for_status()

            async def summary() -> Any:
                return (await admin.get("/summary")).json()

            reply = await ask(api)
            assert reply.choices[0].message.parsed
            assert reply.choices[0].message.parsed.cards[0].word == "好"

            with pytest.raises(openai.RateLimitError) as refused:
                await ask(api)
            assert refused.value.code == "rate_limit_exceeded"
            assert 9 < float(refused.value.response.headers["retry-after"]) <= 10  # 1000 s at speed 100
            figures = await summary()
            assert (figures["ok"], figures["refused"]) == (1, 1)
            assert figures["bound_seconds"] > 2

            with pytest.raises(openai.AuthenticationError):
                await api.models.list(extra_headers={"Authorization": "none"})

            await turned(rate=1000, burst=1000)
            await admin.post("/reset")
            await turned(truncated_rate=1)
            with pytest.raises(openai.APIConnectionError):
                await ask(api)
            await turned(truncated_rate=0, poison=["好"])
            with pytest.raises(ValueError, match="Invalid JSON"):
                await ask(api)
            await turned(poison=[], hang_rate=1)
            async with sdk(url, timeout=0.2) as impatient:
                with pytest.raises(openai.APITimeoutError):
                    await ask(impatient)
            await turned(hang_rate=0)
            await ask(api)
            figures = await summary()
            assert (figures["malformed"], figures["aborted"], figures["ok"]) == (2, 1, 1)


@pytest.mark.anyio
async def test_pictures_and_sounds_over_a_real_connection_whatever_goes_wrong_with_it() -> None:
    switches = ["picture.truncated_rate=1", "picture.flaky_rate=0.3", "sound.truncated_rate=0.5"]
    plenty = ["picture.rate=1000", "picture.burst=1000", "sound.rate=1000", "sound.burst=1000"]
    drawn, heard = list[Media](), list[Media]()
    options = [word for switch in (*switches, *plenty) for word in ("--set", switch)]
    with standin("--seed", "7", *options) as (url, _):
        config, limiter = settings.load({}), TokenBucket(rate=1000, burst=100)
        sound_options = evolve(config.sound, attempts=20)
        async with (
            PictureService(
                Endpoint(f"{url}/fal", "no-secret", PATIENT), config.picture, limiter, 8
            ) as picture,
            SoundService(Endpoint(url, "no-secret", PATIENT), sound_options, limiter, 8) as sound,
            anyio.create_task_group() as group,
        ):

            async def draw(prompt: str) -> None:
                drawn.append(await picture.draw(prompt))

            async def speak(text: str) -> None:
                heard.append(await sound.speak(text))

            for number in range(8):
                group.start_soon(draw, f"picture {number}")
                group.start_soon(speak, f"sound {number}")
        figures = httpx2.get(f"{url}/standin/summary").json()["services"]
    assert {picture.content[-8:-4] for picture in drawn} == {b"IEND"}
    assert len({picture.content for picture in drawn}) == len({sound.content for sound in heard}) == 8
    # A picture that was cut off is fetched again, a sound has to be spoken again.
    assert (figures["picture"]["calls"], figures["picture"]["billed"]) == (8, 8)
    assert (figures["sound"]["ok"], figures["sound"]["repeated"]) == (8, 0)
    assert figures["sound"]["malformed"] == sound.usage.calls - 8 > 0


@pytest.mark.anyio
async def test_who_waits_in_vain_hangs_up_and_cancels() -> None:
    hang = ["--set", "picture.hang_rate=1", "--set", "sound.hang_rate=1"]
    with standin(*hang) as (url, _):
        config, limiter = settings.load({}), TokenBucket(rate=1000, burst=100)
        picture_options = evolve(config.picture, attempts=1, timeout=20)
        sound_options = evolve(config.sound, attempts=1, timeout=20)
        async with (
            PictureService(
                Endpoint(f"{url}/fal", "no-secret", SPEED), picture_options, limiter, 1
            ) as picture,
            SoundService(Endpoint(url, "no-secret", SPEED), sound_options, limiter, 1) as sound,
        ):
            with pytest.raises(CallFailed):
                await picture.draw("a horse")
            with pytest.raises(CallFailed):
                await sound.speak("好")
        while httpx2.get(f"{url}/standin/summary").json()["under_way"]:
            pass
        lines = httpx2.get(f"{url}/standin/ledger").json()["entries"]
    assert [(line["service"], line["answer"], line["billed"]) for line in lines] == [
        ("picture", "aborted", 0),
        ("sound", "aborted", 0),
    ]


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(name: signal.Signals) -> None:
    with standin() as (_, process):
        process.send_signal(name)
        process.wait(timeout=10)


def test_a_call_under_way_does_not_keep_it_from_ending() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": QUESTION}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: standin\r\ncontent-length: {len(body)}\r\n"
    with standin("--set", "text.hang_rate=1") as (url, process):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(f"{head}authorization: Bearer no-secret\r\n\r\n{body}".encode())
            while httpx2.get(f"{url}/standin/summary").json()["under_way"] == 0:
                pass
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def test_options_on_the_command_line() -> None:
    settings = ["text.rate=4", 'text.poison=["坏"]', "text.retry_after=none"]
    assert switches(settings) == {"text": {"rate": 4, "poison": ["坏"], "retry_after": "none"}}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--set", "rate=4"], "expected SERVICE.SWITCH=VALUE"),
        (["--set", "text.rate=0"], "greater than 0"),
        (["--set", "smell.rate=1"], "no such service: smell"),
        (["--speed", "0"], "speed must be above 0"),
    ],
)
def test_a_wrong_option_is_one_sentence(options: list[str], complaint: str) -> None:
    with pytest.raises(SystemExit, match=complaint):
        main(options)


def test_small_replies_do_not_wait_for_nagle() -> None:
    with listen(0) as listener:
        assert listener.proto == socket.IPPROTO_TCP

"""The stand-in's picture service in-process, on a virtual clock, on asyncio and trio."""

import json
import struct
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import httpx2
import pytest

from examples.standin import png
from examples.standin.picture import PictureSwitches
from tests.examples.house import House, ticking
from tests.examples.house import house as any_house

pytestmark = pytest.mark.anyio

KEY = {"authorization": "Key no-secret"}
MODEL = "/fal/fal-ai/flux/schnell"


class PictureHouse(House):
    """A stand-in that is asked for pictures."""

    async def submit(self, prompt: str = "a horse", **body: Any) -> httpx2.Response:
        return await self.client.post(MODEL, json=body or {"prompt": prompt}, headers=KEY)

    async def ordered(self, prompt: str = "a horse") -> dict[str, str]:
        """A job, as it was announced."""
        reply = await self.submit(prompt)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def ask(self, url: str) -> httpx2.Response:
        return await self.client.get(url, headers=KEY)

    async def status(self, job: dict[str, str]) -> Any:
        return (await self.ask(job["status_url"])).json()

    async def cancel(self, job: dict[str, str]) -> tuple[int, str]:
        reply = await self.client.put(job["cancel_url"], headers=KEY)
        return reply.status_code, reply.json()["status"]


@asynccontextmanager
async def house(speed: float = 1, seed: int = 7, **switches: object) -> AsyncGenerator[PictureHouse]:
    async with any_house("picture", speed, seed, **switches) as it:
        yield PictureHouse(it.clock, it.app, it.client)


def pixels(file: bytes) -> bytes:
    """What a PNG shows; every part of the file is checked on the way."""
    assert file.startswith(png.SIGNATURE)
    rest, parts = file[len(png.SIGNATURE) :], dict[bytes, bytes]()
    while rest:
        size, kind = struct.unpack(">I4s", rest[:8])
        data, (checksum,) = rest[8 : 8 + size], struct.unpack(">I", rest[8 + size : 12 + size])
        assert checksum == zlib.crc32(kind + data)
        parts[kind], rest = data, rest[12 + size :]
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", parts[b"IHDR"]) == (png.SIDE, png.SIDE, 8, 2, 0, 0, 0)
    shown = zlib.decompress(parts[b"IDAT"])
    assert len(shown) == png.SIDE * (1 + 3 * png.SIDE)
    return shown


# --- the protocol ---------------------------------------------------------------------------------


async def test_a_job_is_ordered_waited_for_and_fetched() -> None:
    async with house() as it:
        job = await it.ordered("a horse")
        assert job["status"] == "IN_QUEUE"
        # the path of the endpoint is not part of the job's address
        assert job["response_url"] == f"http://standin/fal/fal-ai/flux/requests/{job['request_id']}"
        assert (await it.status(job))["status"] == "IN_PROGRESS"
        assert (await it.ask(job["status_url"])).status_code == 202
        early = await it.ask(job["response_url"])
        assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
        await it.clock.advance(20)
        done = await it.ask(job["status_url"])
        assert (done.status_code, done.json()["status"]) == (200, "COMPLETED")
        assert 3 < done.json()["metrics"]["inference_time"] < 12
        result = (await it.ask(job["response_url"])).json()
        (picture,) = result["images"]
        file = await it.client.get(picture["url"])  # public
        line = await it.last()
    assert (picture["content_type"], file.headers["content-type"]) == ("image/png", "image/png")
    assert (picture["width"], picture["height"]) == (png.SIDE, png.SIDE)
    assert result["prompt"] == "a horse"
    pixels(file.content)
    assert (line["keys"], line["answer"], line["billed"]) == (["a horse"], "ok", 1)
    assert line["seconds"] == pytest.approx(done.json()["metrics"]["inference_time"])


def test_every_prompt_has_a_picture_of_its_own() -> None:
    shown = {pixels(png.draw(f"prompt {number}")) for number in range(50)}
    assert len(shown) == 50
    assert png.draw("prompt 1") == png.draw("prompt 1")


async def test_the_stream_tells_each_change_and_ends_with_the_job() -> None:
    async with house(concurrency=1) as it, ticking(it.clock, 0.125):
        await it.ordered("first")
        job = await it.ordered("second")
        reply = await it.client.get(f"{job['status_url']}/stream", headers=KEY)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line]
    assert [event["status"] for event in events] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    # fal-client takes these for granted
    assert events[0]["queue_position"] == 0
    assert [event["logs"] for event in events[1:]] == [None, None]
    assert events[2]["metrics"]["inference_time"] > 3


@pytest.mark.parametrize("headers", [{}, {"authorization": "Key "}, {"authorization": "Bearer abc"}])
async def test_without_a_key_nothing_is_made_or_told(headers: dict[str, str]) -> None:
    async with house() as it:
        job = await it.ordered()
        refused = [
            await it.client.post(MODEL, json={"prompt": "a horse"}, headers=headers),
            await it.client.get(job["status_url"], headers=headers),
            await it.client.get(job["response_url"], headers=headers),
            await it.client.put(job["cancel_url"], headers=headers),
        ]
        line = await it.last()
    assert [reply.status_code for reply in refused] == [401] * 4
    assert "Authentication" in refused[0].json()["detail"]
    assert (line["answer"], line["status"], line["admitted"]) == ("error", 401, False)


async def test_input_that_is_wrong_counts_and_shows_when_the_job_is_done() -> None:
    async with house() as it:
        reply = await it.submit(text="a horse")
        assert reply.status_code == 200
        await it.clock.advance(1)
        result = await it.ask(reply.json()["response_url"])
        line = await it.last()
    assert result.status_code == 422
    assert result.json()["detail"][0]["loc"] == ["body", "prompt"]
    assert result.headers["x-fal-retryable"] == "false"
    assert (line["answer"], line["status"], line["admitted"], line["billed"]) == ("error", 422, True, 0)


async def test_a_job_that_does_not_exist_is_not_found() -> None:
    async with house() as it:
        job = await it.ordered()
        await it.client.post("/standin/reset")
        assert (await it.ask(job["status_url"])).status_code == 404
        assert (await it.client.get(f"/fal-files/{job['request_id']}.png")).status_code == 404


# --- the quota, and the jobs at once --------------------------------------------------------------


async def test_orders_over_the_quota_are_refused_until_the_very_moment_and_questions_are_free() -> None:
    async with house(rate=1, burst=2) as it:
        job = await it.ordered()
        statuses = [(await it.submit()).status_code for _ in range(2)]
        for _ in range(10):
            await it.status(job)
        for moment in (1 - 1e-9, 1.0):
            it.clock.time = moment
            statuses.append((await it.submit()).status_code)
        figures = await it.figures("picture")
    assert statuses == [200, 429, 429, 200]
    assert (figures["calls"], figures["refused"], figures["rate"], figures["burst"]) == (5, 2, 1, 2)
    assert figures["busiest"]["excess"] == 0


@pytest.mark.parametrize(
    ("mode", "expected"), [("exact", "0.025"), ("whole", "1"), ("none", None)], ids=["exact", "whole", "none"]
)
async def test_a_refusal_may_say_when_to_come_again(mode: str, expected: str | None) -> None:
    async with house(speed=40, burst=1, retry_after=mode) as it:
        await it.submit()
        reply = await it.submit()
    assert reply.status_code == 429
    assert "Rate limit" in reply.json()["detail"]
    assert reply.headers.get("retry-after") == expected


async def test_no_more_jobs_at_once_than_the_account_has_and_none_is_refused_for_it() -> None:
    async with house(concurrency=2, burst=5) as it:
        jobs = [await it.ordered(f"prompt {number}") for number in range(5)]
        states = [(await it.status(job))["status"] for job in jobs]
        assert states == ["IN_PROGRESS"] * 2 + ["IN_QUEUE"] * 3
        assert [(await it.status(job))["queue_position"] for job in jobs[2:]] == [0, 1, 2]
        await it.clock.advance(100)
        lines = await it.lines()
    assert [line["answer"] for line in lines] == ["ok"] * 5
    ends = sorted(line["seconds"] or 0 for line in lines)
    assert all(later - end > 2.9 for end, later in zip(ends, ends[2:], strict=False))
    assert all(later > end for end, later in pairwise(ends))


async def test_the_limit_of_jobs_at_once_can_change_while_it_runs() -> None:
    async with house(concurrency=1) as it:
        jobs = [await it.ordered(f"prompt {number}") for number in range(3)]
        await it.turn("picture", concurrency=3)
        assert {(await it.status(job))["status"] for job in jobs} == {"IN_PROGRESS"}


async def test_the_figures_of_a_run() -> None:
    async with house(rate=1, burst=3) as it:
        for prompt in ("a", "b", "a"):
            await it.submit(prompt)
        await it.clock.advance(100)
        figures, lines = await it.figures("picture"), await it.lines()
    assert (figures["ok"], figures["billed"], figures["repeated"], figures["most_at_once"]) == (3, 3, 1, 3)
    assert figures["bound_seconds"] == max(line["seconds"] or 0 for line in lines)


# --- cancelling -----------------------------------------------------------------------------------


async def test_a_cancelled_job_is_not_billed_and_makes_room() -> None:
    async with house(concurrency=1) as it:
        running, waiting, last = [await it.ordered(prompt) for prompt in ("running", "waiting", "last")]
        await it.clock.advance(1)
        assert await it.cancel(waiting) == (200, "OK")
        assert await it.cancel(running) == (202, "CANCELLATION_REQUESTED")
        assert await it.cancel(running) == (400, "ALREADY_COMPLETED")
        assert (await it.status(last))["status"] == "IN_PROGRESS"
        result = await it.ask(running["response_url"])
        await it.clock.advance(100)
        lines = await it.lines()
    assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")
    assert [(line["answer"], line["billed"]) for line in lines] == [
        ("aborted", 0),
        ("aborted", 0),
        ("ok", 1),
    ]
    assert [line["seconds"] for line in lines[:2]] == [1, 1]


async def test_a_stream_ends_when_its_job_is_cancelled() -> None:
    replies: list[httpx2.Response] = []
    async with house(hang_rate=1) as it:
        job = await it.ordered()

        async def listen() -> None:
            replies.append(await it.client.get(f"{job['status_url']}/stream", headers=KEY))

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await it.clock.advance(10_000)
            assert not replies
            await it.cancel(job)
    assert '"COMPLETED"' in replies[0].text


async def test_a_new_run_ends_the_jobs_of_the_old_one() -> None:
    replies: list[httpx2.Response] = []
    async with house(hang_rate=1) as it:
        job = await it.ordered()

        async def listen() -> None:
            replies.append(await it.client.get(f"{job['status_url']}/stream", headers=KEY))

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await it.clock.advance(1)
            await it.client.post("/standin/reset")
        assert '"COMPLETED"' in replies[0].text
        assert (await it.ask(job["response_url"])).status_code == 404
        assert await it.lines() == []


async def test_what_nobody_waits_for_is_made_and_billed_all_the_same() -> None:
    async with house() as it:
        await it.ordered()
        await it.clock.advance(100)
        line = await it.last()
    assert (line["answer"], line["billed"]) == ("ok", 1)


# --- faults ---------------------------------------------------------------------------------------


async def done(it: PictureHouse, prompt: str = "a horse") -> httpx2.Response:
    """The result of a job."""
    job = await it.ordered(prompt)
    await it.clock.advance(100)
    return await it.ask(job["response_url"])


async def test_a_job_that_fails_is_a_500_and_not_billed() -> None:
    async with house(error_rate=1) as it:
        result, line = await done(it), await it.last()
    assert (result.status_code, result.headers["x-fal-retryable"]) == (500, "true")
    assert result.json()["detail"][0]["type"] == "internal_server_error"
    assert (line["answer"], line["status"], line["billed"]) == ("error", 500, 0)


async def test_a_job_that_hangs_is_in_progress_for_ever() -> None:
    async with house(hang_rate=1) as it:
        job = await it.ordered()
        await it.clock.advance(1e6)
        assert (await it.status(job))["status"] == "IN_PROGRESS"
        assert (await it.figures("picture"))["under_way"] == 1


async def test_a_result_that_is_malformed_is_billed() -> None:
    async with house(poison=["snake"]) as it:
        result, line = await done(it, "a snake in the grass"), await it.last()
    with pytest.raises(json.JSONDecodeError):
        result.json()
    assert (result.status_code, line["answer"], line["billed"]) == (200, "malformed", 1)


async def test_what_is_no_picture_is_billed() -> None:
    async with house(wrong_rate=1) as it:
        result = await done(it)
        page = await it.client.get(result.json()["images"][0]["url"])
        line = await it.last()
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (line["answer"], line["billed"]) == ("malformed", 1)


async def test_a_picture_that_is_cut_off_is_whole_the_next_time() -> None:
    async with house(truncated_rate=1) as it:
        url = (await done(it)).json()["images"][0]["url"]
        half, whole = await it.client.get(url), await it.client.get(url)
        line = await it.last()
    assert len(half.content) < int(half.headers["content-length"]) == len(whole.content)
    pixels(whole.content)
    assert (line["answer"], line["billed"]) == ("ok", 1)


async def test_questions_may_fail_and_cost_nothing() -> None:
    async with house(flaky_rate=0.5) as it:
        job = await it.ordered()
        statuses = [(await it.ask(job["status_url"])).status_code for _ in range(50)]
        figures = await it.figures("picture")
    assert set(statuses) == {202, 502}
    assert figures["calls"] == 1


async def test_slow_multiplies_the_latency() -> None:
    seconds: list[float] = []
    for slow in (1, 3):
        async with house(slow=slow) as it:
            await done(it)
            seconds.append(await it.seconds())
    assert seconds[1] == pytest.approx(3 * seconds[0])


def test_the_defaults_are_those_of_the_service() -> None:
    switches = PictureSwitches()
    assert (switches.rate, switches.burst, switches.concurrency) == (1, 3, 40)

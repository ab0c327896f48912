"""The picture service's client: what it makes of good and of bad replies, and what each picture costs."""

import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from attrs import evolve

from batchkit import TokenBucket
from batchkit.abc import Limiter
from batchkit.presets import Quota, Tier
from batchkit.testing import ManualClock
from examples import settings
from examples.errors import CallFailed, MalformedAnswer, NotAllowed, Unavailable
from examples.language.prompt import Question, Text, picture
from examples.media.media import Media
from examples.queueing.urgency import Urgency
from examples.services.endpoint import Endpoint
from examples.services.picture import PictureService
from examples.standin import Config, create_app
from tests.examples.house import settle
from tests.examples.studio import Studio, on

KEY = "a-secret-key"
HANGING = 1000.0  # the speed at which a minute's patience is over soon

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def studio(
    clock: ManualClock,
    limiter: Limiter | None = None,
    speed: float = 1.0,
    attempts: int = 4,
    **switches: Any,
) -> AsyncGenerator[Studio[PictureService]]:
    app = create_app(Config(speed, switches={"picture": switches}), clock)
    limiter = limiter or Quota(rate=1, burst=3).scaled(speed).bucket(clock=clock)
    client = PictureService(
        Endpoint("http://127.0.0.1/fal", KEY, speed),
        evolve(settings.load({}).picture, attempts=attempts),
        limiter,
        connections=40,
        transport=httpx2.ASGITransport(app),
        clock=clock,
    )
    async with client:
        yield Studio(clock, app, client, client.draw)


# --- good days ------------------------------------------------------------------------------------


async def test_a_picture_is_drawn_and_fetched(clock: ManualClock) -> None:
    async with studio(clock) as it:
        (drawn,) = await it.make("a horse")
        (line,) = it.lines
    assert drawn.content.startswith(b"\x89PNG")
    assert drawn.content_type == "image/png"
    assert (line["keys"], line["answer"], line["billed"]) == (["a horse"], "ok", 1)
    usage = it.client.usage
    assert (usage.calls, usage.refused, it.client.pictures) == (1, 0, 1)
    assert usage.calling == pytest.approx(line["seconds"])


async def test_every_prompt_has_its_own_picture(clock: ManualClock) -> None:
    async with studio(clock) as it:
        horse, cow = await it.make("a horse", "a cow")
    assert horse.content != cow.content


async def test_the_quota_is_kept_and_used(clock: ManualClock) -> None:
    async with studio(clock) as it:
        await it.make(*map(str, range(30)))
        figures = it.figures
    assert (figures["ok"], figures["refused"], figures["repeated"]) == (30, 0, 0)
    assert figures["busiest_asked"]
    assert figures["busiest_asked"]["excess"] <= 0
    assert figures["bound_seconds"]
    # One permit of the burst is the headroom for jitter: it is a second at 1/s.
    assert clock.now() <= figures["bound_seconds"] + 1.001


async def test_no_more_jobs_at_once_than_the_account_may_have(clock: ManualClock) -> None:
    tier = Tier("fal", requests=Quota(rate=1, burst=3), calls=2)
    async with studio(clock, tier.limiter(clock=clock), concurrency=2) as it:
        await it.make(*map(str, range(8)))
        figures, lines = it.figures, it.lines
    assert (figures["ok"], figures["most_at_once"]) == (8, 2)
    assert max(line["seconds"] or 0 for line in lines) < 12.01  # none waited in fal's own queue


async def test_who_is_more_urgent_is_drawn_first(clock: ManualClock) -> None:
    async with studio(clock, TokenBucket(rate=1, burst=1, clock=clock)) as it:

        async def both() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(it.client.draw, "first")
                await clock.sleep(0.1)
                group.start_soon(it.client.draw, "bulk", Urgency(0))
                await clock.sleep(0.1)
                group.start_soon(it.client.draw, "user", Urgency(1))

        await clock.run(both())
    assert [line["keys"] for line in it.lines] == [["first"], ["user"], ["bulk"]]


# --- bad days: on the stand-in --------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", ["exact", "whole", "none"])
async def test_a_refused_order_is_made_again_when_the_server_says(
    retry_after: str, clock: ManualClock
) -> None:
    hasty = TokenBucket(rate=100, burst=10, clock=clock)
    async with studio(clock, hasty, burst=1, attempts=10, retry_after=retry_after) as it:
        await it.make("a", "b")
        figures = it.figures
    assert (figures["ok"], figures["repeated"]) == (2, 0)
    assert figures["refused"] >= 1
    assert it.client.usage.refused == figures["refused"]
    if retry_after != "none":
        assert figures["refused"] == 1
        assert [line["arrived"] for line in it.lines if line["admitted"]][1] >= 1


async def test_refusals_without_end_are_an_outage(clock: ManualClock) -> None:
    hasty = TokenBucket(rate=100, burst=10, clock=clock)
    async with studio(clock, hasty, attempts=2, rate=0.001, burst=1, retry_after="none") as it:
        await it.make("a")
        error = await it.fail("b")
    assert isinstance(error, Unavailable)
    assert "429, Rate limit" in str(error)


async def test_a_job_that_failed_is_ordered_again_each_time_with_a_permit(clock: ManualClock) -> None:
    async with studio(clock, error_rate=1) as it:
        error = await it.fail()
        figures = it.figures
    assert isinstance(error, CallFailed)
    assert "500, Internal server error" in str(error)
    assert (figures["errors"], figures["billed"]) == (4, 0)
    assert it.client.usage.calls == 4
    assert isinstance(it.client.calls.limiter, TokenBucket)
    assert it.client.calls.limiter.statistics().granted == 4


async def test_questions_that_fail_are_asked_again_and_nothing_is_paid_for_twice(clock: ManualClock) -> None:
    async with studio(clock, flaky_rate=0.6) as it:
        drawn = await it.make(*map(str, range(5)))
        figures = it.figures
    assert len(drawn) == 5
    assert (figures["calls"], figures["ok"], figures["billed"]) == (5, 5, 5)


@pytest.mark.parametrize(
    ("switch", "words"),
    [("malformed_rate", "malformed"), ("wrong_rate", "asked for image, got text/html")],
)
async def test_what_cannot_be_used_is_ordered_again_and_paid_for(
    switch: str, words: str, clock: ManualClock
) -> None:
    async with studio(clock, **on(switch)) as it:
        error = await it.fail()
        figures = it.figures
    assert isinstance(error, MalformedAnswer)
    assert words in str(error)
    assert (figures["malformed"], figures["billed"], it.client.pictures) == (4, 4, 4)


async def test_a_prompt_that_is_wrong_is_not_ordered_again(clock: ManualClock) -> None:
    async with studio(clock) as it:
        error = await it.fail("")
    assert isinstance(error, CallFailed)
    assert "422" in str(error)
    assert len(it.lines) == 1


async def test_a_job_that_hangs_is_cancelled_and_ordered_again(clock: ManualClock) -> None:
    async with studio(clock, speed=HANGING, attempts=2, hang_rate=1, burst=10) as it:
        error = await it.fail()
        lines = it.lines
    assert isinstance(error, CallFailed)
    assert "in time" in str(error)
    assert [(line["answer"], line["billed"]) for line in lines] == [("aborted", 0)] * 2


async def test_a_job_that_nobody_waits_for_is_cancelled(clock: ManualClock) -> None:
    async with studio(clock) as it, anyio.create_task_group() as group:
        group.start_soon(it.client.draw, "a horse")
        await clock.run_for(2)
        group.cancel_scope.cancel()
    (line,) = it.lines
    assert (line["answer"], line["billed"], line["seconds"]) == ("aborted", 0, 2)


# --- bad days: by script --------------------------------------------------------------------------


Handler = Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]]
QUEUE = "https://queue.example/fal-ai/flux"


class Script:
    """fal, answering from a script: for each kind of request the replies in order, the last one for good."""

    def __init__(self, **replies: list[httpx2.Response]) -> None:
        self.replies = {
            "order": [order()],
            "stream": [stream("IN_QUEUE", "COMPLETED")],
            "result": [result()],
            "file": [httpx2.Response(200, content=b"bytes", headers={"content-type": "image/jpeg"})],
            "cancel": [httpx2.Response(202, json={"status": "CANCELLATION_REQUESTED"})],
        } | replies
        self.requests: list[tuple[str, httpx2.Request]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        kind = self.kind(request)
        self.requests.append((kind, request))
        replies = self.replies[kind]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def kind(self, request: httpx2.Request) -> str:
        match request.method, request.url.path.rsplit("/", 1)[-1]:
            case "POST", _:
                return "order"
            case "PUT", _:
                return "cancel"
            case _, "stream":
                return "stream"
            case _, "picture.jpg":
                return "file"
            case _:
                return "result"

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.requests]


def order() -> httpx2.Response:
    job = f"{QUEUE}/requests/1"
    urls = {"response_url": job, "status_url": f"{job}/status", "cancel_url": f"{job}/cancel"}
    return httpx2.Response(200, json={"request_id": "1", **urls})


def stream(*states: str) -> httpx2.Response:
    events = [f"data: {json.dumps({'status': state})}\n\n" for state in states]
    return httpx2.Response(200, text=": ping\n\n" + "".join(events))


def result(**fields: Any) -> httpx2.Response:
    return httpx2.Response(200, json={"images": [{"url": "https://files.example/picture.jpg"}], **fields})


def client(clock: ManualClock, handler: Script | Handler) -> PictureService:
    return PictureService(
        Endpoint("https://queue.example", KEY),
        evolve(settings.load({}).picture, attempts=2),
        TokenBucket(rate=1000, burst=100, clock=clock),
        connections=2,
        transport=httpx2.MockTransport(handler),
        clock=clock,
    )


async def test_what_is_sent_and_to_whom_the_key_is_shown(clock: ManualClock) -> None:
    script = Script()
    async with client(clock, script) as it:
        drawn = await clock.run(it.draw("a horse"))
    assert drawn == Media(b"bytes", "image/jpeg")
    assert script.kinds == ["order", "stream", "result", "file"]
    first = script.requests[0][1]
    assert str(first.url) == "https://queue.example/fal-ai/flux/schnell"
    assert json.loads(first.content) == {"prompt": "a horse", "image_size": "square", "num_images": 1}
    shown = {request.url.host: request.headers.get("authorization") for _, request in script.requests}
    assert shown == {"queue.example": f"Key {KEY}", "files.example": None}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"detail": "Key a-secret-key is unknown"}, "it does not accept the API key (401)"),
        (403, {"detail": "User is locked. Reason: Exhausted balance."}, "Exhausted balance"),
        (404, {"detail": "Application not found"}, "404, Application not found"),
    ],
)
async def test_a_refusal_for_good_is_not_tried_again_and_tells_no_secret(
    status: int, body: object, said: str, clock: ManualClock
) -> None:
    script = Script(order=[httpx2.Response(status, json=body)])
    async with client(clock, script) as it:
        with pytest.raises(NotAllowed) as raised:
            await clock.run(it.draw("a horse"))
    assert script.kinds == ["order"]
    assert said in str(raised.value)
    assert KEY not in f"{raised.value} {it!r}"


async def test_a_stream_that_breaks_off_is_opened_again_for_nothing(clock: ManualClock) -> None:
    script = Script(stream=[stream("IN_QUEUE"), stream(), httpx2.Response(502), stream("COMPLETED")])
    async with client(clock, script) as it:
        await clock.run(it.draw("a horse"))
    assert script.kinds == ["order", *["stream"] * 4, "result", "file"]


async def test_a_job_that_the_service_has_lost_is_ordered_again(clock: ManualClock) -> None:
    script = Script(result=[httpx2.Response(404), result()])
    async with client(clock, script) as it:
        await clock.run(it.draw("a horse"))
    assert script.kinds.count("order") == 2


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ({"order": [httpx2.Response(200, json={"request_id": "1"})]}, "malformed"),
        ({"stream": [httpx2.Response(200, text="data: {\n\n")]}, "malformed"),
        ({"result": [httpx2.Response(200, json={"images": []})]}, "malformed"),
        ({"result": [result(has_nsfw_concepts=[True])]}, "indecent"),
        ({"file": [httpx2.Response(200, headers={"content-type": "image/png"})]}, "got nothing"),
        ({"file": [httpx2.Response(200, content=b"bytes")]}, "no type"),
    ],
    ids=["no address", "a broken event", "no pictures", "blackened", "an empty file", "no type"],
)
async def test_a_malformed_answer(
    replies: dict[str, list[httpx2.Response]], words: str, clock: ManualClock
) -> None:
    script = Script(**replies)
    async with client(clock, script) as it:
        with pytest.raises(MalformedAnswer, match=words):
            await clock.run(it.draw("a horse"))
    assert script.kinds.count("order") == 2


async def test_who_is_cancelled_while_the_order_is_on_its_way_cancels_it(clock: ManualClock) -> None:
    script, arrived, let_go = Script(), anyio.Event(), anyio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            arrived.set()
            await let_go.wait()
        await anyio.lowlevel.checkpoint()
        return script(request)

    async with client(clock, slow) as it, anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def draw() -> None:
            with scope:
                await it.draw("a horse")

        group.start_soon(draw)
        await arrived.wait()
        scope.cancel()
        await settle()
        let_go.set()
    assert script.kinds == ["order", "cancel"]


async def test_a_cancellation_that_is_not_heard_is_no_error(clock: ManualClock) -> None:
    script = Script(cancel=[httpx2.Response(400, json={"status": "ALREADY_COMPLETED"})])
    script.replies["stream"] = [httpx2.Response(403)]
    async with client(clock, script) as it:
        with pytest.raises(NotAllowed):
            await clock.run(it.draw("a horse"))
    assert script.kinds == ["order", "stream", "cancel"]


# --- what the picture is told ---------------------------------------------------------------------


def test_the_prompt_tells_the_meaning_and_the_mnemonic_and_wants_no_text() -> None:
    question = Question(word="马", pinyin="mǎ", definitions=["horse", "CL:匹[pi3]", "knight", "surname Ma"])
    text = Text(word="马", mnemonic="Four legs.", example="", example_pinyin="", example_translation="")
    prompt = picture(question, text)
    assert "the Chinese word 马: horse or knight." in prompt
    assert "Four legs." in prompt
    assert "CL:" not in prompt
    assert "no text" in prompt

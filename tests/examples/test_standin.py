"""The stand-in services in-process, on a virtual clock, on asyncio and trio."""

import json
import statistics
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import openai
import pytest
from starlette.types import Message

from examples.standin.flashcards import Cards, Word, latency
from examples.standin.ledger import Line
from examples.standin.service import Service
from examples.standin.text import TextSwitches
from tests.examples.house import House, ticking
from tests.examples.house import house as any_house

pytestmark = pytest.mark.anyio

KEY = {"authorization": "Bearer no-secret"}
CHARACTERS = "一二三四五六七八九十"


class TextHouse(House):
    """A stand-in that is asked for texts."""

    async def ask(self, words: str = "好", body: dict[str, Any] | None = None) -> httpx2.Response:
        """One call; the clock goes on until it is answered."""
        async with ticking(self.clock, 0.125):
            return await self.post(body or question(words))

    async def post(self, body: dict[str, Any] | None = None) -> httpx2.Response:
        """One call; who drives the clock is another's affair."""
        return await self.client.post("/v1/chat/completions", json=body or question("好"), headers=KEY)


@asynccontextmanager
async def house(speed: float = 1, seed: int = 7, **switches: object) -> AsyncGenerator[TextHouse]:
    async with any_house("text", speed, seed, **switches) as it:
        yield TextHouse(it.clock, it.app, it.client)


def question(words: str) -> dict[str, Any]:
    asked = [{"word": word, "pinyin": "hǎo", "definitions": ["good", "CL:個|个[ge4]"]} for word in words]
    content = json.dumps({"words": asked}, ensure_ascii=False)
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}


# --- the protocol ---------------------------------------------------------------------------------


async def test_the_official_sdk_gets_its_cards_in_order() -> None:
    async with house() as it, ticking(it.clock, 0.125):
        api = openai.AsyncOpenAI(
            api_key="no-secret", base_url="http://standin/v1", http_client=it.client, max_retries=0
        )
        messages = question(CHARACTERS)["messages"]
        reply = await api.chat.completions.parse(
            model="gpt-4o-mini", messages=messages, response_format=Cards
        )
        names = [model.id async for model in api.models.list()]
    parsed = reply.choices[0].message.parsed
    assert parsed
    assert [card.word for card in parsed.cards] == list(CHARACTERS)
    assert "“good”" in parsed.cards[0].mnemonic
    assert "一" in parsed.cards[0].example
    assert reply.usage
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert "gpt-4o-mini" in names


async def test_the_same_seed_writes_the_same_cards_at_the_same_pace() -> None:
    replies: list[tuple[str, float]] = []
    for seed in (7, 7, 8):
        async with house(seed=seed) as it:
            content = (await it.ask(CHARACTERS)).json()["choices"][0]["message"]["content"]
            replies.append((content, await it.seconds()))
    assert replies[0] == replies[1]
    assert replies[0][0] != replies[2][0]
    assert replies[0][1] != replies[2][1]


async def test_the_headers_tell_the_rate() -> None:
    async with house(speed=20) as it:
        reply = await it.ask()
    headers = reply.headers
    assert headers["x-ratelimit-limit-requests"] == "5"
    assert headers["x-ratelimit-remaining-requests"] == "4"
    assert headers["x-ratelimit-reset-requests"] == "25ms"  # half a service second, on the client's clock
    assert headers["x-ratelimit-limit-tokens"] == "2000000"
    assert headers["x-request-id"] == "req_standin_0"
    assert 100 < int(headers["openai-processing-ms"]) < 400


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "user", "content": "Say something about 好."}]},
        {"model": "m", "messages": [{"role": "user", "content": '{"words": []}'}]},
        {**question("好"), "stream": True},
        {"messages": question("好")["messages"]},
    ],
)
async def test_a_question_that_cannot_be_read_is_a_400_and_costs_nothing(body: dict[str, Any]) -> None:
    async with house() as it:
        reply = await it.ask(body=body)
        line = await it.last()
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert (line["answer"], line["admitted"], line["keys"]) == ("error", False, [])


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer "}, {"authorization": "Basic abc"}])
async def test_without_a_key_nothing_is_answered(headers: dict[str, str]) -> None:
    async with house() as it:
        reply = await it.client.post("/v1/chat/completions", json=question("好"), headers=headers)
        models = await it.client.get("/v1/models", headers=headers)
        line = await it.last()
    assert reply.status_code == models.status_code == 401
    assert "API key" in reply.json()["error"]["message"]
    assert (line["answer"], line["status"], line["admitted"]) == ("error", 401, False)


async def test_text_may_come_in_parts() -> None:
    body = question("好")
    text = body["messages"][0]["content"]
    body["messages"][0]["content"] = [{"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]}]
    async with house() as it:
        assert (await it.ask(body=body)).status_code == 200


# --- the quota ------------------------------------------------------------------------------------


async def test_over_the_quota_is_refused_until_the_very_moment() -> None:
    async with house(rate=2, burst=2, slow=0) as it:
        statuses = [(await it.ask()).status_code for _ in range(2)]
        it.clock.time = begin = 1.0  # full again
        for moment in (begin, begin, begin, begin + 0.5 - 1e-9, begin + 0.5):
            it.clock.time = moment
            async with ticking(it.clock, 0):
                statuses.append((await it.post()).status_code)
        summary = await it.get("summary")
    assert statuses == [200, 200, 200, 200, 429, 429, 200]
    assert (summary["calls"], summary["refused"], summary["ok"]) == (7, 2, 5)
    assert summary["services"]["text"]["busiest"]["excess"] == 0


@pytest.mark.parametrize(
    ("mode", "speed", "expected"),
    [
        ("exact", 1, {"retry-after": "0.5", "retry-after-ms": "500"}),
        ("exact", 20, {"retry-after": "0.025", "retry-after-ms": "25"}),
        ("whole", 1, {"retry-after": "1"}),
        ("none", 1, {}),
    ],
)
async def test_a_refusal_as_openai_words_it(mode: str, speed: float, expected: dict[str, str]) -> None:
    async with house(speed=speed, burst=1, slow=0, retry_after=mode) as it, ticking(it.clock, 0):
        await it.post()
        reply = await it.post()
    error = reply.json()["error"]
    assert reply.status_code == 429
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
    assert "Limit 1, Used 1, Requested 1" in error["message"]
    assert {name: text for name, text in reply.headers.items() if name.startswith("retry")} == expected


async def test_tokens_have_a_quota_of_their_own() -> None:
    async with house(tokens_per_minute=100, slow=0) as it, ticking(it.clock, 0):
        replies = [await it.post() for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 429]
    assert replies[1].json()["error"]["type"] == "tokens"


async def test_the_quota_can_change_while_it_runs() -> None:
    async with house(slow=0) as it, ticking(it.clock, 0):
        await it.turn("text", rate=0.5, burst=1)
        statuses = [(await it.post()).status_code for _ in range(2)]
        assert (await it.get("switches"))["text"]["rate"] == 0.5
        await it.client.post("/standin/reset")
        statuses.append((await it.post()).status_code)
        summary = await it.get("summary")
    assert statuses == [200, 429, 200]
    assert summary["calls"] == 1


@pytest.mark.parametrize(
    "changes",
    [{"text": {"rate": 0}}, {"text": {"rat": 1}}, {"smell": {"rate": 1}}, {"text": {"error_rate": 1.5}}, [1]],
)
async def test_a_wrong_switch_is_named_and_turns_nothing(changes: object) -> None:
    async with house() as it:
        before = await it.get("switches")
        reply = await it.client.put("/standin/switches", json=changes)
        assert (reply.status_code, await it.get("switches")) == (400, before)
    assert reply.json()["error"]


# --- latencies and faults -------------------------------------------------------------------------


def test_latencies_grow_with_the_words_and_have_a_tail() -> None:
    service = Service.__new__(Service)
    service.name, service.seed = "text", 7
    for words, middle in ((1, 4), (10, 6)):
        question = [Word(word="好")] * words
        seconds = [latency(question, service.dice("latency", number)) for number in range(2000)]
        assert statistics.median(seconds) == pytest.approx(middle, rel=0.03)
        assert max(seconds) <= 2 * middle
        assert statistics.quantiles(seconds, n=20)[-1] > 1.3 * middle


async def test_slow_multiplies_the_latency_and_speed_divides_it() -> None:
    seconds: list[float] = []
    walls: list[float] = []
    for speed, slow in ((1, 1), (1, 3), (4, 1)):
        async with house(speed=speed, slow=slow) as it:
            await it.ask()
            seconds.append(await it.seconds())
            walls.append(seconds[-1] / speed)
    assert seconds == pytest.approx([seconds[0], 3 * seconds[0], seconds[0]])
    assert walls[2] == pytest.approx(walls[0] / 4)


async def test_errors_are_500s() -> None:
    async with house(error_rate=1) as it:
        reply = await it.ask()
        line = await it.last()
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
    assert (line["answer"], line["admitted"], line["billed"]) == ("error", True, 0)


async def test_a_poisoned_word_spoils_every_answer_it_is_in() -> None:
    async with house(poison=["坏"]) as it:
        replies = [(await it.ask(words)).json() for words in ("好坏", "坏", "好")]
        answers = [line["answer"] for line in (await it.get("ledger"))["entries"]]
    contents = [reply["choices"][0]["message"]["content"] for reply in replies]
    assert answers == ["malformed", "malformed", "ok"]
    for content in contents[:2]:
        with pytest.raises(json.JSONDecodeError):
            json.loads(content)
    assert json.loads(contents[2])["cards"][0]["word"] == "好"


async def test_a_wrong_answer_is_in_order_but_not_about_the_words_that_were_asked_for() -> None:
    async with house(wrong_rate=1) as it:
        reply = await it.ask("好")
        line = await it.last()
    content = json.loads(reply.json()["choices"][0]["message"]["content"])
    assert "好" not in [card["word"] for card in content["cards"]]
    assert (line["answer"], line["status"]) == ("malformed", 200)


async def test_a_truncated_body_is_shorter_than_it_says() -> None:
    async with house(truncated_rate=1) as it:
        reply = await it.ask()
        line = await it.last()
    assert len(reply.content) < int(reply.headers["content-length"])
    assert (line["answer"], line["status"]) == ("malformed", 200)


@pytest.mark.parametrize("hangs", [True, False])
async def test_who_is_cancelled_has_aborted_and_pays(hangs: bool) -> None:
    async with house(hang_rate=float(hangs)) as it, anyio.create_task_group() as group:
        group.start_soon(it.post)
        await it.clock.advance(10_000 if hangs else 1)
        assert (await it.get("summary"))["under_way"] == 1
        group.cancel_scope.cancel()
    (line,) = lines_of(it)
    assert (line["answer"], line["status"], line["admitted"]) == ("aborted", None, True)
    assert line["seconds"] == (10_000 if hangs else 1)


def lines_of(it: TextHouse) -> list[Line]:
    """The ledger without a call, for when the client is gone."""
    return [entry.line() for entry in it.app.state.ledger.entries]


async def test_who_hangs_up_has_aborted() -> None:
    body = json.dumps(question("好")).encode()
    messages: list[Message] = [{"type": "http.request", "body": body}]
    gone = anyio.Event()

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        """Nobody listens."""

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b""}
    scope |= {"headers": [(b"authorization", b"Bearer no-secret")]}
    async with house() as it, anyio.create_task_group() as group:
        group.start_soon(it.app, scope, receive, send)
        await it.clock.advance(1)
        gone.set()
    (line,) = lines_of(it)
    assert (line["answer"], line["status"], line["seconds"]) == ("aborted", None, 1)


async def answers(order: Callable[[str], list[str]]) -> dict[str, list[str]]:
    async with house(burst=1000, slow=0, error_rate=0.3, malformed_rate=0.3) as it, ticking(it.clock, 0):
        for word in order(CHARACTERS) * 3:
            await it.ask(word)
        lines = (await it.get("ledger"))["entries"]
    return {word: [line["answer"] for line in lines if line["keys"] == [word]] for word in CHARACTERS}


async def test_faults_strike_the_same_calls_in_whatever_order_they_come() -> None:
    there, back = await answers(list), await answers(lambda words: list(reversed(words)))
    assert there == back
    assert {"ok", "error", "malformed"} == {answer for row in there.values() for answer in row}
    # A retry has a chance of its own.
    assert any(len(set(row)) > 1 for row in there.values())


def test_the_defaults_are_those_of_the_service() -> None:
    switches = TextSwitches()
    assert (switches.rate, switches.burst) == (2, 5)

"""The calls of a service: a permit for each attempt, waits in between, an account; what a failure means."""

from typing import Self

import anyio
import httpx2
import openai
import pytest
from attrs import define, field

from batchkit import Retry, TokenBucket
from batchkit.abc import Permit
from batchkit.retries import RetryBudget
from batchkit.testing import ManualClock
from examples.errors import CallFailed, Lapsed, MalformedAnswer, NotAllowed, ServiceError, Unavailable
from examples.queueing.urgency import Urgency
from examples.services.calls import Calls, described, may_pass, tried

pytestmark = pytest.mark.anyio

REQUEST = httpx2.Request("POST", "http://service/v1")


def answer(status: int, body: object = None, **headers: str) -> httpx2.HTTPStatusError:
    """The error that httpx makes of an answer."""
    response = httpx2.Response(status, json=body, headers=headers, request=REQUEST)
    return httpx2.HTTPStatusError("words with a URL", request=REQUEST, response=response)


def sdk(status: int, message: str = "no luck", code: str | None = None) -> openai.APIStatusError:
    """The error that OpenAI's SDK makes of an answer."""
    error = {"message": message, "code": code}
    response = httpx2.Response(status, json={"error": error}, request=REQUEST)
    return openai.OpenAI(api_key="key")._make_status_error("words", body=error, response=response)


@define
class Script:
    """A call that fails as it is told, and then goes well; each attempt takes a second."""

    clock: ManualClock
    failures: list[Exception]
    began: list[float] = field(factory=list[float])

    async def __call__(self, permit: Permit) -> str:
        self.began.append(self.clock.now())
        await self.clock.sleep(1)
        if self.failures:
            raise self.failures.pop(0)
        return "well"


def calls(clock: ManualClock, retry: Retry | None = None, rate: float = 1000) -> Calls:
    limiter = TokenBucket(rate=rate, burst=1, clock=clock)
    retry = retry or Retry(attempts=3, backoff=lambda attempt: 10.0 * attempt)
    return Calls(limiter, retry, (httpx2.HTTPError, openai.APIError), clock)


async def test_each_attempt_has_a_permit_and_waits_in_between(clock: ManualClock) -> None:
    service, script = calls(clock), Script(clock, [answer(500), answer(503)])
    assert await clock.run(service.make(script)) == "well"
    assert script.began == [0, 11, 32]
    usage = service.usage
    assert (usage.calls, usage.refused, usage.calling, usage.pausing) == (3, 0, 3, 30)
    assert isinstance(service.limiter, TokenBucket)
    assert service.limiter.statistics().granted == 3


async def test_what_is_waited_for_permits_is_no_pause(clock: ManualClock) -> None:
    service, script = calls(clock, rate=0.5), Script(clock, [])
    for _ in range(3):
        await clock.run(service.make(script))
    assert script.began == [0, 2, 4]
    usage = service.usage
    assert (usage.calling, usage.waiting, usage.pausing) == (3, 2, 0)


@define
class Line:
    """Calls that stand in a line for a permit every ten seconds, each for a second.

    Attributes:
        began: which of them began, and when.
    """

    clock: ManualClock
    service: Calls
    began: list[tuple[str, float]] = field(factory=list[tuple[str, float]])

    @classmethod
    def of(cls, clock: ManualClock) -> Self:
        return cls(clock, calls(clock, rate=0.1))

    async def call(self, name: str, urgency: Urgency) -> None:
        async def attempt(permit: Permit) -> None:
            self.began.append((name, self.clock.now()))
            await self.clock.sleep(1)

        await self.service.make(attempt, urgency)

    async def together(self, raised: str, at: float, **urgencies: Urgency) -> None:
        """Make all of the calls; the urgency of one is raised at a moment."""
        async with anyio.create_task_group() as group:
            for name, urgency in urgencies.items():
                group.start_soon(self.call, name, urgency)
                await self.clock.sleep(0)
            await self.clock.sleep(at)
            urgencies[raised].raise_to(100)


async def test_a_call_that_gets_urgent_while_it_stands_in_line_goes_next(clock: ManualClock) -> None:
    line = Line.of(clock)
    await clock.run(line.together("d", 5, a=Urgency(10), b=Urgency(10), c=Urgency(10), d=Urgency(0)))
    assert line.began == [("a", 0), ("d", 10), ("b", 20), ("c", 30)]
    assert (line.service.usage.calls, line.service.usage.waiting) == (4, 60)


async def test_a_call_that_gets_urgent_keeps_the_permit_that_it_has(clock: ManualClock) -> None:
    line = Line.of(clock)
    await clock.run(line.together("a", 0.5, a=Urgency(10)))
    assert line.began == [("a", 0)]
    assert isinstance(line.service.limiter, TokenBucket)
    assert line.service.limiter.statistics().granted == 1


async def test_no_place_is_given_up_for_an_urgency_that_is_no_higher(clock: ManualClock) -> None:
    line = Line.of(clock)
    await clock.run(line.together("b", 5, a=Urgency(100), b=Urgency(100), c=Urgency(100)))
    assert line.began == [("a", 0), ("b", 10), ("c", 20)]


async def test_what_gets_urgent_between_two_attempts_is_urgent_at_the_next(clock: ManualClock) -> None:
    urgency, service = Urgency(0), calls(clock)
    asked: list[int] = []

    async def attempt(permit: Permit) -> None:
        asked.append(urgency.priority)
        urgency.raise_to(50)
        if len(asked) == 1:
            raise answer(500)

    await clock.run(service.make(attempt, urgency))
    assert asked == [0, 50]


async def test_a_call_that_somebody_else_may_make_leaves_the_line_and_is_not_made(clock: ManualClock) -> None:
    line, urgency = Line.of(clock), Urgency(0)
    refused: list[Exception] = []

    async def give_up() -> None:
        try:
            await line.call("b", urgency)
        except Lapsed as error:
            refused.append(error)

    async def together() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(line.call, "a", Urgency(0))
            await clock.sleep(0)
            group.start_soon(give_up)
            await clock.sleep(0)
            group.start_soon(line.call, "c", Urgency(0))
            await clock.sleep(5)
            urgency.lapse()

    await clock.run(together())
    assert line.began == [("a", 0), ("c", 10)]
    assert len(refused) == 1


async def test_who_cancels_a_call_in_line_is_obeyed_however_urgent_it_gets(clock: ManualClock) -> None:
    line, urgency = Line.of(clock), Urgency(0)

    async def cancelled() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(line.call, "a", Urgency(10))
            await clock.sleep(0)
            group.start_soon(line.call, "b", urgency)
            await clock.sleep(5)
            group.cancel_scope.cancel()
            urgency.raise_to(100)

    await clock.run(cancelled())
    assert line.began == [("a", 0)]


@pytest.mark.parametrize(("asked", "began"), [("25", [0, 26]), ("0.5", [0, 11])])
async def test_the_server_is_waited_for_at_least_as_long_as_it_asks(
    asked: str, began: list[float], clock: ManualClock
) -> None:
    service, script = calls(clock), Script(clock, [answer(429, **{"retry-after": asked})])
    await clock.run(service.make(script))
    assert script.began == began
    assert service.usage.refused == 1


async def test_nobody_waits_for_an_hour(clock: ManualClock) -> None:
    service, script = calls(clock), Script(clock, [answer(429, **{"retry-after": "3600"})])
    with pytest.raises(Unavailable):
        await clock.run(service.make(script))
    assert len(script.began) == 1


async def test_an_error_that_is_not_the_services_stays_what_it_is(clock: ManualClock) -> None:
    service, script = calls(clock), Script(clock, [KeyError("mine")])
    with pytest.raises(KeyError):
        await clock.run(service.make(script))
    assert service.usage.calls == 1


@pytest.mark.parametrize(
    ("error", "kind", "attempts"),
    [
        (answer(429), Unavailable, 3),
        (answer(500), CallFailed, 3),
        (httpx2.ConnectError("refused"), CallFailed, 3),
        (httpx2.ReadTimeout("late"), CallFailed, 3),
        (answer(422), CallFailed, 1),
        (answer(400), CallFailed, 1),
        (answer(401), NotAllowed, 1),
        (answer(402), NotAllowed, 1),
        (answer(403), NotAllowed, 1),
        (answer(404), NotAllowed, 1),
        (sdk(429), Unavailable, 3),
        (sdk(429, code="insufficient_quota"), NotAllowed, 1),
        (sdk(500), CallFailed, 3),
        (sdk(401), NotAllowed, 1),
        (openai.APITimeoutError(REQUEST), CallFailed, 3),
    ],
    ids=lambda value: getattr(value, "__name__", None) or (f"{value}" if isinstance(value, int) else None),
)
async def test_what_a_failure_means(
    error: Exception, kind: type[ServiceError], attempts: int, clock: ManualClock
) -> None:
    service, script = calls(clock), Script(clock, [error] * 10)
    with pytest.raises(kind) as raised:
        await clock.run(service.make(script))
    assert type(raised.value) is kind
    assert service.usage.calls == attempts


async def test_in_an_outage_no_call_is_tried_twice_and_none_is_to_blame(clock: ManualClock) -> None:
    retry = Retry(attempts=10, backoff=lambda attempt: 0.0, budget=RetryBudget(size=10))
    service, script = calls(clock, retry), Script(clock, [answer(500) for _ in range(20)])
    for attempts in (5, 6, 7):
        with pytest.raises(Unavailable):
            await clock.run(service.make(script))
        assert service.usage.calls == attempts


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answer(500, {"error": {"message": "The server is tired."}}), "500, The server is tired"),
        (answer(403, {"detail": "User is locked."}), "403, User is locked"),
        (answer(422, {"detail": [{"msg": "Field required", "type": "missing"}]}), "422, Field required"),
        (answer(503, [1]), "503, Service Unavailable"),
        (answer(502), "502, Bad Gateway"),
        (
            answer(401, {"error": {"message": "Wrong: sk-ab***yz"}}),
            "it does not accept the API key (401)",
        ),
        (sdk(401, "Incorrect API key: sk-ab***yz"), "it does not accept the API key (401)"),
        (sdk(500, "The server is tired."), "500, The server is tired"),
        (openai.APIConnectionError(request=REQUEST), "Connection error"),
        (httpx2.ConnectError("refused\nand more"), "refused"),
        (TimeoutError(), "no answer in time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_in_the_services_own_words_without_secrets(error: Exception, said: str) -> None:
    assert described(error) == said


def test_a_page_in_place_of_json_is_not_quoted() -> None:
    response = httpx2.Response(502, html="<html>nginx</html>", request=REQUEST)
    error = httpx2.HTTPStatusError("", request=REQUEST, response=response)
    assert described(error) == "502, Bad Gateway"


def test_a_malformed_answer_may_pass_and_a_wrong_argument_does_not() -> None:
    assert may_pass(MalformedAnswer("a page"))
    assert may_pass(answer(500))
    assert not may_pass(answer(422))
    assert not may_pass(ValueError("mine"))


async def test_questions_that_cost_nothing_are_tried_without_a_permit(clock: ManualClock) -> None:
    answers: list[int] = []

    async def ask() -> int:
        answers.append(len(answers))
        if len(answers) < 5:
            raise ConnectionResetError
        return len(answers)

    retry = Retry(attempts=None, backoff=lambda attempt: 1.0, budget=None)
    assert await clock.run(tried(ask, retry, clock)) == 5
    assert clock.now() == 4

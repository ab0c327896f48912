"""The transports of httpx, with real requests to a real server."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anyio
import anyio.to_thread
import httpx2 as httpx
import openai
import pytest

import batchkit.httpx
from batchkit import AcquireTimeout, AdaptiveLimiter, ConcurrencyLimiter, TokenBucket, all_of
from batchkit.controllers import Adjustment, Sample, Verdict
from batchkit.httpx import AsyncLimitedTransport, LimitedTransport
from batchkit.testing import ManualClock
from tests.helpers import DEADLINE, eventually
from tests.local_server import Answer, LocalServer, closed_port, serving

pytestmark = pytest.mark.anyio

SLOW_DOWN = Answer(
    429,
    {"retry-after-ms": "1", "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"},
    b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}',
)
NO_MODELS = Answer(200, {}, b'{"object": "list", "data": []}')


IMPATIENT = httpx.Timeout(DEADLINE, read=0.05)


class Script:
    """Answers by path, and models with one refusal before them."""

    def __init__(self) -> None:
        self.refusals = 1

    def __call__(self, path: str) -> Answer:
        match path:
            case "/old":
                return Answer(302, {"location": "/new"})
            case "/models":
                self.refusals -= 1
                return SLOW_DOWN if self.refusals >= 0 else NO_MODELS
            case "/429":
                return SLOW_DOWN
            case "/hangs":
                return Answer(None)
            case _:
                return Answer(200, {}, path.encode())


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with serving(Script()) as server:
        yield server


@pytest.fixture
def bucket(clock: ManualClock) -> TokenBucket:
    """1/s, burst 3."""
    return TokenBucket(rate=1, burst=3, name="api", clock=clock)


@pytest.fixture
def slots(clock: ManualClock) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(2, name="slots", clock=clock)


class Ear:
    """A controller that only listens."""

    def __init__(self) -> None:
        self.rate = 1.0
        self.samples: list[Sample] = []

    def feed(self, sample: Sample) -> Adjustment | None:
        self.samples.append(sample)
        return None

    @property
    def verdicts(self) -> list[Verdict]:
        return [sample.verdict for sample in self.samples]


def left(bucket: TokenBucket) -> float:
    return float(bucket.statistics().available)


def sync_client(url: str, *args: Any, **named: Any) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=DEADLINE, transport=LimitedTransport(*args, **named))


def async_client(url: str, *args: Any, **named: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=DEADLINE, transport=AsyncLimitedTransport(*args, **named))


class TestEveryRequestTakesItsPermits:
    async def test_and_waits_for_them(
        self, server: LocalServer, bucket: TokenBucket, clock: ManualClock
    ) -> None:
        gone: list[float] = []

        async def main() -> None:
            async with async_client(server.url, bucket) as http:
                for _ in range(5):
                    assert (await http.get("/a")).text == "/a"
                    gone.append(clock.now())

        await clock.run(main())
        assert gone == [0, 0, 0, 1, 2]

    def test_in_a_thread(self, server: LocalServer, bucket: TokenBucket) -> None:
        with sync_client(server.url, bucket, cost=2, timeout=0) as client:
            assert client.get("/a").text == "/a"
            with pytest.raises(AcquireTimeout, match="of api"):
                client.get("/b")
        assert server.asked == ["/a"]

    async def test_redirects_too(self, server: LocalServer, bucket: TokenBucket) -> None:
        with sync_client(server.url, bucket) as client:
            assert client.get("/old", follow_redirects=True).text == "/new"
        assert left(bucket) == 1
        bucket.charge(-2)
        async with async_client(server.url, bucket) as http:
            assert (await http.get("/old", follow_redirects=True)).text == "/new"
        assert left(bucket) == 1
        assert server.asked == ["/old", "/new"] * 2

    async def test_by_the_request(self, server: LocalServer, bucket: TokenBucket, clock: ManualClock) -> None:
        tokens = TokenBucket(rate=10, burst=100, clock=clock)
        both = all_of(requests=bucket, tokens=tokens)

        def cost(request: httpx.Request) -> dict[str, int]:
            return {"requests": 1, "tokens": len(request.content)}

        with sync_client(server.url, both, cost=cost) as client:
            client.post("/a", content=b"x" * 30)
        async with async_client(server.url, both, cost=cost) as http:
            await http.post("/a", content=b"x" * 20)
        async with async_client(server.url, both, cost={"tokens": 10}, priority=1) as http:
            await http.get("/a")
        assert (left(bucket), left(tokens)) == (0, 40)


class TestAnswersAreHeard:
    async def test_with_their_headers(self, server: LocalServer, bucket: TokenBucket) -> None:
        ear = Ear()
        limiter = AdaptiveLimiter(bucket, controller=ear)
        with sync_client(server.url, limiter) as client:
            assert client.get("/429").status_code == 429
        assert left(bucket) == 0  # by the server's word
        bucket.charge(-3)
        async with async_client(server.url, limiter) as http:
            assert (await http.get("/429")).status_code == 429
            assert left(bucket) == 0
            bucket.charge(-3)
            assert (await http.get("/a")).status_code == 200
        assert ear.verdicts == [Verdict.THROTTLED, Verdict.THROTTLED, Verdict.WENT_WELL]
        assert [sample.retry_after for sample in ear.samples] == [0.001, 0.001, None]

    async def test_a_429_cuts_the_rate(self, server: LocalServer, bucket: TokenBucket) -> None:
        limiter = AdaptiveLimiter(bucket, min_rate=0.1, max_rate=10)
        async with async_client(server.url, limiter) as http:
            await http.get("/429")
        assert limiter.rate < 1


class TestWithoutAnAnswer:
    async def test_a_failed_connection_gives_the_slot_back(
        self, bucket: TokenBucket, slots: ConcurrencyLimiter
    ) -> None:
        ear = Ear()
        group = all_of(api=AdaptiveLimiter(bucket, controller=ear), slots=slots)
        url = closed_port()
        with sync_client(url, group) as client, pytest.raises(httpx.ConnectError):
            client.get("/a")
        async with async_client(url, group) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get("/a")
        assert slots.statistics().available == 2
        assert ear.verdicts == [Verdict.FAILED] * 2

    async def test_a_cancelled_request_does_too(
        self, server: LocalServer, bucket: TokenBucket, slots: ConcurrencyLimiter
    ) -> None:
        ear = Ear()
        group = all_of(api=AdaptiveLimiter(bucket, controller=ear), slots=slots)
        async with async_client(server.url, group) as http, anyio.create_task_group() as tasks:
            tasks.start_soon(http.get, "/hangs")
            await anyio.to_thread.run_sync(eventually, lambda: server.asked == ["/hangs"])
            assert slots.statistics().available == 1
            tasks.cancel_scope.cancel()
        assert slots.statistics().available == 2
        assert ear.verdicts == []

    async def test_one_that_timed_out_does_too(self, server: LocalServer, slots: ConcurrencyLimiter) -> None:
        with sync_client(server.url, slots) as client, pytest.raises(httpx.ReadTimeout):
            client.get("/hangs", timeout=IMPATIENT)
        async with async_client(server.url, slots) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.get("/hangs", timeout=IMPATIENT)
        assert slots.statistics().available == 2

    async def test_a_slot_is_free_when_the_headers_are_there(
        self, server: LocalServer, slots: ConcurrencyLimiter
    ) -> None:
        with sync_client(server.url, slots) as client, client.stream("GET", "/a") as response:
            assert slots.statistics().available == 2
            assert response.read() == b"/a"
        async with async_client(server.url, slots) as http, http.stream("GET", "/a") as answer:
            assert slots.statistics().available == 2
            assert await answer.aread() == b"/a"
        assert slots.statistics().granted == 2


class Transport(httpx.HTTPTransport):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


class AsyncTransport(httpx.AsyncHTTPTransport):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1
        await super().aclose()


async def test_it_closes_what_sends_for_it(server: LocalServer, bucket: TokenBucket) -> None:
    transport = Transport()
    with sync_client(server.url, bucket, transport) as client:
        client.get("/a")
        assert transport.closed == 0
    assert transport.closed == 1
    with closing(LimitedTransport(bucket, transport)):
        assert transport.closed == 1
    assert transport.closed == 2
    other = AsyncTransport()
    async with async_client(server.url, bucket, other) as http:
        await http.get("/a")
        assert other.closed == 0
    assert other.closed == 1
    await AsyncLimitedTransport(bucket, other).aclose()
    assert other.closed == 2


class TestOpenAI:
    async def test_each_try_of_an_async_client(self, server: LocalServer, bucket: TokenBucket) -> None:
        ear = Ear()
        http = async_client(server.url, AdaptiveLimiter(bucket, controller=ear))
        async with openai.AsyncOpenAI(
            api_key="k", base_url=server.url, http_client=http, max_retries=2
        ) as client:
            bucket.change(rate=1000)  # after a refusal no permits are left: they have to come in
            models = await bucket_time(bucket).run(client.models.list())
        assert models.data == []
        assert server.asked == ["/models", "/models"]
        assert ear.verdicts == [Verdict.THROTTLED, Verdict.WENT_WELL]
        assert http.is_closed

    def test_each_try_of_a_plain_client(self, server: LocalServer) -> None:
        ear = Ear()
        ear.rate = 1000.0
        bucket = TokenBucket(rate=1000, burst=3)
        http = sync_client(server.url, AdaptiveLimiter(bucket, controller=ear))
        with openai.OpenAI(api_key="k", base_url=server.url, http_client=http, max_retries=2) as client:
            assert client.models.list().data == []
        assert server.asked == ["/models", "/models"]
        assert ear.verdicts == [Verdict.THROTTLED, Verdict.WENT_WELL]
        assert bucket.statistics().granted >= 2

    def test_with_its_own_defaults(self, server: LocalServer, bucket: TokenBucket) -> None:
        http = openai.DefaultHttpxClient(transport=LimitedTransport(bucket))
        with (
            openai.OpenAI(api_key="k", base_url=server.url, http_client=http, max_retries=0) as client,
            pytest.raises(openai.RateLimitError),
        ):
            client.models.list()
        assert left(bucket) == 2


def bucket_time(bucket: TokenBucket) -> ManualClock:
    clock = bucket.clock
    assert isinstance(clock, ManualClock)
    return clock


class TestImport:
    def test_batchkit_does_not_import_it(self) -> None:
        script = "import sys, batchkit; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        loaded = set(done.stdout.split())
        assert "batchkit" in loaded
        assert not {"httpx", "httpx2", "batchkit.httpx"} & loaded

    def test_it_takes_httpx_where_there_is_no_httpx2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "httpx", httpx)  # as if it were installed by its older name
        monkeypatch.setitem(sys.modules, "httpx2", None)
        path = batchkit.httpx.__file__
        spec = importlib.util.spec_from_file_location("batchkit_httpx_again", path)
        assert spec is not None
        assert spec.loader is not None
        again = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(again)
        assert issubclass(again.LimitedTransport, httpx.BaseTransport)
        assert again.LimitedTransport is not LimitedTransport

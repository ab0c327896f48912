"""`limited`: functions whose calls wait for a limiter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, assert_type

import anyio
import pytest

from batchkit import AcquireTimeout, AdaptiveLimiter, ConcurrencyLimiter, TokenBucket, all_of, limited
from batchkit.controllers import Adjustment, Sample, Verdict
from batchkit.testing import ManualClock, settle

pytestmark = pytest.mark.anyio


@pytest.fixture
def bucket(clock: ManualClock) -> TokenBucket:
    """1/s, burst 5."""
    return TokenBucket(rate=1, burst=5, name="api", clock=clock)


def left(bucket: TokenBucket) -> float:
    return float(bucket.statistics().available)


class TestEveryCallWaits:
    async def test_of_an_async_function(self, bucket: TokenBucket, clock: ManualClock) -> None:
        called: list[tuple[str, float]] = []

        @limited(bucket, cost=2)
        async def look_up(word: str) -> str:
            called.append((word, clock.now()))
            return word.upper()

        async def main() -> list[str]:
            return [await look_up(word) for word in "abcd"]

        assert await clock.run(main()) == list("ABCD")
        assert called == [("a", 0), ("b", 0), ("c", 1), ("d", 3)]

    def test_of_a_plain_function(self, bucket: TokenBucket) -> None:
        @limited(bucket, cost=3, timeout=0)
        def look_up(word: str) -> str:
            return word.upper()

        assert look_up("a") == "A"
        with pytest.raises(AcquireTimeout):
            look_up("b")
        assert left(bucket) == 2

    async def test_of_methods(self, bucket: TokenBucket) -> None:
        class Dictionary:
            def __init__(self, words: dict[str, str]) -> None:
                self.words = words

            @limited(bucket)
            async def look_up(self, word: str) -> str:
                return self.words[word]

            @limited(bucket)
            def look_up_sync(self, word: str) -> str:
                return self.words[word]

            @classmethod
            @limited(bucket)
            async def empty(cls) -> Dictionary:
                return cls({})

            @staticmethod
            @limited(bucket)
            async def normal(word: str) -> str:
                return word.lower()

        dictionary = Dictionary({"好": "good"})
        assert await dictionary.look_up("好") == "good"
        assert dictionary.look_up_sync("好") == "good"
        assert (await Dictionary.empty()).words == {}
        assert await dictionary.normal("A") == "a"
        assert left(bucket) == 1

    async def test_of_objects_that_can_be_called(self, bucket: TokenBucket, clock: ManualClock) -> None:
        slots = ConcurrencyLimiter(1, clock=clock)
        both = all_of(bucket=bucket, slots=slots)

        class LookUp:
            async def __call__(self, word: str) -> str:
                assert slots.statistics().available == 0, "the call ended before it began"
                return word.upper()

        class LookUpSync:
            def __call__(self, word: str) -> str:
                return word.upper()

        assert await limited(both)(LookUp())("a") == "A"
        assert await limited(both)(functools.partial(LookUp(), "a"))() == "A"
        assert limited(bucket)(LookUpSync())("a") == "A"
        assert limited(bucket)(LookUpSync)()("a") == "A"  # a class: making one waits
        assert left(bucket) == 1

    async def test_of_partials(self, bucket: TokenBucket) -> None:
        async def add(one: int, other: int) -> int:
            return one + other

        def add_sync(one: int, other: int) -> int:
            return one + other

        assert await limited(bucket)(functools.partial(add, 1))(2) == 3
        assert limited(bucket)(functools.partial(add_sync, 1))(2) == 3
        assert left(bucket) == 3

    async def test_a_slot_is_taken_until_the_call_ends(self, clock: ManualClock) -> None:
        slots = ConcurrencyLimiter(1, clock=clock)

        @limited(slots)
        async def call(error: Exception | None = None) -> None:
            assert slots.statistics().available == 0
            await clock.sleep(1)
            if error is not None:
                raise error

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call)
            await clock.run_for(1.5)
            assert slots.statistics().granted == 2
            await clock.run_for(5)
        with pytest.raises(KeyError):
            await clock.run(call(KeyError("好")))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await settle()
            tasks.cancel_scope.cancel()
        assert slots.statistics().available == 1


class TestCost:
    async def test_by_the_arguments(self, bucket: TokenBucket) -> None:
        class Translator:
            per_text = 2

            @limited(bucket, cost=lambda self, texts, *, spare=0: self.per_text * len(texts) + spare)
            async def translate(self, texts: list[str], *, spare: int = 0) -> list[str]:
                return texts

        assert await Translator().translate(["a", "b"]) == ["a", "b"]
        assert left(bucket) == 1
        await Translator().translate([], spare=1)
        assert left(bucket) == 0

    async def test_of_a_group_by_name(self, bucket: TokenBucket, clock: ManualClock) -> None:
        tokens = TokenBucket(rate=10, burst=100, clock=clock)
        both = all_of(requests=bucket, tokens=tokens)

        @limited(both, cost={"tokens": 30})
        async def plain() -> None: ...

        @limited(both, cost=lambda text: {"requests": 2, "tokens": len(text)})
        def by_text(text: str) -> None: ...

        await plain()
        assert (left(bucket), left(tokens)) == (4, 70)
        by_text("x" * 20)
        assert (left(bucket), left(tokens)) == (2, 50)

    def test_one_that_raises_calls_nothing(self, bucket: TokenBucket) -> None:
        @limited(bucket, cost=lambda text: len(text))
        def call(text: object) -> None:
            raise AssertionError

        with pytest.raises(TypeError, match="has no len"):
            call(7)
        assert left(bucket) == 5


async def test_a_priority_goes_first(bucket: TokenBucket, clock: ManualClock) -> None:
    called: list[str] = []

    @limited(bucket)
    async def bulk() -> None:
        called.append("bulk")

    @limited(bucket, priority=1)
    async def user() -> None:
        called.append("user")

    bucket.try_acquire(5)
    async with anyio.create_task_group() as tasks:
        for call in (bulk, bulk, user):
            tasks.start_soon(call)
            await settle()
        await clock.run_for(3)
    assert called == ["user", "bulk", "bulk"]


class TestRefused:
    def test_generators(self, bucket: TokenBucket) -> None:
        def numbers() -> Iterator[int]:
            yield 1

        async def numbers_later() -> AsyncIterator[int]:
            yield 1

        class Numbers:
            def __call__(self) -> Iterator[int]:
                yield 1

        generators: list[Any] = [numbers, numbers_later, functools.partial(numbers), Numbers()]
        for generator in generators:
            with pytest.raises(TypeError, match="is a generator: acquire the limiter inside it"):
                limited(bucket)(generator)

    def test_what_is_no_function_yet(self, bucket: TokenBucket) -> None:
        kinds: list[Any] = [staticmethod, classmethod]
        for kind in kinds:
            with pytest.raises(TypeError, match=f"{kind.__name__} belongs above limited, not below it"):
                limited(bucket)(kind(left))

    def test_the_limiter_left_out(self) -> None:
        with pytest.raises(TypeError, match=r"not a function: @limited\(limiter\)"):
            limited(left)  # type: ignore[arg-type]  # the same


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


class Answer:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class ServerError(Exception):
    status_code = 429


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (Answer(429), Verdict.THROTTLED),
        (Answer(200), Verdict.WENT_WELL),
        (ServerError(), Verdict.THROTTLED),
        (ValueError(), Verdict.FAILED),
        # numbers that a function returns are no status codes
        (429, Verdict.WENT_WELL),
        (500, Verdict.WENT_WELL),
        (HTTPStatus.TOO_MANY_REQUESTS, Verdict.WENT_WELL),
        (None, Verdict.WENT_WELL),
        ("429", Verdict.WENT_WELL),
    ],
)
async def test_an_adaptive_limiter_hears_how_it_ended(
    bucket: TokenBucket, result: object, verdict: Verdict
) -> None:
    ear = Ear()
    limiter = AdaptiveLimiter(bucket, controller=ear)

    @limited(limiter, cost=2)
    async def call() -> object:
        if isinstance(result, Exception):
            raise result
        return result

    @limited(limiter)
    def call_sync() -> object:
        if isinstance(result, Exception):
            raise result
        return result

    if isinstance(result, Exception):
        with pytest.raises(type(result)) as caught:
            await call()
        assert caught.value is result
        with pytest.raises(type(result)):
            call_sync()
    else:
        assert await call() is result
        assert call_sync() is result
    assert ear.verdicts == [verdict] * 2
    assert [sample.cost for sample in ear.samples] == [2, 1]


def test_it_keeps_the_names(bucket: TokenBucket) -> None:
    @limited(bucket)
    async def look_up(word: str, *, script: str = "simplified") -> list[str]:
        """What a word means."""
        return [word, script]

    assert look_up.__name__ == "look_up"
    assert look_up.__doc__ == "What a word means."
    assert inspect.iscoroutinefunction(look_up)
    assert list(inspect.signature(look_up).parameters) == ["word", "script"]

    @limited(bucket)
    def plain() -> None: ...

    assert not inspect.iscoroutinefunction(plain)


if TYPE_CHECKING:  # read by the type checkers, which fail where a type is lost

    async def types(bucket: TokenBucket) -> None:
        @limited(bucket, cost=lambda word: len(word))
        async def look_up(word: str, *, script: str = "simplified") -> list[str]:
            return [word, script]

        @limited(bucket, cost={"requests": 1}, priority=1, timeout=2.0)
        def look_up_sync(word: str) -> int:
            return len(word)

        assert_type(await look_up("好", script="traditional"), list[str])
        assert_type(look_up_sync("好"), int)
        look_up_sync(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await look_up("好", style="none")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        limited(bucket, cost="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        limited(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

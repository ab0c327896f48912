"""Whether a call that failed is made again, and after how long."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from batchkit import Retry
from batchkit.retries import RetryBudget, exponential
from tests.helpers import DEADLINE, threads

OUTAGE = ConnectionResetError(104, "reset")


def steady(seconds: float) -> Any:
    return lambda attempt: seconds


def refused(status: int, **headers: str) -> httpx.HTTPStatusError:
    """What a service's answer is raised as."""
    answer = httpx.Response(
        status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        request=httpx.Request("GET", "http://localhost/"),
    )
    return httpx.HTTPStatusError("refused", request=answer.request, response=answer)


class TestWhichErrors:
    @pytest.mark.parametrize(
        "error",
        [
            OUTAGE,
            TimeoutError(),
            refused(429),
            refused(500),
            refused(503),
            refused(408),
            httpx.ReadTimeout(""),
        ],
        ids=repr,
    )
    def test_what_may_go_better_is_made_again(self, error: Exception) -> None:
        assert Retry(backoff=steady(0.5)).delay(error, 1, 0.0) == 0.5

    @pytest.mark.parametrize(
        "error",
        [ValueError("a bad word"), TypeError(), KeyError("好"), refused(400), refused(401), refused(404)],
        ids=repr,
    )
    def test_what_would_fail_again_is_not(self, error: Exception) -> None:
        assert Retry(backoff=steady(0.5)).delay(error, 1, 0.0) is None

    @pytest.mark.parametrize("on", [LookupError, (OSError, LookupError)])
    def test_types_are_taken_with_their_subclasses(self, on: Any) -> None:
        retry = Retry(on=on, backoff=steady(0.5))
        assert retry.delay(KeyError(), 1, 0.0) == 0.5
        assert retry.delay(ValueError(), 1, 0.0) is None

    @pytest.mark.parametrize(
        ("answer", "delay"),
        [(True, 0.5), (False, None), (2, 2), (0.25, 0.25), (0, 0), (timedelta(seconds=3), 3)],
    )
    def test_a_function_says_yes_or_no_or_when(self, answer: Any, delay: float | None) -> None:
        retry = Retry(on=lambda error: answer, backoff=steady(0.5))
        assert retry.delay(ValueError(), 1, 0.0) == delay

    def test_what_a_function_says_goes_before_what_the_server_asks(self) -> None:
        assert Retry(on=lambda error: 2.0).delay(refused(429, Retry_After="30"), 1, 0.0) == 2.0

    @pytest.mark.parametrize("answer", [-1, float("nan"), float("inf"), None, "soon"])
    def test_a_function_that_answers_with_no_seconds_is_an_error(self, answer: Any) -> None:
        with pytest.raises((ValueError, TypeError)):
            Retry(on=lambda error: answer).delay(ValueError(), 1, 0.0)


class TestHowOftenAndHowLong:
    def test_attempts_are_counted_from_the_first(self) -> None:
        retry = Retry(attempts=3, backoff=steady(0.5))
        assert [retry.delay(OUTAGE, attempt, 0.0) for attempt in (1, 2, 3)] == [0.5, 0.5, None]

    def test_without_a_limit_it_goes_on(self) -> None:
        assert Retry(attempts=None, backoff=steady(0.5)).delay(OUTAGE, 1_000_000, 1e9) == 0.5

    def test_the_backoff_is_asked_with_the_number_of_the_attempt(self) -> None:
        retry = Retry(attempts=9, backoff=exponential(first=1, most=5, jitter="none"))
        assert [retry.delay(OUTAGE, attempt, 0.0) for attempt in range(1, 6)] == [1, 2, 4, 5, 5]

    @pytest.mark.parametrize(
        ("elapsed", "delay"), [(0.0, 2.0), (7.9, 2.0), (8.0, None), (8.1, None), (11.0, None)]
    )
    def test_a_wait_that_would_not_end_in_time_is_not_begun(
        self, elapsed: float, delay: float | None
    ) -> None:
        assert Retry(timeout=10, backoff=steady(2.0)).delay(OUTAGE, 1, elapsed) == delay

    def test_waits_are_spread_by_default(self) -> None:
        retry = Retry(budget=None)
        waits = {retry.delay(OUTAGE, 1, 0.0) for _ in range(100)}
        assert len(waits) > 90
        assert all(wait is not None and 0 <= wait <= 0.1 for wait in waits)

    @pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
    def test_a_backoff_of_no_seconds_is_an_error(self, seconds: float) -> None:
        with pytest.raises(ValueError, match="a back-off is a number of seconds"):
            Retry(backoff=steady(seconds)).delay(OUTAGE, 1, 0.0)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "delay"),
        [
            ({"Retry_After": "7"}, 7.0),
            ({"Retry_After": "0"}, 0.5),
            ({"Retry_After_Ms": "1500"}, 1.5),
            ({"Retry_After_Ms": "100"}, 0.5),  # never before the back-off's own time
            ({"Retry_After": "60"}, 60.0),
            ({"Retry_After": "61"}, None),
            ({"Retry_After": "1e9"}, 0.5),  # no number of the header's: as if it said nothing
            ({"Retry_After": "soon"}, 0.5),
            ({"Retry_After": "-3"}, 0.5),
            (
                {
                    "Date": "Thu, 26 Nov 2026 12:00:00 GMT",
                    "Retry_After": "Thu, 26 Nov 2026 12:00:20 GMT",
                },
                20.0,
            ),
            (
                {
                    "Date": "Thu, 26 Nov 2026 12:00:00 GMT",
                    "Retry_After": "Thu, 26 Nov 2026 13:00:00 GMT",
                },
                None,
            ),
        ],
    )
    @pytest.mark.parametrize("status", [429, 503])
    def test_the_server_is_obeyed_up_to_the_longest_wait(
        self, status: int, headers: dict[str, str], delay: float | None
    ) -> None:
        assert Retry(backoff=steady(0.5)).delay(refused(status, **headers), 1, 0.0) == delay

    def test_another_longest_wait(self) -> None:
        assert Retry(most_wait=3600).delay(refused(429, Retry_After="1800"), 1, 0.0) == 1800

    def test_a_wait_beyond_the_timeout_is_not_begun(self) -> None:
        assert Retry(timeout=20).delay(refused(429, Retry_After="30"), 1, 0.0) is None

    def test_it_can_be_left_unheard(self) -> None:
        retry = Retry(retry_after=False, backoff=steady(0.5))
        assert retry.delay(refused(429, Retry_After="3600"), 1, 0.0) == 0.5


class TestBudget:
    def test_in_an_outage_half_of_it_is_retried_and_then_no_more(self) -> None:
        retry = Retry(budget=RetryBudget(size=20), backoff=steady(0.5))
        assert [retry.delay(OUTAGE, 1, 0.0) for _ in range(12)] == [0.5] * 9 + [None] * 3

    def test_successes_bring_it_back(self) -> None:
        budget = RetryBudget(size=4, gain=0.5)
        retry = Retry(budget=budget, backoff=steady(0.5))
        assert [budget.failed() for _ in range(4)] == [True, False, False, False]
        for _ in range(4):
            retry.succeeded()
        assert budget.left == 2.0
        assert not budget.allows
        retry.succeeded()
        assert budget.allows
        assert retry.delay(OUTAGE, 1, 0.0) is None  # this failure takes it below the half again

    def test_it_is_never_more_than_full_nor_less_than_empty(self) -> None:
        budget = RetryBudget(size=3)
        budget.succeeded()
        assert budget.left == 3
        for _ in range(9):
            budget.failed()
        assert budget.left == 0

    def test_a_failure_counts_also_where_it_is_the_last_attempt(self) -> None:
        budget = RetryBudget(size=20)
        assert Retry(attempts=1, budget=budget).delay(OUTAGE, 1, 0.0) is None
        assert budget.left == 19

    def test_what_is_not_the_servers_fault_costs_nothing(self) -> None:
        budget = RetryBudget(size=20)
        Retry(budget=budget).delay(ValueError(), 1, 0.0)
        Retry(budget=budget).delay(refused(404), 1, 0.0)
        assert budget.left == 20

    def test_a_refusal_for_coming_too_fast_is_the_limiters_matter(self) -> None:
        budget = RetryBudget(size=2)
        budget.failed()
        retry = Retry(budget=budget, backoff=steady(0.5))
        assert retry.delay(refused(429), 1, 0.0) == 0.5
        assert retry.delay(refused(500), 1, 0.0) is None
        assert budget.left == 0

    def test_each_retry_has_one_of_its_own_unless_it_is_shared(self) -> None:
        assert Retry().budget is not Retry().budget
        Retry(budget=None).succeeded()
        assert Retry(budget=None).delay(OUTAGE, 1, 0.0) is not None

    def test_threads_share_one_to_the_last_failure(self) -> None:
        budget = RetryBudget(size=100_000, gain=2)

        def work() -> None:
            for _ in range(5_000):
                budget.failed()
                budget.failed()
                budget.succeeded()
                budget.failed()

        with threads(*[work] * 4):
            pass
        assert budget.left == 100_000 - 4 * 5_000

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_does_not_wait_for_a_thread_of_its_parent(self) -> None:
        budget, held, over = RetryBudget(), threading.Event(), threading.Event()

        def hold() -> None:
            with budget._lock():
                held.set()
                over.wait(DEADLINE)

        with threads(hold):
            assert held.wait(DEADLINE)
            child = os.fork()
            if child == 0:
                signal.alarm(5)  # kills it if it hangs
                os._exit(0 if budget.failed() else 1)
            assert os.waitpid(child, 0)[1] == 0
            over.set()

    @given(
        calls=st.lists(st.booleans(), max_size=200),
        size=st.integers(1, 40),
        gain=st.sampled_from([0.25, 0.5, 1]),
    )
    def test_it_is_what_grpc_counts(self, calls: list[bool], size: int, gain: float) -> None:
        budget, tokens = RetryBudget(size=size, gain=gain), float(size)
        for well in calls:
            if well:
                budget.succeeded()
                tokens = min(size, tokens + gain)
            else:
                tokens = max(0, tokens - 1)
                assert budget.failed() == (tokens > size / 2)
            assert budget.left == tokens


class TestStamina:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"wait_initial": 0.0001, "wait_max": 0.0005},
            {"wait_initial": 0.0001, "wait_max": 1, "wait_exp_base": 2.5},
            {"wait_initial": timedelta(microseconds=10), "wait_max": timedelta(milliseconds=1)},
        ],
    )
    def test_its_arguments_give_its_waits(self, arguments: dict[str, Any]) -> None:
        retry = Retry.from_stamina(on=OSError, wait_jitter=0, attempts=6, **arguments)
        waits: list[float] = []
        with suppress(OSError):
            for attempt in stamina.retry_context(on=OSError, wait_jitter=0, attempts=6, **arguments):
                with attempt:
                    waits.append(attempt.next_wait)
                    raise OUTAGE
        ours = [retry.delay(OUTAGE, attempt, 0.0) for attempt in range(1, 7)]
        assert ours == [*waits[:5], None]

    def test_its_jitter_is_added(self) -> None:
        retry = Retry.from_stamina(on=OSError, wait_jitter=timedelta(seconds=1), wait_max=9)
        waits = [retry.delay(OUTAGE, 1, 0.0) or 0.0 for _ in range(1000)]
        assert 0.1 <= min(waits) < 0.2
        assert 1.0 < max(waits) <= 1.1

    def test_its_defaults_are_there(self) -> None:
        retry = Retry.from_stamina(on=OSError)
        assert retry.delay(OUTAGE, 9, 0.0) is not None
        assert retry.delay(OUTAGE, 10, 0.0) is None
        assert retry.delay(OUTAGE, 1, 45.0) is None
        assert retry.budget is None
        assert Retry.from_stamina(on=OSError, timeout=None).delay(OUTAGE, 1, 1e6) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": 0},
        {"attempts": 2.5},
        {"attempts": True},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"most_wait": float("inf")},
    ],
)
def test_a_number_that_is_none_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Retry(**arguments)


@pytest.mark.parametrize("on", [int, (ValueError, "TypeError"), "OSError", OUTAGE, None])
def test_what_is_no_type_of_errors_is_refused(on: Any) -> None:
    with pytest.raises(TypeError, match="on= takes types of errors"):
        Retry(on=on)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"first": -1}, "first"),
        ({"most": float("nan")}, "most"),
        ({"factor": 0.5}, "factor"),
        ({"factor": float("inf")}, "factor"),
        ({"jitter": "decorrelated"}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
    ],
)
def test_a_backoff_of_odd_numbers_is_refused(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        exponential(**arguments)


@pytest.mark.parametrize("arguments", [{"size": 0}, {"gain": 0}, {"size": float("nan")}, {"gain": -1}])
def test_a_budget_of_odd_numbers_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RetryBudget(**arguments)

"""What becomes of a batch after its call: outcomes, another call, or two halves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from batchkit._core.agenda import Batch, Job, in_parts
from batchkit._core.batching import values_in_order
from batchkit._dispatch import Attempt
from batchkit._running.plan import Plan
from batchkit._values import Outcome, outcome_of
from batchkit.exceptions import BatchFailed, LimiterClosed, LimiterUnavailable
from batchkit.feedback import Verdict, classify

T = TypeVar("T")
R = TypeVar("R")
Done = tuple[Job[T], Outcome[T, R]]


class Ruling(NamedTuple, Generic[T, R]):
    """What becomes of a batch.

    Attributes:
        done: jobs with their outcomes.
        again: what is called again, after `delay` seconds, because of `error`.
        parts: what is called at once, because the batch failed with `error`.
    """

    done: Sequence[Done[T, R]] = ()
    again: Batch[T] | None = None
    delay: float = 0.0
    parts: Sequence[Batch[T]] = ()
    error: Exception | None = None


def ruling(plan: Plan, batch: Batch[T], attempt: Attempt[Any], now: float) -> Ruling[T, Any]:
    """Decide about a batch after its call.

    What may go better at another time is called again as it is. Otherwise something in the batch is to
    blame, as far as anybody can tell, and it is split; but not where the error says that the items are not
    looked at at all, such as a refusal for coming too fast: halves would be refused as well.

    Args:
        plan: says what is called again.
        batch: whose attempts are counted already.
        attempt: how the call ended.
        now: the moment.
    """
    if attempt.error is None and not plan.whole_batches:
        return Ruling([finished(batch.jobs[0], attempt.value, None, attempt.seconds)])
    values, error = _values(plan.name, attempt, len(batch.jobs))
    if error is None:
        return _by_item(plan, batch, values, attempt.seconds, now)
    if (delay := _delay(plan, batch, error, now)) is not None:
        return Ruling(again=batch, delay=delay, error=error)
    if len(batch.jobs) > 1 and _blames_items(error):
        return Ruling(parts=[*in_parts(batch)], error=error)
    return Ruling([finished(job, None, error, attempt.seconds) for job in batch.jobs])


def finished(job: Job[T], value: R | None, error: Exception | None, seconds: float = 0.0) -> Done[T, R]:
    """A job with its outcome."""
    return job, outcome_of(job.index, job.item, value, error, job.attempts, seconds)


def outcomes_of(
    first: int, items: Sequence[T], answer: Any, seconds: float
) -> Sequence[Outcome[T, Any]] | None:
    """The outcomes of a batch whose first call went well; None if there is more to be said about it.

    Args:
        first: number of its first item.
        items: what it was called with.
        answer: what was returned.
        seconds: what the call took.
    """
    if answer.__class__ is not list or len(answer) != len(items) or any(map(_is_error, answer)):
        return None
    numbered = zip(count(first), items, answer, strict=False)
    return [outcome_of(index, item, value, None, 1, seconds) for index, item, value in numbered]


def _values(name: str, attempt: Attempt[Any], size: int) -> tuple[list[Any], Exception | None]:
    if attempt.error is not None:
        return [], attempt.error
    try:
        return values_in_order(attempt.value, size), None
    except ValueError as error:
        return [], BatchFailed(f"{name}: {error}")


def _by_item(plan: Plan, batch: Batch[T], values: list[Any], seconds: float, now: float) -> Ruling[T, Any]:
    """An exception as a value is the error of that item alone; those that may go better are called again."""
    done: list[Done[T, Any]] = []
    again: list[Job[T]] = []
    longest, last = 0.0, None
    for job, value in zip(batch.jobs, values, strict=True):
        if not _is_error(value):
            done.append(finished(job, value, None, seconds))
        elif (delay := _delay(plan, batch, value, now)) is None:
            done.append(finished(job, None, value, seconds))
        else:
            again.append(job)
            job.error = last = value
            longest = max(longest, delay)
    if not again:
        return Ruling(done)
    part = Batch(again, (batch.place[0], again[0].index), batch.tries, batch.began)
    return Ruling(done, part, longest, error=last)


def _delay(plan: Plan, batch: Batch[T], error: Exception, now: float) -> float | None:
    """Seconds until the batch is called again, or None if it is not."""
    if plan.retry is None:
        return None
    began = now if batch.began is None else batch.began
    delay = plan.retry.delay(error, batch.tries, now - began)
    return None if delay is None or now + delay >= batch.deadline else delay


def _blames_items(error: Exception) -> bool:
    """Whether smaller batches may fare better."""
    if isinstance(error, (LimiterUnavailable, LimiterClosed)):
        return False
    said = classify(error)
    return said is None or said.verdict is not Verdict.THROTTLED


def _is_error(value: object) -> bool:
    return isinstance(value, Exception)

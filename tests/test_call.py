"""What the function that an executor runs may know about its call."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchkit import CallInfo, NoCurrentCall, current_call
from batchkit._call import idempotency_key
from batchkit.testing import as_call

KEYS = st.lists(st.text(st.sampled_from('ab",[] 好\ud800'), max_size=3), max_size=3)


def test_outside_of_a_call_there_is_none() -> None:
    with pytest.raises(NoCurrentCall, match="no executor runs this"):
        current_call()
    with pytest.raises(LookupError):
        current_call()


def test_in_a_test_it_is_what_the_test_says() -> None:
    outer, inner = CallInfo(("a",), "1"), CallInfo(("b",), "2", attempt=2, deadline=3.5)
    with as_call(outer):
        with as_call(inner):
            assert current_call() == inner
        assert current_call() == outer
    with pytest.raises(NoCurrentCall):
        current_call()


@pytest.mark.anyio
async def test_threads_and_tasks_of_a_call_are_told_the_same() -> None:
    found: list[CallInfo] = []

    async def task() -> None:
        found.append(current_call())

    info = CallInfo(("好",), "1")
    with as_call(info):
        found.append(await anyio.to_thread.run_sync(current_call))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
    assert found == [info, info]


def test_a_key_is_the_same_in_every_process() -> None:
    assert idempotency_key("cards 1", ["好", "書"]) == "507e53b0ac05a42f98a9b993fb975b03"


@given(KEYS, KEYS, st.sampled_from(["", "a", '"']), st.sampled_from(["", "a", '"']))
def test_calls_that_differ_have_different_keys(
    keys: list[str], other_keys: list[str], scope: str, other_scope: str
) -> None:
    is_same = (keys, scope) == (other_keys, other_scope)
    assert (idempotency_key(scope, keys) == idempotency_key(other_scope, other_keys)) == is_same

"""What the function that an executor runs may know about its call."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from hashlib import blake2b
from typing import Final

from attrs import frozen

from batchkit.exceptions import NoCurrentCall


@frozen
class CallInfo:
    """What a call is for. See [`current_call`][batchkit.current_call].

    Attributes:
        keys: of the items of this call, in their order.
        idempotency_key: 32 hexadecimal digits, the same for each attempt at this call, also after a resume
            from a checkpoint. A service that takes such keys answers a repeated call with its first
            answer instead of doing, and charging, the work twice. A batch that is split or put together
            in another way is another call.
        attempt: from 1.
        deadline: the moment of the executor's clock (`time.monotonic()`, unless it was given another) by
            which the call has to be done; None if there is none.
    """

    keys: tuple[str, ...]
    idempotency_key: str
    attempt: int = 1
    deadline: float | None = None


# Who runs a function says here how to tell what the call is for. Few functions ask, so it is told on demand.
RUNNING: Final[ContextVar[Callable[[], CallInfo]]] = ContextVar("batchkit_running")


def current_call() -> CallInfo:
    """What the running call is for; to be asked by the function that an executor runs, in its task or
    thread.

    Raises:
        NoCurrentCall: no executor runs here.
    """
    tell = RUNNING.get(None)
    if tell is None:
        raise NoCurrentCall(
            "no executor runs this: current_call() is for the function that it calls; in a test, use"
            " batchkit.testing.as_call()"
        )
    return tell()


def idempotency_key(scope: str, keys: Sequence[str]) -> str:
    """The key of the call for these items, 32 hexadecimal digits; another scope, another key."""
    told = json.dumps([scope, *keys]).encode()
    return blake2b(told, digest_size=16).hexdigest()

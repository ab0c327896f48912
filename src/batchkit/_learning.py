"""Permits that hand on how their call ended, and limiters that are entered as such a permit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Self

from batchkit.abc import Clock


class LearningPermit(ABC):
    """A permit that hands on how its call ended, once; its subclasses take the permits.

    Args:
        clock: what time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard = False
        self._sent = clock.now()
        self._limiting = False

    def hear(self, answer: object) -> None:
        """Say how the call ended: an answer with a status code and headers (of httpx, openai's
        `with_raw_response`, requests, aiohttp), a bare status code, or an exception. The first one counts.
        """
        if not self._heard:
            self._heard = self._learn(answer)

    async def __aenter__(self) -> Self:
        self._heard = False
        self._limiting = await self._go()
        try:
            self._sent = self._clock.now()
        except BaseException:  # Ctrl-C, just now: the block does not begin, and so nobody ends it
            self._end()
            raise
        return self

    def __enter__(self) -> Self:
        self._heard = False
        self._limiting = self._go_sync()
        try:
            self._sent = self._clock.now()
        except BaseException:  # Ctrl-C, just now: the block does not begin, and so nobody ends it
            self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.hear(error)
        finally:
            self._end()

    @abstractmethod
    async def _go(self) -> bool:
        """Return when the call may go, and whether it had to wait for permits."""

    @abstractmethod
    def _go_sync(self) -> bool:
        """The blocking twin of `_go`."""

    @abstractmethod
    def _learn(self, answer: object) -> bool:
        """Hand on how the call ended; false if that says nothing."""

    @abstractmethod
    def _end(self) -> None:
        """The call is over."""


class Entered(ABC):
    """`async with limiter:` and `with limiter:` are a permit of cost 1, so that the limiter learns how the
    block ended. Which permit that was, is known by the context (of the task, or of the thread).
    """

    @abstractmethod
    def permit(self) -> LearningPermit:
        """A permit of cost 1."""

    async def __aenter__(self) -> None:
        permit = self._enter()
        try:
            await permit.__aenter__()
        except BaseException:
            self._leave()
            raise

    def __enter__(self) -> None:
        permit = self._enter()
        try:
            permit.__enter__()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave().__aexit__(kind, error, trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave().__exit__(kind, error, trace)

    def _enter(self) -> LearningPermit:
        permit = self.permit()
        _ENTERED.set((*_ENTERED.get(), (self, permit)))
        return permit

    def _leave(self) -> LearningPermit:
        entered = _ENTERED.get()
        for index in reversed(range(len(entered))):
            if entered[index][0] is self:
                _ENTERED.set((*entered[:index], *entered[index + 1 :]))
                return entered[index][1]
        return self.permit()  # entered in another context, as a fixture may be


_ENTERED: Final[ContextVar[tuple[tuple[Entered, LearningPermit], ...]]] = ContextVar(
    "batchkit_entered", default=()
)

"""Transports for httpx that let requests go when a limiter does. Needs `httpx2` or `httpx`, which is imported
here and nowhere else.

Every request takes its permits before it is sent, retries and redirects, too, and an adaptive limiter hears
every answer's status code and headers. Whatever sends its requests by an httpx client, such as openai's, can
be limited so without a change of its calls. Bodies are not read: a 429 of an account that is out of money
counts as one for coming too fast.

A client that is given a transport leaves the connections to it: what `verify`, `proxy`, `http2` or `limits`
of the client would say, an `HTTPTransport(limits=...)` says that is handed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchkit.abc import Limiter

if TYPE_CHECKING:
    import httpx2 as httpx
else:
    try:
        import httpx2 as httpx
    except ImportError:  # the same interfaces by their older name
        import httpx

__all__ = ["AsyncLimitedTransport", "LimitedTransport"]

Cost = Callable[[httpx.Request], Any] | Any


class LimitedTransport(httpx.BaseTransport):
    """For `httpx.Client`.

    Args:
        limiter: any limiter, or group of them.
        transport: what sends the requests; by default httpx's own `HTTPTransport`.
        cost: permits of a request, or a function that tells them by the request; for a group also a mapping.
        priority: higher goes first.
        timeout: seconds to wait for the limiter at most; `AcquireTimeout` after that.

    A slot of a `ConcurrencyLimiter` is given back when the answer's headers are there; its body may still be
    on its way.
    """

    def __init__(
        self,
        limiter: Limiter,
        transport: httpx.BaseTransport | None = None,
        *,
        cost: Cost = 1,
        priority: int = 0,
        timeout: float | None = None,
    ) -> None:
        self._permits = _Permits(limiter, cost, priority, timeout)
        self._transport = httpx.HTTPTransport() if transport is None else transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request when the limiter lets it go."""
        with self._permits.of(request) as permit:
            response = self._transport.handle_request(request)
            permit.hear(response)
        return response

    def close(self) -> None:
        """Close the transport inside."""
        self._transport.close()


class AsyncLimitedTransport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient`; otherwise as `LimitedTransport`.

    Example:
        ```python
        limiter = AdaptiveLimiter(TokenBucket(rate=2, burst=1), min_rate=0.2, max_rate=20)
        http = httpx.AsyncClient(transport=AsyncLimitedTransport(limiter))
        client = openai.AsyncOpenAI(http_client=http)
        ```
    """

    def __init__(
        self,
        limiter: Limiter,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        cost: Cost = 1,
        priority: int = 0,
        timeout: float | None = None,
    ) -> None:
        self._permits = _Permits(limiter, cost, priority, timeout)
        self._transport = httpx.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request when the limiter lets it go."""
        async with self._permits.of(request) as permit:
            response = await self._transport.handle_async_request(request)
            permit.hear(response)
        return response

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._transport.aclose()


class _Permits:
    def __init__(self, limiter: Limiter, cost: Cost, priority: int, timeout: float | None) -> None:
        self._limiter = limiter
        self._cost = cost
        self._priority = priority
        self._timeout = timeout

    def of(self, request: httpx.Request) -> Any:
        cost = self._cost(request) if callable(self._cost) else self._cost
        return self._limiter.permit(cost, priority=self._priority, timeout=self._timeout)

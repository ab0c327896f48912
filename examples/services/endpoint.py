"""Where a service is, and the HTTP client for it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx2
from attrs import field, frozen

IDLE = 60.0  # seconds that an idle connection is kept: longer than any pause between two calls
LOCAL = ("127.0.0.1", "localhost", "::1")


@frozen
class Endpoint:
    """Where a service is.

    Attributes:
        url: its base URL.
        key: the API key.
        speed: service seconds in a second; above 1 only for a stand-in.
        name: what to call it.
    """

    url: str
    key: str = field(repr=False)
    speed: float = 1.0
    name: str = ""

    def client(
        self,
        *,
        timeout: float,
        connections: int,
        transport: httpx2.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.AsyncClient:
        """A client that keeps a connection open for each call at once.

        Args:
            timeout: service seconds for each step: to connect, to send, until more of the answer comes.
            connections: calls at once.
            transport: for tests, what answers in place of the network.
            headers: sent with every request, wherever it goes: the key is none of them.
        """
        return httpx2.AsyncClient(
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=IDLE
            ),
            timeout=timeout / self.speed,
            transport=transport,
            headers=headers,
            follow_redirects=True,
            # A proxy from the environment could not reach a stand-in on this machine.
            trust_env=httpx2.URL(self.url).host not in LOCAL,
        )


class Client:
    """Keeps connections open, and closes them at the end of a block."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

"""A reply that breaks off, as when a connection drops in the middle of it."""

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send


class CutOff(JSONResponse):
    """Announces its whole body, sends half of it and ends: the server has to drop the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2]})

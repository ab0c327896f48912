"""A reply that breaks off, as when a connection drops in the middle of it."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class CutOff(Response):
    """Announces the whole of a response, sends half of it and ends: the server has to drop the connection."""

    def __init__(self, whole: Response) -> None:
        super().__init__(whole.body, whole.status_code)
        self.raw_headers = whole.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2]})

"""The sound service: Azure Speech's REST interface, for whoever wants to hear Chinese words."""

from dataclasses import dataclass

from pydantic import Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from examples.standin import azure_wire as wire
from examples.standin.cut_off import CutOff
from examples.standin.faults import Switches
from examples.standin.latency import around
from examples.standin.quota import Refusal
from examples.standin.retry_after import retry_after
from examples.standin.service import Call, Service
from examples.standin.sounds import Format, format_of

MIDDLE = 0.8  # service seconds for a sound
A_PAGE = "<html><body>This is no sound.</body></html>"


class SoundSwitches(Switches):
    rate: float = Field(default=5.0, gt=0, allow_inf_nan=False, description="calls a service second")
    burst: int = Field(default=10, gt=0, description="calls at once")


@dataclass(frozen=True, slots=True)
class Speech:
    """What a call asks for."""

    text: str
    format: Format

    def sound(self) -> Response:
        return Response(self.format.speak(self.text), media_type=self.format.content_type)


class Sound:
    """Azure's protocol in front of a service."""

    def __init__(self, service: Service[SoundSwitches]) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        return [Route("/cognitiveservices/v1", self.speak, methods=["POST"])]

    async def speak(self, request: Request) -> Response:
        """POST /cognitiveservices/v1."""
        if not request.headers.get("ocp-apim-subscription-key", "").strip():
            return self.service.turn_away(JSONResponse(wire.NO_KEY, status_code=401))
        if request.headers.get("content-type", "").partition(";")[0] != "application/ssml+xml":
            return self.service.turn_away(Response(status_code=415))
        try:
            speech = await self.read(request)
        except wire.BadRequest as fault:
            return self.service.turn_away(JSONResponse(wire.error(400, str(fault)), status_code=400))
        return await self.answer(request, speech)

    async def read(self, request: Request) -> Speech:
        wanted = format_of(request.headers.get("x-microsoft-outputformat", ""))
        if wanted is None:
            raise wire.BadRequest("X-Microsoft-OutputFormat names no format made here: mp3, riff pcm.")
        return Speech(wire.spoken(await request.body()), wanted)

    async def answer(self, request: Request, speech: Speech) -> Response:
        """A call that can be understood: refused, or answered after a while, well or not."""
        with self.service.call((speech.text,), {"requests": 1}) as call:
            if call.refusal:
                return call.end("refused", self.refuse(call.refusal))
            latency = around(MIDDLE, self.service.dice("latency", speech.text))
            if not await self.service.work(request, call, latency):
                return call.abort()
            return self.reply(call, speech)

    def refuse(self, refusal: Refusal) -> Response:
        """A 429."""
        wait = self.service.time.wall(refusal.wait)
        headers = retry_after(self.service.switches.retry_after, wait)
        return JSONResponse(wire.over_quota(wait), 429, headers)

    def reply(self, call: Call, speech: Speech) -> Response:
        """The answer, well or not, after the wait for it."""
        billed = wire.billable(speech.text)
        match call.fault:
            case "error":
                return call.end("error", JSONResponse(wire.UNAVAILABLE, status_code=503))
            case "truncated":
                return call.end("malformed", CutOff(speech.sound()), billed)
            case "malformed":  # nothing at all, as when voice and text do not go together
                return call.end("malformed", Response(media_type=speech.format.content_type), billed)
            case "wrong":
                return call.end("malformed", HTMLResponse(A_PAGE), billed)
            case _:
                return call.end("ok", speech.sound(), billed)

"""The picture service: fal's queue, for whoever wants a picture of a prompt.

What is asked about a job (its status, its result, the picture itself) costs nothing and has no quota.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from examples.standin import fal_wire as wire
from examples.standin import png
from examples.standin.cut_off import CutOff
from examples.standin.jobs import JobService, JobSwitches, Order
from examples.standin.latency import around
from examples.standin.retry_after import retry_after
from examples.standin.service import Call

MIDDLE = 6.0  # service seconds for a picture
JOB = "/fal/{owner}/{app}/requests/{id}"
A_PAGE = "<html><body>This is no picture.</body></html>"

About = Callable[[Request, Order], Awaitable[Response]]


class PictureSwitches(JobSwitches):
    """As many at once as an account may have that has bought credits; a new one has 2."""

    rate: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="jobs a service second")
    burst: int = Field(default=3, gt=0, description="jobs ordered at once")
    concurrency: int = Field(default=40, gt=0, description="jobs in progress at once; the others wait")


class Picture:
    """fal's protocol in front of a service."""

    def __init__(self, service: JobService) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        return [
            Route("/fal/{owner}/{app}", self.submit, methods=["POST"]),
            Route("/fal/{owner}/{app}/{path:path}", self.submit, methods=["POST"]),
            Route(f"{JOB}/status", self.about(self.status), methods=["GET"]),
            Route(f"{JOB}/status/stream", self.about(self.stream), methods=["GET"]),
            Route(f"{JOB}/cancel", self.about(self.cancel), methods=["PUT"]),
            Route(JOB, self.about(self.result), methods=["GET"]),
            # The files lie on another host than the queue, and are public.
            Route("/fal-files/{id}.png", self.about(self.picture, public=True), methods=["GET"]),
        ]

    async def submit(self, request: Request) -> Response:
        """POST /{model}: a job is ordered. That its input is wrong shows when it is done, as with fal."""
        if not has_key(request):
            return self.service.turn_away(JSONResponse(wire.NO_KEY, status_code=401))
        body, complaint = await request.body(), None
        try:
            prompt = wire.PictureRequest.model_validate_json(body).prompt
        except ValidationError as fault:
            prompt, complaint = "", wire.invalid(fault)
        call = self.service.arrive((prompt,) if prompt else (), {"requests": 1})
        if call.refusal:
            return self.refuse(call)
        latency = around(MIDDLE, self.service.dice("latency", prompt))
        order = self.service.order(call, prompt, latency, complaint)
        owner, app = request.path_params["owner"], request.path_params["app"]
        url = f"{request.base_url}fal/{owner}/{app}/requests/{order.id}"
        return JSONResponse(wire.submitted(url, order.id, self.service.position(order)))

    def refuse(self, call: Call) -> Response:
        """A 429."""
        assert call.refusal
        wait = self.service.time.wall(call.refusal.wait)
        headers = retry_after(self.service.switches.retry_after, wait)
        return call.end("refused", JSONResponse(wire.over_quota(call.refusal, wait), 429, headers))

    def about(self, answer: About, public: bool = False) -> Callable[[Request], Awaitable[Response]]:
        """The way to a job."""

        async def find(request: Request) -> Response:
            if not (public or has_key(request)):
                return JSONResponse(wire.NO_KEY, status_code=401)
            order = self.service.find(request.path_params["id"])
            if order is None:
                return JSONResponse(wire.NOT_FOUND, status_code=404)
            if self.service.is_flaky(order):
                return HTMLResponse(wire.BAD_GATEWAY, status_code=502)
            return await answer(request, order)

        return find

    async def status(self, _: Request, order: Order) -> Response:
        """GET {job}/status: 202 until it is done."""
        return JSONResponse(self.state(order), status_code=200 if order.ended is not None else 202)

    async def stream(self, _: Request, order: Order) -> Response:
        """GET {job}/status/stream: an event for each change, until it is done."""

        async def events() -> AsyncIterator[str]:
            told = None
            while True:
                if (state := self.state(order)) != told:
                    yield f"data: {json.dumps(state)}\n\n"
                if order.ended is not None:
                    return
                told = state
                await self.service.news()

        return StreamingResponse(events(), media_type="text/event-stream")

    def state(self, order: Order) -> wire.Json:
        """What is said of a job that waits, is in progress, or is done."""
        if order.ended is not None:
            taken = float(order.ended - (order.ended if order.started is None else order.started))
            metrics = {"inference_time": taken}
            return {"status": "COMPLETED", "request_id": order.id, "logs": None, "metrics": metrics}
        if order.started is not None:
            return {"status": "IN_PROGRESS", "request_id": order.id, "logs": None}
        position = self.service.position(order)
        return {"status": "IN_QUEUE", "request_id": order.id, "queue_position": position}

    async def cancel(self, _: Request, order: Order) -> Response:
        """PUT {job}/cancel: what waits is taken out, and what is in progress is stopped."""
        if order.ended is not None:
            return JSONResponse({"status": "ALREADY_COMPLETED"}, status_code=400)
        waited = order.started is None
        self.service.cancel(order)
        return JSONResponse(
            {"status": "OK" if waited else "CANCELLATION_REQUESTED"}, status_code=200 if waited else 202
        )

    async def result(self, request: Request, order: Order) -> Response:
        """GET {job}: what the model returned."""
        if order.ended is None:
            return JSONResponse(wire.NOT_READY, status_code=400)
        if order.cancelled:
            return JSONResponse(wire.CANCELLED, status_code=499)
        if order.complaint:
            return JSONResponse(order.complaint, status_code=422, headers={"x-fal-retryable": "false"})
        if order.call.fault == "error":
            return JSONResponse(wire.FAILED, status_code=500, headers={"x-fal-retryable": "true"})
        url = f"{request.base_url}fal-files/{order.id}.png"
        whole = JSONResponse(wire.result(url, order.prompt, float(order.seconds or 0)))
        if order.call.fault == "malformed":
            half = cast(bytes, whole.body)[: len(whole.body) // 2]
            return Response(half, media_type="application/json")
        return whole

    async def picture(self, _: Request, order: Order) -> Response:
        """GET the file. One that was cut off is whole when it is fetched again: it is made and paid for."""
        if order.outcome()[2] == 0 or order.ended is None:
            return JSONResponse(wire.NOT_FOUND, status_code=404)
        if order.call.fault == "wrong":
            return HTMLResponse(A_PAGE)
        picture = Response(png.draw(order.prompt), media_type="image/png")
        if order.call.fault == "truncated":
            order.call.fault = None
            return CutOff(picture)
        return picture


def has_key(request: Request) -> bool:
    """Any key will do; it is looked at and forgotten."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "key" and bool(key.strip())

"""fal's bodies, as the documentation of its queue has them: values in, values out."""

import math
from fractions import Fraction
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from examples.standin import png
from examples.standin.quota import Refusal
from examples.standin.retry_after import in_seconds

Json = dict[str, Any]

NO_KEY: Json = {"detail": "Authentication is required to access this application."}
NOT_FOUND: Json = {"detail": "Request not found"}
NOT_READY: Json = {"detail": "Request is still in progress"}
CANCELLED: Json = {"detail": "The request was cancelled", "error_type": "client_cancelled"}
BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


class PictureRequest(BaseModel):
    """The body of a submission, as far as the stand-in reads it."""

    prompt: str = Field(min_length=1)


def submitted(job_url: str, request_id: str, position: int) -> Json:
    """What a submission is answered."""
    return {
        "status": "IN_QUEUE",
        "request_id": request_id,
        "response_url": job_url,
        "status_url": f"{job_url}/status",
        "cancel_url": f"{job_url}/cancel",
        "logs": None,
        "metrics": {},
        "queue_position": position,
    }


def result(picture_url: str, prompt: str, seconds: float) -> Json:
    """What a text-to-image model returns."""
    picture = {"url": picture_url, "width": png.SIDE, "height": png.SIDE, "content_type": "image/png"}
    return {
        "images": [picture],
        "timings": {"inference": seconds},
        "seed": 0,
        "has_nsfw_concepts": [False],
        "prompt": prompt,
    }


def over_quota(refusal: Refusal, wait: Fraction) -> Json:
    """The body of a 429."""
    seconds = in_seconds(math.ceil(wait * 1000))
    return {"detail": f"Rate limit of {refusal.burst} requests exceeded, try again in {seconds} s"}


def model_error(kind: str, message: str, place: tuple[str | int, ...] = ("body",)) -> Json:
    """An error that the model itself reports."""
    detail = {"loc": list(place), "msg": message, "type": kind, "url": f"https://docs.fal.ai/errors#{kind}"}
    return {"detail": [detail]}


FAILED = model_error("internal_server_error", "Internal server error")


def invalid(fault: ValidationError) -> Json:
    """The body of a 422: the first of pydantic's complaints."""
    first = fault.errors(include_url=False, include_input=False, include_context=False)[0]
    return model_error(first["type"], first["msg"], ("body", *first["loc"]))

"""Pictures and sounds, as they come out of a service."""

import httpx2
from attrs import field, frozen

from examples.errors import MalformedAnswer


@frozen
class Media:
    """A file.

    Attributes:
        content: its bytes.
        content_type: what it is, such as image/png or audio/mpeg.
    """

    content: bytes = field(repr=False)
    content_type: str


def media(reply: httpx2.Response, kind: str) -> Media:
    """The file in an answer, which is to be an "image" or "audio". Raises MalformedAnswer."""
    content_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type.startswith(f"{kind}/"):
        raise MalformedAnswer(f"asked for {kind}, got {content_type or 'what has no type'}")
    if not reply.content:
        raise MalformedAnswer(f"asked for {kind}, got nothing")
    return Media(reply.content, content_type)

"""Azure Speech's bodies: SSML in, JSON for errors out."""

import math
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from typing import Any

Json = dict[str, Any]

SSML = "{http://www.w3.org/2001/10/synthesis}"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
FIRST_HAN, LAST_HAN = "\u4e00", "\u9fff"


class BadRequest(ValueError):
    """What is asked for cannot be understood."""


def error(code: int, message: str) -> Json:
    return {"error": {"code": str(code), "message": message}}


NO_KEY = error(
    401,
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
    "for an active subscription and use a correct regional API endpoint for your resource.",
)
UNAVAILABLE = error(503, "The service is temporarily unavailable.")


def over_quota(wait: Fraction) -> Json:
    """The body of a 429."""
    return error(429, f"Rate limit is exceeded. Try again in {math.ceil(wait)} seconds.")


def spoken(body: bytes) -> str:
    """What an SSML document says. Raises BadRequest if it is none, or names no voice."""
    try:
        document = ElementTree.fromstring(body)
    except ElementTree.ParseError as fault:
        raise BadRequest(f"The SSML is not well-formed: {fault}") from None
    if document.tag != f"{SSML}speak" or not document.get("version") or not document.get(LANGUAGE):
        raise BadRequest("The SSML needs an element speak with a version and xml:lang.")
    voice = document.find(f"{SSML}voice")
    if voice is None or not voice.get("name"):
        raise BadRequest("The SSML needs an element voice with a name.")
    text = "".join(voice.itertext()).strip()
    if not text:
        raise BadRequest("The SSML says nothing.")
    return text


def billable(text: str) -> int:
    """Characters that are billed: a Chinese one counts twice."""
    return len(text) + sum(FIRST_HAN <= letter <= LAST_HAN for letter in text)

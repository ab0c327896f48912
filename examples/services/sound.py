"""The sound service: Azure Speech speaks a word or a sentence.

One request for each sound, by REST: the Speech SDK is made for microphones and loudspeakers, brings a library
in C++ along, and connects anew on its own terms.
"""

import re
from functools import partial
from xml.sax.saxutils import escape, quoteattr

import httpx2

from batchkit.abc import Limiter, Permit
from examples import settings
from examples.media.media import Media, media
from examples.queueing.urgency import Urgency
from examples.services.calls import Calls, may_pass, retry
from examples.services.clock import Clock, RealClock
from examples.services.endpoint import Client, Endpoint

AGENT = "batchkit-examples"  # Azure wants to know which application calls
SSML = "http://www.w3.org/2001/10/synthesis"
NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class SoundService(Client):
    """Speaks.

    Args:
        endpoint: where the service is.
        options: how it is called.
        limiter: lets each attempt go.
        connections: kept open, one for each call at once.
        transport: for tests, what answers in place of the network.
        clock: for tests, what waits go by.

    Attributes:
        calls: how they are made.
        usage: of calls, counted since the start.
        characters: in the answers that came whole, as they are paid for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: settings.Sound,
        limiter: Limiter,
        connections: int,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            endpoint.client(timeout=options.timeout, connections=connections, transport=transport)
        )
        again = retry(options.attempts, endpoint.speed, on=may_pass)
        self.calls = Calls(limiter, again, (httpx2.HTTPError,), clock or RealClock())
        self.usage = self.calls.usage
        self.characters = 0
        self._voice = options.voice
        self._url = f"{endpoint.url}/cognitiveservices/v1"
        self._headers = {
            "ocp-apim-subscription-key": endpoint.key,
            "content-type": "application/ssml+xml",
            "x-microsoft-outputformat": options.output_format,
            "user-agent": AGENT,
        }

    async def speak(self, text: str, urgency: Urgency | None = None) -> Media:
        """How a text sounds.

        Raises:
            ServiceError: which of them says what may help.
        """
        return await self.calls.make(partial(self._attempt, text), urgency)

    async def _attempt(self, text: str, permit: Permit) -> Media:
        """One call."""
        body = ssml(text, self._voice).encode()
        reply = await self._http.post(self._url, content=body, headers=self._headers)
        permit.hear(reply)
        reply.raise_for_status()
        self.characters += billed(text)
        return media(reply, "audio")


def ssml(text: str, voice: str) -> str:
    """The document that has a voice speak a text, whatever stands in it."""
    language = "-".join(voice.split("-")[:2])
    spoken = escape(NOT_IN_XML.sub("", text))
    return (
        f'<speak version="1.0" xmlns="{SSML}" xml:lang={quoteattr(language)}>'
        f"<voice name={quoteattr(voice)}>{spoken}</voice></speak>"
    )


def billed(text: str) -> int:
    """Characters that are paid for: a Chinese one counts as two."""
    return len(text) + len(HAN.findall(text))

"""Sound files that are tiny and valid, and differ with what is spoken: a tone as WAV, silence as MP3."""

import hashlib
import io
import math
import re
import wave
from array import array
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_A_CHARACTER = 0.05
LONGEST = 0.5  # seconds
RIFF = re.compile(r"riff-(\d+)(k?)hz-16bit-mono-pcm")
MP3 = re.compile(r"audio-(\d+)khz-(\d+)kbitrate-mono-mp3")
WAV_RATES = (8000, 16_000, 22_050, 24_000, 44_100, 48_000)  # Hz
# kbit/s in the order of their numbers in a frame's header, from 1 on, and the number of the sample rate
LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG-2
HIGH = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG-1
MP3_RATES = {16: 2, 24: 1, 48: 1}


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be asked for."""

    content_type: str
    speak: Callable[[str], bytes]


def format_of(name: str) -> Format | None:
    """The format of this name in Azure's list; None if it is not made here."""
    if (riff := RIFF.fullmatch(name)) and (rate := int(riff[1]) * (1000 if riff[2] else 1)) in WAV_RATES:
        return Format("audio/x-wav", lambda text: wav(text, rate))
    if (mp3 := MP3.fullmatch(name)) and int(mp3[1]) in MP3_RATES:
        khz, kbits = int(mp3[1]), int(mp3[2])
        if kbits in (HIGH if khz == 48 else LOW):
            return Format("audio/mpeg", lambda text: silence(text, khz, kbits))
    return None


def duration(text: str) -> float:
    """Seconds of sound."""
    return min(LONGEST, SECONDS_A_CHARACTER * len(text))


def wav(text: str, rate: int) -> bytes:
    """A tone whose pitch depends on the text."""
    pitch = 200 + hashlib.sha256(text.encode()).digest()[0]  # Hz
    wanted = range(round(duration(text) * rate))
    samples = array("h", (round(8000 * math.sin(math.tau * pitch * n / rate)) for n in wanted))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def silence(text: str, khz: int, kbits: int) -> bytes:
    """Frames of layer III without sound. What follows it in a frame is no decoder's business: a mark of the
    text.
    """
    old = khz == 48  # MPEG-1, whose frames are twice as long
    bitrate = (HIGH if old else LOW).index(kbits) + 1
    header = bytes((0xFF, 0xFB if old else 0xF3, bitrate << 4 | MP3_RATES[khz] << 2, 0xC4))
    size = (144 if old else 72) * kbits // khz  # bytes
    quiet = header + bytes(17 if old else 9)
    mark = hashlib.sha256(text.encode()).digest()[: size - len(quiet)]
    frames = max(1, round(duration(text) * khz * 1000 / (1152 if old else 576)))
    return (quiet + mark).ljust(size, b"\0") + quiet.ljust(size, b"\0") * (frames - 1)

"""From text to the Chinese characters in it: each once, in order of first appearance.

Pure: text in, a `Selection` out. It does not matter how the text came, as CSV, one character a line or a
    novel, for everything that is not a Chinese character is left out, and what a reader would miss is
    counted and named. Punctuation, white space and control characters are dropped without a word.
"""

import unicodedata
from collections import Counter
from enum import StrEnum

from attrs import frozen


class Reason(StrEnum):
    """Why something was left out."""

    REPEATED = "repeated"
    LATIN = "Latin letters"
    DIGIT = "digits"
    SCRIPT = "letters of other scripts"
    SYMBOL = "symbols and emoji"
    UNKNOWN = "not in the dictionary"


@frozen
class LeftOut:
    """What was left out for one reason.

    Attributes:
        reason: why.
        count: how many characters of the text this was; of a repeated one, all but the first.
        text: each of these characters once, in order of first appearance.
    """

    reason: Reason
    count: int
    text: str


@frozen
class Selection:
    """What a text asks for.

    Attributes:
        wanted: its Chinese characters, each once, in order of first appearance.
        left_out: the rest, by reason.
    """

    wanted: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()


# The blocks of Unicode that hold Chinese characters. Planes 2 and 3 are set apart for them, so that
# extensions which are newer than this Python are known, too.
HAN_BLOCKS = (
    (0x3007, 0x3007),  # 〇, zero
    (0x3400, 0x4DBF),  # extension A
    (0x4E00, 0x9FFF),  # the common ones
    (0xF900, 0xFAFF),  # compatibility
    (0x20000, 0x3FFFF),  # extensions B to J
)
RADICALS = range(0x2E80, 0x2FE0)  # look-alikes that come out of PDF files: ⼈ for 人


def select(text: str) -> Selection:
    """The Chinese characters of a text, and what was left out."""
    counts = Counter(map(normal, unicodedata.normalize("NFC", text)))
    wanted = tuple(character for character in counts if is_han(character))
    return Selection(wanted, left_out(counts))


def normal(character: str) -> str:
    """A Chinese character for its radical; NFC has already taken the compatibility forms."""
    return unicodedata.normalize("NFKC", character) if ord(character) in RADICALS else character


def is_han(character: str) -> bool:
    """Whether this is a Chinese character, simplified or traditional."""
    return any(first <= ord(character) <= last for first, last in HAN_BLOCKS)


def left_out(counts: Counter[str]) -> tuple[LeftOut, ...]:
    """All that is not wanted, by reason, in the order of `Reason`."""
    groups = {reason: Counter[str]() for reason in Reason}
    for character, count in counts.items():
        spare = count - 1 if is_han(character) else count
        if spare and (reason := reason_for(character)):
            groups[reason][character] = spare
    return tuple(LeftOut(reason, group.total(), "".join(group)) for reason, group in groups.items() if group)


def reason_for(character: str) -> Reason | None:
    """Why a character is spare; None if nobody will miss it.

    Unicode's categories begin with a letter: L letters, N numbers, S symbols; M, P, Z, C are marks on the
    character before, punctuation, white space and control characters.
    """
    if is_han(character):
        return Reason.REPEATED
    match unicodedata.category(character)[0]:
        case "L":
            return Reason.LATIN if "LATIN" in unicodedata.name(character, "") else Reason.SCRIPT
        case "N":
            return Reason.DIGIT
        case "S":
            return Reason.SYMBOL
        case _:
            return None

"""Pinyin as learners read it: `hao3` becomes `hǎo`. Pure."""

import re

TONES = {"a": "āáǎà", "e": "ēéěè", "i": "īíǐì", "o": "ōóǒò", "u": "ūúǔù", "ü": "ǖǘǚǜ"}
SYLLABLE = re.compile(r"([A-Za-zÜü]+)([1-5])")


def tone_marks(numbered: str) -> str:
    """Tone marks in place of tone numbers, and ü in place of u: (the way dictionaries are typed)."""
    return SYLLABLE.sub(marked, numbered.replace("u:", "ü").replace("U:", "Ü"))


def marked(syllable: re.Match[str]) -> str:
    """One syllable with its mark; the fifth tone has none."""
    letters, tone = syllable[1], int(syllable[2])
    place = vowel(letters.lower())
    if tone == 5 or place is None:
        return letters
    mark = TONES[letters[place].lower()][tone - 1]
    return letters[:place] + (mark.upper() if letters[place].isupper() else mark) + letters[place + 1 :]


def vowel(letters: str) -> int | None:
    """Where the mark goes: on a or e, on the o of ou, and else on the last vowel."""
    for first in ("a", "e", "ou"):
        if first in letters:
            return letters.index(first)
    return max((place for place, letter in enumerate(letters) if letter in TONES), default=None)

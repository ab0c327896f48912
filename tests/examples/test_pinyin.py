"""Tone marks stand where the rules of pinyin put them."""

import pytest

from examples.language.pinyin import tone_marks


@pytest.mark.parametrize(
    ("numbered", "marked"),
    [
        ("hao3", "hǎo"),
        ("ma1 ma2 ma3 ma4 ma5", "mā má mǎ mà ma"),
        ("gui4 liu2", "guì liú"),
        ("gou3 xue2 er4", "gǒu xué èr"),
        ("lu:4 nu:3 lu:e4", "lǜ nǚ lüè"),
        ("Bei3 jing1 E2", "Běi jīng É"),
        ("r5 m2 xx5", "r m xx"),
        ("K T V", "K T V"),
    ],
)
def test_tone_marks(numbered: str, marked: str) -> None:
    assert tone_marks(numbered) == marked

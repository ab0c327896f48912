"""Any text becomes its Chinese characters, each once, and a list of what was left out."""

import pytest

from examples.language.characters import LeftOut, Reason, select


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("你好", "你好"),
        ("好\n你\r\n好\t学", "好你学"),
        ("今天天气很好，我们去公园吧！", "今天气很好我们去公园吧"),
        ("character,pinyin\n爱,ài\n學,xué\n", "爱學"),
        ("愛爱學学", "愛爱學学"),
        ("〇", "〇"),
        (
            "㐀\U00020000\U0002a700\U00030000\U00031350\U000323b0",
            "㐀\U00020000\U0002a700\U00030000\U00031350\U000323b0",
        ),
        ("\uf900", "豈"),
        ("⼈⺟", "人母"),
        ("ＡＢ好１２。", "好"),
        ("\ufeff好\u200b你\u00a0", "好你"),
        ("", ""),
    ],
    ids=[
        "two characters",
        "one a line, one twice",
        "running text",
        "CSV with a header",
        "simplified and traditional are two",
        "zero is a character",
        "the extension blocks, up to those newer than this Python",
        "a compatibility form is the character it stands for",
        "so is a radical",
        "full-width letters are none",
        "marks and spaces that nobody sees",
        "nothing",
    ],
)
def test_wanted(text: str, wanted: str) -> None:
    assert "".join(select(text).wanted) == wanted


@pytest.mark.parametrize(
    ("text", "reason", "count", "characters"),
    [
        ("好你好好你", Reason.REPEATED, 3, "好你"),
        ("hello Ｗorld ü", Reason.LATIN, 11, "heloＷrdü"),
        ("2026 １", Reason.DIGIT, 5, "206１"),
        ("かなカﾅ한글", Reason.SCRIPT, 6, "かなカﾅ한글"),
        ("😀👍👍+€", Reason.SYMBOL, 5, "😀👍+€"),
    ],
    ids=["repeated", "Latin", "digits", "kana and hangul", "symbols and emoji"],
)
def test_left_out(text: str, reason: Reason, count: int, characters: str) -> None:
    assert select(text).left_out == (LeftOut(reason, count, characters),)


@pytest.mark.parametrize("text", ["，。！？、《》", " \t\r\n\u3000", "(),.;:-\"'", "\u0000\u200d\ufe0f"])
def test_nobody_misses_punctuation_and_white_space(text: str) -> None:
    assert select("好" + text).left_out == ()


def test_reasons_come_in_their_order() -> None:
    assert [group.reason for group in select("😀か1a好好").left_out] == [
        Reason.REPEATED,
        Reason.LATIN,
        Reason.DIGIT,
        Reason.SCRIPT,
        Reason.SYMBOL,
    ]

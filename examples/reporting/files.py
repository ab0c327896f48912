"""Files that are written at the end of a run, and had better be possible to write at its beginning."""

import os
from pathlib import Path

from examples.errors import UsageError


def check_writable(path: Path) -> None:
    """Raises UsageError if the file could not be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {folder}.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{path} cannot be written: permission denied.")


def write(path: Path, text: str) -> None:
    """Write a text as UTF-8. Raises UsageError if that fails after all."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None

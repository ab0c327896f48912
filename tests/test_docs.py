"""Every Python block of the README and of the site runs, in order, in one namespace for each document.

A block of `text` that follows shows what was printed, and is compared with it. A block that cannot run stands below
`<!--- skip: next "the reason" -->`.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PRINTED = "_printed"  # where a document's namespace keeps what its last Python block printed


def run(example: Example) -> None:
    with redirect_stdout(io.StringIO()) as output:
        PythonEvaluator()(example)
    example.namespace[PRINTED] = output.getvalue()


def compare(example: Example) -> None:
    assert example.namespace[PRINTED].strip() == example.parsed.strip()


def blocks(path: Path) -> Document:
    return Document.parse(
        str(path), SkipParser(), CodeBlockParser("python", run), CodeBlockParser("text", compare)
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_blocks_run_and_print_what_is_shown(path: Path) -> None:
    for example in blocks(path).examples():
        try:
            example.evaluate()
        except SkipTest as reason:
            assert str(reason), f"{path}:{example.line}: a block that is skipped needs a reason"


def test_the_readme_links_to_files_that_exist() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []

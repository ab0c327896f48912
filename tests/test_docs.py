"""Every Python block of the README and of the site runs, in order, in one namespace for each document.

Tests that a block defines are called. A block of `text` that follows shows what was printed, and is
compared with it. A block that cannot run stands below `<!--- skip: next "the reason" -->`.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from sybil.region import Lexeme

import batchkit
from batchkit import exceptions

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples" / "README.md"
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
PRINTED = "_printed"  # where a document's namespace keeps what its last Python block printed


REDIS = "redis://localhost:6379"  # what the pages say; it stands for a server of the tests


def run(example: Example) -> None:
    known = set(example.namespace)
    with redirect_stdout(io.StringIO()) as output:
        PythonEvaluator()(example)
        for name in [name for name in example.namespace if name.startswith("test_") and name not in known]:
            example.namespace[name]()
    example.namespace[PRINTED] = output.getvalue()


def compare(example: Example) -> None:
    assert example.namespace[PRINTED].strip() == str(example.parsed).strip()


def blocks(path: Path) -> Document:
    return Document.parse(
        str(path), SkipParser(), CodeBlockParser("python", run), CodeBlockParser("text", compare)
    )


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_blocks_run_and_print_what_is_shown(path: Path, request: pytest.FixtureRequest) -> None:
    server = None
    for example in blocks(path).examples():
        if REDIS in example.parsed:
            server = server or request.getfixturevalue("valkey")
            text = example.parsed
            example.parsed = Lexeme(text.replace(REDIS, server.url()), text.offset, text.line_offset)
        with suppress(SkipTest):  # raised only where a reason is given; without one, sybil just goes on
            example.evaluate()


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_block_that_is_skipped_has_a_reason(path: Path) -> None:
    assert re.findall(r"<!---? *skip: *\w+ *-->", path.read_text("utf-8")) == []


# The site's own build checks its links between pages, and not its images.
@pytest.mark.parametrize(
    ("path", "link"),
    [
        pytest.param(path, link, id=f"{path.relative_to(ROOT).as_posix()}: {link}")
        for path in [README, EXAMPLES, *PAGES]
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text("utf-8"))
    ],
)
def test_links_lead_to_files_that_exist(path: Path, link: str) -> None:
    assert (path.parent / link).exists()


def test_every_public_name_has_its_place_in_the_reference() -> None:
    reference = (ROOT / "docs" / "api.md").read_text("utf-8")
    shown = {*re.findall(r"^::: batchkit\.(\w+)$", reference, re.MULTILINE), *exceptions.__all__}
    assert shown >= set(batchkit.__all__)


def test_the_readme_of_the_examples_has_a_row_for_every_file_and_for_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", EXAMPLES.read_text("utf-8"), re.MULTILINE)
    named = sorted(name.rstrip("/") for row in rows for name in re.findall(r"`(.+?)`", row))
    ignored = {"README.md", "__init__.py", "__pycache__"}
    assert named == sorted(path.name for path in EXAMPLES.parent.iterdir() if path.name not in ignored)

"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import batchkit

ROOT = Path(batchkit.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
FORBIDDEN = {
    # nobody but these may import that
    "time": {"_clock.py"},
    "redis": {"link.py"},
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name == "_core"], ids=lambda path: path.name
)
def test_the_core_knows_nobody(path: Path) -> None:
    allowed = sys.stdlib_module_names | {"attrs", "batchkit"}
    impure = {"time", "datetime", "threading", "asyncio", "socket", "os", "io", "random", "logging"}
    for name in imports(path):
        assert name.split(".")[0] in allowed - impure
        assert not name.startswith("batchkit") or name.startswith("batchkit._core")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_only_its_room_imports_it(path: Path) -> None:
    for name in imports(path):
        if (top := name.split(".")[0]) in FORBIDDEN:
            assert path.name in FORBIDDEN[top]


@pytest.mark.parametrize(
    ("room", "others"),
    [
        (
            "_limiters.py",
            {"batchkit._cache", "batchkit._batcher", "batchkit._executor", "batchkit._running.tasks"},
        ),
        (
            "_cache.py",
            {"batchkit._limiters", "batchkit._batcher", "batchkit._executor", "batchkit._dispatch"},
        ),
        (
            "_caching/asking.py",
            {"batchkit._limiters", "batchkit._batcher", "batchkit._executor", "batchkit._dispatch"},
        ),
        ("_batcher.py", {"batchkit._limiters", "batchkit._cache", "batchkit._executor"}),
        (
            "_dispatch.py",
            {"batchkit._limiters", "batchkit._cache", "batchkit._executor", "batchkit._batcher"},
        ),
        ("abc.py", {"batchkit._limiters", "batchkit._cache", "batchkit._executor", "batchkit._batcher"}),
    ],
)
def test_these_rooms_do_not_know_each_other(room: str, others: set[str]) -> None:
    assert not imports(ROOT / room) & others


def test_importing_it_imports_neither_redis_nor_trio_nor_an_extra() -> None:
    script = "import sys, batchkit; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "batchkit" in loaded
    assert not {"redis", "trio", "opentelemetry", "prometheus_client", "rich", "tqdm"} & set(loaded)


def test_the_public_names_are_there_and_sorted() -> None:
    assert batchkit.__all__ == sorted(batchkit.__all__)
    assert all(hasattr(batchkit, name) for name in batchkit.__all__)

"""Everything there is to run in this repository: `python3 noxfile.py --list` names it.

CPython 3.11 or newer and git are all that must be there. Started as a script, this file installs nox and uv
for itself below `.nox`; uv then gives each session an environment of its own, as `uv.lock` has it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".nox"
PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"  # in a virtual environment
TOOLS = ("nox==2026.10.20", "uv==0.13.9")
# What pip and uv say when they reach nobody.
OFFLINE = re.compile("connection|connect error|dns error|error sending request|timed out", re.IGNORECASE)
CANNOT_DOWNLOAD = "Packages cannot be downloaded: check the network, or HTTPS_PROXY, then run this again"


def start_nox() -> None:
    """Become `python -m nox`, in an environment that the first run makes."""
    if sys.version_info < (3, 11):  # noqa: UP036 - here is where an older Python is told
        sys.exit(f"batchkit needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.")
    if os.environ.get("HOME") == "":
        del os.environ["HOME"]  # then the user's entry in the password database counts
    if not os.access(os.path.expanduser("~"), os.W_OK):
        os.environ["HOME"] = str(ENVIRONMENTS / "home")  # caches have to go somewhere

    # Another Python gets other tools, so that the sessions run on the Python that was asked for.
    identity = repr((TOOLS, sys.version, sys.base_prefix))
    tools = ENVIRONMENTS / f"tools-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    python = tools / PYTHON
    if not python.exists():
        try:
            install_tools(tools)
        except KeyboardInterrupt:
            sys.exit(130)
    command = [str(python), "-Im", "nox", "--noxfile", str(ROOT / "noxfile.py"), *sys.argv[1:]]
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(python, command)


def install_tools(tools: Path) -> None:
    """Build the environment aside and move it into place whole: an interrupted run leaves no half of it."""
    print("First run: installing nox and uv below .nox", flush=True)
    shutil.rmtree(tools, ignore_errors=True)  # of a Python that has gone
    ENVIRONMENTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ENVIRONMENTS, prefix="new-", ignore_cleanup_errors=True) as folder:
        aside = Path(folder, "tools")
        made = subprocess.run([sys.executable, "-Im", "venv", str(aside)], capture_output=True, text=True)
        if made.returncode:
            sys.exit(
                f"{sys.executable} cannot make a virtual environment: "
                "is venv or ensurepip missing (on Debian and Ubuntu: apt install python3-venv)?"
            )
        pip = [str(aside / PYTHON), "-Im", "pip", "install", "--quiet", "--retries=2", *TOOLS]
        done = subprocess.run(pip, capture_output=True, text=True)
        system = ssl.get_default_verify_paths().cafile
        if "CERTIFICATE_VERIFY_FAILED" in done.stderr and system:
            # An older pip trusts only the authorities it brings along: not those of a proxy that opens TLS.
            done = subprocess.run(pip, capture_output=True, text=True, env={**os.environ, "PIP_CERT": system})
        if done.returncode:
            sys.exit(f"{CANNOT_DOWNLOAD}." if OFFLINE.search(done.stderr) else done.stderr)
        try:
            aside.rename(tools)
        except OSError:
            if not tools.exists():  # it does if another first run, at the same time, was faster
                raise


if __name__ == "__main__":
    start_nox()

import nox  # noqa: E402
from nox.command import CommandFailed  # noqa: E402

nox.options.sessions = ["lint", "types", "tests", "docs"]

SLOW = ("tests/fleet", "tests/faults", "tests/benchmarks")
WORKERS = "tests/workers"
QUICK = tuple(f"--ignore={folder}" for folder in (*SLOW, WORKERS))
SIDE_BY_SIDE = ("-n=4", "--dist=worksteal")  # even on two cores: most of the time they wait for servers
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
# Beside the Python of this nox, or, if someone runs a nox of their own, wherever theirs is.
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"

# For `python -m examples...`: a folder of that name where the user stands must not hide ours.
OUR_FOLDERS = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}

for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
    os.environ.pop(name, None)  # they mean another environment than ours
os.environ["UV_PYTHON_DOWNLOADS"] = "never"
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # beside the sources; but tests start many processes
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ENVIRONMENTS / "bytecode"))
if "UV_NATIVE_TLS" not in os.environ:  # the older name of the same setting
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")


@contextlib.contextmanager
def in_one_piece(environment: Path) -> Generator[None]:
    """Hold back other runs while the environment changes; start it anew if the last change was cut short.

    uv takes a package for installed as soon as its metadata are there: it would not see what is missing.
    """
    ENVIRONMENTS.mkdir(exist_ok=True)
    with environment.with_name(f"{environment.name}.changing").open("a") as mark:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(mark, fcntl.LOCK_EX)
        if mark.seek(0, os.SEEK_END):
            shutil.rmtree(environment, ignore_errors=True)
        mark.write("x")
        mark.flush()
        yield
        mark.truncate(0)


def sync(session: nox.Session, *groups: str, python: str = sys.executable) -> str:
    """Bring the session's environment to what is locked for these groups; return its Python."""
    environment = ENVIRONMENTS / session.name
    command = [UV, "sync", "--locked", "--no-default-groups", "--python", python]
    with in_one_piece(environment):
        if not environment.exists():
            session.log("First run: installing what this session needs")
        done = subprocess.run(
            [*command, *(f"--group={group}" for group in groups)],
            cwd=ROOT,
            env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        session.error(CANNOT_DOWNLOAD if OFFLINE.search(done.stderr) else done.stderr.strip())
    return str(environment / PYTHON)


def start(session: nox.Session, module: str, group: str = "examples", patience: float = 30) -> None:
    """Run a program of ours where the user stands, with the session's arguments.

    Args:
        session: the session.
        module: its name.
        group: of the packages that it needs.
        patience: seconds that it has to end after Ctrl-C.
    """
    python = sync(session, group)
    with contextlib.chdir(session.invoked_from):
        session.run(
            python, "-m", module, *session.posargs, env=OUR_FOLDERS, log=False, interrupt_timeout=patience
        )


@nox.session(python=False)
def demo(session: nox.Session) -> None:
    """Turn 1,000 Chinese characters into flashcards; `-- --help` tells what can be set."""
    start(session, "examples.demo")


@nox.session(python=False)
def loadtest(session: nox.Session) -> None:
    """Measure the fleet of the examples against its quotas; `-- --help` tells what can be set."""
    start(session, "examples.loadtest")


@nox.session(python=False)
def worker(session: nox.Session) -> None:
    """Run workers: `-- all` for a small fleet of them; `-- --help` tells what else there is."""
    start(session, "examples.worker", patience=60)


@nox.session(python=False)
def enqueue(session: nox.Session) -> None:
    """Send work to the workers: `-- card 好 --wait`; `-- --help` tells what else there is."""
    start(session, "examples.enqueue")


def selected(session: nox.Session) -> list[str]:
    """The arguments for pytest, which runs in the root: paths are meant from where the user stands."""
    here = Path(session.invoked_from)

    def is_path(arg: str) -> bool:
        return ("/" in arg or ".py" in arg) and (here / arg.partition("::")[0]).exists()

    return [str(here / arg) if is_path(arg) else arg for arg in session.posargs]


def run_tests(session: nox.Session, python: str, *options: str, alone: bool = False) -> None:
    """Run tests side by side; what failed has to pass on its own.

    Those with real servers have deadlines in real time, which a busy machine may miss.

    Args:
        session: the session.
        python: of its environment.
        options: for pytest.
        alone: run those that measure, one after the other, instead of all others.
    """
    cache = ENVIRONMENTS / f"{session.name}.cache"
    pytest = (python, "-m", "pytest", "-o", f"cache_dir={cache}", *options)
    selection = ("-m", "alone") if alone else ("-m", "not alone", *SIDE_BY_SIDE)
    try:
        session.run(*pytest, *selection, "--cache-clear")
    except CommandFailed:
        session.log("What failed once more, alone; all of them, if it is not known which")
        session.run(*pytest, *(["--cov-append"] if "--cov" in options else []), "--last-failed")


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests on the Python that started this; without arguments, judge their coverage, too."""
    python = sync(session, "tests")
    if session.posargs:
        session.run(python, "-m", "pytest", *selected(session))
        return
    session.env["COVERAGE_FILE"] = str(ENVIRONMENTS / session.name / ".coverage")
    coverage = (python, "-m", "coverage")
    run_tests(session, python, *QUICK, "--cov", "--cov-report=")
    session.run(*coverage, "report", "--fail-under=95")
    session.run(*coverage, "report", "--fail-under=100", "--include=src/batchkit/_core/*")


def tests_on(version: str) -> None:
    """Add the session that runs the tests on one version of Python."""

    @nox.session(python=False, name=f"tests-{version}")
    def tests_on_version(session: nox.Session) -> None:
        found = subprocess.run(
            [UV, "python", "find", "--no-project", f"cpython@{version}"], capture_output=True, text=True
        )
        if found.returncode:
            session.skip(f"no CPython {version} found")
        python = sync(session, "tests", python=found.stdout.strip())
        if session.posargs:
            session.run(python, "-m", "pytest", *selected(session))
        else:
            run_tests(session, python, *QUICK)

    tests_on_version.__doc__ = f"Run the tests on CPython {version}, if it is there."


for version in VERSIONS:
    tests_on(version)


@nox.session(python=False)
def fleet(session: nox.Session) -> None:
    """Run the slow tests: fleets of processes, faults, and whole programs."""
    python = sync(session, "tests")
    if session.posargs:
        session.run(python, "-m", "pytest", *selected(session))
        return
    run_tests(session, python, *SLOW)
    run_tests(session, python, *SLOW, alone=True)


@nox.session(python=False, name="fleet-examples")
def fleet_examples(session: nox.Session) -> None:
    """Run the examples' workers as fleets: killed, cut off, against their quotas."""
    python = sync(session, "tests")
    if session.posargs:
        session.run(python, "-m", "pytest", *selected(session))
        return
    # They start dozens of processes, which take long to load their libraries on a small machine.
    patient = (WORKERS, "-o", "faulthandler_timeout=600")
    run_tests(session, python, *patient)
    run_tests(session, python, *patient, alone=True)


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    python = sync(session, "lint")
    session.run(python, "-m", "ruff", "check")
    session.run(python, "-m", "ruff", "format", "--check")


@nox.session(python=False)
def types(session: nox.Session) -> None:
    """Check the types with mypy and with pyright."""
    python = sync(session, "types")
    session.run(python, "-m", "mypy")
    session.run(python, "-m", "basedpyright", "--pythonpath", python)


@nox.session(python=False)
def docs(session: nox.Session) -> None:
    """Build the site into `site/`; a warning is an error."""
    session.run(sync(session, "docs"), "-m", "zensical", "build", "--clean", "--strict")


@nox.session(python=False)
def bench(session: nox.Session) -> None:
    """Measure against the peers; `-- --help` tells what can be set."""
    start(session, "benchmarks", "bench")


@nox.session(python=False)
def simulation(session: nox.Session) -> None:
    """Try rate controllers against a quota that they do not know; `-- --help` tells what can be set."""
    start(session, "benchmarks.simulation", "bench")


@nox.session(python=False)
def lock(session: nox.Session) -> None:
    """Check that `uv.lock` fits `pyproject.toml`."""
    session.run(UV, "lock", "--check", *session.posargs)


@nox.session(python=False)
def relock(session: nox.Session) -> None:
    """Make `uv.lock` fit `pyproject.toml`; `-- --upgrade` takes the newest versions."""
    # Whoever locks may have a mirror configured: its address must not get into the file.
    session.run(UV, "lock", "--no-config", "--default-index=https://pypi.org/simple", *session.posargs)

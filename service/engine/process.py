"""Embedded engines as child processes: found where one runs already, started where none does. No torch here.

Below `run_dir`, which only its owner may enter:

```
engine-<alias>.lock    held while an engine is looked for and started: two at once start one
engine-<alias>.json    where it listens, its token, its pid (mode 0600)
engine-<alias>-…/      the working folder of one engine: its start file, its log
```
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from service.child import child_environment
from service.engine.spec import EngineAddress, EngineSpec, StartFile, engine_id
from service.errors import EngineFailed
from service.upstream.http import Address, Client, OpenReply, Question

__all__ = ["EngineAddress", "EngineLease", "EngineSpec", "ensure_engine"]

_LOOK_S = 0.05
_HEALTH_S = 5.0
_LOOKS = 6  # at an engine whose process lives: on a machine that is busy it may take long to say so
_LOG_LINES = 12
# A thread that waits for the layer's next product turns so often before it sleeps: 5 to 20 µs, and to wake it took a virtual
# machine 20 to 90. A decoding step of 64 rows took 450 ms with 0, 350 with this and 275 with 20,000, of which a busy
# neighbour made 1,160.
_SPINS = "1000"


async def ensure_engine(spec: EngineSpec, run_dir: Path) -> EngineAddress:
    """The address of the engine for `spec`: the one that runs, else one started now and ready to answer.

    Take an EngineLease at once: an engine that nobody holds exits. Raises EngineFailed, with the end of its log, where
    none can be started within `spec.timeout_s`.
    """
    _make_private(run_dir)
    name = "engine-" + re.sub(r"[^A-Za-z0-9._-]", "_", spec.alias)
    async with _locked(run_dir / f"{name}.lock", spec.timeout_s):
        state_file = run_dir / f"{name}.json"
        found = await _running(state_file, spec)
        if found is not None:
            return found
        return await _start(spec, run_dir, name, state_file)


def _make_private(run_dir: Path) -> None:
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    run_dir.chmod(0o700)


@contextlib.asynccontextmanager
async def _locked(path: Path, timeout_s: float) -> AsyncIterator[None]:
    deadline = time.monotonic() + timeout_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise EngineFailed(f"another process has been starting this engine for {timeout_s:.0f} s ({path})")
            await asyncio.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ one that runs


async def _running(state_file: Path, spec: EngineSpec) -> EngineAddress | None:
    address = _read_state(state_file, spec)
    return address if address is not None and await is_alive(address) else None


def _read_state(state_file: Path, spec: EngineSpec) -> EngineAddress | None:
    try:
        state = json.loads(state_file.read_text("utf-8"))
        address = EngineAddress(state["base_url"], state["token"], state["pid"], Path(state["log"]))
        same = state["spec"] == spec.digest
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none yet, or a file of another version: an engine is started and the file written anew
    return address if same else None


async def is_healthy(address: EngineAddress) -> bool:
    """Whether the engine with this token answers there, and not another process that got its port."""
    client = Client(Address.parse(address.base_url), {}, connect_s=_HEALTH_S, connections=1)
    try:
        reply = await client.ask(Question("/health", method="GET", timeout_s=_HEALTH_S))
        said = json.loads(reply.body)
    except (OSError, ValueError):
        return False
    finally:
        client.close()
    return isinstance(said, dict) and said.get("engine_id") == engine_id(address.token)


async def is_alive(address: EngineAddress) -> bool:
    """Whether that engine lives: one whose process is there, but which is slow to say so, is looked at again."""
    for _ in range(_LOOKS):
        if await is_healthy(address):
            return True
        if not _exists(address.pid):
            return False
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's, which got the number
    return True


# ------------------------------------------------------------------------------------------------ starting one


async def _start(spec: EngineSpec, run_dir: Path, name: str, state_file: Path) -> EngineAddress:
    await asyncio.to_thread(_remove_dead, run_dir, name)
    work = run_dir / f"{name}-{secrets.token_hex(4)}"
    work.mkdir(mode=0o700)
    start = StartFile(spec, secrets.token_urlsafe(32), work / "ready.json")
    log = work / "engine.log"
    _write_private(work / "start.json", start.as_dict())
    child = _spawn(work, log)
    try:
        ready = await _until_ready(child, start.ready_file, log, spec.timeout_s)
    except BaseException:  # also when cancelled: nobody knows of this child, so nobody else would end it
        child.kill()
        raise
    finally:
        (work / "start.json").unlink(missing_ok=True)
    address = EngineAddress(ready["base_url"], start.token, ready["pid"], log)
    state = {"base_url": address.base_url, "token": address.token, "pid": address.pid, "log": str(log)}
    _write_private(state_file, {**state, "spec": spec.digest})
    return address


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """A child's, whose threads wait a moment before they sleep; GNU's OpenMP puts that before the policy. Who sets it, has it."""
    return {"GOMP_SPINCOUNT": _SPINS, **child_environment(environment)}


def _spawn(work: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "service.engine", str(work / "start.json")]
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell, no foreign argument
            command,
            cwd=work,
            env=engine_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    threading.Thread(target=child.wait, daemon=True).start()  # reaps it: a dead child must not stay a zombie
    return child


async def _until_ready(
    child: subprocess.Popen[bytes], ready_file: Path, log: Path, timeout_s: float
) -> Mapping[str, Any]:
    deadline = time.monotonic() + timeout_s
    while not ready_file.exists():  # noqa: ASYNC240  # another process writes it; a look costs microseconds
        if child.poll() is not None:
            raise EngineFailed(f"the engine ended with {child.returncode} before it was ready ({log}):\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise EngineFailed(f"the engine was not ready within {timeout_s:.0f} s ({log}):\n{_tail(log)}")
        await asyncio.sleep(_LOOK_S)
    ready: Mapping[str, Any] = json.loads(ready_file.read_text("utf-8"))  # noqa: ASYNC240  # a hundred bytes
    return ready


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])


def _write_private(path: Path, content: Mapping[str, Any]) -> None:
    half = path.with_suffix(".part")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
    half.replace(path)


def _remove_dead(run_dir: Path, name: str) -> None:
    """Remove working folders of engines that are gone, but for the newest: its log may tell why."""
    folders = sorted(run_dir.glob(f"{name}-????????"), key=lambda path: path.stat().st_mtime)
    for folder in folders[:-1]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = json.loads((folder / "ready.json").read_text("utf-8"))["pid"]
            if not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------ holding one


class EngineLease:
    """Keeps an engine alive while open. Opens nothing again by itself."""

    def __init__(self, address: EngineAddress) -> None:
        self._address = address
        self._reply: OpenReply | None = None

    async def open(self) -> None:
        """Raises EngineFailed where the engine is gone or about to exit."""
        headers = {"Authorization": f"Bearer {self._address.token}"}
        client = Client(Address.parse(self._address.base_url), headers, connect_s=_HEALTH_S, connections=1)
        try:
            self._reply = await client.open(Question("/lease", method="GET", timeout_s=None))
            if self._reply.status != 200:
                raise EngineFailed(f"the engine gave no lease: HTTP {self._reply.status} ({self._address.log})")
            await self._reply.some()
        except OSError as error:
            await self.aclose()
            raise EngineFailed(f"the engine is gone: {error!r} ({self._address.log})") from error
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Give the engine up. Safe to call twice."""
        if self._reply is not None:
            self._reply.close()
        self._reply = None

    async def __aenter__(self) -> EngineLease:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

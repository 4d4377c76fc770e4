"""`turnout serve`: the HTTP server in this process, its workers as children that are started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import structlog
import uvicorn

from service.app import behind_door, check_binding
from service.changes import Changes
from service.context import build_context
from service.identity import KEY_FILE
from service.listening import listen
from service.logs import configure_log
from service.settings import Settings

RESTART_S = 0.5
LONGEST_RESTART_S = 30.0
log = structlog.get_logger()


def serve(settings: Settings) -> int:
    """Serve until interrupted. Raises CannotRun where the port is taken, BadSetting for an unsafe binding."""
    configure_log()
    check_binding(settings)
    listener = listen(settings.server.host, settings.server.port)
    port = listener.getsockname()[1]
    context = build_context(settings)
    config = uvicorn.Config(
        behind_door(context), log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=10
    )
    server = _Server(config, context.snapshot.changes)
    log.info("turnout serves", url=f"http://{settings.server.host}:{port}", home=str(settings.home),
             admin_key=str(settings.home / KEY_FILE), schema="/schema")  # fmt: skip
    asyncio.run(_serve(server, listener, settings))
    return 0 if server.started else 4


class _Server(uvicorn.Server):
    """Ends the streams of changes first: uvicorn waits for open answers before the application is told to end."""

    def __init__(self, config: uvicorn.Config, changes: Changes) -> None:
        super().__init__(config)
        self._changes = changes

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._changes.close()
        await super().shutdown(sockets)


async def _serve(server: uvicorn.Server, listener: socket.socket, settings: Settings) -> None:
    workers = [asyncio.create_task(_keep_worker(server, settings)) for _ in range(settings.server.workers)]
    try:
        await server.serve([listener])
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _keep_worker(server: uvicorn.Server, settings: Settings) -> None:
    """One worker child, started again when it dies, later each time that it dies at once."""
    pause_s = RESTART_S
    while not server.started and not server.should_exit:  # noqa: ASYNC110 - uvicorn tells by a flag
        await asyncio.sleep(0.05)
    while True:
        started = asyncio.get_running_loop().time()
        process = _start_worker(settings)
        try:
            while process.poll() is None:  # noqa: ASYNC110 - a child process has no event
                await asyncio.sleep(0.2)
        finally:
            _stop(process)
        quick = asyncio.get_running_loop().time() - started < 5
        pause_s = min(pause_s * 2, LONGEST_RESTART_S) if quick else RESTART_S
        log.warning("a worker ended and is started again", exit=process.returncode, in_s=pause_s)
        await asyncio.sleep(pause_s)


def _start_worker(settings: Settings) -> subprocess.Popen[bytes]:
    """It keeps our environment: models it asks may need their keys. It works in the project's folder."""
    environment = {**os.environ, "TURNOUT_HOME": str(settings.home), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-P", "-m", "service.worker", "--with-parent"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, cwd=_folder(settings))  # noqa: S603 - our own interpreter and module


def _folder(settings: Settings) -> Path:
    return settings.project if settings.project.is_dir() else settings.home


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

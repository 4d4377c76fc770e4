"""`turnout serve`: the HTTP server in this process, its workers as children that are started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
import uvicorn
from litestar.types import ASGIApp

from service import arenas
from service.app import behind_door, check_binding
from service.coalescing import CoalescingProtocol
from service.collector import settle
from service.context import Context, build_context
from service.errors import CannotRun
from service.generations import Generations
from service.identity import KEY_FILE
from service.listening import listen
from service.logs import configure_log
from service.settings import Settings, as_line, load_settings

RESTART_S = 0.5
LONGEST_RESTART_S = 30.0
log = structlog.get_logger()


def serve(settings: Settings, when_up: Callable[[str], None] | None = None) -> int:
    """Serve until interrupted; `when_up` is told the URL once requests are answered.

    Raises CannotRun where the port is taken, BadSetting for an unsafe binding, StorageFailed without a database.
    """
    arenas.use_one()  # memory stays flat: no heap for each thread that writes the log
    configure_log()
    check_binding(settings)
    listener = listen(settings.server.host, settings.server.port)
    port = listener.getsockname()[1]
    application = Generations(settings, _read_again(settings), _make)
    config = uvicorn.Config(
        application, log_level="warning", access_log=False, lifespan="on", http=CoalescingProtocol,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.server.drain_s),
    )  # fmt: skip
    url = f"http://{settings.server.host}:{port}"
    server = _Server(config, application, (lambda: when_up(url)) if when_up else None)
    log.info("turnout serves", url=url, home=str(settings.home),
             admin_key=str(settings.home / KEY_FILE), schema="/schema")  # fmt: skip
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop's, where there is one
        runner.run(_serve(server, listener, settings, application))
    return 0 if server.started else 4


def _make(settings: Settings, before: Context | None) -> tuple[Context, ASGIApp]:
    check_binding(settings)
    context = build_context(settings, before=before)
    return context, behind_door(context)


def _read_again(settings: Settings) -> Callable[[], Settings]:
    """The settings of the same project, from its file and this process's environment."""
    return lambda: load_settings(start=settings.project)


class _Server(uvicorn.Server):
    """Ends the streams of changes first: uvicorn waits for open answers before the application is told to end.

    `when_up` is called once it answers.
    """

    def __init__(
        self, config: uvicorn.Config, application: Generations, when_up: Callable[[], None] | None = None
    ) -> None:
        super().__init__(config)
        self._application = application
        self._when_up = when_up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn's own end, with a code of its own
            raise self._application.failed or CannotRun("the service could not start: see its log") from None
        settle()
        if self.started and self._when_up is not None:
            self._when_up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._application.context.snapshot.changes.close()
        await super().shutdown(sockets)


async def _serve(server: uvicorn.Server, listener: socket.socket, settings: Settings, application: Generations) -> None:
    told = _reload_on_signal(application)
    workers = [asyncio.create_task(_keep_worker(server, application)) for _ in range(settings.server.workers)]
    try:
        await server.serve([listener])
    finally:
        for task in (*workers, *told):
            task.cancel()
        await asyncio.gather(*workers, *told, return_exceptions=True)


def _reload_on_signal(application: Generations) -> set[asyncio.Task[None]]:
    """Read the settings anew on SIGHUP; returns the readings under way. Windows has no SIGHUP: there is `turnout reload`."""
    under_way: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(application.reload_or_tell())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    return under_way


async def _keep_worker(server: uvicorn.Server, application: Generations) -> None:
    """One worker child, started again when it dies, later each time that it dies at once; anew where the settings changed.

    Its jobs are resumed by the worker that follows: it is built to be killed.
    """
    pause_s = RESTART_S
    while not server.started and not server.should_exit:  # noqa: ASYNC110 - uvicorn tells by a flag
        await asyncio.sleep(0.05)
    while True:
        started, number = asyncio.get_running_loop().time(), application.number
        process = await asyncio.to_thread(_start_worker, application.settings)
        try:
            while process.poll() is None and application.number == number:  # noqa: ASYNC110 - a child process has no event
                await asyncio.sleep(0.2)
        finally:
            await asyncio.to_thread(_stop, process)
        if application.number != number:
            continue
        quick = asyncio.get_running_loop().time() - started < 5
        pause_s = min(pause_s * 2, LONGEST_RESTART_S) if quick else RESTART_S
        log.warning("a worker ended and is started again", exit=process.returncode, in_s=pause_s)
        await asyncio.sleep(pause_s)


def _start_worker(settings: Settings) -> subprocess.Popen[bytes]:
    """It works by these settings, in the project's folder, and keeps our environment: models it asks may need their keys."""
    environment = {**os.environ, "TURNOUT_HOME": str(settings.home), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-P", "-m", "service.worker", "--with-parent", "--settings-on-stdin"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, cwd=_folder(settings))  # noqa: S603 - our own interpreter and module
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it died at once, and is started again
            process.stdin.write(as_line(settings))
            process.stdin.flush()
    return process


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

"""Start-up: `turnout --help`, `turnout check`, and `turnout serve` to its first answered health check.

The floor is the interpreter itself (`python -c pass`) and a bare uvicorn application.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROUNDS = 7
EXAMPLE = Path(__file__).parents[1] / "examples" / "support"
BARE = (
    "import uvicorn\n"
    "async def app(scope, receive, send):\n"
    "    if scope['type'] != 'http': return\n"
    "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
    "    await send({'type': 'http.response.body', 'body': b'ok'})\n"
    "import sys; uvicorn.run(app, port=int(sys.argv[1]), log_level='error', lifespan='off')\n"
)


def measure() -> dict[str, Any]:
    """Medians of `ROUNDS`, in seconds, and their ratio to the floor."""
    python = _median(lambda: _run(sys.executable, "-c", "pass"))
    help_s = _median(lambda: _run(*_turnout("--help")))
    check_s = _median(lambda: _run(*_turnout("check"), cwd=EXAMPLE))
    serve_s = _median(lambda: _until_healthy(_turnout("serve", "--port"), "/health/live"))
    bare_s = _median(lambda: _until_healthy([sys.executable, "-c", BARE], "/"))
    return {
        "seconds": {"python": python, "help": help_s, "check": check_s, "serve": serve_s, "bare_uvicorn": bare_s},
        "ratios": {"help_to_python": help_s / python, "serve_to_bare_uvicorn": serve_s / bare_s},
        "goals": {"help_s": 0.5},
    }


def _turnout(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "service.cli.main", *arguments]


def _median(take: Any) -> float:
    return round(statistics.median(take() for _ in range(ROUNDS)), 3)


def _run(*command: str, cwd: Path | None = None) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _until_healthy(command: list[str], path: str) -> float:
    """Seconds from starting a server to its first answer with 200, on a free port and an empty home."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TURNOUT_HOME": home, "TURNOUT_SERVER_WORKERS": "0"}
        started = time.perf_counter()
        process = subprocess.Popen([*command, str(port)], cwd=home, env=environment, stderr=subprocess.DEVNULL)
        try:
            while time.perf_counter() - started < 30:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as answer:
                        if answer.status == 200:
                            return time.perf_counter() - started
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.005)
            raise TimeoutError(command)
        finally:
            process.terminate()
            process.wait()

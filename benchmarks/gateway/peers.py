"""LiteLLM's proxy and TensorZero's embedded gateway, installed into a scratch folder; never dependencies of ours."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving import free_port, server

PACKAGES = ("litellm[proxy]", "tensorzero")
_QUIET = {"LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "none"}
LITELLM_KEY = "sk-" + "0123456789abcdef" * 4  # it refuses to start without one
_TENSORZERO = """
import asyncio, json, resource, sys, time
from tensorzero import AsyncTensorZeroGateway

async def main(config, seconds, in_flight):
    gateway = await AsyncTensorZeroGateway.build_embedded(config_file=config)
    asked = {"model_name": "bench", "input": {"messages": [{"role": "user", "content": "Ticket: I was charged twice."}]}}
    taken = []
    async def keep(until):
        while time.perf_counter() < until:
            started = time.perf_counter()
            await gateway.inference(**asked)
            taken.append((time.perf_counter() - started) * 1000)
    await keep(time.perf_counter() + 1)
    found = {}
    for number in in_flight:
        taken.clear()
        used, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await asyncio.gather(*(keep(started + seconds) for _ in range(number)))
        took, now = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        ms, cpu = sorted(taken), now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        found[number] = {"p50_ms": ms[len(ms) // 2], "p99_ms": ms[int(len(ms) * .99)], "requests_per_s": len(ms) / took,
                         "cpu_ms_a_request": cpu / len(ms) * 1000}
    print(json.dumps(found))

asyncio.run(main(sys.argv[1], float(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")]))
"""


def installed(folder: Path) -> Path:
    """The interpreter of a virtual environment that has the peers; what is in `folder` already is kept."""
    python = folder / "peers" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "peers")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('litellm', 'tensorzero')}))"
    )
    return dict(json.loads(subprocess.run([str(python), "-c", code], capture_output=True, check=True).stdout))


@contextlib.contextmanager
def litellm(python: Path, folder: Path, upstream: int) -> Iterator[tuple[int, int]]:
    """LiteLLM's proxy, one worker, without a database: its process and its port."""
    config = folder / "litellm.yaml"
    parameters = f"{{model: openai/bench, api_base: 'http://127.0.0.1:{upstream}/v1', api_key: none}}"
    config.write_text(f"model_list: [{{model_name: bench, litellm_params: {parameters}}}]\n")
    port = free_port()
    command = [str(python.parent / "litellm"), "--config", str(config), "--port", str(port), "--num_workers", "1"]
    environment = {
        **os.environ,
        **_QUIET,
        "LITELLM_MASTER_KEY": LITELLM_KEY,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    with server(command, port, "/health/liveliness", cwd=folder, env=environment) as process:
        yield process, port


def tensorzero(python: Path, folder: Path, upstream: int, seconds: float, in_flight: tuple[int, ...]) -> dict[str, Any]:
    """TensorZero inside the asking process, its observability off: nothing goes over HTTP but the question itself."""
    config = folder / "tensorzero.toml"
    config.write_text(
        "[gateway]\nobservability.enabled = false\n"
        '[models.bench]\nrouting = ["up"]\n[models.bench.providers.up]\ntype = "openai"\nmodel_name = "bench"\n'
        f'api_base = "http://127.0.0.1:{upstream}/v1/"\napi_key_location = "none"\n'
    )
    script = folder / "tensorzero_peer.py"
    script.write_text(_TENSORZERO)
    command = [str(python), str(script), str(config), str(seconds), ",".join(map(str, in_flight))]
    answer = subprocess.run(command, capture_output=True, env={**os.environ, **_QUIET}, check=False)
    if answer.returncode:
        raise RuntimeError(answer.stderr.decode()[-2000:])
    found = json.loads(next(line for line in answer.stdout.splitlines() if line.startswith(b'{"')))  # between log lines
    return {number: {name: round(value, 3) for name, value in figures.items()} for number, figures in found.items()}

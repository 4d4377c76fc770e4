"""llama.cpp's server with as many slots, as the wheel xllamacpp brings it, where `XLLAMACPP_PYTHON` names a Python that has it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine.cases import Messages
from benchmarks.engine.ours import rates
from benchmarks.serving import cpu_s

_TOKENS_A_SLOT = 320
_THREADS = 1  # its threads spin while they wait, and starve a machine that others use
_SERVER = """
import pathlib, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
params.port, params.use_jinja, params.cpuparams.n_threads = 0, True, int(sys.argv[5])
server = xllamacpp.Server(params)
address = server.listening_address
pathlib.Path(sys.argv[1]).write_text(address if isinstance(address, str) else address())
sys.stdin.read()
"""


def measure(gguf: Path, conversations: Sequence[Messages], new_tokens: int, slots: int) -> dict[str, Any]:
    """Rates for the weights as they are and as F16, or why there are none."""
    python = os.environ.get("XLLAMACPP_PYTHON")
    if not python:
        return {"not_measured": "XLLAMACPP_PYTHON names no Python that has xllamacpp"}
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "f16.gguf"
        write_f16(gguf, wide)
        kinds = (("q4_1", gguf), ("f16", wide))
        return {kind: _on(python, path, conversations, new_tokens, slots) for kind, path in kinds}


def write_f16(gguf: Path, into: Path) -> None:
    """The same model with its matrices as F16; vectors stay F32, as llama.cpp has them."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(gguf)
    writer = GGUFWriter(into, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type) if tensor.tensor_type > 1 else tensor.data
        one = len(tensor.shape) == 1
        kind = GGMLQuantizationType.F32 if one else GGMLQuantizationType.F16
        writer.add_tensor(tensor.name, values.astype(np.float32 if one else np.float16), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _on(python: str, path: Path, conversations: Sequence[Messages], new_tokens: int, slots: int) -> dict[str, Any]:
    with _running(python, path, slots) as (process, address):

        def one(messages: Messages) -> int:
            body = {"messages": messages, "max_tokens": new_tokens, "temperature": 0}
            url, headers = f"{address}/v1/chat/completions", {"content-type": "application/json"}
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - our own server
            with urllib.request.urlopen(request, timeout=3600) as reply:  # noqa: S310 - our own server
                return int(json.load(reply)["usage"]["completion_tokens"])

        one(conversations[0])
        before, began = cpu_s(process), time.perf_counter()
        with ThreadPoolExecutor(slots) as pool:
            tokens = list(pool.map(one, conversations))
        taken = rates(len(tokens), time.perf_counter() - began, cpu_s(process) - before)
        return {**taken, "slots": slots, "threads": _THREADS, "answer_tokens": sum(tokens) / len(tokens)}


@contextmanager
def _running(python: str, path: Path, slots: int) -> Iterator[tuple[int, str]]:
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "address"
        numbers = (slots, slots * _TOKENS_A_SLOT, _THREADS)
        command = [python, "-c", _SERVER, str(told), str(path), *map(str, numbers)]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
        try:
            while not (told.exists() and told.read_text()):
                if process.poll() is not None:
                    raise RuntimeError(f"xllamacpp ended with {process.returncode} before it listened")
                time.sleep(0.1)
            yield process.pid, told.read_text()
        finally:
            process.kill()
            process.wait()
